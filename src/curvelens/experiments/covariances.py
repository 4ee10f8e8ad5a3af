"""The shape of smoothing noise that follows the training images: per feature, or with their covariance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curvelens.errors import ConfigError

if TYPE_CHECKING:
    from curvelens.store import ImageSet

SHRINKAGE = 0.05
LARGEST = 8192  # features; a factor of more takes over 256 MiB
_ROWS = 4096


def shape(images: ImageSet, kind: str, shrinkage: float = SHRINKAGE) -> np.ndarray:
    """Return what multiplies σ so that the noise follows the images, with a mean variance of one.

    With S the covariance of the pixels in [0, 1] and v its mean diagonal entry, the noise has covariance σ²R,
    ``R = (1 − a) S/v + a I`` with a the shrinkage: its mean variance is σ², and no feature, constant ones
    included, has less than a σ².

    Args:
        images: Training images, at least two.
        kind: ``per_feature`` (R without its off-diagonal entries) or ``full``.
        shrinkage: a, in (0, 1].

    Returns:
        Standard deviations ``[C, H, W]`` for ``per_feature``, the Cholesky factor of R, lower triangular
        ``[d, d]``, for ``full``; float32.

    Raises:
        ConfigError: The kind is unknown, the images are all equal, or too large for a full covariance.
    """
    if kind not in ("per_feature", "full"):
        raise ConfigError(f"fidelity.covariance: {kind!r} follows no images; choose per_feature or full")
    pixels = images.images.reshape(len(images), -1)
    size = pixels.shape[1]
    if kind == "full" and size > LARGEST:
        raise ConfigError(
            f"fidelity.covariance: full takes a {size} x {size} matrix; choose per_feature above {LARGEST}"
        )
    mean = pixels.mean(0, dtype=np.float64) / 255
    variance = np.square(pixels.std(0, dtype=np.float64) / 255)
    level = variance.mean()
    if not level > 0:
        raise ConfigError("fidelity.covariance: the training images are all equal; choose isotropic")
    if kind == "per_feature":
        deviation = np.sqrt((1 - shrinkage) * variance / level + shrinkage)
        return deviation.reshape(images.images.shape[1:]).astype(np.float32)
    S = np.zeros((size, size))
    for start in range(0, len(pixels), _ROWS):
        centred = (pixels[start : start + _ROWS] / 255 - mean).astype(np.float32)
        S += centred.T @ centred
    R = (1 - shrinkage) * S / (len(pixels) * level) + shrinkage * np.eye(size)
    return np.linalg.cholesky(R).astype(np.float32)
