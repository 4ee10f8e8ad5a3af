"""How well a local model predicts the function it explains: the perturbation mean squared error.

P_MSE(ε) is the mean of (q(δ) − f(x + δ))² over perturbations δ of length at most ε (Torop et al. 2023, eq. 10
and 11). Perturbations are s·u with u a random direction and s a random length; u is the same for every radius
and law, so that a quadratic model is evaluated once and only f is evaluated anew for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curvelens import seeds
from curvelens.errors import ArgumentError
from curvelens.quadratic import LocalQuadratic
from curvelens.rays import Rays

LAWS = ("ball", "paper")
Model = LocalQuadratic | Callable[[Tensor], Tensor]
Function = Callable[[Tensor], Tensor]

KEEP_BYTES = 2**28  # directions beyond this are drawn anew for each model
BLOCK_ENTRIES = 2**22  # numbers drawn at once
BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Fidelity:
    """The perturbation mean squared error of a local model.

    Attributes:
        mean: P_MSE, in squared units of f.
        stderr: Its standard error from the finite number of perturbations.
        radius: ε, L2 norm.
        law: Law of the perturbations' lengths.
        samples: Number of perturbations.
        variance: Variance of f over the same perturbations; mean/variance is the share left unexplained.
    """

    mean: float
    stderr: float
    radius: float
    law: str
    samples: int
    variance: float


def perturbation_mse(
    f: Function,
    q: Model | Sequence[Model],
    x: Tensor,
    radius: float,
    law: str = "ball",
    samples: int = 15_000,
    seed: int = 0,
    chunk: int | None = None,
) -> Fidelity | list[Fidelity]:
    """Return the perturbation mean squared error of one local model, or of several on the same perturbations.

    Args:
        f: The function that is explained, [B, *shape] -> [B].
        q: Local model of f at x, a function of displacements [B, *shape] -> [B], or a sequence of them: f is
            then evaluated once for all.
        x: [*shape].
        radius: ε > 0, L2 norm.
        law: ``"ball"``, uniform in the ball (Torop et al. 2023, eq. 11: ‖δ‖ = ε·u^(1/d) with u uniform in (0,
            1)), or ``"paper"`` (‖δ‖ = ε·u, what their public code draws, most of it far inside the ball).
        samples: Number of perturbations, ≥ 2.
        seed: Same seed, same perturbations, for every radius, law and chunk size.
        chunk: Perturbations at once in evaluations of f; None chooses by memory.

    Returns:
        The error with its standard error; a list if ``q`` is a sequence.

    Raises:
        ArgumentError: if an argument is out of range, ``q`` is None, or f or q gives numbers that are not
            finite.
    """
    several = isinstance(q, Sequence)
    models = list(q) if isinstance(q, Sequence) else [q]
    _check_models(models, x)
    perturbations = Perturbations(f, x, [(radius, law)], samples=samples, seed=seed, chunk=chunk)
    found = [perturbations.mse(model)[0] for model in models]
    return found if several else found[0]


class Points:
    """Random perturbations δ = s·u of an image, and what several settings share of them.

    Args:
        x: [*shape].
        settings: Pairs (radius, law), see :func:`perturbation_mse`.
        samples: Number of perturbations for each setting, ≥ 2.
        seed: Seed of the perturbations, which are those of :func:`perturbation_mse`.

    Raises:
        ArgumentError: if an argument is out of range.
    """

    def __init__(
        self, x: Tensor, settings: Sequence[tuple[float, str]], samples: int = 15_000, seed: int = 0
    ) -> None:
        _check(x, settings, samples)
        self.x = x.detach()
        self.settings = [(float(radius), law) for radius, law in settings]
        self.samples = samples
        self.seed = seed
        self._kept: list[tuple[Tensor, Tensor]] | None = None
        if samples * x.numel() * x.element_size() <= KEEP_BYTES:
            self._kept = list(_directions(self.x, samples, seed))

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield directions u [b, *shape] and uniform numbers [b] that give the lengths."""
        return iter(self._kept) if self._kept is not None else _directions(self.x, self.samples, self.seed)

    def lengths(self, uniforms: Tensor, setting: tuple[float, str]) -> Tensor:
        """Return the lengths s [b] in float64."""
        radius, law = setting
        return radius * (uniforms ** (1 / self.x.numel()) if law == "ball" else uniforms)

    def displacements(self, directions: Tensor, lengths: Tensor) -> Tensor:
        """Return δ [b, *shape]."""
        return directions * lengths.to(self.x.dtype).reshape(-1, *[1] * self.x.ndim)


class Perturbations:
    """Values of a function at random perturbations, against which any number of local models can be held.

    f is evaluated ``samples`` times for each setting, here, once and for all. A quadratic model is evaluated
    ``samples`` times whatever the number of settings, because its terms are known along a direction up to the
    length; :class:`curvelens.control_variate.ControlVariate` needs less than that of many models.

    Args:
        f: [B, *shape] -> [B].
        x: [*shape].
        settings: Pairs (radius, law), see :func:`perturbation_mse`.
        samples: Number of perturbations for each setting, ≥ 2.
        seed: Seed of the perturbations, which are those of :func:`perturbation_mse`.
        chunk: Perturbations at once in evaluations of f; None chooses by memory.

    Raises:
        ArgumentError: if an argument is out of range, or f gives numbers that are not finite.
    """

    points: Points
    values: list[Tensor]

    def __init__(
        self,
        f: Function,
        x: Tensor,
        settings: Sequence[tuple[float, str]],
        *,
        samples: int = 15_000,
        seed: int = 0,
        chunk: int | None = None,
    ) -> None:
        self.points = Points(x, settings, samples, seed)
        (values,) = _evaluate([f], self.points, chunk)
        self._take(values)

    def _take(self, values: list[Tensor]) -> None:
        self.values = values
        self._variances = [float(found.var(correction=0)) for found in values]

    @classmethod
    def jointly(
        cls,
        functions: Sequence[Function],
        x: Tensor,
        settings: Sequence[tuple[float, str]],
        *,
        samples: int = 15_000,
        seed: int = 0,
        chunk: int | None = None,
    ) -> list[Perturbations]:
        """Return the same for several functions, each with the values that it has alone.

        Scalars of one model share its forward passes, see :func:`curvelens.derivatives.values`.
        """
        points = Points(x, settings, samples, seed)
        found = []
        for values in _evaluate(functions, points, chunk):
            around = cls.__new__(cls)
            around.points = points
            around._take(values)
            found.append(around)
        return found

    def mse(self, q: Model, settings: Sequence[tuple[float, str]] | None = None) -> list[Fidelity]:
        """Return the perturbation mean squared error of a local model for each setting.

        Args:
            q: Local model of f at x.
            settings: Some of the settings; None means all of them.

        Raises:
            ArgumentError: if ``q`` is no local model at x, or gives numbers that are not finite.
        """
        points = self.points
        _check_models([q], points.x)
        wanted = points.settings if settings is None else list(settings)
        predictions: list[list[Tensor]] = [[] for _ in wanted]
        for directions, uniforms in points.blocks():
            terms = quadratic_terms(q, directions) if isinstance(q, LocalQuadratic) else None
            for found, setting in zip(predictions, wanted, strict=True):
                lengths = points.lengths(uniforms, setting)
                if terms is not None:
                    found.append(terms[0] + lengths * terms[1] + lengths.square() * terms[2])
                else:
                    with torch.no_grad():
                        found.append(q(points.displacements(directions, lengths)).double())
        results = []
        for parts, setting in zip(predictions, wanted, strict=True):
            values = self.values[points.settings.index(setting)]
            squares = _finite((torch.cat(parts) - values).square(), "the local model")
            stderr = float(squares.std()) / math.sqrt(points.samples)
            results.append(self.result(float(squares.mean()), stderr, setting))
        return results

    def result(self, mean: float, stderr: float, setting: tuple[float, str]) -> Fidelity:
        """Return an error with what else is known of its setting."""
        variance = self._variances[self.points.settings.index(setting)]
        return Fidelity(mean, stderr, *setting, self.points.samples, variance)


def _evaluate(functions: Sequence[Function], points: Points, chunk: int | None) -> list[list[Tensor]]:
    """Return the values [samples] of each function in each setting, in float64."""
    parts: list[list[Tensor]] = [[] for _ in points.settings]
    rays = Rays(functions, points.x, chunk)
    for directions, uniforms in points.blocks():
        lengths = [points.lengths(uniforms, setting) for setting in points.settings]
        for found, values in zip(parts, rays.values(directions, lengths), strict=True):
            found.append(values.double())
    joined = [_finite(torch.cat(found, 1), "f") for found in parts]
    return [[values[place] for values in joined] for place in range(len(functions))]


def _check(x: Tensor, settings: Sequence[tuple[float, str]], samples: int) -> None:
    if x.numel() == 0 or not x.is_floating_point():
        raise ArgumentError(f"perturbation_mse: x {list(x.shape)} must hold floating-point features")
    for radius, law in settings:
        if not (math.isfinite(radius) and radius > 0):
            raise ArgumentError(f"perturbation_mse: radius={radius:g} must be finite and positive")
        if law not in LAWS:
            raise ArgumentError(f"perturbation_mse: law={law!r} is unknown; choose 'ball' or 'paper'")
    if samples < 2:
        raise ArgumentError(f"perturbation_mse: samples={samples} must be at least 2; 15000 is usual")


def _check_models(models: Sequence[Model], x: Tensor) -> None:
    if not models or not all(callable(model) for model in models):
        raise ArgumentError(
            "perturbation_mse: q must be a local model such as smooth_quadratic gives, or several; "
            "for a constant model give LocalQuadratic(f(x), 0·x, None)"
        )
    for model in models:
        if isinstance(model, LocalQuadratic) and model.gradient.shape != x.shape:
            raise ArgumentError(
                f"perturbation_mse: q is of inputs {list(model.gradient.shape)}, x is {list(x.shape)}; "
                "give the x at which q was made"
            )


def _directions(x: Tensor, samples: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random unit vectors [b, *shape] like x, and uniform numbers [b] (float64, CPU), in blocks of
    fixed size.

    Block k depends on the seed, k and d only; fewer samples are a part of more.
    """
    size = x.numel()
    rows = max(1, min(BLOCK_ROWS, BLOCK_ENTRIES // size))
    for block, start in enumerate(range(0, samples, rows)):
        random = seeds.generator(seed, "perturbation", block)
        uniforms = torch.rand(rows, generator=random, dtype=torch.float64)
        normals = torch.randn(rows, size, generator=random, dtype=torch.float32)
        count = min(rows, samples - start)
        unit = normals[:count].to(device=x.device, dtype=x.dtype)
        unit /= unit.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        yield unit.reshape(count, *x.shape), uniforms[:count].to(x.device)


def quadratic_terms(model: LocalQuadratic, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return f(x), g·u [B] and ½uᵀHu [B] in float64, for directions u [B, *shape]."""
    rows = directions.flatten(1)
    linear = (rows @ model.gradient.reshape(-1)).double()
    if model.curvature is None:
        return model.value.double(), linear, torch.zeros_like(linear)
    return model.value.double(), linear, model.curvature.quadratic_form(rows).double() / 2


def _finite(values: Tensor, what: str) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise ArgumentError(
            f"perturbation_mse: {what} gives numbers that are not finite; check it or make the radius smaller"
        )
    return values
