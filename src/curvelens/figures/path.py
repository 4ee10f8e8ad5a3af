"""Along a path between two images: prediction, change of the explanations, curvature, linear regions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.film import MARKS, NAMES
from curvelens.figures.interpret_path import ends, reach, switches
from curvelens.figures.wording import listing, number, percent, sentences
from curvelens.summaries.path import METHODS, RULE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_LEGEND: Any = {"loc": "upper left", "frameon": True, "framealpha": 0.9, "edgecolor": "none"}


def class_names(tables: Tables) -> Sequence[str]:
    """Return the names of the classes, empty where no network's description was given."""
    found = (model["class_names"] for model in tables.get("models", []) if "class_names" in model)
    return next(found, [])


def _t(table: DataFrame) -> np.ndarray:
    return table["t"].to_numpy(float)


def _prediction(axes: Axes, table: DataFrame, names: Sequence[str]) -> None:
    start, end = ends(table, names)
    known = [int(table[column].iloc[0]) for column in ("start_class", "end_class")]
    for label, column, colour, marks in (
        (start, "start_probability", style.BLUE, "o-"),
        (end, "end_probability", style.VERMILLION, "s--"),
    ):
        axes.plot(
            _t(table), table[column], marks, color=colour, label=style.literal(label[:30]), markersize=3
        )
    if not table["prediction"].isin(known).all():
        axes.plot(
            _t(table), table["confidence"], "x:", color=style.QUIET, label="predicted class", markersize=3
        )
    axes.set(ylabel="SoftMax probability", yticks=np.linspace(0, 1, 6), ylim=(-0.03, 1.6))
    axes.set_title("Prediction")
    axes.legend(**_LEGEND)


def _changes(axes: Axes, table: DataFrame) -> None:
    t, ring = _t(table), None
    for name in METHODS:
        colour, marks = MARKS[name]
        values = table[f"{name}_distance"].to_numpy(float)
        axes.plot(t, values, marks, color=colour, label=NAMES[name], markersize=3)
        jumps = table[f"{name}_jump"].to_numpy(bool)
        if jumps.any():
            (ring,) = axes.plot(t[jumps], values[jumps], "o", color=style.INK, mfc="none", markersize=9)
    if ring is not None:
        ring.set_label("jump")
    axes.set(ylabel="change since last point\n(share of the map's norm)")
    axes.set_ylim(0, 1.45 * axes.get_ylim()[1])
    axes.set_title("Explanations")
    axes.legend(**_LEGEND, ncols=2)


def _curvature(axes: Axes, table: DataFrame) -> None:
    for label, column, colour, marks in (
        ("at the point", "curvature", style.INK, "x"),
        ("between points", "step_curvature", style.BLUE, "o-"),
        ("of the smoothed logit", "smoothed_curvature", style.ORANGE, "D--"),
    ):
        axes.plot(_t(table), table[column].to_numpy(float), marks, color=colour, label=label, markersize=3)
    axes.set(ylabel="curvature of the logit\nalong the path (per L2²)")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.6 * (high - low))
    axes.set_title("Curvature of the logit")
    axes.legend(**_LEGEND)


def _loss(axes: Axes, table: DataFrame) -> None:
    values = table["loss_curvature"].to_numpy(float)
    axes.plot(_t(table), np.where(values > 0, values, np.nan), "o-", color=style.VERMILLION, markersize=3)
    if (values > 0).any():
        axes.set_yscale("log")
    axes.set(ylabel="curvature of the loss\nalong the path (per L2²)")
    axes.set_title("Curvature of the loss")


def _first_order(axes: Axes, table: DataFrame, names: Sequence[str]) -> None:
    t, score = _t(table), table["start_score"].to_numpy(float)
    axes.plot(t, score, "o-", color=style.BLUE, label="network", markersize=3)
    for name in ("gradient", "smoothgrad"):
        colour, marks = MARKS[name]
        values = table[f"start_score_from_{name}"]
        axes.plot(t, values, marks[1:], color=colour, label=f"{NAMES[name]} at t = 0")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.6 * (high - low))
    axes.set(ylabel=f"logit of {style.literal(ends(table, names)[0][:24])}")
    axes.set_title("First order from the start")
    axes.legend(**_LEGEND)


def _regions(axes: Axes, table: DataFrame) -> None:
    crossed = table["regions_crossed"].to_numpy(float, na_value=np.nan)
    share = table["switched_share"].to_numpy(float)
    axes.set_title("Linear regions")
    if not np.isnan(crossed).all():
        axes.bar(_t(table), crossed, width=0.8 / len(table), color=style.RELU)
        axes.set(ylabel="borders crossed\nsince last point")
    elif not np.isnan(share).all():
        from matplotlib.ticker import PercentFormatter

        axes.bar(_t(table), share, width=0.8 / len(table), color=style.RELU)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set(ylabel="units that switch their\nlinear piece (share)")
    else:
        style.empty(axes, "a smooth network\nhas no linear regions")


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw six panels over the position on the path; dotted lines where the prediction changes."""
    table, names = tables["path"], class_names(tables)
    figure, axes = style.panels(layout, 6, height=2.6, columns=3)
    _prediction(axes[0], table, names)
    _changes(axes[1], table)
    _first_order(axes[2], table, names)
    _curvature(axes[3], table)
    _loss(axes[4], table)
    _regions(axes[5], table)
    t = _t(table)
    for panel in axes:
        if panel.get_ylabel():
            panel.set(xlabel="position t on the straight path", xlim=(-0.03, 1.03))
            for step in switches(table):
                panel.axvline((t[step - 1] + t[step]) / 2, color=style.QUIET, linestyle=":", linewidth=1)
    return figure


def finding(tables: Tables) -> str:
    """Say how far a map of the start answers for the way to the other class."""
    table, names = tables["path"], class_names(tables)
    start, end = ends(table, names)
    steps = {name: reach(table, name)[0] for name in ("gradient", "smoothgrad")}
    if min(steps.values()) == len(table) - 1:
        return f"From {start} to {end} first order holds: along the whole path, for gradient and SmoothGrad."
    t = _t(table)
    maps = {"gradient": "the gradient", "smoothgrad": "the SmoothGrad map"}
    until = [f"{maps[name]} up to t = {t[step]:.2f}" for name, step in steps.items()]
    return (
        f"A map does not answer for the way to another class: on the straight path from {start} (t = 0) to "
        f"{end} (t = 1) the start's score follows {listing(until)} within a tenth of its range."
    )


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the rule for jumps."""
    table = tables["path"]
    length = float(table["distance"].iloc[-1])
    return sentences(
        finding(tables),
        f"n = {len(table)} points, L2 length {number(length)}; dotted: another class is predicted. "
        "Change of an explanation: L2 distance from that at the point before, over the mean of their norms, "
        f"with the same noise at every point; a jump is {RULE}.",
        "Curvature of the explained logit along the path: exact at the point (zero inside a linear region); "
        "over both neighbouring points, by its second difference; of the smoothed logit, by SmoothGrad's "
        "slope. Of the cross-entropy it is exact; "
        "gaps where it is not positive.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    table, names = tables["path"], class_names(tables)
    start, end = ends(table, names)
    t = _t(table)
    changed = [f"{(t[step - 1] + t[step]) / 2:.2f}" for step in switches(table)]
    moves = [
        f"{NAMES[name]} {percent(float(table[f'{name}_distance'].median()))}"
        for name in METHODS
        if table[f"{name}_distance"].notna().any()
    ]
    return sentences(
        f"Six panels over t from {start} to {end}.",
        f"The prediction changes at t = {listing(changed)}." if changed else "The prediction never changes.",
        f"Median change a step: {listing(moves)}." if moves else "",
    )


register(
    FigureSpec(
        name="path",
        tables=("path",),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=65,
    )
)
