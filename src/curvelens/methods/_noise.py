"""Moments of the gradient over noisy copies of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from curvelens import derivatives, seeds
from curvelens.targets import Scalar

# Noise is drawn in blocks of this many copies, so that memory does not depend on how many are asked for, and
# no other chunking can change a result.
BLOCK = 256


def gradient_moments(f: Scalar, x: Tensor, seed: int, sigma: float, samples: int) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased variance of the gradient over ``samples`` Gaussian copies of ``x``.

    Blocks are joined by the update of Chan, Golub and LeVeque (1983): the textbook ``E[g^2] - E[g]^2``
    cancels in single precision wherever the gradient is nearly constant.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[*shape]``.
        seed: Seed of the noise.
        sigma: Standard deviation of the noise, > 0.
        samples: Number of copies, >= 2.

    Returns:
        ``mean`` and ``variance``, each ``[*shape]``.
    """
    mean = torch.zeros_like(x)
    squares = torch.zeros_like(x)
    seen = 0
    for start in range(0, samples, BLOCK):
        count = min(BLOCK, samples - start)
        noise = torch.randn(count, *x.shape, generator=seeds.generator(seed, "noisy copies", start))
        gradients = derivatives.gradient(f, x + sigma * noise.to(x))
        block_mean = gradients.mean(0)
        difference = block_mean - mean
        mean = mean + difference * (count / (seen + count))
        squares = (
            squares
            + (gradients - block_mean).square().sum(0)
            + difference**2 * (seen * count / (seen + count))
        )
        seen += count
    return mean, squares / (samples - 1)
