"""Does λ₁ find the best few features? Supports along CASO's path against all supports (App. E)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.wording import number, percent, plain, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

_SCALE = (style.SKY, style.BLUE, style.GREEN, style.ORANGE, style.VERMILLION, style.PURPLE)
_MARKERS = "osD^vP"


def _means(tables: Tables, column: str) -> DataFrame:
    """Return means over instances: a row a size, a column a curvature."""
    table: DataFrame = tables["relaxation"]
    return table.assign(value=table[column].astype(float)).pivot_table("value", "size", "curvature")


def _lines(axes: Axes, tables: Tables, column: str, baseline: str) -> None:
    path, gradient = _means(tables, column), _means(tables, baseline)
    for place, curvature in enumerate(path):
        look: dict[str, Any] = {
            "color": _SCALE[place % len(_SCALE)],
            "marker": _MARKERS[place % len(_MARKERS)],
        }
        axes.plot(path.index, path[curvature], label=f"L/c₁ = {plain(curvature)}", **look)
        axes.plot(gradient.index, gradient[curvature], linestyle="--", markerfacecolor="white", **look)
    axes.set(xlabel="features k that may change")
    style.integers(axes.xaxis)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw how often the best support lies on the path, and what the path's support loses."""
    figure, axes = style.panels(layout, 2, height=3.0)
    if tables["relaxation"].empty:
        for each in axes:
            style.empty(each, "nothing was measured")
        return figure
    _lines(axes[0], tables, "same", "gradient_same")
    axes[0].set(ylabel="share of problems", ylim=(0, 1.04))
    style.title(axes[0], "Best support found")
    _lines(axes[1], tables, "loss", "gradient_loss")
    axes[1].set(ylabel="mean share of objective")
    style.title(axes[1], "Objective lost after refitting")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2 if layout.narrow else 4,
        title="solid: supports on the λ₁ path; dashed: k largest |g|",
    )  # fmt: skip
    return figure


def missed(tables: Tables) -> DataFrame:
    """Return the rows whose best support the path does not have."""
    rows: DataFrame = tables["relaxation"].query("not same")
    return rows


def finding(tables: Tables) -> str:
    """Say how often the relaxation is tight, though the condition of App. E always holds."""
    table = tables["relaxation"]
    if table.empty:
        return ""
    lost = missed(tables)
    if lost.empty:
        return f"The L₀–L₁ relaxation is tight: λ₁ finds the best support in all {len(table):,} cases."
    return (
        f"The L₀–L₁ relaxation is not always tight: λ₁ finds the best support in "
        f"{percent(table['same'].mean())} of {len(table):,} cases though the condition that App. E asks for "
        f"holds in every one; where it fails, {percent(lost['loss'].mean(), 1)} of the objective is lost on "
        f"average, {percent(lost['loss'].max())} at most{_gradient(table)}."
    )


def _gradient(table: DataFrame) -> str:
    own, theirs = table["same"].mean(), table["gradient_same"].mean()
    verb = "fewer" if theirs < own else "more" if theirs > own else "as many"
    return f"; the largest gradients alone find {verb} ({percent(theirs)})"


def _strength(tables: Tables) -> str:
    """Compare problems that are diagonally dominant with the others."""
    table = tables["relaxation"]
    weak = table["off_diagonal"] < 1
    if weak.all() or not weak.any():
        return ""
    return (
        f"With a diagonally dominant A it is tight in {percent(table.loc[weak, 'same'].mean())} of "
        f"{int(weak.sum()):,} cases, else in {percent(table.loc[~weak, 'same'].mean())} of "
        f"{int((~weak).sum()):,}."
    )


def caption(tables: Tables) -> str:
    """Return the finding, what decides it, what is drawn, and the n."""
    table = tables["relaxation"]
    if table.empty:
        return "Nothing was measured."
    instances = table.groupby("curvature")["instance"].nunique().max()
    return sentences(
        finding(tables),
        _strength(tables),
        "A = 2λ₂I − H is positive definite by Theorem 3, so App. E's restricted eigenvalue is positive",
        f"for every problem (at least {number(table['restricted_eigenvalue'].min())} here).",
        f"Random linear classifiers, n = {int(instances)} for each L/c₁; the best of up to",
        f"{int(table['supports'].max()):,} supports by trying all, the path by all its kinks.",
    )


def _range(values: Series) -> str:
    return f"{percent(values.min())} to {percent(values.max())}"


def alt(tables: Tables) -> str:
    """Describe the picture."""
    if tables["relaxation"].empty:
        return "Empty panels: nothing was measured."
    same = _means(tables, "same")
    low, high = same[same.columns[0]], same[same.columns[-1]]
    return (
        "Lines over the number of features. The share of problems in which the path has the best support is "
        f"{_range(low)} at L/c₁ = {plain(same.columns[0])} and {_range(high)} at "
        f"{plain(same.columns[-1])}; losses are shown beside it."
    )


register(
    FigureSpec(
        name="relaxation",
        tables=("relaxation",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=72,
    )
)
