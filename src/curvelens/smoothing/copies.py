"""Noisy copies of an input, for functions that gradients alone do not give."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.smoothing.directions import Directions


def gaussian_copies(x: Tensor, sigma: float, count: int, seed: int = 0) -> Tensor:
    """Return points that are each distributed as x + N(0, σ²I).

    They come in pairs x ± σz with z along rows of Haar-random orthogonal matrices, up to 256 of them
    orthogonal to each other, and lengths from χ_d: means over the copies have the expectation of those over
    independent ones and vary less.

    Args:
        x: ``[*shape]``.
        sigma: σ > 0.
        count: Number of copies, ≥ 2; rounded down to an even one.
        seed: Same seed, same copies.

    Returns:
        ``[count, *shape]``.

    Raises:
        ArgumentError: σ or the number is out of range.
    """
    if not (math.isfinite(sigma) and sigma > 0) or count < 2:
        raise ArgumentError(f"gaussian_copies: needs sigma = {sigma:g} > 0 and count = {count} >= 2")
    flat = x.detach().reshape(-1)
    z, _ = Directions("orthogonal", len(flat), seed, flat, "chi", whole=False).take(count // 2)
    step = sigma * z
    return torch.cat([flat + step, flat - step]).reshape(-1, *x.shape)
