"""Interactions of one super-pixel with all others as maps over the image, one column a local model."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import entry, succeeded
from curvelens.figures.pixels import said
from curvelens.figures.wording import count, listing, number, percent, plain, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

SHOWN = 4
NAMES = {"SH+SG": "SmoothHess", "SP H+G": "SoftPlus Hessian", "SW H+G": "Swish Hessian"}
_CLEAR = 2.0  # standard errors beyond which an interaction is marked as told apart from none
_MAP, _OPACITY = "RdBu_r", 0.7


def methods(rows: DataFrame) -> list[str]:
    """Return the methods present, in the order of the paper."""
    return [name for name in NAMES if name in set(rows["method"])]


def _rows(tables: Tables) -> DataFrame:
    return succeeded(tables["superpixels"])


def _images(rows: DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["image_id"]))[:SHOWN]


def map_of(found: dict[str, np.ndarray], method: int, shown: int) -> np.ndarray:
    """Return the interactions of a super-pixel with every other one as a map.

    Args:
        found: ``segments`` ``[H, W]`` and ``interactions`` ``[m, s, s]`` of one image.
        method: Position of the method.
        shown: The super-pixel; it is NaN itself.

    Returns:
        ``[H, W]``.
    """
    values = found["interactions"][method, shown].astype(float)
    values[shown] = np.nan
    return values[found["segments"]]


def scale(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of a colour scale: the most negative and the most positive value, 0 in between."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    width = high - low
    if width < np.finfo(np.float32).tiny:  # a network that is linear nearby has no interactions to scale by
        return -1.0, 1.0
    # A scale needs some room on both sides of zero, also where all interactions have one sign.
    return min(low, -1e-3 * width), max(high, 1e-3 * width)


def _outline(mask: np.ndarray, axes: Axes) -> None:
    """Draw the border of a region along the edges of its pixels."""
    from matplotlib.collections import LineCollection

    padded = np.pad(mask, 1)
    across = [[(x - 1.5, y - 0.5), (x - 0.5, y - 0.5)] for y, x in np.argwhere(padded[1:] != padded[:-1])]
    down = [[(x - 0.5, y - 1.5), (x - 0.5, y - 0.5)] for y, x in np.argwhere(padded[:, 1:] != padded[:, :-1])]
    axes.add_collection(LineCollection(across + down, colors="black", linewidths=1.6))


def _panel(
    figure: Figure,
    axes: Axes,
    pixels: np.ndarray,
    found: dict[str, np.ndarray],
    place: int,
    row: Any,
    limits: tuple[float, float],
) -> None:
    from matplotlib.colors import TwoSlopeNorm

    grey = pixels.mean(-1) if pixels.ndim == 3 else pixels
    axes.imshow(grey, cmap="gray", vmin=-200, vmax=255)
    norm = TwoSlopeNorm(0.0, *limits)
    drawn = axes.imshow(map_of(found, place, row.shown), cmap=_MAP, norm=norm, alpha=_OPACITY)
    _outline(found["segments"] == row.shown, axes)
    _marks(axes, found, place, row)
    bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", fraction=0.05, pad=0.03, aspect=22)
    low, high = limits
    ends = [end for end in (low, 0.0, high) if end == 0 or abs(end) > 0.01 * (high - low)]
    bar.set_ticks(ends, labels=[number(end) for end in ends], fontsize=7)
    bar.outline.set_visible(False)


def _marks(axes: Axes, found: dict[str, np.ndarray], place: int, row: Any) -> None:
    """Put a dot on every super-pixel whose interaction is told apart from none, where errors are known."""
    errors = found["errors"][place, row.shown]
    if not np.nanmax(errors, initial=0.0) > 0:
        return
    values = found["interactions"][place, row.shown]
    for segment in np.flatnonzero(np.abs(values) > _CLEAR * errors):
        if segment != row.shown:
            y, x = np.argwhere(found["segments"] == segment).mean(0)
            axes.plot(x, y, "o", markersize=3, color="black")


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw an image a row on a page; on a telephone its panels two by two."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = _rows(tables)
    room = ConstrainedLayoutEngine(h_pad=0.12)  # titles of two lines stand beside panels with a colour bar
    shown, names = _images(rows), methods(rows)
    panels = 1 + len(names)
    across = 2 if layout.narrow else max(panels, 3)
    down = -(-panels // across) * max(len(shown), 1)
    size = layout.width / across
    figure = Figure(figsize=(layout.width, down * (size * 1.12 + 0.5)), layout=room)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    if not shown:
        style.empty(grid[0, 0], "no image was computed")
    for index, image_id in enumerate(shown):
        step = down // len(shown)
        place = grid[index * step : (index + 1) * step].ravel()
        _image(figure, place, tables, image_id, rows)
    return figure


def _image(figure: Figure, place: Any, tables: Tables, image_id: str, rows: DataFrame) -> None:
    found = entry(tables["superpixel_maps"], image_id)
    names = found["methods"].tolist()
    pixels = np.moveaxis(entry(tables["images"], image_id)["images"], 0, -1).squeeze()
    of_image = {row.method: row for row in rows[rows["image_id"] == image_id].itertuples()}
    place[0].imshow(pixels, cmap="gray", vmin=0, vmax=255)
    first = next(iter(of_image.values()))
    place[0].set_title(
        style.literal(textwrap.fill(said(tables, first), 24)),
        fontsize=8.5,
        loc="center",
        fontweight="normal",
    )
    _outline(found["segments"] == first.shown, place[0])
    order = [name for name in NAMES if name in of_image]
    maps = {name: map_of(found, names.index(name), of_image[name].shown) for name in order}
    together = scale(np.stack(list(maps.values())))
    for axes, name in zip(place[1:], order, strict=False):
        row = of_image[name]
        limits = together if row.shared_scale else scale(maps[name])
        _panel(figure, axes, pixels, found, names.index(name), row, limits)
        axes.set_title(
            f"{NAMES[name]}\nP_MSE = {number(row.pmse)}", fontsize=8.5, loc="center", fontweight="normal"
        )


def finding(tables: Tables) -> str:
    """Return what the interactions show, and how well they are known."""
    rows = _rows(tables)
    if rows.empty:
        return ""
    first = methods(rows)[0]
    own = rows[rows["method"] == first]
    n, near = len(own), int(own["touching"].sum())
    best = rows.loc[rows.groupby("image_id")["pmse"].idxmin(), "method"]
    wins = int((best == first).sum())
    several = len(methods(rows)) > 1
    known = own["relative_error"].astype(float).median()
    clear = _clear(own)
    return sentences(
        f"Gradient calls were too few to tell which parts of an image act together: the interactions of "
        f"{NAMES[first]} have a median relative error of {percent(known)} (n = {n})."
        if known >= 1
        else f"A part of an image acts most with a neighbour in {near} of {count(n, 'image')}: so often the "
        f"strongest partner of the super-pixel shown has a border with it, by {NAMES[first]}"
        + (f", whose interactions have a median relative error of {percent(known)}." if known > 0 else "."),
        f"Of the interactions shown {percent(clear)} differ from zero by more than two standard errors."
        if clear == clear
        else "",
        f"{NAMES[first]} has the lowest P_MSE (ε = {plain(own['radius'].iloc[0])}) in {wins} of {n}."
        if several
        else "",
    )


def _clear(own: DataFrame) -> float:
    """Return the share of strongest interactions beyond two standard errors; NaN where there is no error."""
    known = own[own["interaction_error"].astype(float) > 0]
    if known.empty:
        return float("nan")
    return float((known["interaction"].abs() > _CLEAR * known["interaction_error"]).mean())


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = _rows(tables)
    if rows.empty:
        return "No image was computed."
    shown = _images(rows)
    numbers = rows.drop_duplicates("image_id")["superpixels"]
    others = rows[(rows["method"] != methods(rows)[0])]
    agreement = listing(
        f"{NAMES[name]} {number(group['agreement'].astype(float).median())}"
        for name, group in others.groupby("method", sort=False)
    )
    low, high = int(numbers.min()), int(numbers.max())
    segments = str(low) if low == high else f"{low} to {high}"
    shared = bool(rows["shared_scale"].any())
    return sentences(
        finding(tables),
        f"{count(len(shown), 'image')} of {rows['image_id'].nunique()}, each divided into {segments} "
        "super-pixels by SLIC; Hessians of the predicted logit summed over pairs of super-pixels.",
        "Drawn are the interactions of the super-pixel outlined in black with every other one: the one that "
        "interacts most, by the first method, with the super-pixel on which the score depends most (the "
        "largest sum of the gradient).",
        "Red: brightening both raises the score by more than each alone; blue: by less.",
        "Colour scale, in logits: "
        + (
            "one for all maps of an image, white at 0."
            if shared
            else "of each map its own, from its least to its largest, white at 0."
        ),
        "A dot marks an interaction beyond two standard errors of its sampling.",
        f"Correlation of all interactions between different super-pixels with those of "
        f"{NAMES[methods(rows)[0]]} (median): {agreement}."
        if agreement
        else "",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = _rows(tables)
    if rows.empty:
        return "No image was computed."
    parts = []
    for image_id in _images(rows):
        of_image = rows[rows["image_id"] == image_id]
        told = listing(
            f"{NAMES[row.method]} {number(row.interaction)} with super-pixel {row.partner} "
            f"(P_MSE {number(row.pmse)})"
            for row in of_image.itertuples()
        )
        parts.append(f"{said(tables, next(of_image.itertuples()))}: {told}")
    return (
        f"Images with maps of interactions between super-pixels. Strongest interaction: {'; '.join(parts)}."
    )


register(
    FigureSpec(
        name="superpixels",
        tables=("superpixels", "superpixel_maps", "images"),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        suffix=".png",
        rank=55,
    )
)
