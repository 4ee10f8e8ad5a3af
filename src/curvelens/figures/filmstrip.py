"""Frames of a path's film beside each other, for readers who cannot play it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.film import NAMES, QUANTILE, picture, scale
from curvelens.figures.interpret_path import ends, name_of, switches
from curvelens.figures.path import class_names
from curvelens.figures.wording import count, listing, percent, sentences
from curvelens.summaries.path import METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

SHOWN = 6


def chosen(table: DataFrame) -> list[int]:
    """Return the frames shown: both ends, both sides of the first change of prediction, and even ones.

    Returns:
        At most :data:`SHOWN` steps, ascending.
    """
    last = len(table) - 1
    picked = {0, last}
    for step in switches(table)[:1].tolist():
        picked |= {step - 1, step}
    while len(picked) < min(SHOWN, last + 1):
        known = sorted(picked)
        gaps = np.diff(known)
        widest = int(gaps.argmax())
        picked.add((known[widest] + known[widest + 1]) // 2)
    return sorted(picked)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one frame a column on a page, one frame a row on a telephone."""
    from matplotlib.figure import Figure

    table, (film,) = tables["path"], tables["film"]
    names, frames = class_names(tables), chosen(tables["path"])
    shape = (len(METHODS) + 1, len(frames))
    size = layout.width / (shape[1] + 0.6) if not layout.narrow else layout.width / (shape[0] + 0.55)
    height = size * (shape[1] if layout.narrow else shape[0]) * 1.04 + (0.3 if layout.narrow else 0.75)
    figure = Figure(figsize=(layout.width, height), layout="constrained")
    grid = figure.subplots(*(shape[::-1] if layout.narrow else shape), squeeze=False)
    grid = grid.T if layout.narrow else grid
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for place, name in enumerate(METHODS, 1):
        summed = film[name].sum(1)
        cmap, low, high = scale(summed)
        for column, frame in enumerate(frames):
            grid[place, column].imshow(summed[frame], cmap=cmap, vmin=low, vmax=high)
    before = None
    for column, frame in enumerate(frames):
        grid[0, column].imshow(picture(film["images"][frame]), cmap="gray", vmin=0, vmax=1)
        row = table.iloc[frame]
        said = textwrap.shorten(
            name_of(row["prediction"], names), 11 if layout.narrow else 18, placeholder="…"
        )
        text = style.literal(f"t = {row['t']:.2f}\n{said}\n{percent(row['confidence'])}")
        new = before is not None and before != row["prediction"]
        before = row["prediction"]
        look = {"fontsize": 8, "color": style.VERMILLION if new else style.INK}
        if layout.narrow:
            grid[0, column].set_ylabel(text, rotation=0, ha="right", va="center", **look)
        else:
            grid[0, column].set_title(text, loc="center", fontweight="normal", **look)
    for place, name in enumerate(["image", *(NAMES[method] for method in METHODS)]):
        if layout.narrow:
            grid[place, 0].set_title(name, loc="center", fontsize=8, fontweight="normal")
        else:
            grid[place, 0].set_ylabel(name, fontsize=9, fontweight="bold")
    return figure


def caption(tables: Tables) -> str:
    """Return which frames are shown, and how maps were processed."""
    table, names = tables["path"], class_names(tables)
    start, end = ends(table, names)
    frames = chosen(table)
    return sentences(
        f"{count(len(frames), 'frame')} of {len(table)} of the film from {start} to {end}: image, gradient, "
        "SmoothGrad and VarGrad of the predicted class's logit, with position, prediction and confidence.",
        "In red a class other than in the frame before." if _new(table, frames) else "",
        "Signed maps are red where a brighter pixel raises the score and blue where it lowers it; VarGrad "
        "has no sign. Post-processing, the same for all: channels summed, one colour scale a method over the "
        f"whole film, capped at the {QUANTILE:.0%} quantile of its magnitudes; no smoothing.",
    )


def _new(table: DataFrame, frames: list[int]) -> bool:
    return bool((np.diff(table["prediction"].to_numpy(int)[frames]) != 0).any())


def alt(tables: Tables) -> str:
    """Describe the picture."""
    table, names = tables["path"], class_names(tables)
    told = [
        f"t = {row['t']:.2f} {name_of(row['prediction'], names)} ({percent(row['confidence'])})"
        for _, row in table.iloc[chosen(table)].iterrows()
    ]
    return f"Frames of the film with gradient, SmoothGrad and VarGrad: {listing(told)}."


register(
    FigureSpec(
        name="filmstrip",
        tables=("path", "film"),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        suffix=".png",
        rank=66,
    )
)
