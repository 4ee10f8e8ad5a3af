"""The gallery's pictures: of bounded size, as ``data:`` addresses, and what they show in words."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from curvelens.figures import maps
from curvelens.figures.wording import percent

LARGEST_SIDE = 224
"""Pixels of a stored picture; larger ones are reduced, so that the size of the gallery is bounded."""

_LEVELS = 65  # colours of a map; an odd number has a middle one for zero
_THIRDS = (("upper", "middle", "lower"), ("left", "centre", "right"))


def where(values: np.ndarray, signed: bool) -> str:
    """Say in words what a map shows: in which of nine parts it is strongest, and its sign.

    Args:
        values: ``[H, W]``.
        signed: Whether the sign means something.
    """
    size = np.abs(values).astype(float)
    total = size.sum()
    if not total:
        return "zero everywhere."
    parts = [
        [block.sum() for block in np.array_split(band, 3, axis=1)] for band in np.array_split(size, 3, axis=0)
    ]
    row, column = np.unravel_index(int(np.argmax(parts)), (3, 3))
    share = parts[row][column] / total
    place = f"{_THIRDS[0][row]} {_THIRDS[1][column]}".replace("middle centre", "centre")
    sign = f"; {percent(float(values.clip(min=0).sum() / total))} of it positive" if signed else ""
    return f"strongest in the {place} ninth, with {percent(float(share))} of its magnitude{sign}."


def reduced(values: np.ndarray, side: int = LARGEST_SIDE) -> np.ndarray:
    """Return values ``[H, W]`` or ``[H, W, C]`` at most ``side`` wide and high, means over whole blocks."""
    step = -(-max(values.shape[:2]) // side)
    if step == 1:
        return values
    padding = [(0, -length % step) for length in values.shape[:2]] + [(0, 0)] * (values.ndim - 2)
    padded = np.pad(values.astype(float), padding, mode="edge")
    height, width = (length // step for length in padded.shape[:2])
    return padded.reshape(height, step, width, step, *values.shape[2:]).mean(axis=(1, 3))


def coloured(values: np.ndarray, signed: bool, largest: float | None = None) -> str:
    """Return a map ``[H, W]`` as a picture, a ``data:`` address; processed as in figures.

    Args:
        values: The map.
        signed: Whether its sign means something.
        largest: Magnitude at which it is capped; None takes its own, see :func:`curvelens.figures.maps.cap`.
    """
    import matplotlib
    from PIL import Image

    colours = matplotlib.colormaps[maps.SIGNED if signed else maps.MAGNITUDE]
    palette = (colours(np.linspace(0, 1, _LEVELS))[:, :3] * 255).round().astype(np.uint8)
    scaled = maps.scaled(reduced(values), signed, largest)
    image = Image.fromarray((scaled * (_LEVELS - 1)).round().astype(np.uint8))
    image.putpalette(palette.tobytes())
    return _encoded(image)


def png(pixels: np.ndarray) -> str:
    """Return pixels, uint8 ``[H, W]`` or ``[H, W, 3]``, as a ``data:`` address."""
    from PIL import Image

    return _encoded(Image.fromarray(pixels))


def _encoded(image: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
