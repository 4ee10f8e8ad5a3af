"""What figures of two classes' explanations share: finding maps, colour scales, regions in two colours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens import overlap
from curvelens.errors import DataError
from curvelens.figures import Tables, style
from curvelens.figures.wording import plain, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTILE = 0.99
SIGNED, MAGNITUDE = "RdBu_r", "Purples"
COLOURS = (style.BLUE, style.VERMILLION)
MAPS = ("Blues", "Oranges")
BOTH = style.INK


def found(tables: Tables, row: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps ``[2, H, W]`` of a row, channels summed, and the image's pixels ``[H, W(, 3)]``."""
    for arrays in tables["competing_maps"]:
        same = (arrays["ids"] == row.image_id) & (arrays["part"] == row.part)
        place = np.flatnonzero(same & (arrays["method"] == row.method))
        if place.size:
            pixels = np.moveaxis(arrays["pixels"][place[0]], 0, -1).squeeze()
            return arrays["maps"][place[0]].astype(np.float64).sum(1), pixels
    raise DataError(f"image {row.image_id!r} is in the table but not among the maps; make both again")


def cap(values: np.ndarray) -> float:
    """Return the value at which a colour scale ends, from the magnitudes of all maps on it."""
    return float(np.quantile(np.abs(values), QUANTILE)) or float(np.abs(values).max()) or 1.0


def show(axes: Axes, values: np.ndarray, largest: float, signed: bool) -> None:
    """Draw one map: signed ones with zero in the middle of a diverging scale, magnitudes from white."""
    axes.imshow(values, cmap=SIGNED if signed else MAGNITUDE, vmin=-largest if signed else 0.0, vmax=largest)


def overlay(maps: np.ndarray, pixels: np.ndarray, share: float, blur: float) -> np.ndarray:
    """Lay what stands out of two maps over a pale grey picture, each in its own colour map.

    Args:
        maps: ``[2, H, W]``.
        pixels: uint8 ``[H, W]`` or ``[H, W, 3]``.
        share, blur: The rule, see :func:`curvelens.overlap.kept`.

    Returns:
        ``[H, W, 3]`` in [0, 1]; pixels that both classes keep are dark.
    """
    import matplotlib as mpl
    from matplotlib.colors import to_rgb

    grey = (pixels.mean(-1) if pixels.ndim == 3 else pixels) / 255
    canvas = np.repeat((0.35 + 0.65 * grey)[..., None], 3, 2)
    regions = [overlap.kept(one, share, blur) for one in maps]
    for one, region, name in zip(maps, regions, MAPS, strict=True):
        strength = overlap.magnitude(one, blur)
        scaled = np.clip(strength / (strength.max() or 1.0), 0, 1)
        canvas[region] = mpl.colormaps[name](0.45 + 0.5 * scaled)[region][..., :3]
    canvas[regions[0] & regions[1]] = to_rgb(BOTH)
    return canvas


def rule(row: Any) -> str:
    """Say which pixels are kept."""
    blurred = f", blurred by a Gaussian of {plain(row.blur)} pixels" if row.blur > 0 else ""
    return f"the {row.keep:.0%} of the pixels with the largest magnitude{blurred}"


def plain_axes(axes: Axes) -> None:
    """Take ticks and frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def label(image_id: str, room: int = 24) -> str:
    """Return an image's name without data set and kind of file, in at most ``room`` letters."""
    name = re.sub(r"^.*/|\.[A-Za-z]{3,4}$", "", image_id) or image_id
    return shortened(name, room)


def share(p: float) -> str:
    """Return a probability in per cent; it is neither rounded to certainty nor to impossibility."""
    return "> 99.9%" if p > 0.999 else "< 0.1%" if p < 0.001 else f"{p:.1%}"
