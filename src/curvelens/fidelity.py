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

from curvelens import derivatives, seeds
from curvelens.errors import ArgumentError
from curvelens.quadratic import LocalQuadratic

LAWS = ("ball", "paper")
Model = LocalQuadratic | Callable[[Tensor], Tensor]
Function = Callable[[Tensor], Tensor]

_BLOCK_ENTRIES = 2**22  # numbers drawn at once
_BLOCK_ROWS = 4096


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
    table = perturbation_table(f, models, x, [(radius, law)], samples=samples, seed=seed, chunk=chunk)
    found = [row[0] for row in table]
    return found if several else found[0]


def perturbation_table(
    f: Function,
    models: Sequence[Model],
    x: Tensor,
    settings: Sequence[tuple[float, str]],
    *,
    samples: int = 15_000,
    seed: int = 0,
    chunk: int | None = None,
) -> list[list[Fidelity]]:
    """Return the perturbation mean squared error of every model at every radius and law.

    f is evaluated ``samples`` times for each setting, whatever the number of models; the linear and the
    quadratic term of a :class:`~curvelens.quadratic.LocalQuadratic` ``samples`` times in all, because along a
    direction they are known up to the length. The perturbations are those of :func:`perturbation_mse`.

    Args:
        f: [B, *shape] -> [B].
        models: Local models of f at x.
        x: [*shape].
        settings: Pairs (radius, law).
        samples: Number of perturbations for each setting, ≥ 2.
        seed: Seed of the perturbations.
        chunk: Perturbations at once in evaluations of f; None chooses by memory.

    Returns:
        One list for each model, with one result for each setting.

    Raises:
        ArgumentError: as for :func:`perturbation_mse`.
    """
    _check(models, x, settings, samples)
    errors: list[list[list[Tensor]]] = [[[] for _ in settings] for _ in models]
    values: list[list[Tensor]] = [[] for _ in settings]
    for directions, uniforms in _directions(x, samples, seed):
        terms = [_terms(model, directions) for model in models]
        for j, (radius, law) in enumerate(settings):
            lengths = _lengths(uniforms, radius, law, x.numel()).to(x.device)
            delta = directions * lengths.to(x.dtype).reshape(-1, *[1] * x.ndim)
            truth = derivatives.value(f, x + delta, chunk).double()
            values[j].append(truth.cpu())
            for i, model in enumerate(models):
                predicted = _predict(model, terms[i], delta, lengths)
                errors[i][j].append((predicted - truth).square().cpu())
    variances = [float(_joined(parts, "f").var(correction=0)) for parts in values]
    return [
        [
            _result(parts, *setting, variance)
            for parts, setting, variance in zip(rows, settings, variances, strict=True)
        ]
        for rows in errors
    ]


def _result(parts: list[Tensor], radius: float, law: str, variance: float) -> Fidelity:
    squares = _joined(parts, "the local model")
    stderr = float(squares.std()) / math.sqrt(len(squares))
    return Fidelity(float(squares.mean()), stderr, float(radius), law, len(squares), variance)


def _check(models: Sequence[Model], x: Tensor, settings: Sequence[tuple[float, str]], samples: int) -> None:
    if not models or not all(callable(model) for model in models):
        raise ArgumentError(
            "perturbation_mse: q must be a local model such as smooth_quadratic gives, or several; "
            "for a constant model give LocalQuadratic(f(x), 0·x, None)"
        )
    if x.numel() == 0 or not x.is_floating_point():
        raise ArgumentError(f"perturbation_mse: x {list(x.shape)} must hold floating-point features")
    for model in models:
        if isinstance(model, LocalQuadratic) and model.gradient.shape != x.shape:
            raise ArgumentError(
                f"perturbation_mse: q is of inputs {list(model.gradient.shape)}, x is {list(x.shape)}; "
                "give the x at which q was made"
            )
    for radius, law in settings:
        if not (math.isfinite(radius) and radius > 0):
            raise ArgumentError(f"perturbation_mse: radius={radius:g} must be finite and positive")
        if law not in LAWS:
            raise ArgumentError(f"perturbation_mse: law={law!r} is unknown; choose 'ball' or 'paper'")
    if samples < 2:
        raise ArgumentError(f"perturbation_mse: samples={samples} must be at least 2; 15000 is usual")


def _directions(x: Tensor, samples: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random unit vectors [b, *shape] like x, and uniform numbers [b] (float64, CPU), in blocks of
    fixed size.

    Block k depends on the seed, k and d only; fewer samples are a part of more.
    """
    size = x.numel()
    rows = max(1, min(_BLOCK_ROWS, _BLOCK_ENTRIES // size))
    for block, start in enumerate(range(0, samples, rows)):
        random = seeds.generator(seed, "perturbation", block)
        uniforms = torch.rand(rows, generator=random, dtype=torch.float64)
        normals = torch.randn(rows, size, generator=random, dtype=torch.float32)
        count = min(rows, samples - start)
        unit = normals[:count].to(device=x.device, dtype=x.dtype)
        unit /= unit.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        yield unit.reshape(count, *x.shape), uniforms[:count]


def _lengths(uniforms: Tensor, radius: float, law: str, size: int) -> Tensor:
    return radius * (uniforms ** (1 / size) if law == "ball" else uniforms)


def _terms(model: Model, directions: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return (g·u, ½uᵀHu), each [B] in float64, of a quadratic model; None for any other."""
    if not isinstance(model, LocalQuadratic):
        return None
    rows = directions.flatten(1)
    linear = (rows @ model.gradient.reshape(-1)).double()
    if model.curvature is None:
        return linear, torch.zeros_like(linear)
    return linear, model.curvature.quadratic_form(rows).double() / 2


def _predict(model: Model, terms: tuple[Tensor, Tensor] | None, delta: Tensor, lengths: Tensor) -> Tensor:
    if terms is None or not isinstance(model, LocalQuadratic):
        with torch.no_grad():
            return model(delta).double()
    return model.value.double() + lengths * terms[0] + lengths.square() * terms[1]


def _joined(parts: Sequence[Tensor], what: str) -> Tensor:
    joined = torch.cat(list(parts))
    if not bool(torch.isfinite(joined).all()):
        raise ArgumentError(
            f"perturbation_mse: {what} gives numbers that are not finite; check it or make the radius smaller"
        )
    return joined
