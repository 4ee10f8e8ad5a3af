"""How far a local model may be believed: the radius up to which it explains most of what the function does.

The relative fidelity of a local model q at radius ε is the share of the function's change that it predicts,

    R²(ε) = 1 − E[(q(δ) − f(x + δ))²] / E[(f(x + δ) − f(x))²],

over perturbations δ of length at most ε. The numerator is P_MSE (Torop et al. 2023, eq. 11). The denominator
is the P_MSE of the constant model f(x), which says nothing of the surroundings and so has fidelity 0; a
perfect model has 1, and a model worse than none a negative one. (The variance of f would forgive a model that
misses how f changes on average.) The trust radius at a threshold t is the largest ε such that R² ≥ t for all
smaller ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curvelens import derivatives
from curvelens.errors import ArgumentError
from curvelens.fidelity import LAWS, Function, Model, Points, quadratic_terms
from curvelens.quadratic import LocalQuadratic

BELOW, ABOVE, FOUND = "below", "above", ""
Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
_ROUNDINGS = 100.0  # changes of f by fewer roundings than this are not told from rounding


@dataclass(frozen=True)
class TrustRadius:
    """How far a local model may be believed.

    Attributes:
        radius: Largest ε with R² ≥ threshold for all smaller ones, L2 norm. Where it is censored, the bound:
            the true radius is at most (``below``) or at least (``above``) this.
        low: Where R² less 1.96 standard errors first falls below the threshold; 0 where it is below it at the
            smallest radius, the largest radius where it never is.
        high: The same for R² plus 1.96 standard errors; the smallest radius and infinity in these cases.
            ``low`` to ``high`` is a 95 % interval for the radius.
        censored: ``""``; ``"below"``: R² is below the threshold at the smallest radius already; ``"above"``:
            it is not at the largest.
        bracket: Radii between which R² crosses the threshold, before interpolation; (0, smallest) or
            (largest, ∞) where it is censored.
        threshold: t.
        fidelity: R² at ``radius`` or, between the two radii of the bracket, at the nearer one.
        stderr: Its standard error from the finite number of perturbations.
        law: Law of the perturbations' lengths.
        samples: Number of perturbations at each radius.
        evaluations: Evaluations of f made so far; all models held against the same perturbations share them.
    """

    radius: float
    low: float
    high: float
    censored: str
    bracket: tuple[float, float]
    threshold: float
    fidelity: float
    stderr: float
    law: str
    samples: int
    evaluations: int


def trust_radius(
    f: Function,
    q: Model | Sequence[Model],
    x: Tensor,
    *,
    threshold: float = 0.9,
    law: str = "ball",
    smallest: float = 0.01,
    largest: float = 16.0,
    per_octave: int = 2,
    refinements: int = 4,
    samples: int = 1000,
    seed: int = 0,
    chunk: int | None = None,
) -> TrustRadius | list[TrustRadius]:
    """Return how far one local model of f, or each of several, may be believed.

    R² is followed on a geometric grid from the smallest radius up until it falls below the threshold; that
    cell is bisected and the crossing interpolated. All radii see the same directions with lengths in
    proportion, so that R² is a continuous function of the radius, and all models the same evaluations of f.
    What falls below the threshold and rises again between two radii of the grid is not seen.

    Args:
        f: The function that is explained, [B, *shape] -> [B].
        q: Local model of f at x, a function of displacements [B, *shape] -> [B], or a sequence of them.
        x: [*shape].
        threshold: Relative fidelity that is asked for, in (0, 1).
        law: ``"ball"``: perturbations uniform in the ball; ``"paper"``: uniform radius, see
            :func:`curvelens.perturbation_mse`.
        smallest: Where the grid starts, > 0, L2 norm.
        largest: Where it ends, > smallest.
        per_octave: Radii of the grid for each doubling, ≥ 1.
        refinements: Bisections of the cell in which R² crosses the threshold, ≥ 0.
        samples: Number of perturbations, ≥ 2; 15,000 fix P_MSE well, a few hundred the radius.
        seed: Same seed, same perturbations, those of :func:`curvelens.perturbation_mse`.
        chunk: Perturbations at once in evaluations of f; None chooses by memory.

    Returns:
        The radius with its interval; a list if ``q`` is a sequence.

    Raises:
        ArgumentError: if an argument is out of range, ``q`` is no local model at x, or f or q gives numbers
            that are not finite.
    """
    rays = Rays(f, x, law=law, samples=samples, seed=seed, chunk=chunk)
    grid = radius_grid(smallest, largest, per_octave)
    models = list(q) if isinstance(q, Sequence) else [q]
    found = [rays.curve(model).radius(threshold, grid, refinements) for model in models]
    return found if isinstance(q, Sequence) else found[0]


def radius_grid(smallest: float, largest: float, per_octave: int = 2) -> list[float]:
    """Return radii from ``smallest`` to ``largest`` in equal ratios, at least ``per_octave`` for each
    doubling.

    Raises:
        ArgumentError: if the bounds are not positive and ascending, or ``per_octave`` < 1.
    """
    if not (0 < smallest < largest < math.inf):
        raise ArgumentError(
            f"trust_radius: smallest={smallest:g} and largest={largest:g} must be positive and ascending"
        )
    if per_octave < 1:
        raise ArgumentError(f"trust_radius: per_octave={per_octave} must be at least 1; 2 is usual")
    span = math.log(largest / smallest)
    cells = max(1, math.ceil(per_octave * span / math.log(2) - 1e-9))
    return [smallest * math.exp(span * cell / cells) for cell in range(cells)] + [largest]


class Rays:
    """Random directions from x, along which f is evaluated at each radius once, when it is first asked for.

    Args:
        f: [B, *shape] -> [B].
        x: [*shape].
        law: ``"ball"`` or ``"paper"``.
        samples: Number of directions, ≥ 2; all are held in memory.
        seed: Seed of the perturbations.
        chunk: Perturbations at once; None chooses by memory.

    Raises:
        ArgumentError: if an argument is out of range.
    """

    def __init__(
        self,
        f: Function,
        x: Tensor,
        *,
        law: str = "ball",
        samples: int = 1000,
        seed: int = 0,
        chunk: int | None = None,
    ) -> None:
        if law not in LAWS:
            raise ArgumentError(f"trust_radius: law={law!r} is unknown; choose 'ball' or 'paper'")
        if samples < 2:
            raise ArgumentError(
                f"trust_radius: samples={samples} must be at least 2; a few hundred are usual"
            )
        if x.numel() == 0 or not x.is_floating_point():
            raise ArgumentError(f"trust_radius: x {list(x.shape)} must hold floating-point features")
        self.f, self.x, self.law, self.samples, self.chunk = f, x.detach(), law, samples, chunk
        unit = (1.0, law)
        self._points = Points(self.x, [unit], samples, seed)
        directions, uniforms = zip(*self._points.blocks(), strict=True)
        self.directions = torch.cat(directions)
        self.lengths = self._points.lengths(torch.cat(uniforms), unit)
        self.center = float(derivatives.value(f, self.x[None])[0])
        self.evaluations = 1
        self._changes: dict[float, tuple[Tensor, float]] = {}

    def displacements(self, radius: float) -> Tensor:
        """Return the perturbations [n, *shape] within a radius."""
        return self._points.displacements(self.directions, radius * self.lengths)

    def changes(self, radius: float) -> tuple[Tensor, float]:
        """Return f(x + δ) − f(x) [n], float64, and the mean of its square.

        The mean is at least that of changes that cannot be told from rounding, so that where f does not
        change at all a model that predicts no change has fidelity 1.
        """
        if radius not in self._changes:
            points = self.x + self.displacements(radius)
            found = derivatives.value(self.f, points, self.chunk).double() - self.center
            if not bool(torch.isfinite(found).all()):
                raise ArgumentError(
                    f"trust_radius: f gives numbers that are not finite within {radius:g}; check it or make "
                    "the largest radius smaller"
                )
            self.evaluations += self.samples
            rounding = _ROUNDINGS * torch.finfo(self.x.dtype).eps * abs(self.center)
            tiny = torch.finfo(torch.float64).tiny
            self._changes[radius] = found, max(float(found.square().mean()), rounding**2, tiny)
        return self._changes[radius]

    def curve(self, q: Model) -> Curve:
        """Return the relative fidelity of a local model of f at x as a function of the radius.

        Raises:
            ArgumentError: if ``q`` is no local model at x.
        """
        if not callable(q) or (isinstance(q, LocalQuadratic) and q.gradient.shape != self.x.shape):
            raise ArgumentError(
                "trust_radius: q must be a local model at x such as smooth_quadratic gives, "
                f"for inputs {list(self.x.shape)}"
            )
        return Curve(self, q)


class Curve:
    """Relative fidelity of one local model as a function of the radius.

    Args:
        rays: Where f is known.
        q: The local model.
    """

    def __init__(self, rays: Rays, q: Model) -> None:
        self.rays, self.q = rays, q
        self._terms = quadratic_terms(q, rays.directions) if isinstance(q, LocalQuadratic) else None
        self._known: dict[float, tuple[float, float]] = {}

    def at(self, radius: float) -> tuple[float, float]:
        """Return R² and its standard error at a radius.

        The error is that of a ratio of means (delta method): with errors a, changes b and r = ā/b̄ it is
        √(mean (a − r b)²/(n − 1))/b̄.
        """
        if radius not in self._known:
            changes, scale = self.rays.changes(radius)
            errors = (self._predicted(radius) - changes).square()
            if not bool(torch.isfinite(errors).all()):
                raise ArgumentError(
                    f"trust_radius: the local model gives numbers that are not finite within {radius:g}"
                )
            ratio = float(errors.mean()) / scale
            spread = (errors - ratio * changes.square()).square().mean() / (len(errors) - 1)
            self._known[radius] = 1 - ratio, math.sqrt(float(spread)) / scale
        return self._known[radius]

    def _predicted(self, radius: float) -> Tensor:
        """Return q(δ) − f(x) [n], float64."""
        if self._terms is None:
            with torch.no_grad():
                return self.q(self.rays.displacements(radius)).double() - self.rays.center
        constant, linear, quadratic = self._terms
        scale = radius * self.rays.lengths
        return (constant - self.rays.center) + scale * linear + scale.square() * quadratic

    def radius(self, threshold: float, grid: Sequence[float], refinements: int = 4) -> TrustRadius:
        """Return the trust radius at a threshold, see :func:`trust_radius`.

        Args:
            threshold: In (0, 1).
            grid: Ascending radii.
            refinements: Bisections, ≥ 0.

        Raises:
            ArgumentError: if the threshold is not in (0, 1), or ``refinements`` is negative.
        """
        if not 0 < threshold < 1:
            raise ArgumentError(
                f"trust_radius: threshold={threshold:g} must be between 0 and 1; 0.9 is usual"
            )
        if refinements < 0:
            raise ArgumentError(f"trust_radius: refinements={refinements} must not be negative")

        def score(radius: float, errors: float) -> float:
            fidelity, stderr = self.at(radius)
            return fidelity + errors * stderr - threshold

        radius, bracket = _crossing(lambda r: score(r, 0.0), grid, refinements)
        low, _ = _crossing(lambda r: score(r, -Z95), grid, refinements)
        high, _ = _crossing(lambda r: score(r, Z95), grid, refinements)
        censored = BELOW if radius == 0 else ABOVE if radius == math.inf else FOUND
        radius = min(max(radius, grid[0]), grid[-1])
        nearest = min(self._known, key=lambda known: abs(math.log(known / radius)))
        return TrustRadius(
            radius,
            min(low, grid[-1]),
            max(high, grid[0]),
            censored,
            bracket,
            threshold,
            *self._known[nearest],
            law=self.rays.law,
            samples=self.rays.samples,
            evaluations=self.rays.evaluations,
        )


def _crossing(
    score: Callable[[float], float], grid: Sequence[float], refinements: int
) -> tuple[float, tuple[float, float]]:
    """Return where a score first becomes negative, 0 or inf outside the grid, and the bracket around it."""
    after = next((place for place, radius in enumerate(grid) if score(radius) < 0), len(grid))
    if after == 0:
        return 0.0, (0.0, grid[0])
    if after == len(grid):
        return math.inf, (grid[-1], math.inf)
    inside, outside = grid[after - 1], grid[after]
    for _ in range(refinements):
        middle = math.sqrt(inside * outside)
        if score(middle) < 0:
            outside = middle
        else:
            inside = middle
    above, below = score(inside), score(outside)
    share = above / (above - below)
    return inside * (outside / inside) ** share, (inside, outside)
