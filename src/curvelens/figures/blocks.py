"""CASO where single values, channels, patches or super-pixels are zero as a whole, each with its own λ₁."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import entry, succeeded
from curvelens.figures.pixels import confidence, picture, said
from curvelens.figures.sparsity_path import scaled
from curvelens.figures.wording import count, listing, number, sentences
from curvelens.summaries.sparsity import CASO, METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

IMAGES = 3
NAMES = {
    "values": "single values",
    "channels": "channels of a pixel",
    "patches": "patches",
    "superpixels": "super-pixels",
}
_COUNTED = {"values": "pixel", "channels": "pixel", "patches": "patch", "superpixels": "super-pixel"}
_PLURALS = {"patch": "patches"}
_WHOLE = ("patches", "superpixels")
_PALEST = 0.25  # so far below zero starts the colour scale, that a small value is still seen
_ALIKE = 0.9  # Jaccard index from which on two supports are called alike


def kinds(rows: DataFrame) -> list[str]:
    """Return the kinds of block present, the finest first."""
    present = set(rows["block"])
    return [name for name in NAMES if name in present]


def _rows(tables: Tables) -> DataFrame:
    rows = succeeded(tables["sparsity"])
    return rows[rows["chosen"].astype(bool)]


def _images(rows: DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["image_id"]))[:IMAGES]


def block_map(values: np.ndarray, labels: np.ndarray, kind: str) -> np.ndarray:
    """Return an explanation as it is drawn: of patches and super-pixels the mean magnitude of each.

    Args:
        values: Magnitudes summed over channels, [H, W].
        labels: Block of each pixel, [H, W], 0 to n − 1.
        kind: Kind of block.

    Returns:
        [H, W], in [0, 1].
    """
    if kind not in _WHOLE:
        return scaled(values)
    totals = np.bincount(labels.ravel(), values.ravel()) / np.maximum(np.bincount(labels.ravel()), 1)
    drawn: np.ndarray = totals[labels] / (totals.max() or 1.0)
    return drawn


def _counted(kind: str, n: int) -> str:
    noun = _COUNTED[kind]
    return count(n, noun, _PLURALS.get(noun))


def kept(row: Any) -> int:
    """Return how many blocks of a row are not zero."""
    return round((1 - row.block_sparsity) * row.blocks)


def _panel(axes: Axes, pixels: np.ndarray, drawn: np.ndarray, row: Any, narrow: bool) -> None:
    if row.block in _WHOLE:
        grey = pixels.mean(-1) if pixels.ndim == 3 else pixels
        axes.imshow(grey, cmap="gray", vmin=-100, vmax=255)
        over = np.ma.masked_where(drawn == 0, drawn)
        axes.imshow(over, cmap="YlOrRd", vmin=-_PALEST, vmax=1, alpha=0.75)
    else:
        axes.imshow(drawn, cmap="Greys", vmin=0, vmax=1)
    whole = f"{int(row.blocks):,}" if narrow else _counted(row.block, int(row.blocks))
    axes.set_xlabel(f"η = {row.block_sparsity:.3f}\n{kept(row):,} of {whole}", fontsize=7.5, labelpad=2)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(style.GRID)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw an image a row on a page, a column on a telephone."""
    from matplotlib.figure import Figure

    rows = _rows(tables)
    rows = rows[rows["method"] == CASO]
    images, names = _images(rows), kinds(rows)
    if not images:
        figure, axes = style.panels(layout, 1)
        style.empty(axes[0], "no image was computed")
        return figure
    across = len(images) if layout.narrow else 1 + len(names)
    down = 1 + len(names) if layout.narrow else len(images)
    size = layout.width / max(across, 3)
    figure = Figure(figsize=(layout.width, down * (size + 0.38) + 0.25), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    grid = grid.T if layout.narrow else grid
    for line, image_id in zip(grid, images, strict=True):
        found = entry(tables["sparsity_maps"], image_id)
        pixels = picture(tables, image_id)
        of_image = {row.block: row for row in rows[rows["image_id"] == image_id].itertuples()}
        first = next(iter(of_image.values()))
        for axes in line:
            _bare(axes)
        line[0].imshow(pixels, cmap="gray", vmin=0, vmax=255)
        text = style.literal(textwrap.fill(said(tables, first), 16 if layout.narrow else 24))
        line[0].set_xlabel(f"{text}\n{confidence(first.confidence)}", fontsize=7.5, labelpad=2)
        for axes, kind in zip(line[1:], names, strict=True):
            place = found["blocks"].tolist().index(kind)
            values = found["chosen"][place, METHODS.index(CASO)]
            drawn = block_map(values, found["labels"][place], kind)
            _panel(axes, pixels, drawn, of_image[kind], layout.narrow)
    for place, kind in enumerate(names, 1):
        if layout.narrow:
            grid[0, place].set_ylabel(NAMES[kind], fontsize=8, fontweight="bold")
        else:
            grid[0, place].set_title(NAMES[kind], fontsize=8.5, loc="center")
    return figure


def _medians(rows: DataFrame, method: str, column: str) -> dict[str, float]:
    some = rows[rows["method"] == method]
    return {
        kind: float(some.loc[some["block"] == kind, column].astype(float).median()) for kind in kinds(some)
    }


def caption(tables: Tables) -> str:
    """Return what was found, what is drawn, and the n."""
    rows = _rows(tables)
    if rows.empty:
        return "No image was computed."
    etas = _medians(rows, CASO, "block_sparsity")
    overlap = _medians(rows, CASO, "jaccard_gradient")
    told = listing(f"{NAMES[kind]} {value:.3f}" for kind, value in etas.items())
    shared = listing(f"{NAMES[kind]} {number(value)}" for kind, value in overlap.items() if value == value)
    return sentences(
        _curvature(rows),
        f"Median η of CASO chosen by the same rule, counted in what is zero as a whole: {told}.",
        f"Jaccard index with the gradient clipped to as many: {shared} (medians)." if shared else "",
        "Each kind of block has a path of its own; λ₁ weighs √n‖Δ‖ of a block of n values.",
        "Single values and channels: magnitudes summed over channels, black the largest. Patches and "
        "super-pixels: the mean magnitude of each, dark red the largest, over the image in grey.",
        f"{count(len(_images(rows)), 'image')} of {rows['image_id'].nunique()}.",
    )


def _curvature(rows: DataFrame) -> str:
    """Say whether CASO takes other blocks than CAFO."""
    found = {kind: value for kind, value in _medians(rows, CASO, "jaccard_cafo").items() if value == value}
    if not found:
        return ""
    told = listing(f"{NAMES[kind]} {number(value, 3)}" for kind, value in found.items())
    claim = "hardly decides" if min(found.values()) >= _ALIKE else "helps decide"
    return (
        f"Curvature {claim} which blocks are taken: Jaccard index of CASO with CAFO of as many blocks {told} "
        "(medians)."
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = _rows(tables)
    if rows.empty:
        return "No image was computed."
    caso = rows[rows["method"] == CASO]
    parts = []
    for image_id in _images(caso):
        of_image = {row.block: row for row in caso[caso["image_id"] == image_id].itertuples()}
        told = listing(
            f"{kept(of_image[kind]):,} of {_counted(kind, int(of_image[kind].blocks))}"
            + (" by their channels" if kind == "channels" else "")
            for kind in kinds(caso)
        )
        parts.append(f"{said(tables, next(iter(of_image.values())))}: kept are {told}")
    return f"Images beside CASO maps for each kind of block. {'; '.join(parts)}."


register(
    FigureSpec(
        name="blocks",
        tables=("sparsity", "sparsity_maps", "images"),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        suffix=".png",
        rank=36,
    )
)
