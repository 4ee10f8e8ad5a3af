"""Whether a map stays when the image hardly changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from curvelens import seeds
from curvelens.errors import ArgumentError

if TYPE_CHECKING:
    from quantus.metrics.base import Metric


def noisy_images(x: Tensor, sigma: float, draws: int, seed: int) -> Tensor:
    """Return ``[draws, *shape]`` copies of an image with independent Gaussian noise, not clipped.

    Args:
        x: ``[*shape]``.
        sigma: Standard deviation of a pixel's noise.
        draws: Number of copies.
        seed: Seed of the noise.
    """
    random = seeds.generator(seed, "stability")
    noise = [torch.randn(x.shape, generator=random).to(x) for _ in range(draws)]
    return torch.stack([x + sigma * one for one in noise])


def sensitivity(
    x: Tensor, noisy: Tensor, original: Tensor, perturbed: Sequence[Tensor]
) -> tuple[float, float]:
    """Return by how much a map changes under noise, on average and at most (Yeh et al. 2019, eq. 4).

    Maps are scaled to unit length first, so that methods compare: 0 for a map that stays, √2 for one that has
    nothing to do with the first, 2 for its negative. Computed by Quantus.

    Args:
        x: ``[*shape]``, the image.
        noisy: ``[n, *shape]``, copies of it with noise.
        original: ``[*shape]``, its map.
        perturbed: n maps ``[*shape]``, of the copies.

    Returns:
        Mean and maximum over the copies; NaN for maps that are zero.

    Raises:
        ArgumentError: There are no copies, or not as many maps.
    """
    if not len(noisy) == len(perturbed) > 0:
        raise ArgumentError(
            f"sensitivity: {len(perturbed)} maps for {len(noisy)} copies; give one for each, one at least"
        )
    if not all(bool(one.any()) for one in (original, *perturbed)):
        return float("nan"), float("nan")
    from quantus import AvgSensitivity, MaxSensitivity

    found = [_quantus(kind, x, noisy, original, perturbed) for kind in (AvgSensitivity, MaxSensitivity)]
    return found[0], found[1]


def _quantus(
    kind: Callable[..., Metric[Any]], x: Tensor, noisy: Tensor, original: Tensor, perturbed: Sequence[Tensor]
) -> float:
    """Hand Quantus the copies and maps in their order; it draws its own noise from a seed shared by all."""
    # Quantus iterates over "samples" and asks for a copy and its map each time.
    copies = iter([one.double().cpu().numpy().reshape(1, -1) for one in noisy])
    maps = iter([one.double().cpu().numpy()[None] for one in perturbed])
    metric = kind(
        nr_samples=len(noisy),
        normalise=True,
        normalise_func=_unit,
        perturb_func=lambda arr, indices, **_: next(copies),
        disable_warnings=True,
    )
    scores = metric(
        model=nn.Identity(),  # the maps are there already
        x_batch=x.double().cpu().numpy()[None],
        y_batch=np.zeros(1, np.int64),
        a_batch=original.double().cpu().numpy()[None],
        explain_func=lambda **_: next(maps),
        channel_first=True,
    )
    return float(scores[0])


def _unit(maps: np.ndarray) -> np.ndarray:
    """Scale each map ``[B, ...]`` to unit length."""
    lengths = np.sqrt((maps**2).sum(tuple(range(1, maps.ndim)), keepdims=True))
    return np.asarray(maps / lengths)
