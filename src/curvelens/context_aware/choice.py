"""Choosing λ₁ by the sparsity of the explanation (Singla et al. 2019, sec. 4.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from curvelens.context_aware.comparison import sparsity
from curvelens.context_aware.explanation import ContextAware, caso, caso_path
from curvelens.context_aware.operators import operator
from curvelens.context_aware.proximal import penalty
from curvelens.derivatives import value
from curvelens.errors import ArgumentError
from curvelens.softmax_products import SoftmaxProducts

if TYPE_CHECKING:
    from curvelens.context_aware.explanation import Array, Curvature

FIRST_L1 = 1e-5
FACTOR = 10.0


@dataclass(frozen=True, eq=False)
class PathPoint:
    """The solution at one λ₁.

    Attributes:
        l1: λ₁.
        explanation: The solution.
        sparsity: η, share of zero pixels, or of zero groups.
        loss: Loss at the perturbed input x + Δ.
        step: Place in the walk to the choice, from 0; None where it was only solved along.
    """

    l1: float
    explanation: ContextAware
    sparsity: float
    loss: float
    step: int | None = None


@dataclass(frozen=True, eq=False)
class SparsityChoice:
    """The λ₁ chosen by :func:`choose_l1`.

    Attributes:
        l1: λ₁.
        explanation: Solution at λ₁.
        sparsity: η, share of zero pixels, or of zero groups.
        loss: Loss at the perturbed input x + Δ.
        satisfied: Whether η lies in the range asked for; if not, it is the closest that was found.
        path: Every solution computed, by increasing λ₁.
    """

    l1: float
    explanation: ContextAware
    sparsity: float
    loss: float
    satisfied: bool
    path: list[PathPoint]


def l1_grid(g: Array, groups: Array | None = None) -> list[float]:
    """Return 10⁻⁵, 10⁻⁴, … up to the first λ₁ at which Δ is zero (Singla et al. 2019, sec. 4.1).

    Δ is zero from λ₁ = max|gᵢ| on, for groups from the largest ‖g_G‖/√n_G on, whatever the Hessian.

    Args:
        g: Gradient of the loss, [*shape].
        groups: As for :func:`~curvelens.context_aware.caso`.

    Raises:
        ArgumentError: if g is zero (no λ₁ gives a solution other than zero) or not finite.
    """
    gradient = torch.as_tensor(g).detach()
    labels = None if groups is None else torch.as_tensor(groups).to(gradient.device)
    flat = gradient.reshape(-1).to(torch.float64)
    top = float(penalty(labels, gradient.shape).dual_norm(flat)) if len(flat) else 0.0
    if not (math.isfinite(top) and top > 0):
        raise ArgumentError("choose_l1: g must be finite and not zero; check the model and the input")
    grid = [FIRST_L1]
    while grid[-1] < top:
        grid.append(FIRST_L1 * FACTOR ** len(grid))
    return grid


def choose_l1(
    g: Array,
    H: Curvature,
    l2: float,
    loss: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    least: float = 0.75,
    halvings: int = 30,
    tolerance: float = 1e-6,
    groups: Array | None = None,
    also: Sequence[float] = (),
) -> SparsityChoice:
    """Choose λ₁ by the sparsity of the solution (Singla et al. 2019, sec. 4.1).

    λ₁ runs through 10⁻⁵, 10⁻⁴, … until Δ is zero. Of the solutions with η in [``least``, 1) the one whose
    perturbed input x + Δ has the highest loss is taken. If there is none, the first λ₁ at which Δ is zero is
    halved until there is one; should a step leave the range behind, which the paper does not speak of, the
    interval is bisected. What is known beforehand to be solved is solved as one path
    (:func:`~curvelens.context_aware.caso_path`).

    Args:
        g: Gradient of the loss, [*shape]; [C, H, W] counts as H·W pixels.
        H: Its Hessian, as for :func:`~curvelens.context_aware.caso`; None for CAFO.
        l2: λ₂ > L/2.
        loss: Scalar function of inputs, [B, *shape] -> [B].
        x: The input, [*shape].
        least: Smallest η, in [0, 1).
        halvings: Most λ₁ tried beyond the powers of ten.
        tolerance: As for :func:`~curvelens.context_aware.caso`.
        groups: As for :func:`~curvelens.context_aware.caso`; η is then the share of zero groups.
        also: Further λ₁ to be solved in the same path; the walk takes what it needs from them.

    Returns:
        The choice.

    Raises:
        ArgumentError: if g is zero (no λ₁ gives a solution other than zero), or an argument is out of range.
    """
    if not 0 <= least < 1 or halvings < 1:
        raise ArgumentError(f"choose_l1: needs least={least:g} in [0, 1) and halvings={halvings} ≥ 1")
    gradient = torch.as_tensor(g).detach()
    grid = l1_grid(gradient, groups)
    hessian = H if isinstance(H, SoftmaxProducts) else operator(H, gradient)
    points: dict[float, PathPoint] = {}

    def judge(l1s: Iterable[float], made: Sequence[ContextAware]) -> None:
        # One at a time: a batch of another size may round differently.
        for l1, one in zip(l1s, made, strict=True):
            height = float(value(loss, (x + one.delta.to(x))[None]))
            points[l1] = PathPoint(l1, one, sparsity(one.delta, groups), height)

    def visit(l1: float) -> PathPoint:
        if l1 not in points:
            start = min(points.values(), key=lambda point: abs(point.l1 - l1)).explanation.delta
            made = caso(gradient, hessian, l1, l2, tolerance=tolerance, start=start, groups=groups)
            judge([l1], [made])
        step = sum(point.step is not None for point in points.values())
        points[l1] = replace(points[l1], step=step)
        return points[l1]

    together = sorted({*grid, *map(float, also)})
    judge(together, caso_path(gradient, hessian, together, l2, tolerance=tolerance, groups=groups))
    _walk(visit, grid, least, halvings)
    walked = [point for point in points.values() if point.step is not None]
    best = max(walked, key=lambda point: _rank(point, least))
    path = sorted(points.values(), key=lambda point: point.l1)
    return SparsityChoice(
        best.l1, best.explanation, best.sparsity, best.loss, least <= best.sparsity < 1, path
    )


def _walk(visit: Callable[[float], PathPoint], grid: Sequence[float], least: float, halvings: int) -> None:
    found: list[PathPoint] = []
    for l1 in grid:
        found.append(visit(l1))
        if found[-1].sparsity == 1:
            break
    if any(least <= point.sparsity < 1 for point in found):
        return
    low, high = 0.0, found[-1].l1
    for _ in range(halvings):
        point = visit((low + high) / 2)
        if least <= point.sparsity < 1:
            return
        if point.sparsity < least:
            low = point.l1
        else:
            high = point.l1


def _rank(point: PathPoint, least: float) -> tuple[bool, float, float]:
    if least <= point.sparsity < 1:
        return True, 0.0, point.loss
    # A solution that is zero everywhere shows nothing: a denser one comes first.
    return False, -1.0 if point.sparsity == 1 else point.sparsity - least, point.loss
