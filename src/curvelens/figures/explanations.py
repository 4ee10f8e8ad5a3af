"""Images beside their explanations, signed maps on a diverging scale and magnitudes on a sequential one."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, maps, pixels, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import count, listing, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

SHOWN = 6
_GRID = 5  # most methods that a telephone has room for beside each other
_LOSS = ("cafo", "caso", "smoothcafo", "smoothcaso")


def methods_in(rows: DataFrame) -> list[str]:
    """Return the methods of an index, those known by name first."""
    return maps.ordered(rows["method"].unique().tolist())


def chosen(tables: Tables) -> DataFrame:
    """Return one row for each image shown: those that every method explained, the surest, the least sure, and
    errors.

    Returns:
        At most :data:`SHOWN` rows, by falling confidence; up to two are misclassified.
    """
    import pandas as pd

    rows = succeeded(tables["explanations"])
    complete = rows.groupby("image_id")["method"].nunique() == rows["method"].nunique()
    images = rows[rows["image_id"].isin(complete[complete].index)].drop_duplicates("image_id")
    images = images.sort_values(["confidence", "image_id"], ascending=[False, True])
    mistaken = misclassified(images)
    right, wrong = images[~mistaken], images[mistaken]
    wrong = wrong.head(max(2, SHOWN - len(right)))
    places = np.unique(
        np.linspace(0, len(right) - 1, min(SHOWN - len(wrong), len(right))).round().astype(int)
    )
    picked = pd.concat([right.iloc[places], wrong]) if len(wrong) else right.iloc[places]
    return picked.sort_values(["confidence", "image_id"], ascending=[False, True])


def misclassified(rows: DataFrame) -> Any:
    """Return for each row whether the true class is known and another one was predicted."""
    return (rows["label"] != rows["prediction"]) & (rows["label"] >= 0)


def _show(axes: Axes, values: np.ndarray, method: str) -> None:
    signed = maps.is_signed(method, values)
    colours = maps.SIGNED if signed else maps.MAGNITUDE
    axes.imshow(maps.scaled(values, signed), cmap=colours, vmin=0, vmax=1)


def _title(tables: Tables, row: Any, inches: float, lines: int = 3) -> str:
    """Return what is said of an image in so many lines of so many inches at most, and its confidence."""
    # A letter of 8 points is about 0.062 inches wide.
    said = textwrap.fill(
        pixels.said(tables, row), max(12, int(inches / 0.062)), max_lines=lines, placeholder="…"
    )
    return f"{said}\n{pixels.confidence(row.confidence)}"


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one image a column on a page, a row on a telephone; where there are many methods, a block."""
    from matplotlib.figure import Figure

    images, methods = chosen(tables), methods_in(succeeded(tables["explanations"]))
    if images.empty:
        figure = Figure(figsize=(layout.width, 1.5), layout="constrained")
        style.empty(figure.subplots(), "no image was explained by every method")
        return figure
    return (_grid if len(methods) <= _GRID else _blocks)(tables, layout, images, methods)


def _blocks(tables: Tables, layout: style.Layout, images: DataFrame, methods: list[str]) -> Figure:
    """Draw a block for each image: the image and its maps, as many beside each other as can be told apart."""
    from matplotlib.figure import Figure

    down = math.ceil((len(methods) + 1) / (4 if layout.narrow else 9))
    across = math.ceil((len(methods) + 1) / down)
    height = down * (layout.width / across + 0.17) + 0.3
    figure = Figure(figsize=(layout.width, height * len(images)), layout="constrained")
    blocks = np.atleast_1d(np.asarray(figure.subfigures(len(images), 1)))
    for block, row in zip(blocks, images.itertuples(), strict=True):
        said = style.literal(_title(tables, row, layout.width - 1, 1).replace("\n", ", "))
        block.suptitle(said, x=0.01, ha="left", fontsize=9, color=_colour(row))
        panels = block.subplots(down, across, squeeze=False).ravel()
        for axes in panels:
            _bare(axes)
        panels[0].imshow(pixels.picture(tables, row.image_id), cmap="gray", vmin=0, vmax=255)
        for axes, method in zip(panels[1:], methods, strict=False):
            _show(axes, pixels.attribution(tables, row.image_id, method).sum(axis=0), method)
        names = ["image", *(maps.NAMES.get(method, method) for method in methods)]
        for axes, name in zip(panels, names, strict=False):
            axes.set_title(_short(name), loc="center", fontsize=7, fontweight="normal", pad=2)
    return figure


def _short(name: str) -> str:
    return "Int. Gradients" if name == maps.NAMES["integrated_gradients"] else name


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _colour(row: Any) -> str:
    return style.VERMILLION if 0 <= row.label != row.prediction else style.INK


def _grid(tables: Tables, layout: style.Layout, images: DataFrame, methods: list[str]) -> Figure:
    from matplotlib.figure import Figure

    shape = (len(methods) + 1, len(images))
    size = layout.width / (shape[1] + 0.6) if not layout.narrow else layout.width / (shape[0] + 0.4)
    height = size * (shape[1] if layout.narrow else shape[0]) * 1.04 + (0.3 if layout.narrow else 0.7)
    figure = Figure(figsize=(layout.width, height), layout="constrained")
    grid = figure.subplots(*(shape[::-1] if layout.narrow else shape), squeeze=False)
    grid = grid.T if layout.narrow else grid
    for axes in grid.ravel():
        _bare(axes)
    for column, row in enumerate(images.itertuples()):
        grid[0, column].imshow(pixels.picture(tables, row.image_id), cmap="gray", vmin=0, vmax=255)
        said, text = style.literal(_title(tables, row, size)), {"fontsize": 8, "color": _colour(row)}
        if layout.narrow:
            grid[0, column].set_ylabel(said, rotation=0, ha="right", va="center", **text)
        else:
            grid[0, column].set_title(said, loc="center", fontweight="normal", **text)
        for place, method in enumerate(methods, 1):
            _show(grid[place, column], pixels.attribution(tables, row.image_id, method).sum(axis=0), method)
    for place, name in enumerate(["image", *(maps.NAMES.get(method, method) for method in methods)]):
        if layout.narrow:
            grid[place, 0].set_title(name, loc="center", fontsize=8, fontweight="normal")
        else:
            grid[place, 0].set_ylabel(name, fontsize=9, fontweight="bold")
    return figure


def caption(tables: Tables) -> str:
    """Return what is drawn, how maps were processed, and the n."""
    rows = succeeded(tables["explanations"])
    images, methods = chosen(tables), methods_in(rows)
    wrong = int(misclassified(images).sum())
    scalars = listing(name.replace("_", " ") for name in rows["scalar"].unique())
    return sentences(
        f"Explanations of the {scalars} for {count(len(images), 'image')} from the surest to the least sure"
        + (f", {wrong} of them misclassified (red)." if wrong else "."),
        "Maps whose sign means something are red where they are positive (of a gradient: a brighter pixel "
        "raises the score) and blue where they are negative, the others from white to purple.",
        "SmoothHess is the direction in which the slope changes most: pixels that act together."
        if "smoothhess" in methods
        else "",
        f"{listing(maps.NAMES[name] for name in methods if name in _LOSS)} explain the loss of the class "
        "predicted: the change that raises it most, with its sign turned."
        if set(methods) & set(_LOSS)
        else "",
        maps.PROCESSING,
        f"Chosen from {count(rows['image_id'].nunique(), 'explained test image')} by confidence alone.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    images = chosen(tables)
    rows = succeeded(tables["explanations"])
    told = "; ".join(
        f"{pixels.said(tables, row)}, {pixels.confidence(row.confidence)}" for row in images.itertuples()
    )
    names = listing(maps.NAMES.get(method, method) for method in methods_in(rows))
    return f"Grid of {count(len(images), 'image')} with {names} maps. True class and confidence: {told}."


register(
    FigureSpec(
        name="explanations",
        tables=("explanations", "maps", "images"),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        suffix=".png",
        rank=60,
    )
)
