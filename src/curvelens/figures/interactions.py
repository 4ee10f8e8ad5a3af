"""Interactions of two features at every level of smoothing, beside the exact ones (Torop et al., Fig. 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.wording import listing, number, percent, plain, sentences, spread
from curvelens.summaries.interactions import ELEMENTS, SMOOTHHESS, SOFTPLUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

NAMES = {"four_quadrants": "Four Quadrant", "nested": "Nested Interactions"}
FEATURES = {"11": "x₁x₁", "12": "x₁x₂", "22": "x₂x₂"}
COLOURS = {"11": style.ORANGE, "12": style.BLUE, "22": style.GREEN}
MARKERS = {"11": "o", "12": "s", "22": "^"}
SYMBOLS = {SMOOTHHESS: "σ²", SOFTPLUS: "β"}


def rows_of(tables: Tables, smoother: str) -> DataFrame:
    """Return the measurements of one smoother by rising level."""
    table = tables["interactions"]
    rows: DataFrame = table[table["smoother"] == smoother].sort_values("level")
    return rows


def summary_of(tables: Tables, smoother: str, element: str) -> Series:
    """Return how near one element of one smoother comes to the exact one."""
    table = tables["interactions_summary"]
    row: Series = table[(table["smoother"] == smoother) & (table["element"] == element)].iloc[0]
    return row


def target_of(tables: Tables) -> str:
    """Return the target's name for people."""
    name = str(tables["interactions_network"]["target"].iloc[0])
    return NAMES.get(name, name)


def _panel(axes: Axes, rows: DataFrame, smoother: str, scale: float, tolerance: float) -> None:
    level = rows["level"].to_numpy(float)
    for element in ELEMENTS:
        colour = COLOURS[element]
        found, error = rows[f"h{element}"].to_numpy(float), rows[f"stderr{element}"].to_numpy(float)
        every = max(1, len(level) // 8)
        axes.plot(level, found, color=colour, marker=MARKERS[element], markevery=every, markersize=4)
        axes.fill_between(level, found - 2 * error, found + 2 * error, color=colour, alpha=0.2, linewidth=0)
    for element in ELEMENTS:
        exact, inside = rows[f"exact{element}"], rows[f"inside{element}"]
        # Beside SoftPlus an exact value that varies with σ² means something only where the two are near.
        meant = (rows["deviation"] <= tolerance) | (smoother == SMOOTHHESS) | _constant(exact)
        axes.plot(level, exact.where(meant), color=COLOURS[element], linestyle="--", linewidth=1.1)
        if smoother == SMOOTHHESS and (inside - exact).abs().max() > 0.02 * scale:
            axes.plot(level, inside, color=COLOURS[element], linestyle=":", linewidth=1.1)
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=scale, linscale=2.0)
    axes.set_ylabel("element of the Hessian\n(target per squared unit of a feature)")
    _ticks(axes, scale)


def _ticks(axes: Axes, scale: float) -> None:
    """Label the linear part at round steps and the compressed parts at powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    low, high = axes.get_ylim()
    inner = [tick for tick in MaxNLocator(5).tick_values(-scale, scale) if abs(tick) <= scale]
    outer = [sign * 10.0**power for power in range(-3, 7) for sign in (-1, 1) if 10.0**power > 1.5 * scale]
    axes.yaxis.set_major_locator(FixedLocator([t for t in sorted([*inner, *outer]) if low <= t <= high]))
    axes.yaxis.set_minor_locator(FixedLocator([]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: plain(tick)))


def _largest_exact(tables: Tables) -> float:
    columns = [f"exact{element}" for element in ELEMENTS]
    return float(np.abs(rows_of(tables, SMOOTHHESS)[columns].to_numpy(float)).max())


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw the three elements over σ² and over β."""
    from matplotlib.lines import Line2D

    figure, axes = style.panels(layout, 2, height=3.4)
    scale = 1.2 * _largest_exact(tables)
    for panel, smoother in zip(axes, (SMOOTHHESS, SOFTPLUS), strict=True):
        tolerance = float(summary_of(tables, smoother, "all")["tolerance"])
        _panel(panel, rows_of(tables, smoother), smoother, scale, tolerance)
    axes[0].set_xlabel("σ² of the Gaussian (squared units of a feature)")
    axes[1].set_xlabel("β of SoftPlus (sharper to the right)")
    style.title(axes[0], "SmoothHess")
    style.title(axes[1], "SoftPlus Hessian")
    lines = [
        Line2D([], [], color=COLOURS[name], marker=MARKERS[name], markersize=4, label=FEATURES[name])
        for name in ELEMENTS
    ]
    lines += [
        Line2D([], [], color=style.QUIET, label="network"),
        Line2D([], [], color=style.QUIET, linestyle="--", linewidth=1.1, label="exact, target on the plane"),
        Line2D([], [], color=style.QUIET, linestyle=":", linewidth=1.1, label="exact, from within the data"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2 if layout.narrow else 3)
    return figure


def _constant(exact: Series) -> bool:
    return bool(np.ptp(exact) <= 1e-9 * exact.abs().max())


def nearness(row: Series) -> str:
    """Say of a row of the summary over which levels it is near, in words."""
    symbol, near, levels = SYMBOLS[row["smoother"]], int(row["near"]), int(row["levels"])
    if near == 0:
        return f"at none of {levels} values of {symbol}"
    low, high = number(row["near_low"]), number(row["near_high"])
    run = f"longest run {low} to {high}" if low != high else f"near {low}"
    return f"at {near} of {levels} values of {symbol} ({run})"


def _covered(tables: Tables) -> str:
    """Say to which σ² the levels of SoftPlus that are near correspond; empty where none is."""
    rows = rows_of(tables, SOFTPLUS)
    near = rows[rows["deviation"] <= summary_of(tables, SOFTPLUS, "all")["tolerance"]]
    return f", where it stands for σ² of {spread(near['matched'].tolist())}" if len(near) else ""


def finding(tables: Tables) -> str:
    """Say where SmoothHess is near the exact interactions, and whether SoftPlus is anywhere."""
    smooth, soft = (summary_of(tables, name, "all") for name in (SMOOTHHESS, SOFTPLUS))
    alone = [nearness(summary_of(tables, name, "12")) for name in (SMOOTHHESS, SOFTPLUS)]
    best = f"at best {percent(soft['smallest'])} off, at β = {number(soft['smallest_level'])}"
    return (
        f"On {target_of(tables)} SmoothHess is within {percent(smooth['tolerance'])} of the exact Hessian "
        f"{nearness(smooth)}, SoftPlus {nearness(soft)}{_covered(tables)}: SmoothHess is at best "
        f"{percent(smooth['smallest'], 1)} off, at σ² = {number(smooth['smallest_level'])}, SoftPlus {best}, "
        "compared with the exact Hessian of the σ² that suits it best. The interaction x₁x₂ alone is met "
        f"by SmoothHess {alone[0]}, by SoftPlus {alone[1]}."
    )


def _exact(tables: Tables) -> str:
    """Say what the exact curves do: constant, or between which values, and where they are lowest."""
    rows = rows_of(tables, SMOOTHHESS)
    told = []
    for element in ELEMENTS:
        # What is exactly zero in the limit is not worth its rounding error.
        exact = rows[f"exact{element}"].where(rows[f"exact{element}"].abs() > 1e-3, 0.0)
        first, last, lowest = (number(value, 3) for value in (exact.iloc[0], exact.iloc[-1], exact.min()))
        if _constant(rows[f"exact{element}"]):
            told.append(f"{FEATURES[element]} = {first} at every σ²")
            continue
        way = f"{FEATURES[element]} goes from {first} to {last}"
        if lowest not in (first, last):
            way += f" by way of {lowest} at σ² = {number(rows['level'].loc[exact.idxmin()])}"
        told.append(way)
    return f"Exact: {'; '.join(told)}."


def _cause(tables: Tables) -> str:
    """Say at how many levels that are not near the network, and not the estimate, is to blame."""
    rows = rows_of(tables, SMOOTHHESS)
    off = rows[rows["deviation"] > summary_of(tables, SMOOTHHESS, "all")["tolerance"]]
    if off.empty:
        return ""
    exact, errors = ([f"{part}{element}" for element in ELEMENTS] for part in ("exact", "stderr"))
    distance = off["deviation"] * off[exact].abs().max(axis=1)
    blamed = off[distance > 4 * off[errors].max(axis=1)]
    told = f"At {len(blamed)} of the {len(off)} values of σ² that are not near, SmoothHess is more than four"
    return f"{told} standard errors off: there the network differs from its target, not the estimate from it."


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and how well the network fits."""
    network = tables["interactions_network"].iloc[0]
    rows = rows_of(tables, SMOOTHHESS)
    error, updates = number(network["mean_squared_error"]), f"{int(network['updates']):,}"
    theirs = number(network["paper_mean_squared_error"], 1)
    return sentences(
        finding(tables),
        _cause(tables),
        _exact(tables),
        "Solid: Hessian elements at the origin of a ReLU network of two features, with two standard errors "
        "shaded. Dashed: the target itself, smoothed by the same Gaussian (beside SoftPlus, of the σ² whose "
        "Hessian is nearest, where that is within the tolerance or the same for all σ²). Dotted: what of it "
        "comes from [−2, 2]², where the data are. Deviations are relative to the largest exact element; the "
        "axis is linear up to 1.2 times the largest of all and logarithmic beyond.",
        f"n = {len(rows)} values of σ², each from {int(rows['calls'].iloc[0]):,} gradient calls, and "
        f"{len(rows_of(tables, SOFTPLUS))} of β.",
        f"The network's mean squared error on its training grid is {error} after {updates} updates; Torop et "
        f"al. 2023 state about {theirs} after {int(network['paper_updates']):,}.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    told = []
    for smoother in (SMOOTHHESS, SOFTPLUS):
        rows = rows_of(tables, smoother)
        parts = [
            f"{FEATURES[element]} from {number(rows[f'h{element}'].iloc[0])} to "
            f"{number(rows[f'h{element}'].iloc[-1])}"
            for element in ELEMENTS
        ]
        told.append(f"{smoother}, as {SYMBOLS[smoother]} grows: {listing(parts)}.")
    return f"Two panels of curves. {' '.join(told)} {_exact(tables)}"


register(
    FigureSpec(
        name="interactions",
        tables=("interactions", "interactions_summary", "interactions_network"),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=60,
    )
)
