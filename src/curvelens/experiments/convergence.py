"""How fast CASO's solvers come to the exact solution (Singla et al. 2019, Sec. 4 and App. B)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from curvelens.jobs import progress
from curvelens.seeds import derive
from curvelens.summaries.theorems import CONVERGENCE
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor

    from curvelens.context_aware.solvers import Problem, Solution

CERTIFICATE = 1e-12
"""Largest relative KKT residual of a solution that counts as exact."""


def convergence(
    *,
    features: int,
    classes: int,
    curvatures: Sequence[float],
    l1: Sequence[float],
    iterations: Sequence[int],
    instances: int,
    c1: float,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Follow CASO's solvers on random problems whose exact solution is certified.

    Problems are those of random linear classifiers (:func:`curvelens.known.random_softmax`). Each number of
    iterations starts from Δ = 0.

    Args:
        features: Input features d.
        classes: Classes of the linear classifier.
        curvatures: Largest eigenvalues L.
        l1: λ₁ as shares of max|g|, in [0, 1).
        iterations: Iterations made.
        instances: Problems for each L.
        c1: λ₂ − L/2.
        seed: Seed of the run.
        device: Where to compute.

    Returns:
        The table :data:`~curvelens.summaries.theorems.CONVERGENCE`.

    Raises:
        DataError: A solution misses its certificate, KKT residual ≤ 1e-12.
    """
    from curvelens.context_aware.operators import operator
    from curvelens.context_aware.solvers import Problem
    from curvelens.known import random_softmax

    drawn = [(curvature, instance) for curvature in curvatures for instance in range(instances)]
    rows: list[dict[str, Any]] = []
    for curvature, instance in progress(drawn, "convergence", "problems"):
        g, H = random_softmax(features, classes, curvature, derive(seed, f"{curvature:g}", instance), device)
        for share in l1:
            problem = Problem(g, operator(H, g), share * float(g.abs().max()), curvature / 2 + c1)
            head = {"curvature": curvature, "l1": share, "instance": instance}
            rows += [head | row for row in _follow(problem, curvature, iterations)]
    return frame(rows, CONVERGENCE)


def exact(problem: Problem) -> Tensor:
    """Return the solution to rounding: the signs come from the solver, the values from a linear system.

    Where the signs s on the support S are those of the optimum, Δ_S = (A_SS)⁻¹(g_S − λ₁s).

    Args:
        problem: With a Hessian whose products are exact to float64.
    """
    import torch

    from curvelens.context_aware import solvers

    found = solvers.direct(problem) or solvers.accelerated(problem, None, 1e-10, 100_000)
    support = found.delta.nonzero()[:, 0]
    if problem.l1 == 0 or len(support) == 0:
        return found.delta
    unit = torch.eye(len(problem.g), dtype=problem.g.dtype, device=problem.g.device)[:, support]
    block = torch.stack([problem.apply(column)[support] for column in unit.T])
    pull = problem.g[support] - problem.l1 * found.delta[support].sign()
    return unit @ torch.linalg.solve(block, pull)


def _follow(problem: Problem, curvature: float, iterations: Sequence[int]) -> Iterator[dict[str, Any]]:
    from curvelens.context_aware import solvers

    best = exact(problem)
    product = problem.apply(best)
    residual, top = problem.residual(best, product), problem.objective(best, product)
    length = float(best.norm())
    methods: dict[str, Any] = {
        "paper": lambda n: solvers.paper(problem, None, n),
        "accelerated": lambda n: solvers.accelerated(problem, None, CERTIFICATE, n),
    }
    if problem.l1 == 0:
        methods["conjugate gradients"] = lambda n: solvers.conjugate_gradients(problem, None, CERTIFICATE, n)
        methods["closed form"] = lambda n: solvers.direct(problem)
    for method, solve in methods.items():
        for n in (0,) if method == "closed form" else iterations:
            started = time.perf_counter()
            made: Solution = solve(n)
            seconds = time.perf_counter() - started
            # Corollary 1: gap ≤ 2‖Δ⁰ − Δ*‖²/(α(t + 1)²), with Δ⁰ = 0.
            scale = 2 * length**2 / (n + 1) ** 2
            yield {
                "method": method,
                "iterations": n,
                "made": made.iterations,
                "seconds": seconds,
                "error": float((made.delta - best).norm()) / length,
                "gap": top - problem.objective(made.delta, made.product),
                "printed_bound": scale / (problem.l2 - curvature / 2),
                "step_bound": scale * 4 * problem.l2,
                "exact_residual": residual,
            }
