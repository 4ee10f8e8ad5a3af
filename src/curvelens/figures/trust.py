"""How far each local model may be believed: trust radii, against confidence and against linear regions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.distances import confidence_axis
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import count, listing, number, percent, plain, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from pandas import DataFrame

FIRST_ORDER = ("G", "SG", "SP G")
USUAL = 0.9
_FLOOR = 1e-8  # a float32 confidence of exactly 1 is drawn here
_POINTS: dict[str, Any] = {"markersize": 4.5, "linestyle": ""}


def summary(tables: Tables) -> DataFrame:
    """Return the rows of the summary with chosen parameters, at the threshold nearest to 0.9."""
    rows = tables["trust"]
    rows = rows[rows["chosen"].astype(bool)]
    if rows.empty:
        return rows
    threshold = min(rows["threshold"].unique(), key=lambda one: (abs(one - USUAL), one))
    return rows[rows["threshold"] == threshold]


def _images(tables: Tables, method: str) -> DataFrame:
    """Return the test images' rows of a method with its chosen parameter."""
    chosen = summary(tables)
    row = chosen[chosen["method"] == method].iloc[0]
    rows = succeeded(tables["trust_images"])
    value = rows["parameter_value"].astype(float)
    same = value.isna() if math.isnan(row["parameter_value"]) else value == row["parameter_value"]
    of_method = (rows["method"] == method) & (rows["threshold"] == row["threshold"])
    return rows[of_method & same & (rows["split"] == "test")]


def _two(tables: Tables) -> list[str]:
    """Return the gradient, or the first-order model believed least far, and the model believed furthest."""
    medians = summary(tables).set_index("method")["median"]
    if medians.empty:
        return []
    first = [method for method in FIRST_ORDER if method in medians.index]
    start = first[0] if first else str(medians.idxmin())
    return list(dict.fromkeys([start, str(medians.idxmax())]))


def _distribution(axes: Axes, tables: Tables) -> None:
    methods = style.order(summary(tables)["method"])
    axes.set_xlabel("trust radius (L2, pixels in [0, 1], log scale)")
    axes.set_ylabel("share of images whose\nmodel holds less far")
    if not methods:
        style.empty(axes, "no trust radius was measured")
        return
    axes.set_xscale("log")
    _radius_ticks(axes.xaxis)
    for method in methods:
        radius = np.sort(_images(tables, method)["trust_radius"].to_numpy(float))
        share = np.arange(1, radius.size + 1) / radius.size
        mark = style.mark(method, methods)
        axes.step(
            np.r_[radius[0], radius],
            np.r_[0, share],
            where="post",
            color=mark.colour,
            linestyle=mark.line,
            label=method,
        )
    axes.set_ylim(0, 1.04)
    axes.legend(loc="upper left")


def _radius_ticks(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 of each decade, as people write such numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_locator(NullLocator())


def _scatter(axes: Axes, tables: Tables, column: str) -> bool:
    """Draw trust radius against a column for two models; return whether there was anything to draw."""
    drawn = False
    methods = _two(tables)
    axes.set_ylabel("trust radius (L2, log scale)")
    for method in methods:
        rows = _images(tables, method).dropna(subset=[column])
        other, radius = rows[column].to_numpy(float), rows["trust_radius"].to_numpy(float)
        other = np.clip(1 - other, _FLOOR, 1) if column == "confidence" else other
        shown = other > 0
        if not shown.any():
            continue
        high = rows["high"].astype(float).fillna(rows["trust_radius"]).to_numpy(float)
        bars = np.abs([radius - np.maximum(rows["low"].to_numpy(float), radius / 10), high - radius])
        mark = style.mark(method, methods).arguments() | _POINTS
        axes.errorbar(
            other[shown], radius[shown], yerr=bars[:, shown], label=method, elinewidth=0.6, alpha=0.8, **mark
        )
        drawn = True
    if drawn:
        axes.set_xscale("log")
        axes.set_yscale("log")
        _radius_ticks(axes.yaxis)
        axes.legend(loc="best")
    return drawn


def _confidence(axes: Axes, tables: Tables) -> None:
    if not _scatter(axes, tables, "confidence"):
        style.empty(axes, "no trust radius was measured")
        return
    doubt = np.concatenate([_images(tables, one)["confidence"].to_numpy(float) for one in _two(tables)])
    confidence_axis(axes, np.clip(1 - doubt, _FLOOR, 1))


def _regions(axes: Axes, tables: Tables) -> None:
    axes.set_xlabel("L2 distance to the border\nof the linear region (log scale)")
    if not _scatter(axes, tables, "region_radius"):
        axes.set_ylabel("")
        style.empty(axes, "the network has no linear regions")


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw the distribution of trust radii, and two models against confidence and against linear regions."""
    figure, axes = style.panels(layout, 3, height=3.1)
    for one, part, text in zip(
        axes,
        (_distribution, _confidence, _regions),
        ("How far each model holds", "Against confidence", "Against linear regions"),
        strict=True,
    ):
        part(one, tables)
        one.set_title(text)
    return figure


def bound(row: Any) -> str:
    """Return a median radius in words, as a bound where half of the images or more are censored."""
    word = "at most " if row["below"] >= 0.5 else "at least " if row["above"] >= 0.5 else ""
    return word + number(row["median"])


def _name(method: str) -> str:
    long = style.METHOD_NAMES.get(method)
    return f"{long} ({method})" if long else method


def finding(tables: Tables) -> str:
    """Say within which radius the first-order map may be believed, and how much further the best one."""
    rows = summary(tables).set_index("method", drop=False)
    if rows.empty:
        return ""
    start, *others = _two(tables)
    first = rows.loc[start]
    told = (
        f"How far a saliency map may be believed: the {_name(start)} predicts at least "
        f"{percent(first['threshold'])} of how the score changes within a median radius of {bound(first)} "
        f"(below {number(first['lower_quartile'])} for a quarter of the images)"
    )
    ratio = first["region_ratio"]
    if ratio == ratio and ratio is not None:
        told += f", {number(ratio)} times the distance to the border of its linear region"
    if others:
        best = rows.loc[others[0]]
        further = number(best["median"] / first["median"])
        told += f"; {_name(others[0])} within {bound(best)}, {further} times as far"
    return f"{told} (n = {int(first['images'])})."


def _correlations(tables: Tables) -> str:
    """Say for each model drawn whether its radius goes with confidence and with the linear region."""
    rows = summary(tables).set_index("method")
    told = []
    for column, what in (("confidence_spearman", "confidence"), ("region_spearman", "the region's size")):
        parts = []
        for method in _two(tables):
            value, low, high = (rows.loc[method, f"{column}{end}"] for end in ("", "_low", "_high"))
            if value == value and value is not None:
                parts.append(f"{number(value)} for {method} (95% interval {number(low)} to {number(high)})")
        if parts:
            told.append(f"with {what} {listing(parts)}")
    return f"Spearman's rank correlation of the trust radius {'; '.join(told)}." if told else ""


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = summary(tables)
    if rows.empty:
        return "No trust radius was measured."
    threshold = plain(rows["threshold"].iloc[0])
    censored = [
        f"{row.method}: {percent(row.below)} from below, {percent(row.above)} from above"
        for row in rows.itertuples()
        if row.below or row.above
    ]
    return sentences(
        finding(tables),
        f"Trust radius: the largest ε such that for all smaller ones at least {threshold} of the mean",
        "squared change of the score over perturbations within ε is predicted.",
        "First panel: cumulative share of images. Then two models, each point an image with its 95% interval",
        "from the finite number of perturbations.",
        _correlations(tables),
        f"Censored at the ends of the radii looked at: {'; '.join(censored)}." if censored else "",
        f"{count(int(rows['images'].max()), 'test image')}; σ and β chosen on validation images.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = summary(tables)
    if rows.empty:
        return "Empty panels: no trust radius was measured."
    told = "; ".join(f"{row['method']} {bound(row)}" for _, row in rows.sort_values("median").iterrows())
    models, images = count(len(rows), "local model"), count(int(rows["images"].max()), "image")
    return (
        f"Cumulative curves of the trust radius of {models} over {images}, medians: {told}. Two scatter "
        "plots of the radius against confidence and against the distance to the border of the linear region."
    )


register(
    FigureSpec(
        name="trust",
        tables=("trust", "trust_images"),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=5,
    )
)
