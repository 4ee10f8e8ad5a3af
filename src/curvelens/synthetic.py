"""Functions of two features whose smoothed Hessian is known: sums of quadratics, each on a part of the plane.

The targets of Torop et al. 2023 (Sec. 5 and App. F.3) are of this kind. For y(x) = Σ_r 1[x ∈ R_r] ½ xᵀA_r x
the Hessian of the smoothed function h(x) = E y(x + σz), z ~ N(0, I), follows from Stein's identity for second
derivatives, ∇²h(0) = E y(σz)(zzᵀ − I)/σ², which holds although y jumps and has creases:

    ∇²h(0)_ij = Σ_r ½ Σ_kl A_r,kl (m_r[z_k z_l z_i z_j] − δ_ij m_r[z_k z_l]),    m_r[·] = E[· ; σz ∈ R_r]

Moments of a Gaussian over rectangles and discs around the origin have closed forms, so the curves are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from curvelens.errors import ArgumentError
from curvelens.store import RegressionSet

BOUND = 2.0
"""Data lie in [−2, 2]²."""


class Region(Protocol):
    """A part of the plane over which moments of a Gaussian are known."""

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Return which of ``x[N, 2]`` lie inside, bool ``[N]``."""

    def moment(self, p: int, q: int, sigma: float) -> float:
        """Return E[z₁ᵖ z₂^q ; σz ∈ R] for z ~ N(0, I)."""


@dataclass(frozen=True)
class Rectangle:
    """Points with ``first[0] ≤ x₁ < first[1]`` and the same for x₂ and ``second``; bounds may be infinite."""

    first: tuple[float, float]
    second: tuple[float, float]

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Return which of ``x[N, 2]`` lie inside, bool ``[N]``."""
        low, high = np.array([self.first, self.second]).T
        inside: np.ndarray = ((x >= low) & (x < high)).all(1)
        return inside

    def moment(self, p: int, q: int, sigma: float) -> float:
        """Return E[z₁ᵖ z₂^q ; σz ∈ R], a product of two truncated moments."""
        low, high = (bound / sigma for bound in self.first)
        bottom, top = (bound / sigma for bound in self.second)
        return _interval_moment(p, low, high) * _interval_moment(q, bottom, top)


@dataclass(frozen=True)
class Disc:
    """Points nearer to the origin than ``radius``."""

    radius: float

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Return which of ``x[N, 2]`` lie inside, bool ``[N]``."""
        inside: np.ndarray = np.hypot(x[:, 0], x[:, 1]) < self.radius
        return inside

    def moment(self, p: int, q: int, sigma: float) -> float:
        """Return E[z₁ᵖ z₂^q ; ‖σz‖ < radius].

        In polar coordinates the angle gives a mean of cosᵖ sin^q, and half the squared length, u, is
        exponential: E[(2u)ᵏ ; u < v] = 2ᵏ k! P(k + 1, v), P the regularised incomplete gamma function, with
        k = (p + q)/2 and v = (radius/σ)²/2. Odd powers vanish.
        """
        from scipy.special import gammainc

        if p % 2 or q % 2:
            return 0.0
        k, v = (p + q) // 2, (self.radius / sigma) ** 2 / 2
        angle = math.gamma((p + 1) / 2) * math.gamma((q + 1) / 2) / (math.pi * math.gamma(k + 1))
        return 2**k * math.factorial(k) * angle * float(gammainc(k + 1, v))


@dataclass(frozen=True)
class PiecewiseQuadratic:
    """Σ_r 1[x ∈ R_r] ½ xᵀA_r x on the plane.

    Attributes:
        terms: Symmetric matrices ``[2, 2]`` and the regions where they count; regions may overlap.
    """

    terms: Sequence[tuple[np.ndarray, Region]]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the values at ``x[N, 2]``, ``[N]`` in float64."""
        x = np.asarray(x, dtype=np.float64)
        values = np.zeros(len(x))
        for matrix, region in self.terms:
            values += np.where(region.contains(x), 0.5 * ((x @ matrix) * x).sum(1), 0.0)
        return values

    def smoothed_hessian(self, sigma: float) -> np.ndarray:
        """Return ∇²(y ∗ N(0, σ²I)) at the origin, float64 ``[2, 2]``; see the module for the formula.

        Raises:
            ArgumentError: ``sigma`` is not positive.
        """
        if not (sigma > 0 and math.isfinite(sigma)):
            raise ArgumentError(f"smoothed_hessian: sigma {sigma} must be a positive number")
        hessian = np.zeros((2, 2))
        for matrix, region in self.terms:
            for i, j in ((0, 0), (0, 1), (1, 1)):
                found = 0.0
                for k, m in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    fourth = region.moment(*_powers(k, m, i, j), sigma)
                    second = region.moment(*_powers(k, m), sigma) if i == j else 0.0
                    found += 0.5 * float(matrix[k, m]) * (fourth - second)
                hessian[i, j] += found
        hessian[1, 0] = hessian[0, 1]
        return hessian


@dataclass(frozen=True)
class Target:
    """A target of the paper.

    Attributes:
        name: For people.
        plane: The function on the whole plane, as the formula continues it beyond the data.
        inside: The same function, cut to zero outside the data's square [−2, 2]²: what of the smoothed
            Hessian comes from where there are data.
        shown: The Hessian elements that the paper shows: ``"11"``, ``"12"``, ``"22"``.
    """

    name: str
    plane: PiecewiseQuadratic
    inside: PiecewiseQuadratic
    shown: tuple[str, ...]


def four_quadrants() -> Target:
    """Return y = K x₁x₂ with K = 5, 3, 12, −10 in quadrants 1 to 4 (Torop et al. 2023, Sec. 5)."""

    def cut(bound: float) -> PiecewiseQuadratic:
        right, left = (0.0, bound), (-bound, 0.0)
        quadrants = ((right, right), (left, right), (left, left), (right, left))
        return PiecewiseQuadratic(
            [
                (_product(K), Rectangle(*sides))
                for K, sides in zip((5.0, 3.0, 12.0, -10.0), quadrants, strict=True)
            ]
        )

    return Target("Four Quadrant", cut(math.inf), cut(BOUND), ("12",))


def nested() -> Target:
    """Return the Nested Interactions of Torop et al. 2023, App. F.3.

    y = ½x₁² + x₁x₂ within 0.6 of the origin, x₁x₂ from there to 1.2, −5x₁x₂ beyond.
    """

    def cut(bound: float) -> PiecewiseQuadratic:
        plane = Rectangle((-bound, bound), (-bound, bound))
        square = np.array([[1.0, 0.0], [0.0, 0.0]])
        return PiecewiseQuadratic([(_product(-5.0), plane), (_product(6.0), Disc(1.2)), (square, Disc(0.6))])

    return Target("Nested Interactions", cut(math.inf), cut(BOUND), ("11", "12", "22"))


TARGETS: dict[str, Callable[[], Target]] = {"four_quadrants": four_quadrants, "nested": nested}


def grid(target: Target, name: str, spacing: float = 0.008) -> RegressionSet:
    """Return the paper's training data: every point of the grid on [−2, 2]² with its target.

    Args:
        target: The function.
        name: Beginning of the ids.
        spacing: Distance of neighbours, in (0, 2]; rounded so that the grid ends at both bounds.

    Raises:
        ArgumentError: ``spacing`` is out of range.
    """
    if not 0 < spacing <= BOUND:
        raise ArgumentError(f"grid: spacing {spacing} must be in (0, {BOUND:g}]")
    return _examples(target, name, np.linspace(-BOUND, BOUND, round(2 * BOUND / spacing) + 1))


def between(target: Target, name: str, spacing: float = 0.008, count: int = 50) -> RegressionSet:
    """Return up to ``count²`` points in the middle of cells of :func:`grid`: none of them was trained on."""
    cells = round(2 * BOUND / spacing)
    chosen = (np.arange(min(count, cells)) * cells) // min(count, cells)
    return _examples(target, f"{name}/between", -BOUND + (chosen + 0.5) * (2 * BOUND / cells))


def smoothed_values(
    function: Callable[[np.ndarray], np.ndarray], axis: np.ndarray, sigma: float, per_sigma: int = 8
) -> np.ndarray:
    """Return (f ∗ N(0, σ²I)) on a square grid, by a discrete convolution along each feature in turn.

    Args:
        function: ``x[N, 2] -> [N]``.
        axis: Evenly spaced coordinates of both features, ``[n]``.
        sigma: Standard deviation, ≥ 0; 0 gives f itself.
        per_sigma: Least number of steps of the convolution in one σ. A continuous f costs an error of order
            (σ/per_sigma)² times its second difference; the Gaussian is cut at 5σ and normalised.

    Returns:
        ``[n, n]``; the first index is that of x₁.
    """
    if sigma == 0:
        return _on_square(function, axis)
    coarse = float(axis[1] - axis[0])
    divisions = max(1, math.ceil(coarse * per_sigma / sigma))
    step = coarse / divisions
    reach = math.ceil(5 * sigma / step)
    count = (len(axis) - 1) * divisions + 1 + 2 * reach
    fine = axis[0] + step * (np.arange(count) - reach)
    weights = np.exp(-0.5 * (step * np.arange(-reach, reach + 1) / sigma) ** 2)
    rows = np.zeros((len(axis), count))
    for index in range(len(axis)):
        rows[index, index * divisions : index * divisions + len(weights)] = weights / weights.sum()
    smoothed: np.ndarray = rows @ _on_square(function, fine) @ rows.T
    return smoothed


def _on_square(function: Callable[[np.ndarray], np.ndarray], axis: np.ndarray) -> np.ndarray:
    return function(_points(axis)).reshape(len(axis), len(axis))


def _points(axis: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def _examples(target: Target, name: str, axis: np.ndarray) -> RegressionSet:
    points = _points(axis)
    ids = [f"{name}/{i}/{j}" for i in range(len(axis)) for j in range(len(axis))]
    return RegressionSet(points.astype(np.float32), target.plane(points).astype(np.float32), ids)


def _product(factor: float) -> np.ndarray:
    """Return A with ½xᵀAx = factor · x₁x₂."""
    return np.array([[0.0, factor], [factor, 0.0]])


def _powers(*indices: int) -> tuple[int, int]:
    """Return how often each feature occurs in a product of features."""
    return indices.count(0), indices.count(1)


def _interval_moment(k: int, low: float, high: float) -> float:
    """Return E[zᵏ ; low < z < high] for z ~ N(0, 1), by M_k = [−zᵏ⁻¹φ(z)] + (k − 1) M_{k−2}."""
    from scipy.special import ndtr

    if k == 0:
        return float(ndtr(high) - ndtr(low))
    ends = [
        0.0 if math.isinf(z) else z ** (k - 1) * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        for z in (low, high)
    ]
    before = (k - 1) * _interval_moment(k - 2, low, high) if k > 1 else 0.0
    return ends[0] - ends[1] + before
