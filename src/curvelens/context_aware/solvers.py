"""Solvers for ½ΔᵀAΔ − gᵀΔ + λ₁·penalty(Δ) → min with A = 2λ₂I − H, on vectors [d] in double precision."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from curvelens.context_aware.operators import Operator, not_concave
from curvelens.context_aware.proximal import ENTRIES, Penalty

ROUNDING = 8.0  # multiples of the relative rounding error by which products may be off
PAPER_STEP = 0.1
PAPER_DECAY = 0.5


@dataclass(frozen=True, eq=False)
class Problem:
    """The objective.

    Attributes:
        g: Gradient, [d].
        H: Hessian.
        l1: λ₁ ≥ 0.
        l2: λ₂ > 0.
        penalty: What λ₁ weighs.
    """

    g: Tensor
    H: Operator
    l1: float
    l2: float
    penalty: Penalty = ENTRIES

    def apply(self, v: Tensor) -> Tensor:
        """Return Av = 2λ₂v − Hv, [d]."""
        return 2 * self.l2 * v - self.H.apply(v)

    def violation(self, delta: Tensor, product: Tensor) -> Tensor:
        """Return r, the smallest subgradient of the maximised objective at Δ, [d], given AΔ."""
        return self.penalty.violation(delta, self.g - product, self.l1)

    def residual(self, delta: Tensor, product: Tensor) -> float:
        """Return ‖r‖₂/‖g‖₂ (‖r‖₂ where g is zero), given AΔ."""
        scale = float(self.g.norm())
        return float(self.violation(delta, product).norm()) / (scale if scale > 0 else 1.0)

    def attainable(self, delta: Tensor) -> float:
        """Return the residual at Δ that rounding in the products of H may cause; nothing below can be asked
        for."""
        scale = float(self.g.norm())
        return ROUNDING * self.H.epsilon * 2 * self.l2 * float(delta.norm()) / (scale if scale > 0 else 1.0)

    def objective(self, delta: Tensor, product: Tensor) -> float:
        """Return the maximised objective at Δ, given AΔ."""
        return float(self.g @ delta - delta @ product / 2 - self.l1 * self.penalty.norm(delta))


@dataclass(frozen=True, eq=False)
class Solution:
    """A solution.

    Attributes:
        delta: Δ, [d].
        product: AΔ, [d].
        iterations: Iterations made.
    """

    delta: Tensor
    product: Tensor
    iterations: int


def direct(problem: Problem) -> Solution | None:
    """Return the closed form, or None where there is none.

    There is one for H = 0, for λ₁ so large that Δ = 0, and for λ₁ = 0 unless H is known by products only.
    """
    if problem.l1 >= float(problem.penalty.dual_norm(problem.g)):
        delta = torch.zeros_like(problem.g)
        return Solution(delta, delta, 0)
    if problem.H.extremes() == (0.0, 0.0):
        delta = problem.penalty.prox(problem.g, problem.l1) / (2 * problem.l2)
    elif problem.l1 == 0:
        found = problem.H.solve(problem.g, problem.l2)
        if found is None:
            return None
        delta = found
    else:
        return None
    return Solution(delta, problem.apply(delta), 0)


def conjugate_gradients(
    problem: Problem, start: Tensor | None, tolerance: float, max_iterations: int
) -> Solution:
    """Solve AΔ = g by products alone (Hestenes and Stiefel 1952).

    Args:
        problem: With λ₁ = 0.
        start: First guess [d], or None for zero.
        tolerance: Largest ‖g − AΔ‖₂/‖g‖₂.
        max_iterations: Most products.

    Raises:
        ArgumentError: if a direction v with vᵀAv ≤ 0 is met.
    """
    delta = torch.zeros_like(problem.g) if start is None else start.clone()
    product = torch.zeros_like(delta) if start is None else problem.apply(delta)
    remainder = problem.g - product
    direction, power = remainder, float(remainder @ remainder)
    goal = tolerance**2 * float(problem.g @ problem.g)
    iterations = 0
    while power > goal and iterations < max_iterations:
        image = problem.apply(direction)
        curvature = float(direction @ image)
        if curvature <= 0:
            raise not_concave(problem.l2)
        step = power / curvature
        delta, product = delta + step * direction, product + step * image
        remainder = remainder - step * image
        new = float(remainder @ remainder)
        direction, power = remainder + new / power * direction, new
        iterations += 1
    # The recurrence drifts by rounding: certify the solution with a product of its own.
    return Solution(delta, problem.apply(delta), iterations)


def accelerated(problem: Problem, start: Tensor | None, tolerance: float, max_iterations: int) -> Solution:
    """Solve by accelerated proximal steps with adaptive restart.

    Steps are 1/M with M the largest eigenvalue of A: known, or 2λ₂ (which holds for every H ≥ 0) and raised
    when a larger curvature is met. The momentum is that of FISTA (Beck and Teboulle 2009), at most the (√M −
    √μ)/(√M + √μ) that is best for a known strong concavity μ = 2λ₂ − L, and starts anew when it points uphill
    (O'Donoghue and Candès 2015, gradient scheme). A is linear, so that one product an iteration gives step,
    test and residual.

    Args:
        problem: The objective.
        start: First guess [d], or None for zero.
        tolerance: Largest residual, see :meth:`Problem.residual`, where rounding allows it.
        max_iterations: Most products.

    Raises:
        ArgumentError: if a direction v with vᵀAv < 0 is met.
    """
    extremes = problem.H.extremes()
    bound = 2 * problem.l2 - (extremes[0] if extremes else 0.0)
    limit = 1.0 if extremes is None else _steady_momentum(2 * problem.l2 - extremes[1], bound)
    delta = torch.zeros_like(problem.g) if start is None else start
    product = torch.zeros_like(delta) if start is None else problem.apply(delta)
    ahead, ahead_product, age, iterations = delta, product, 1.0, 0
    while iterations < max_iterations:
        if problem.residual(delta, product) <= max(tolerance, problem.attainable(delta)):
            break
        new = problem.penalty.prox(ahead + (problem.g - ahead_product) / bound, problem.l1 / bound)
        new_product = problem.apply(new)
        iterations += 1
        move = new - ahead
        length = float(move @ move)
        curvature = float(move @ (new_product - ahead_product))
        slack = ROUNDING * problem.H.epsilon * bound * float(new.norm()) * math.sqrt(length)
        if curvature < -slack:
            raise not_concave(problem.l2)
        if curvature > bound * length * (1 + 1e-9) + slack:
            bound = max(2 * bound, curvature / length)
            continue
        if float((ahead - new) @ (new - delta)) > 0:
            age, momentum = 1.0, 0.0
        else:
            older, age = age, (1 + math.sqrt(1 + 4 * age * age)) / 2
            momentum = min((older - 1) / age, limit)
        ahead = new + momentum * (new - delta)
        ahead_product = new_product + momentum * (new_product - product)
        delta, product = new, new_product
    return Solution(delta, product, iterations)


def _steady_momentum(least: float, most: float) -> float:
    return (math.sqrt(most) - math.sqrt(least)) / (math.sqrt(most) + math.sqrt(least))


def paper(problem: Problem, start: Tensor | None, iterations: int) -> Solution:
    """Make a fixed number of FISTA steps with backtracking, as Singla et al. 2019, sec. 4 did.

    The first step is 0.1; it is halved while the smooth part grows faster than its quadratic bound.

    Args:
        problem: The objective.
        start: First guess [d], or None for zero.
        iterations: Number of steps.
    """
    delta = torch.zeros_like(problem.g) if start is None else start
    product = problem.apply(delta)
    ahead, ahead_product, age, step = delta, product, 1.0, PAPER_STEP
    for _ in range(iterations):
        while True:
            new = problem.penalty.prox(ahead + step * (problem.g - ahead_product), step * problem.l1)
            new_product = problem.apply(new)
            move = new - ahead
            # The quadratic's excess over its tangent is ½ moveᵀA move, the bound's ‖move‖²/(2 step).
            if step * float(move @ (new_product - ahead_product)) <= float(move @ move) * (1 + 1e-9):
                break
            step *= PAPER_DECAY
        older, age = age, (1 + math.sqrt(1 + 4 * age * age)) / 2
        momentum = (older - 1) / age
        ahead = new + momentum * (new - delta)
        ahead_product = new_product + momentum * (new_product - product)
        delta, product = new, new_product
    return Solution(delta, product, iterations)
