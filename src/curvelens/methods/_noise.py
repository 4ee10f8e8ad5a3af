"""Gradients at noisy copies of an image."""

from __future__ import annotations

from torch import Tensor

from curvelens.methods import Copies
from curvelens.seeds import derive
from curvelens.smoothing import GradientMoments, smooth_gradient, smooth_quadratic
from curvelens.targets import Scalar


def noisy_copies(f: Scalar, x: Tensor, seed: int, sigma: float, samples: int, curvature: bool) -> Copies:
    """Return moments of the gradient over Gaussian copies of ``x`` and, from the same calls, SmoothHess.

    The copies come in pairs x ± σz with directions z from Haar-random orthogonal matrices: expectations are
    those under N(0, I), with less noise than from independent copies.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[*shape]``.
        seed: Seed of the noise.
        sigma: Standard deviation of the noise, > 0.
        samples: Number of copies, >= 4; rounded down to an even one.
        curvature: Whether SmoothHess is wanted.
    """
    noise = derive(seed, "noisy copies")
    if not curvature:
        return Copies(smooth_gradient(f, x, sigma, samples, noise))
    q = smooth_quadratic(f, x, sigma, samples, seed=noise)
    moments = GradientMoments(q.gradient, q.info["gradient_variance"], q.info["gradient_stderr"], q.calls)
    return Copies(moments, q)
