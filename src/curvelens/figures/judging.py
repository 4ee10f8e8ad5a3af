"""Quality of explanations against their cost, and what the measures say of CASO and the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, map_marks, register, style
from curvelens.figures.map_marks import title
from curvelens.figures.wording import count, listing, number, percent, plain, sentences
from curvelens.summaries.judging import GRID, HIGHER, IMAGE, METRICS, RANDOM, REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

SIGNIFICANT = 0.05
_SECOND_ORDER = "caso"
_DOES = {
    "energy": "has most of its importance on the object",
    "insertion": "finds the pixels that restore the prediction first",
    "deletion": "finds those without which it breaks down first",
    "unexplained": "leaves least unexplained of how the loss changes within radius {radius}",
}
_LABELS = {
    "energy": "share of the importance",
    "insertion": "mean probability",
    "deletion": "mean probability",
    "unexplained": "share of the squared change",
}
_PANELS = (  # the first of each that was measured is drawn
    ((IMAGE, "energy"), (GRID, "energy")),
    ((IMAGE, "insertion"),),
    ((IMAGE, "deletion"),),
    ((IMAGE, "unexplained"),),
)


def measured(tables: Tables, scene: str, metric: str) -> DataFrame:
    """Return the rows of a measure, of several places the first (of radii the smallest)."""
    rows = tables["judgement"]
    rows = rows[(rows["scene"] == scene) & (rows["metric"] == metric)]
    if rows.empty or rows["at"].isna().all():
        return rows
    return rows[rows["at"] == rows["at"].min()]


def shown(tables: Tables) -> list[DataFrame]:
    """Return the rows of each measure that is drawn."""
    found = []
    for choices in _PANELS:
        rows = next((rows for choice in choices if len(rows := measured(tables, *choice))), None)
        if rows is not None:
            found.append(rows)
    return found


def _seconds(tables: Tables) -> dict[str, float]:
    rows = measured(tables, IMAGE, "seconds")
    return {row.method: max(float(row.mean), 1e-4) for row in rows.itertuples(index=False)}


def name_of(rows: DataFrame) -> str:
    """Return what a measure is called, with where it was taken."""
    row = rows.iloc[0]
    metric = METRICS[row["metric"]]
    where = " in the grid" if row["scene"] == GRID else ""
    at = f", {metric.at} {plain(row['at'])}" if metric.at and row["at"] == row["at"] else ""
    return f"{metric.title}{where}{at}"


def _limits(seconds: dict[str, float]) -> tuple[float, float]:
    return min(seconds.values()) / 1.6, max(seconds.values()) * 1.6


def _panel(axes: Axes, rows: DataFrame, seconds: dict[str, float]) -> None:
    better = rows["better"].iloc[0]
    axes.set_xscale("log")
    axes.set_xlim(*_limits(seconds))
    axes.set_xlabel("seconds per image (log scale)")
    axes.set_ylabel(_LABELS[rows["metric"].iloc[0]])
    name = name_of(rows)
    style.title(axes, f"{name[0].upper()}{name[1:]} ({'↑' if better == HIGHER else '↓'} is better)")
    methods = map_marks.order(seconds)
    for row in rows.itertuples(index=False):
        if row.method not in seconds:
            continue
        low, high = (row.mean if end != end or end is None else end for end in (row.low, row.high))
        look = map_marks.mark(row.method, methods).arguments() | {"linestyle": ""}
        bars = np.abs([[row.mean - low], [high - row.mean]])
        axes.errorbar(
            seconds[row.method],
            row.mean,
            yerr=bars,
            elinewidth=0.7,
            alpha=0.9,
            label=title(row.method),
            **look,
        )
    noise = rows[rows["method"] == RANDOM]["mean"]
    if len(noise):
        axes.axhline(
            float(noise.iloc[0]), color=style.QUIET, linestyle=":", linewidth=1.2, label=title(RANDOM)
        )


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one panel a measure, a point a method."""
    panels, seconds = shown(tables), _seconds(tables)
    figure, axes = style.panels(layout, max(1, len(panels)), height=2.9, columns=2)
    if not panels or not seconds:
        style.empty(axes[0], "nothing was judged, or no time was taken")
        return figure
    for one, rows in zip(axes, panels, strict=True):
        _panel(one, rows, seconds)
    known: dict[str, Any] = {}
    for one in axes:
        known |= {label: handle for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
    names = [title(method) for method in map_marks.order([*seconds, RANDOM]) if title(method) in known]
    columns = 2 if layout.narrow else 5
    figure.legend(
        [known[name] for name in names], names, loc="outside lower center", ncols=columns, handlelength=1.6
    )
    return figure


def best(rows: DataFrame) -> Any:
    """Return the row of the best method of a measure, the random map aside."""
    known = rows[rows["method"] != RANDOM]
    sign = 1 if rows["better"].iloc[0] == HIGHER else -1
    return known.loc[(sign * known["mean"]).idxmax()]


def _better(rows: DataFrame, value: float, other: float) -> bool:
    return value > other if rows["better"].iloc[0] == HIGHER else value < other


def _winners(tables: Tables) -> Iterator[str]:
    for rows in shown(tables):
        row = best(rows)
        share = percent if row["metric"] in ("energy", "unexplained") else number
        noise = rows[rows["method"] == RANDOM]["mean"]
        if len(noise) and not _better(rows, row["mean"], float(noise.iloc[0])):
            yield f"none beats a random map by {name_of(rows)} ({share(float(noise.iloc[0]))})"
            continue
        beside = f", a random map {share(float(noise.iloc[0]))}" if len(noise) else ""
        does = _DOES[row["metric"]].format(radius=plain(row["at"]) if row["at"] == row["at"] else "")
        yield f"{title(row['method'])} {does} ({share(row['mean'])}{beside})"


def compared(tables: Tables, method: str = _SECOND_ORDER) -> dict[str, list[str]]:
    """Return by which measures a method does ``better`` than the gradient, ``worse``, or ``level`` with it.

    Better and worse are told from chance by the paired test of the measure alone.
    """
    said: dict[str, list[str]] = {"better": [], "worse": [], "level": []}
    for rows in shown(tables):
        found = rows[(rows["method"] == method) & rows["p_value"].notna()]
        if found.empty:
            continue
        row = found.iloc[0]
        clear = row["p_value"] < SIGNIFICANT
        reference = rows[rows["method"] == REFERENCE]["mean"].iloc[0]
        told = f"{number(row['mean'])} against {number(reference)}, p = {number(row['p_value'])}"
        verdict = ("better" if row["gain"] > 0 else "worse") if clear else "level"
        said[verdict].append(f"{name_of(rows)} ({told})")
    return said


def _level(tables: Tables) -> str:
    """Say by which measures CASO and the gradient are not told apart."""
    level = compared(tables)["level"]
    return f"{title(_SECOND_ORDER)} and gradient are not told apart by {listing(level)}." if level else ""


def finding(tables: Tables) -> str:
    """Return who does best by each measure, and how CASO does against the gradient."""
    winners = list(_winners(tables))
    if not winners:
        return ""
    several = len({str(best(rows)["method"]) for rows in shown(tables)}) > 1
    claim = "No map is best at everything" if several else "One map is best at everything"
    n = sorted({int(n) for rows in shown(tables) for n in rows["images"]})
    said = compared(tables)
    if said["better"]:
        second = f", {title(_SECOND_ORDER)} beats the gradient by {listing(said['better'])}"
    elif any(said.values()):
        second = f"; {title(_SECOND_ORDER)} beats the gradient at none of it beyond chance"
        second += f" and does worse by {listing(said['worse'])}" if said["worse"] else ""
    else:
        second = ""
    return f"{claim}: {', '.join(winners)}{second} (n = {listing(n)})."


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    panels, seconds = shown(tables), _seconds(tables)
    if not panels or not seconds:
        return "No explanation was judged."
    images = listing(sorted({count(int(n), "image") for rows in panels for n in rows["images"]}))
    fastest, slowest = min(seconds, key=seconds.__getitem__), max(seconds, key=seconds.__getitem__)
    return sentences(
        finding(tables),
        _level(tables),
        "Measures of quality against the time that one image takes: the mean over "
        f"{images} with its 95% interval (bootstrap over the images).",
        f"{title(slowest)} takes {number(seconds[slowest] / seconds[fastest])} times as long as "
        f"{title(fastest)}.",
        "p-values are of paired sign-flip tests against the gradient, each of this measure alone.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture in words."""
    said = []
    for rows in shown(tables):
        ordered = rows.sort_values("mean", ascending=rows["better"].iloc[0] != HIGHER)
        ranked = ", ".join(
            f"{title(row.method)} {number(row.mean)}" for row in ordered.itertuples(index=False)
        )
        said.append(f"{name_of(rows)}, best first: {ranked}.")
    return sentences("Scatter of quality against seconds per image.", *said)


register(
    FigureSpec(
        name="judging",
        tables=("judgement",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=58,
    )
)
