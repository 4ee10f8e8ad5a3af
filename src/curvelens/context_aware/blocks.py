"""Dividing an image into blocks of values that an explanation takes or leaves as a whole."""

from __future__ import annotations

import numpy as np

from curvelens.errors import ArgumentError
from curvelens.superpixels import slic_segments

BLOCKS = ("values", "channels", "patches", "superpixels")


def block_labels(
    kind: str,
    image: np.ndarray,
    *,
    patch: int = 8,
    segments: tuple[int, int] = (60, 90),
    compactness: float | None = None,
) -> np.ndarray | None:
    """Return the group of each pixel, as ``groups`` of :func:`~curvelens.context_aware.caso` takes it.

    Args:
        kind: ``values`` (each by itself), ``channels`` (those of a pixel together), ``patches`` (squares of
            pixels, all channels) or ``superpixels`` (regions of like colour by SLIC, all channels).
        image: uint8 ``[C, H, W]``; super-pixels need C = 1 or 3.
        patch: Side of a square in pixels, ≥ 1; squares at the right and lower border may be cut.
        segments: Fewest and most super-pixels.
        compactness: Of super-pixels, see :func:`~curvelens.superpixels.slic_segments`.

    Returns:
        int64 ``[H, W]``, numbers 0 to n − 1; None for ``values``.

    Raises:
        ArgumentError: The kind does not exist, an argument is out of range, or no super-pixels are found.
    """
    if kind not in BLOCKS:
        raise ArgumentError(f"blocks: {kind!r} does not exist; choose from {', '.join(BLOCKS)}")
    if image.ndim != 3 or patch < 1:
        raise ArgumentError(
            f"blocks: image {list(image.shape)} must be [C, H, W] and patch={patch} at least 1"
        )
    height, width = image.shape[1:]
    if kind == "values":
        return None
    if kind == "channels":
        return np.arange(height * width).reshape(height, width)
    if kind == "patches":
        down, across = np.arange(height) // patch, np.arange(width) // patch
        return down[:, None] * (int(across[-1]) + 1) + across[None]
    return slic_segments(image, segments, compactness)
