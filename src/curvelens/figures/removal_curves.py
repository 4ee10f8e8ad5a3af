"""Deletion and insertion curves: what the network says while pixels go, or come, the most important first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures import FigureSpec, Tables, map_marks, register, style
from curvelens.figures.map_marks import title
from curvelens.figures.wording import count, listing, number, percent, sentences
from curvelens.summaries.judging import RANDOM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

CURVES = {
    "deletion": ("Deletion (↓ is better)", "share of the pixels deleted"),
    "insertion": ("Insertion (↑ is better)", "share of the pixels inserted"),
}


def _rows(tables: Tables, curve: str) -> DataFrame:
    rows = tables["judgement_curves"]
    return rows[rows["curve"] == curve]


def _panel(axes: Axes, rows: DataFrame, curve: str) -> None:
    heading, label = CURVES[curve]
    style.title(axes, heading)
    axes.set_xlabel(label)
    axes.set_ylabel("mean probability")
    axes.set_ylim(0, None)
    for method in map_marks.order(rows["method"]):
        line = rows[rows["method"] == method].sort_values("share")
        look = map_marks.mark(method, rows["method"]).arguments() | {"linewidth": 1.2, "markersize": 3.5}
        axes.plot(line["share"], line["probability"], label=title(method), **look)


def areas(tables: Tables, curve: str) -> dict[str, float]:
    """Return the area under each method's mean curve."""
    found = {}
    for method, line in _rows(tables, curve).groupby("method"):
        ordered = line.sort_values("share")
        found[str(method)] = float(np.trapezoid(ordered["probability"], ordered["share"]))
    return found


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one panel a kind of curve, a line a method."""
    figure, axes = style.panels(layout, 2, height=3.1)
    for one, curve in zip(axes, CURVES, strict=True):
        rows = _rows(tables, curve)
        if rows.empty:
            style.empty(one, "no curve was measured")
        else:
            _panel(one, rows, curve)
    handles, names = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=2 if layout.narrow else 5)
    return figure


def _told(tables: Tables, curve: str) -> str:
    found = areas(tables, curve)
    known = {method: area for method, area in found.items() if method != RANDOM}
    if not known:
        return ""
    pick = min if curve == "deletion" else max
    winner = pick(known, key=known.__getitem__)
    noise = f"; {number(found[RANDOM])} in random order" if RANDOM in found else ""
    beaten = [] if RANDOM not in found else [
        title(method)
        for method in map_marks.order(known)
        if (known[method] > found[RANDOM]) == (curve == "deletion")
    ]  # fmt: skip
    worse = f"; no better than that: {listing(beaten)}" if beaten else ""
    extreme = "smallest" if curve == "deletion" else "largest"
    return f"{curve.capitalize()}: {extreme} area {title(winner)} ({number(known[winner])}{noise}{worse})."


def caption(tables: Tables) -> str:
    """Return who deletes and inserts best, what is drawn, and the n."""
    rows = tables["judgement_curves"]
    if rows.empty:
        return "No deletion or insertion curve was measured."
    start = _rows(tables, "deletion").sort_values("share").groupby("method")["probability"]
    whole, nothing = float(start.first().iloc[0]), float(start.last().iloc[0])
    return sentences(
        *(_told(tables, curve) for curve in CURVES),
        f"Mean probability of the explained class over {count(int(rows['images'].max()), 'image')} while "
        "pixels are exchanged with the baseline, the most important first: "
        f"{percent(whole)} on the whole images, {percent(nothing)} on the baseline alone.",
    )


def alt(tables: Tables) -> str:
    """Describe the curves in words."""
    said = []
    for curve in CURVES:
        found = areas(tables, curve)
        ranked = sorted(found, key=lambda method: found[method], reverse=curve == "insertion")
        listed = ", ".join(f"{title(method)} {number(found[method])}" for method in ranked)
        said.append(f"Area under the {curve} curve, best first: {listed}.")
    return sentences(*said)


register(
    FigureSpec(
        name="removal_curves", tables=("judgement_curves",), draw=draw, caption=caption, alt=alt, rank=59
    )
)
