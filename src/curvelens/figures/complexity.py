"""How many gradient calls a Hessian needs: error against calls and dimension, where the truth is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.wording import count, listing, number, percent, plain, sentences, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

MARKS = {
    "regression": style.Mark(style.BLUE, "o", "-", True),
    "projected": style.Mark(style.SKY, "s", "-", True),
    "orthogonal": style.Mark(style.GREEN, "D", "-", True),
    "sobol": style.Mark(style.PURPLE, "v", "-", True),
    "antithetic": style.Mark(style.ORANGE, "^", "--", False),
    "plain": style.Mark(style.VERMILLION, "x", "--", True),
}
TARGET = 0.1  # of the column calls_needed
THEOREM = -0.5


def shown(frame: DataFrame) -> DataFrame:
    """Return the rows of the function that is drawn: the widest network; the quadratic where it is alone."""
    ridges = frame[frame["function"] == "ridges"]
    return frame if ridges.empty else ridges[ridges["width"] == ridges["width"].max()]


def function_name(function: str, width: float) -> str:
    """Return what is explained in words."""
    if function == "quadratic":
        return "a quadratic"
    return f"a ReLU network of one hidden layer, {plain(width)} units for each input"


def _named(frame: DataFrame) -> str:
    return function_name(str(frame["function"].iloc[0]), float(frame["width"].iloc[0]))


def _estimators(frame: DataFrame) -> list[str]:
    return [name for name in MARKS if name in set(frame["estimator"])]


def _rates(tables: Tables, against: str) -> DataFrame:
    rows = shown(tables["complexity_rates"])
    return rows[(rows["against"] == against) & (rows["norm"] == "frobenius")]


def slope(row: Series) -> str:
    """Return a slope with half its interval: ``−0.50 ± 0.02``, or why there is none."""
    if row["exact"]:
        return "exact"
    if math.isnan(row["slope"]):
        return "–"
    half = (row["ci_high"] - row["ci_low"]) / 2
    around = "" if math.isnan(half) else f" ± {half:.2f}" if half >= 0.005 else f" ± {number(half, 1)}"
    return f"{row['slope']:.2f}{around}".replace("-", "−")


def _against_calls(axes: Axes, tables: Tables) -> None:
    errors, rates = shown(tables["complexity"]), _rates(tables, "calls").set_index(["estimator", "at"])
    d = int(errors["dimension"].max())
    errors = errors[errors["dimension"] == d]
    for name in _estimators(errors):
        line = errors[errors["estimator"] == name].groupby("calls")["relative_error"].median()
        axes.plot(line.index, line, label=f"{name}: {slope(rates.loc[(name, d)])}", **MARKS[name].arguments())
    calls = sorted(errors["calls"].unique())
    top = errors.groupby(["estimator", "calls"])["relative_error"].median().max() * 1.5
    axes.plot(
        calls, [top * (n / calls[0]) ** THEOREM for n in calls],
        color=style.QUIET, linestyle=":", label="$n^{-1/2}$ (Theorem 1)",
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="gradient calls n", ylabel="relative error (median)")
    style.title(axes, f"{d} features")


def _against_dimension(axes: Axes, tables: Tables) -> None:
    errors = shown(tables["complexity"])
    n = int(errors["calls"].max())
    errors = errors[errors["calls"] == n]
    for name in _estimators(errors):
        line = errors[errors["estimator"] == name].groupby("dimension")["relative_error"].median()
        axes.plot(line.index, line, **MARKS[name].arguments())
    axes.set(xscale="log", yscale="log", xlabel="features d", ylabel="relative error (median)")
    style.title(axes, f"{n:,} calls")


def _calls_needed(axes: Axes, tables: Tables) -> None:
    rows = _rates(tables, "calls").dropna(subset=["calls_needed"])
    axes.set(xlabel="features d", ylabel="gradient calls n")
    style.title(axes, f"Calls for an error of {percent(TARGET)}")
    if rows.empty:
        style.empty(axes, "no estimator gets there")
        return
    for name in _estimators(rows):
        line = rows[rows["estimator"] == name].sort_values("at")
        axes.plot(line["at"], line["calls_needed"], **MARKS[name].arguments())
    axes.set(xscale="log", yscale="log")
    most = int(tables["complexity"]["calls"].max())
    axes.axhspan(most, max(most, rows["calls_needed"].max()) * 1.5, color=style.GRID, zorder=0)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw errors against calls, errors against dimension, and the calls that an error of 10 % takes."""
    figure, axes = style.panels(layout, 3, height=3.0)
    if tables["complexity"].empty:
        for each in axes:
            style.empty(each, "nothing was estimated")
        return figure
    _against_calls(axes[0], tables)
    _against_dimension(axes[1], tables)
    _calls_needed(axes[2], tables)
    for each in axes[1:]:
        dimensions = sorted(shown(tables["complexity"])["dimension"].unique())
        each.set_xticks(dimensions, [str(d) for d in dimensions])
        each.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=1 if layout.narrow else 4,
        title="slope of log error against log n, with half its 95% interval",
    )  # fmt: skip
    return figure


def _largest(tables: Tables) -> DataFrame:
    rows = _rates(tables, "calls")
    return rows[rows["at"] == rows["at"].max()].set_index("estimator")


def finding(tables: Tables) -> str:
    """Say how many calls each estimator takes, and which takes fewest."""
    rows = _largest(tables)
    needed = rows.dropna(subset=["calls_needed"]).sort_values("calls_needed", kind="stable")
    if needed.empty:
        return ""
    told = listing(
        f"{rounded(row['calls_needed'])}{' (extrapolated)' if row['extrapolated'] else ''} with {name}"
        for name, row in needed.iterrows()
    )
    return (
        f"The estimator decides how many gradient calls a Hessian needs: for an error of {percent(TARGET)} "
        f"at {int(rows['at'].iloc[0])} features {told}{_saved(needed['calls_needed'])}."
    )


def _saved(needed: Series) -> str:
    """Compare the estimator that needs fewest calls with that of the published code."""
    published = needed.get("antithetic", math.nan)
    if not published > needed.iloc[0]:
        return ""
    return (
        f"; {needed.index[0]} takes {number(published / needed.iloc[0])} times fewer than the antithetic "
        "pairs of the published code"
    )


def rounded(calls: float) -> str:
    """Return a number of calls with two digits that count: ``2,500``."""
    return f"{float(f'{calls:.2g}'):,.0f}"


def _theorem(tables: Tables) -> str:
    """Say which slopes agree with the theorem's, which are steeper, and which flatter."""
    rows = _largest(tables).dropna(subset=["slope", "ci_low", "ci_high"])
    groups = {
        "agree with the −1/2 of Theorem 1 within their 95% intervals": (rows["ci_low"] <= THEOREM)
        & (rows["ci_high"] >= THEOREM),
        "fall faster": rows["ci_high"] < THEOREM,
        "fall more slowly": rows["ci_low"] > THEOREM,
    }
    parts = []
    for verdict, chosen in groups.items():
        if chosen.any():
            parts.append(
                f"{listing(f'{name} ({slope(row)})' for name, row in rows[chosen].iterrows())} {verdict}"
            )
    exact = [str(name) for name, row in _largest(tables).iterrows() if row["exact"]]
    if exact:
        parts.append(f"{listing(exact)} {'is' if len(exact) == 1 else 'are'} exact")
    return f"Slopes against n: {'; '.join(parts)}." if parts else ""


def _growth(tables: Tables) -> str:
    slopes = _rates(tables, "dimension").dropna(subset=["slope"])
    if slopes.empty:
        return ""
    n = int(slopes["at"].iloc[0])
    return f"Against d, at {n:,} calls, slopes are {spread(slopes['slope'])}; √d would be 0.5."


def caption(tables: Tables) -> str:
    """Return the finding, the slopes against the theorem, what is drawn, and the n."""
    if tables["complexity"].empty:
        return "Nothing was estimated."
    rows = shown(tables["complexity"])
    return sentences(
        finding(tables),
        _theorem(tables),
        _growth(tables),
        f"Error of the smoothed Hessian of {_named(rows)}, against its closed form;",
        f"slopes fitted for each of {count(rows['repeat'].nunique(), 'random function')}",
        "over at least four calls a feature.",
        "Grey in the last panel: beyond the calls made, extrapolated along the fitted line.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    if tables["complexity"].empty:
        return "Empty panels: nothing was estimated."
    errors = shown(tables["complexity"])
    last = errors[
        (errors["dimension"] == errors["dimension"].max()) & (errors["calls"] == errors["calls"].max())
    ]
    medians = last.groupby("estimator")["relative_error"].median()
    told = listing(f"{name} {number(medians[name])}" for name in _estimators(last))
    return (
        "Errors fall along straight lines on logarithmic axes as gradient calls grow, and grow with the "
        f"dimension. At {int(last['dimension'].iloc[0])} features and {int(last['calls'].iloc[0]):,} calls: "
        f"{told}."
    )


register(
    FigureSpec(
        name="complexity",
        tables=("complexity", "complexity_rates"),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=60,
    )
)
