"""CAFO and CASO."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from curvelens.context_aware import learning, solvers
from curvelens.context_aware.operators import Spectral, operator
from curvelens.context_aware.proximal import penalty
from curvelens.errors import ArgumentError
from curvelens.softmax_products import SoftmaxProducts

if TYPE_CHECKING:
    import numpy as np

    from curvelens.context_aware.operators import Operator
    from curvelens.quadratic import LocalQuadratic, LowRank, MatrixFree
    from curvelens.softmax_curvature import SoftmaxHessian

    Array: TypeAlias = Tensor | np.ndarray
    Curvature: TypeAlias = (
        Array
        | LowRank
        | MatrixFree
        | LocalQuadratic
        | SoftmaxHessian
        | SoftmaxProducts
        | Operator
        | Callable[[Tensor], Tensor]
        | None
    )

MAX_ITERATIONS = 10_000
PAPER_ITERATIONS = 10
METHODS = ("fista", "paper")


class ConvergenceWarning(UserWarning):
    """An iterative solution stopped before it met its tolerance."""


@dataclass(frozen=True, eq=False)
class ContextAware:
    """A context-aware explanation.

    The residual is ‖r‖₂/‖g‖₂, the relative violation of the optimality (KKT) conditions: for s = g + HΔ −
    2λ₂Δ,

        rᵢ = sᵢ − λ₁ sign Δᵢ  where Δᵢ ≠ 0,    rᵢ = sign(sᵢ) max(|sᵢ| − λ₁, 0)  where Δᵢ = 0.

    It is zero at the optimum Δ* only, and ‖Δ − Δ*‖₂ ≤ ‖r‖₂/(2λ₂ − L).

    Attributes:
        delta: Δ, same shape, dtype and device as the gradient.
        objective: gᵀΔ + ½ΔᵀHΔ − λ₁‖Δ‖₁ − λ₂‖Δ‖₂²; never negative at the optimum.
        residual: As above, of the solution in double precision.
        iterations: Iterations of the solver; 0 for a closed form.
    """

    delta: Tensor
    objective: float
    residual: float
    iterations: int


def cafo(g: Array, l1: float, l2: float, *, groups: Array | None = None) -> ContextAware:
    """Return the context-aware first-order explanation Δ = soft(g, λ₁)/(2λ₂).

    It maximises gᵀΔ − λ₁‖Δ‖₁ − λ₂‖Δ‖₂² (Singla et al. 2019, eq. 3) exactly, for every λ₁.

    Args:
        g: Gradient of the loss, [*shape].
        l1: λ₁ ≥ 0, in units of g; Δ is zero from λ₁ = max|g| on.
        l2: λ₂ > 0.
        groups: As for :func:`caso`.

    Returns:
        The explanation, with ``iterations`` 0.

    Raises:
        ArgumentError: if a penalty is out of range or g is not finite.
    """
    return caso(g, None, l1, l2, groups=groups)


def caso(
    g: Array,
    H: Curvature,
    l1: float,
    l2: float,
    *,
    tolerance: float = 1e-6,
    max_iterations: int | None = None,
    start: Array | None = None,
    method: str = "fista",
    groups: Array | None = None,
) -> ContextAware:
    """Return the context-aware second-order explanation (Singla et al. 2019, eq. 5).

    It maximises gᵀΔ + ½ΔᵀHΔ − λ₁‖Δ‖₁ − λ₂‖Δ‖₂². At λ₁ = 0 the solution (2λ₂I − H)⁻¹g is found directly: by a
    Cholesky factorisation where H is dense, by Woodbury's identity in the span of the factor where H is
    low-rank (for H = CCᵀ it is [g + C(2λ₂I − CᵀC)⁻¹Cᵀg]/(2λ₂)), by conjugate gradients where only products
    are known. At λ₁ > 0, accelerated proximal steps with adaptive restart run until the solution is optimal
    to ``tolerance``. A SoftmaxProducts learns from every product, and takes a few of them whatever λ₁
    (:mod:`curvelens.context_aware.learning`). Everything but the products of a matrix-free H is computed in
    double precision.

    Args:
        g: Gradient of the loss, [*shape].
        H: Its Hessian over the d flattened features: a matrix [d, d], a LowRank, a MatrixFree or a function
            [d, m] -> [d, m] giving products in the dtype of g, a LocalQuadratic (its curvature), a
            SoftmaxHessian or SoftmaxProducts; None gives CAFO.
        l1: λ₁ ≥ 0, in units of g.
        l2: λ₂ > L/2, L being the largest eigenvalue of H.
        tolerance: Largest residual of an iterative solution, see :class:`ContextAware`; > 0. Products in
            single precision may not allow it: then as far as their rounding goes.
        max_iterations: Most iterations; None means 10,000, or the 10 of the paper for ``method="paper"``.
        start: First guess [*shape] for the iterative solvers, e.g. the solution at a nearby λ₁.
        method: ``"fista"`` as above; ``"paper"`` for a fixed number of FISTA steps with backtracking (first
            step 0.1, halved), for comparison: they end far from the optimum where L is large.
        groups: Integers that put entries together, of the shape of g or of its last dimensions ([H, W] for g
            [C, H, W]): λ₁‖Δ‖₁ becomes λ₁ Σ √n_G ‖Δ_G‖₂ over groups of n_G entries, so that a group is zero
            as a whole or not at all (Yuan and Lin 2006). None for single entries.

    Returns:
        The explanation. :class:`ConvergenceWarning` is issued where ``max_iterations`` did not suffice.

    Raises:
        ArgumentError: if an argument is out of range, or λ₂ ≤ L/2, so that there is no maximum: always
            noticed for dense and low-rank H, for products only where a direction of wrong curvature is met.
    """
    gradient = torch.as_tensor(g).detach()
    _check(gradient, l1, l2, tolerance, max_iterations, method)
    if isinstance(H, SoftmaxProducts) and method != "paper":
        return caso_path(g, H, [l1], l2, tolerance=tolerance, groups=groups, max_rounds=max_iterations)[0]
    problem = _problem(gradient, H, l1, l2, groups)
    first = None if start is None else _first_guess(start, gradient)
    found = _solve(problem, first, tolerance, max_iterations, method)
    return _certified(problem, found, gradient, tolerance if method != "paper" else math.inf)


def caso_path(
    g: Array,
    H: Curvature,
    l1s: Sequence[float],
    l2: float,
    *,
    tolerance: float = 1e-6,
    groups: Array | None = None,
    max_rounds: int | None = None,
) -> list[ContextAware]:
    """Return :func:`caso` for several λ₁, solved together.

    Where H is low-rank, all λ₁ share each product; a SoftmaxProducts learns from all of them. Else each
    solution starts from the one before.

    Args:
        g: Gradient of the loss, [*shape].
        H: Its Hessian, as for :func:`caso`.
        l1s: λ₁ ≥ 0, at least one.
        l2: λ₂ > L/2.
        tolerance: Largest residual, as for :func:`caso`.
        groups: As for :func:`caso`.
        max_rounds: Most products of a SoftmaxProducts for each λ₁; None means 100.

    Returns:
        The explanations, in the order of ``l1s``.

    Raises:
        ArgumentError: as for :func:`caso`, or if ``l1s`` is empty.
    """
    gradient = torch.as_tensor(g).detach()
    if not l1s:
        raise ArgumentError("caso_path: l1s is empty; give at least one λ₁")
    for l1 in l1s:
        _check(gradient, l1, l2, tolerance, None, "fista")
    first = _problem(gradient, H, l1s[0], l2, groups)
    problems = [replace(first, l1=float(l1)) for l1 in l1s]
    if isinstance(H, SoftmaxProducts):
        rounds = learning.MAX_ROUNDS if max_rounds is None else max_rounds
        found = learning.solve(first.g, H.known, l1s, l2, first.penalty, tolerance, rounds)
    elif isinstance(first.H, Spectral):
        first.H.check(l2)
        found = learning.solve_known(first.g, first.H, l1s, l2, first.penalty, tolerance)
    else:
        return _one_by_one(problems, gradient, tolerance)
    return [
        _certified(problem, made, gradient, tolerance) for problem, made in zip(problems, found, strict=True)
    ]


def _one_by_one(
    problems: Sequence[solvers.Problem], gradient: Tensor, tolerance: float
) -> list[ContextAware]:
    """Solve from the largest λ₁, where Δ is sparse, to the smallest."""
    made: dict[int, ContextAware] = {}
    start: Tensor | None = None
    for index in sorted(range(len(problems)), key=lambda i: -problems[i].l1):
        found = _solve(problems[index], start, tolerance, None, "fista")
        made[index] = _certified(problems[index], found, gradient, tolerance)
        start = found.delta
    return [made[index] for index in range(len(problems))]


def _problem(g: Tensor, H: Curvature, l1: float, l2: float, groups: Array | None) -> solvers.Problem:
    labels = None if groups is None else torch.as_tensor(groups).to(g.device)
    flat = g.reshape(-1).to(torch.float64)
    return solvers.Problem(flat, operator(H, g), float(l1), float(l2), penalty(labels, g.shape))


def _certified(
    problem: solvers.Problem, found: solvers.Solution, g: Tensor, tolerance: float
) -> ContextAware:
    explanation = _explain(problem, found, g)
    goal = max(tolerance, problem.attainable(found.delta))
    if found.iterations and explanation.residual > goal:
        _warn(explanation, goal)
    return explanation


def _explain(problem: solvers.Problem, found: solvers.Solution, g: Tensor) -> ContextAware:
    objective = problem.objective(found.delta, found.product)
    residual = problem.residual(found.delta, found.product)
    return ContextAware(found.delta.to(g.dtype).reshape(g.shape), objective, residual, found.iterations)


def _warn(found: ContextAware, tolerance: float) -> None:
    warnings.warn(
        f"caso: residual {found.residual:.1e} > {tolerance:.1e} after {found.iterations} iterations; raise "
        "max_iterations, tolerance or λ₂, or give the products of H in float64",
        ConvergenceWarning,
        stacklevel=4,
    )


def _solve(
    problem: solvers.Problem,
    start: Tensor | None,
    tolerance: float,
    max_iterations: int | None,
    method: str,
) -> solvers.Solution:
    problem.H.check(problem.l2)
    if method == "paper":
        return solvers.paper(problem, start, max_iterations or PAPER_ITERATIONS)
    found = solvers.direct(problem)
    if found is not None:
        return found
    solve = solvers.conjugate_gradients if problem.l1 == 0 else solvers.accelerated
    return solve(problem, start, tolerance, max_iterations or MAX_ITERATIONS)


def _check(
    g: Tensor, l1: float, l2: float, tolerance: float, max_iterations: int | None, method: str
) -> None:
    if not g.is_floating_point() or g.numel() == 0 or not bool(torch.isfinite(g).all()):
        raise ArgumentError("caso: g must be a non-empty array of finite real numbers; check model and input")
    if not (math.isfinite(l1) and l1 >= 0):
        raise ArgumentError(f"caso: λ₁={l1:g} must be finite and not negative; 0 asks for no sparsity")
    if not (math.isfinite(l2) and l2 > 0):
        raise ArgumentError(f"caso: λ₂={l2:g} must be finite and positive; take choose_l2(L)")
    if not tolerance > 0:
        raise ArgumentError(f"caso: tolerance={tolerance:g} must be positive; 1e-6 is usual")
    if max_iterations is not None and max_iterations < 1:
        raise ArgumentError(f"caso: max_iterations={max_iterations} must be at least 1; None for the usual")
    if method not in METHODS:
        raise ArgumentError(f"caso: method={method!r} is unknown; choose 'fista' or 'paper'")


def _first_guess(start: Array, g: Tensor) -> Tensor:
    guess = torch.as_tensor(start).detach().to(device=g.device, dtype=torch.float64)
    if guess.shape != g.shape or not bool(torch.isfinite(guess).all()):
        raise ArgumentError(
            f"caso: start {list(guess.shape)} must be finite and of the shape {list(g.shape)} of g"
        )
    return guess.reshape(-1)
