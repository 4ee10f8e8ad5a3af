"""Two classes' explanations of pictures that show several objects, each alone and both on one picture."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures._competing import (
    BOTH,
    COLOURS,
    QUANTILE,
    cap,
    found,
    label,
    overlay,
    plain_axes,
    rule,
    show,
)
from curvelens.figures.maps import NAMES
from curvelens.figures.wording import count, listing, number, sentences, shortened
from curvelens.summaries.competing import SCENE, ordered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

SHOWN = 8
_ALONE = 3  # scenes up to which each has a row of a page to itself


def _rows(tables: Tables) -> DataFrame:
    return ordered(tables["competing"], SCENE)


def _scene(axes: list[Axes], tables: Tables, row: Any, room: int) -> None:
    """Draw the picture, both maps on one scale, and what stands out of both."""
    maps, pixels = found(tables, row)
    signed, largest = bool((maps < 0).any()), cap(maps)
    axes[0].imshow(pixels, cmap="gray", vmin=0, vmax=255)
    for one, values in zip(axes[1:3], maps, strict=True):
        show(one, values, largest, signed)
    axes[3].imshow(overlay(maps, pixels, row.keep, row.blur))
    text: dict[str, Any] = {"fontsize": 7.5, "loc": "left", "fontweight": "normal", "pad": 3}
    heads = (
        f"{textwrap.shorten(row.kind, room, placeholder='…')}\n{label(row.image_id, room)}",
        f"{shortened(row.name_a, room)}\n{row.scalar.replace('_', ' ')} {number(row.score_a)}",
        f"{shortened(row.name_b, room)}\n{row.scalar.replace('_', ' ')} {number(row.score_b)}",
        f"both: IoU {row.iou:.2f}\nrank corr. {row.rank_correlation:.2f}".replace("-", "−"),
    )
    colours = (style.INK, *COLOURS, BOTH)
    for one, head, colour in zip(axes, heads, colours, strict=True):
        one.set_title(style.literal(head), color=colour, **text)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one or two scenes a row on a page, a scene a block of two rows on a telephone."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = list(_rows(tables).itertuples())[:SHOWN]
    if not rows:
        figure = Figure(figsize=(layout.width, 1.5), layout="constrained")
        style.empty(figure.subplots(), "no scene could be explained for two classes")
        return figure
    beside = 1 if layout.narrow or len(rows) <= _ALONE else 2
    across = 2 if layout.narrow else 4 * beside
    down = 2 * len(rows) if layout.narrow else math.ceil(len(rows) / beside)
    side = layout.width / across
    room = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.02)
    figure = Figure(figsize=(layout.width, down * (side * 0.97 + 0.38)), layout=room)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.ravel():
        plain_axes(axes)
    for place, row in enumerate(rows):
        if layout.narrow:
            axes = [*grid[2 * place], *grid[2 * place + 1]]
        else:
            line, column = divmod(place, beside)
            axes = list(grid[line, 4 * column : 4 * column + 4])
        _scene(axes, tables, row, room=int(side / 0.066))
    return figure


def finding(tables: Tables) -> str:
    """Say whether the two classes' regions can be told apart."""
    rows = _rows(tables)
    rows = rows[rows["iou"].notna()]
    if rows.empty:
        return ""
    chance = float(rows["chance_iou"].iloc[0])
    ratio = float(rows["iou"].median()) / chance
    said = (
        "Both classes are explained by much the same pixels"
        if ratio > 3
        else "The two classes are explained by partly the same pixels"
        if ratio > 1.5
        else "Each class is explained by pixels of its own"
    )
    return (
        f"{said}: the regions of two classes overlap by {rows['iou'].median():.2f} (median intersection over "
        f"union of {count(len(rows), 'picture')}), {ratio:.1f} times chance."
    )


def caption(tables: Tables) -> str:
    """Return what is drawn, the rule of suppression, and the n."""
    rows = _rows(tables)
    if rows.empty:
        return "No scene could be explained for two classes."
    first = next(rows.itertuples())
    shown = rows.head(SHOWN)
    kinds = listing(f"{n} × {kind}" for kind, n in shown["kind"].value_counts(sort=False).items())
    put_together = sum(str(origin).startswith("Montage") for origin in shown["origin"])
    method = NAMES.get(first.method, first.method)
    return sentences(
        finding(tables),
        f"{method} of the {first.scalar.replace('_', ' ')} of two classes on the same picture ({kinds}), "
        "each alone and both together, the first in blue, the second in orange, what both keep in black.",
        f"Rule: in the last panel {rule(first)} are kept of each class, stronger ones in deeper colour, and "
        "the rest is suppressed; two independent regions of that size would have an IoU of "
        f"{first.chance_iou:.2f}.",
        f"Post-processing of the maps alone: channels summed; both classes of a picture share a diverging "
        f"colour scale with zero in the middle that ends at the {QUANTILE:.0%} quantile of their magnitudes; "
        "no smoothing. Rank correlation is that of the magnitudes, neither blurred nor cut.",
        f"{put_together} of the {len(shown)} pictures are put together of several photographs and show no "
        "scene that was photographed."
        if put_together
        else "",
        f"n = {count(len(shown), 'picture')}; below the table stands where each comes from.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = _rows(tables).head(SHOWN)
    told = "; ".join(
        f"{row.kind}, {label(row.image_id)}: overlap of {row.name_a} and {row.name_b} {row.iou:.2f}"
        for row in rows.itertuples()
    )
    return (
        f"{count(len(rows), 'picture')}, each with the map of one class, of another, and the strongest parts "
        f"of both laid over the picture in blue and orange. {told}."
    )


register(
    FigureSpec(
        name="competing_scenes",
        tables=("competing", "competing_maps"),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        suffix=".png",
        rank=62,
    )
)
