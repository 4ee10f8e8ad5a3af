"""Grids of images and where maps of one image's class lie in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, map_marks, register, style
from curvelens.figures.judging import best, measured
from curvelens.figures.map_marks import title
from curvelens.figures.wording import count, listing, number, percent, sentences
from curvelens.summaries.judging import GRID, RANDOM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 3
_QUANTILE = 0.99
_OTHER = ("folder", "ids", "images", "cells")


def _scenes(tables: Tables) -> list[dict[str, Any]]:
    """Return the first grids: picture [H, W, C], cell [H, W] and map [H, W] by method."""
    found = []
    for shard in tables["grid_maps"]:
        for place in range(len(shard["ids"])):
            maps = {name: array[place] for name, array in shard.items() if name not in _OTHER}
            picture = np.moveaxis(shard["images"][place], 0, -1).squeeze()
            found.append(
                {
                    "id": str(shard["ids"][place]),
                    "picture": picture,
                    "cell": shard["cells"][place],
                    "maps": maps,
                }
            )
    return sorted(found, key=lambda scene: scene["id"])[:SHOWN]


def _energy(tables: Tables, image_id: str, method: str) -> float:
    rows = tables["judgement_images"]
    chosen = rows[(rows["image_id"] == image_id) & (rows["metric"] == "energy") & (rows["method"] == method)]
    return float(chosen["value"].iloc[0]) if len(chosen) else float("nan")


def _frame(axes: Axes, cell: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = np.flatnonzero(cell.any(1)), np.flatnonzero(cell.any(0))
    corner = columns[0] - 0.5, rows[0] - 0.5
    axes.add_patch(
        Rectangle(
            corner,
            len(columns),
            len(rows),
            fill=False,
            edgecolor=style.VERMILLION,
            linewidth=1.8,
            clip_on=False,
        )
    )


def _label(tables: Tables, image_id: str) -> str:
    rows = tables["judgement_images"]
    target = int(rows[rows["image_id"] == image_id]["target"].dropna().iloc[0])
    names: list[object] = next(
        (model["class_names"] for model in tables.get("models", []) if "class_names" in model), []
    )
    return str(names[target]) if target < len(names) else str(target)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one grid a row on a page, one a column on a telephone."""
    from matplotlib.figure import Figure

    scenes = _scenes(tables)
    methods = map_marks.order(scenes[0]["maps"]) if scenes else []
    shape = (max(1, len(scenes)), len(methods) + 1)
    if layout.narrow:
        shape = shape[::-1]
    size = layout.width / (shape[1] + 0.3)
    figure = Figure(figsize=(layout.width, size * shape[0] * 1.22 + 0.3), layout="constrained")
    cells = figure.subplots(*shape, squeeze=False)
    panels = cells.T if layout.narrow else cells
    for axes in panels.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    if not scenes:
        style.empty(panels[0, 0], "no grid was explained")
        return figure
    text: dict[str, Any] = {"loc": "center", "fontsize": 7.5, "fontweight": "normal"}
    for row, scene in zip(panels, scenes, strict=True):
        row[0].imshow(scene["picture"], cmap="gray", vmin=0, vmax=255)
        row[0].set_title(style.literal(_label(tables, scene["id"])), **text)
        _frame(row[0], scene["cell"])
        for axes, method in zip(row[1:], methods, strict=True):
            values = np.nan_to_num(scene["maps"][method])
            cap = float(np.quantile(values, _QUANTILE)) or float(values.max()) or 1.0
            axes.imshow(values, cmap="Purples", vmin=0, vmax=cap)
            share = _energy(tables, scene["id"], method)
            axes.set_title(f"{title(method)}\n{percent(share)} inside", **text)
            _frame(axes, scene["cell"])
    return figure


def caption(tables: Tables) -> str:
    """Return who keeps to the cell, how maps were processed, and the n."""
    scenes, rows = _scenes(tables), measured(tables, GRID, "energy")
    if not scenes or rows.empty:
        return "No grid was explained."
    winner, chance = best(rows), float(rows["chance"].mean())
    known = rows[rows["method"] != RANDOM]
    low = [
        title(row.method)
        for row in known.itertuples(index=False)
        if row.high == row.high and row.low <= chance
    ]
    return sentences(
        f"{title(winner['method'])} keeps most to the cell of the explained class: "
        f"{percent(winner['mean'])} of its importance lie inside, where {percent(chance)} would by chance.",
        f"Not told apart from chance: {listing(low)}." if low else "",
        f"The first {len(scenes)} of {count(int(rows['images'].max()), 'grid')} of images that the network "
        "classifies correctly; the class that is named is explained, its cell is framed. Darker pixels "
        "matter more; each map is capped at the 99% quantile of its importance.",
    )


def alt(tables: Tables) -> str:
    """Describe the pictures in words."""
    said = []
    for scene in _scenes(tables):
        shares = ", ".join(
            f"{title(method)} {percent(_energy(tables, scene['id'], method))}"
            for method in map_marks.order(scene["maps"])
        )
        said.append(
            f"Grid explained for {_label(tables, scene['id'])}; importance inside its cell: {shares}."
        )
    rows = measured(tables, GRID, "energy")
    means = ", ".join(f"{title(row.method)} {number(row.mean)}" for row in rows.itertuples(index=False))
    return sentences(*said, f"Means: {means}." if means else "")


register(
    FigureSpec(
        name="grids",
        tables=("judgement", "judgement_images", "grid_maps"),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        suffix=".png",
        rank=60,
    )
)
