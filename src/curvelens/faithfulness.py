"""Whether a network reacts as a map says: deletion and insertion, and the map as a model of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curvelens import derivatives, seeds
from curvelens.errors import ArgumentError
from curvelens.fidelity import Perturbations
from curvelens.targets import Function

BASELINES = ("blur", "mean", "black")
_TRUNCATED = 4  # standard deviations of the blur's kernel


@dataclass(frozen=True)
class Curves:
    """A scalar while pixels are taken out of an image, or put into a baseline, the most important first.

    Attributes:
        shares: ``[n]``, share of the pixels that are exchanged, from 0 to 1.
        deletion: ``[k, n]``, the scalars on the image with those pixels taken from the baseline.
        insertion: ``[k, n]``, the scalars on the baseline with those pixels taken from the image.
    """

    shares: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    @staticmethod
    def area(shares: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return the area under curves ``[..., n]`` by the trapezium rule: a mean over the shares."""
        return np.trapezoid(values, shares, axis=-1)


def baseline(x: Tensor, kind: str = "blur", blur: float = 0.05) -> Tensor:
    """Return what stands for an image that shows nothing.

    Args:
        x: ``[C, H, W]``.
        kind: ``blur`` (a Gaussian, beyond the border the mirrored image), ``mean`` (of each channel) or
            ``black``.
        blur: Standard deviation of the Gaussian as a share of the smaller side.

    Returns:
        Like ``x``.

    Raises:
        ArgumentError: The kind is unknown, or x is no picture.
    """
    if kind not in BASELINES:
        raise ArgumentError(f"baseline: {kind!r} is unknown; choose from {', '.join(BASELINES)}")
    if x.ndim != 3:
        raise ArgumentError(f"baseline: a picture must be [C, H, W], not {list(x.shape)}; reshape it")
    if kind == "black":
        return torch.zeros_like(x)
    if kind == "mean":
        return x.mean((1, 2), keepdim=True).expand_as(x).clone()
    from torchvision.transforms.functional import gaussian_blur

    side = min(x.shape[1:])
    sigma = blur * side
    reach = min(side - 1, max(1, round(_TRUNCATED * sigma)))  # mirroring goes no further than the picture
    return gaussian_blur(x, [2 * reach + 1] * 2, [sigma] * 2)


def removal_order(importance: np.ndarray, seed: int) -> np.ndarray:
    """Return the positions of the pixels from the most to the least important, equal ones in random order.

    Args:
        importance: ``[H, W]``.
        seed: Decides between pixels of equal importance, of which a sparse map has many.

    Returns:
        int64 ``[H·W]``.
    """
    values = importance.reshape(-1)
    shuffled = torch.randperm(values.size, generator=seeds.generator(seed, "ties")).numpy()
    return shuffled[np.argsort(-values[shuffled], kind="stable")]


def removal_curves(
    functions: Sequence[Function], x: Tensor, baseline: Tensor, order: np.ndarray, steps: int = 16
) -> Curves:
    """Exchange an image's pixels, all channels of one at a time, in the given order (Petsiuk et al. 2018).

    Args:
        functions: k scalars, ``[B, *shape] -> [B]``; those of one network share its forward passes.
        x: ``[C, H, W]``.
        baseline: Like ``x``.
        order: ``[H·W]``, see :func:`removal_order`.
        steps: Steps from none to all of the pixels, >= 1.

    Returns:
        The curves at steps + 1 shares.

    Raises:
        ArgumentError: The shapes do not fit.
    """
    pixels = x.shape[-2] * x.shape[-1]
    if baseline.shape != x.shape or order.shape != (pixels,) or steps < 1:
        raise ArgumentError(
            f"removal_curves: image {list(x.shape)}, baseline {list(baseline.shape)} and order "
            f"{list(order.shape)} do not fit, or steps = {steps} < 1; give one place for each pixel"
        )
    counts = np.rint(np.linspace(0, pixels, steps + 1)).astype(np.int64)
    rank = torch.empty(pixels, dtype=torch.int64)
    rank[torch.from_numpy(order)] = torch.arange(pixels)
    taken = rank[None] < torch.from_numpy(counts)[:, None]
    taken = taken.reshape(-1, 1, *x.shape[-2:]).to(x.device)
    deleted = derivatives.values(functions, torch.where(taken, baseline, x))
    inserted = derivatives.values(functions, torch.where(taken, x, baseline))
    return Curves(counts / pixels, deleted.double().cpu().numpy(), inserted.double().cpu().numpy())


@dataclass(frozen=True)
class MapError:
    """What a map, as the slope of a linear model, leaves unexplained.

    Attributes:
        mean: P_MSE of the linear model, in squared units of the function.
        stderr: Its standard error from the finite number of perturbations.
        unexplained: The mean divided by the mean squared change of the function: 0 for a perfect model, 1 for
            one that predicts no change.
        scale: The factor that the map was multiplied by.
        radius: ε, L2 norm.
    """

    mean: float
    stderr: float
    unexplained: float
    scale: float
    radius: float


def map_errors(
    perturbations: Perturbations, value: float, slopes: Mapping[str, Tensor]
) -> dict[str, list[MapError]]:
    """Return how well maps predict a function as slopes of linear models f(x) + a·⟨s, δ⟩.

    A map is defined up to a factor only, so each gets the factor a that suits it best: least squares on the
    first half of the perturbations. The error is measured on the other half.

    Args:
        perturbations: Values of the function around x, for every setting (radius, law).
        value: f(x).
        slopes: Maps ``[*shape]`` by name.

    Returns:
        By name, an error for each setting.
    """
    points, fitted = perturbations.points, perturbations.points.samples // 2
    rows = torch.stack([slope.flatten() for slope in slopes.values()])
    parts = [(u.flatten(1) @ rows.T.to(u), uniforms) for u, uniforms in points.blocks()]
    along = torch.cat([part for part, _ in parts]).double()
    uniforms = torch.cat([part for _, part in parts])
    found: dict[str, list[MapError]] = {name: [] for name in slopes}
    for setting, values in zip(points.settings, perturbations.values, strict=True):
        change = values - value
        predicted = along * points.lengths(uniforms, setting)[:, None]
        first, rest = slice(None, fitted), slice(fitted, None)
        squares = predicted[first].square().sum(0)
        scales = (predicted[first] * change[first, None]).sum(0) / squares.clamp_min(1e-300)
        errors = (scales * predicted[rest] - change[rest, None]).square()
        scatter = errors.std(0) / (points.samples - fitted) ** 0.5
        reference = float(change[rest].square().mean())
        for place, name in enumerate(slopes):
            mean = float(errors[:, place].mean())
            share = mean / reference if reference > 0 else float("nan")
            found[name].append(MapError(mean, float(scatter[place]), share, float(scales[place]), setting[0]))
    return found
