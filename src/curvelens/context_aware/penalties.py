"""Choosing the penalties λ₁ and λ₂ of CAFO and CASO."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from curvelens.context_aware.comparison import sparsity
from curvelens.context_aware.explanation import ContextAware, caso, caso_path
from curvelens.context_aware.operators import operator
from curvelens.derivatives import value
from curvelens.errors import ArgumentError
from curvelens.softmax_products import SoftmaxProducts

if TYPE_CHECKING:
    from curvelens.context_aware.explanation import Array, Curvature

FIRST_L1 = 1e-5
FACTOR = 10.0


def choose_l2(largest_eigenvalue: float | Tensor, c1: float = 10.0) -> float:
    """Return λ₂ = L/2 + c₁ (Singla et al. 2019, sec. 3.1).

    Args:
        largest_eigenvalue: L, largest eigenvalue of H; counted as 0 if it is negative.
        c1: Distance from the border of concavity, > 0.

    Returns:
        λ₂ > L/2.

    Raises:
        ArgumentError: if c₁ is not positive or L is not finite.
    """
    largest = float(largest_eigenvalue)
    if not math.isfinite(largest) or not (math.isfinite(c1) and c1 > 0):
        raise ArgumentError(f"choose_l2: L={largest:g} must be finite and c1={c1:g} positive; c1=10 is usual")
    return max(largest, 0.0) / 2 + c1


@dataclass(frozen=True, eq=False)
class SparsityChoice:
    """The λ₁ chosen by :func:`choose_l1`.

    Attributes:
        l1: λ₁.
        explanation: Solution at λ₁.
        sparsity: η, share of zero pixels.
        loss: Loss at the perturbed input x + Δ.
        satisfied: Whether η lies in the range asked for; if not, it is the closest that was found.
        path: (λ₁, η, loss) of every solution computed, by increasing λ₁.
    """

    l1: float
    explanation: ContextAware
    sparsity: float
    loss: float
    satisfied: bool
    path: list[tuple[float, float, float]]


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
) -> SparsityChoice:
    """Choose λ₁ by the sparsity of the solution (Singla et al. 2019, sec. 4.1).

    λ₁ runs through 10⁻⁵, 10⁻⁴, … up to max|g|, from where on Δ is zero. Of the solutions with η in
    [``least``, 1) the one whose perturbed input x + Δ has the highest loss is taken. If there is none, max|g|
    is halved until there is one; should that step over the range, the last interval is bisected. The grid is
    solved as one path (:func:`~curvelens.context_aware.caso_path`).

    Args:
        g: Gradient of the loss, [*shape]; [C, H, W] counts as H·W pixels.
        H: Its Hessian, as for :func:`~curvelens.context_aware.caso`; None for CAFO.
        l2: λ₂ > L/2.
        loss: Scalar function of inputs, [B, *shape] -> [B].
        x: The input, [*shape].
        least: Smallest η, in [0, 1).
        halvings: Most λ₁ tried beyond the paper's grid.
        tolerance: As for :func:`~curvelens.context_aware.caso`.

    Returns:
        The choice.

    Raises:
        ArgumentError: if g is zero (no λ₁ gives a solution other than zero), or an argument is out of range.
    """
    gradient = torch.as_tensor(g).detach()
    top = float(gradient.abs().max()) if gradient.numel() else 0.0
    if not (math.isfinite(top) and top > 0):
        raise ArgumentError("choose_l1: g must be finite and not zero; check the model and the input")
    if not 0 <= least < 1 or halvings < 1:
        raise ArgumentError(f"choose_l1: needs least={least:g} in [0, 1) and halvings={halvings} ≥ 1")
    hessian = H if isinstance(H, SoftmaxProducts) else operator(H, gradient)
    found: list[SparsityChoice] = []

    def judge(l1: float, made: ContextAware) -> SparsityChoice:
        eta = sparsity(made.delta)
        height = float(value(loss, (x + made.delta.to(x))[None]))
        choice = SparsityChoice(l1, made, eta, height, least <= eta < 1, [])
        found.append(choice)
        return choice

    def solve(l1: float) -> SparsityChoice:
        start = found[-1].explanation.delta if found else None
        return judge(l1, caso(gradient, hessian, l1, l2, tolerance=tolerance, start=start))

    if grid := list(_grid(top)):
        for l1, made in zip(grid, caso_path(gradient, hessian, grid, l2, tolerance=tolerance), strict=True):
            judge(l1, made)
    if not any(choice.satisfied for choice in found):
        _bisect(solve, top, least, halvings)
    path = sorted((choice.l1, choice.sparsity, choice.loss) for choice in found)
    best = max(found, key=lambda choice: (choice.satisfied, *_rank(choice, least)))
    return SparsityChoice(best.l1, best.explanation, best.sparsity, best.loss, best.satisfied, path)


def _grid(top: float) -> Iterator[float]:
    l1, step = FIRST_L1, 0
    while l1 < top:
        yield l1
        step += 1
        l1 = FIRST_L1 * FACTOR**step


def _bisect(solve: Callable[[float], SparsityChoice], high: float, least: float, count: int) -> None:
    low, l1 = 0.0, high / 2
    for _ in range(count):
        choice = solve(l1)
        if choice.satisfied:
            return
        if choice.sparsity < least:
            low = l1
        else:
            high = l1
        l1 = (low + high) / 2


def _rank(choice: SparsityChoice, least: float) -> tuple[float, float]:
    if choice.satisfied:
        return 0.0, choice.loss
    # A solution that is zero everywhere shows nothing: a denser one comes first.
    return (-1.0 if choice.sparsity == 1 else choice.sparsity - least), choice.loss
