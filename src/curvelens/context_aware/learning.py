"""Solving with a Hessian that is known by its products only, a few of them, for many λ₁ at once.

The Nyström approximation H̃ of what is known (:mod:`curvelens.nystrom`) stands in for H. It is nowhere
larger than H and exact at every Δ tried, so that its objective is a lower bound that touches the true one at
the last solution: maximising it, trying the maximum (one product for each λ₁) and learning from the product
climbs to the maximum of the true objective, and the true KKT residual, which those products give, says when
to stop. What rounding leaves of H − H̃ at the last solution is added to the gradient, so that it shifts no
solution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from curvelens.context_aware.operators import Spectral, not_concave, spectral
from curvelens.context_aware.proximal import Penalty
from curvelens.context_aware.solvers import ROUNDING, Solution
from curvelens.nystrom import Nystrom

INNER = 0.1  # of the tolerance, for the problems with the stand-in
MAX_INNER = 5000
TESTED = 10  # steps between two tests, each of which takes a product of its own
MAX_ROUNDS = 100


def solve(
    g: Tensor,
    known: Nystrom,
    l1s: Sequence[float],
    l2: float,
    penalty: Penalty,
    tolerance: float,
    max_rounds: int = MAX_ROUNDS,
) -> list[Solution]:
    """Maximise gᵀΔ + ½ΔᵀHΔ − λ₁·penalty(Δ) − λ₂‖Δ‖² for each λ₁.

    Args:
        g: Gradient, [d], float64.
        known: H, positive semidefinite.
        l1s: λ₁ ≥ 0, m of them.
        l2: λ₂ > L/2.
        penalty: What λ₁ weighs.
        tolerance: Largest relative KKT residual, where rounding allows it.
        max_rounds: Most products for each λ₁.

    Returns:
        A solution for each λ₁; its iterations are the products made for it.

    Raises:
        ArgumentError: if λ₂ ≤ L/2 shows.
    """
    weights = torch.tensor(list(l1s), dtype=g.dtype, device=g.device)
    scale = float(g.norm()) or 1.0
    delta = g.new_zeros(len(g), len(weights))
    image = torch.zeros_like(delta)
    open_ = (weights < penalty.dual_norm(g)).nonzero()[:, 0]
    rounds = torch.zeros(len(weights), dtype=torch.long)
    best = torch.full((len(weights),), math.inf, dtype=g.dtype, device=g.device)
    if known.rank == 0 and len(open_):
        known.apply(g[:, None])
    while len(open_):
        stand_in = spectral(known.low_rank())
        stand_in.check(l2)
        slopes = g[:, None] + image[:, open_] - stand_in.columns(delta[:, open_])
        tried, _ = _accelerated(
            stand_in, slopes, weights[open_], l2, penalty, delta[:, open_], INNER * tolerance * scale
        )
        images = known.apply(tried)
        if bool(((tried * images).sum(0) > 2 * l2 * tried.square().sum(0) * (1 + 1e-9)).any()):
            raise not_concave(l2)
        slope = g[:, None] + images - 2 * l2 * tried
        residual = penalty.violation(tried, slope, weights[open_]).norm(dim=0) / scale
        better = residual < best[open_]
        kept = open_[better]
        delta[:, kept], image[:, kept], best[kept] = tried[:, better], images[:, better], residual[better]
        rounds[open_.cpu()] += 1
        rounding = ROUNDING * torch.finfo(known.dtype).eps * 2 * l2 * tried.norm(dim=0) / scale
        open_ = open_[
            better & (residual > torch.clamp(rounding, min=tolerance)) & (rounds.max() < max_rounds)
        ]
    return [
        Solution(delta[:, i], 2 * l2 * delta[:, i] - image[:, i], int(rounds[i])) for i in range(len(weights))
    ]


def solve_known(
    g: Tensor, H: Spectral, l1s: Sequence[float], l2: float, penalty: Penalty, tolerance: float
) -> list[Solution]:
    """Maximise the objective for each λ₁ with a low-rank H that is known.

    Args:
        g: Gradient, [d], float64.
        H: Hessian.
        l1s: λ₁ ≥ 0.
        l2: λ₂ > L/2.
        penalty: What λ₁ weighs.
        tolerance: Largest relative KKT residual.

    Returns:
        A solution for each λ₁; all share their iterations.
    """
    weights = torch.tensor(list(l1s), dtype=g.dtype, device=g.device)
    slopes = g[:, None].expand(-1, len(weights))
    goal = tolerance * (float(g.norm()) or 1.0)
    delta, steps = _accelerated(H, slopes, weights, l2, penalty, torch.zeros_like(slopes), goal)
    product = 2 * l2 * delta - H.columns(delta)
    return [Solution(delta[:, i], product[:, i], steps * (l1 > 0)) for i, l1 in enumerate(l1s)]


def _accelerated(
    H: Spectral, g: Tensor, l1: Tensor, l2: float, penalty: Penalty, start: Tensor, tolerance: float
) -> tuple[Tensor, int]:
    """Solve for all columns with H = V diag(θ) Vᵀ known: closed at λ₁ = 0, else FISTA with known bounds.

    Args:
        H: Stand-in for the Hessian.
        g: Gradients [d, m].
        l1: [m].
        l2: λ₂ > θ/2.
        penalty: What λ₁ weighs.
        start: First guess [d, m].
        tolerance: Largest norm of the KKT violation.

    Returns:
        Solutions [d, m], and the iterations.
    """
    free = (l1 == 0).nonzero()[:, 0]
    delta = start.clone()
    delta[:, free] = H.solve(g[:, free], l2)
    left = (l1 > 0).nonzero()[:, 0]
    low, high = H.extremes()
    bound, least = 2 * l2 - low, 2 * l2 - high
    momentum = (math.sqrt(bound) - math.sqrt(least)) / (math.sqrt(bound) + math.sqrt(least))
    old, ahead, weight, slopes = delta[:, left], delta[:, left], l1[left], g[:, left]

    def slope(point: Tensor) -> Tensor:
        return slopes + H.columns(point) - 2 * l2 * point

    step = 0
    for step in range(MAX_INNER):
        if step % TESTED == 0:
            violated = penalty.violation(old, slope(old), weight).norm(dim=0) > tolerance
            if not bool(violated.any()):
                break
        new = penalty.prox(ahead + slope(ahead) / bound, weight / bound)
        ahead = new + momentum * (new - old)
        old = new
    delta[:, left] = old
    return delta, step
