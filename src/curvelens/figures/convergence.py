"""How far from the exact solution do ten steps end? CASO's solvers against iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.wording import listing, number, percent, plain, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from pandas import DataFrame

STEPS = 10
"""Steps that the paper makes."""

STEPS_OF = {
    "paper": "such steps",
    "accelerated": "accelerated steps",
    "conjugate gradients": "steps of conjugate gradients",
}
FLOOR = 1e-16
_SCALE = (style.SKY, style.BLUE, style.ORANGE, style.VERMILLION, style.GREEN, style.PURPLE)
_LINES: dict[str, tuple[Any, str]] = {
    "paper": ("--", "s"),
    "accelerated": ("-", "o"),
    "conjugate gradients": (":", "^"),
}


def _panel(axes: Axes, tables: Tables, share: float) -> None:
    table = tables["convergence"]
    table = table[table["l1"] == share]
    for place, (_, rows) in enumerate(table.groupby("curvature")):
        for method, (line, marker) in _LINES.items():
            errors = rows[rows["method"] == method].groupby("iterations")["error"].median()
            if errors.empty:
                continue
            axes.plot(
                errors.index, errors.clip(lower=FLOOR), color=_SCALE[place % len(_SCALE)], linestyle=line,
                marker=marker,
            )  # fmt: skip
    axes.axvline(STEPS, color=style.QUIET, linewidth=1)
    axes.set(
        xscale="log", yscale="log", xlabel="iterations", ylabel="‖Δ − Δ*‖/‖Δ*‖ (median)", ylim=(FLOOR / 3, 3)
    )
    style.title(axes, "λ₁ = 0" if share == 0 else f"λ₁ = {plain(share)} max|g|")


def _keys(tables: Tables) -> list[Line2D]:
    """Return the legend: colours are curvatures, lines and markers are methods."""
    from matplotlib.lines import Line2D

    curvatures = sorted(tables["convergence"]["curvature"].unique())
    colours = [
        Line2D([], [], color=_SCALE[place % len(_SCALE)], linewidth=3, label=f"L = {plain(float(curvature))}")
        for place, curvature in enumerate(curvatures)
    ]
    names = {"paper": "FISTA of the paper", "accelerated": "accelerated, curvelens"}
    methods = [
        Line2D([], [], color=style.INK, linestyle=line, marker=marker, label=names.get(method, method))
        for method, (line, marker) in _LINES.items()
        if method in set(tables["convergence"]["method"])
    ]
    return colours + methods


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw the error of each solver against iterations, a panel for each λ₁."""
    shares = sorted(tables["convergence"]["l1"].unique())
    figure, axes = style.panels(layout, max(1, len(shares)), height=3.3)
    if not shares:
        style.empty(axes[0], "nothing was measured")
        return figure
    for each, share in zip(axes, shares, strict=True):
        _panel(each, tables, share)
    figure.legend(
        handles=_keys(tables), loc="outside lower center", ncols=2 if layout.narrow else 4,
        title=f"vertical line: the paper's {STEPS} steps",
    )  # fmt: skip
    return figure


def after_ten(tables: Tables) -> DataFrame:
    """Return the median error of the paper's ten steps: a row for each λ₁, a column for each L."""
    rows = tables["convergence"].query(f"method == 'paper' and iterations == {STEPS}")
    medians: DataFrame = rows.pivot_table("error", "l1", "curvature", aggfunc="median")
    return medians


def finding(tables: Tables) -> str:
    """Say how far from the optimum the paper's ten steps end."""
    ten = after_ten(tables)
    if ten.empty:
        return ""
    worst = ten.columns[-1]
    told = listing(f"{_share(ten.iloc[0][L])} at L = {plain(L)}" for L in ten.columns)
    where = "λ₁ = 0" if ten.index[0] == 0 else f"λ₁ = {plain(ten.index[0])} max|g|"
    others = "".join(
        f", {_share(row[worst])} with λ₁ = {plain(l1)} max|g|" for l1, row in ten.iloc[1:].iterrows()
    )
    claim = "stop short" if ten.iloc[0][worst] > 0.01 else "suffice"
    return (
        f"The paper's {STEPS} FISTA steps {claim} where curvature is large: their solution is off by {told} "
        f"({where}){others}{_needed(tables, worst)}."
    )


def _share(error: float) -> str:
    return percent(error) if error >= 0.01 else percent(error, 1) if error >= 5e-4 else number(error)


def reached(tables: Tables, share: float, curvature: float, method: str, goal: float = 1e-6) -> DataFrame:
    """Return the row of the fewest iterations whose median error is at most ``goal``, or none.

    Args:
        tables: With ``convergence``.
        share: λ₁ as a share of max|g|.
        curvature: L.
        method: Solver.
        goal: Relative error.
    """
    rows = tables["convergence"]
    rows = rows[(rows["l1"] == share) & (rows["curvature"] == curvature) & (rows["method"] == method)]
    medians = rows.groupby("iterations")[["error", "made", "seconds"]].median().reset_index()
    found: DataFrame = medians[medians["error"] <= goal].head(1)
    return found


def _needed(tables: Tables, curvature: float) -> str:
    parts = []
    for method in STEPS_OF:
        row = reached(tables, 0.0, curvature, method)
        if len(row):
            parts.append(f"{int(row['made'].iloc[0])} {STEPS_OF[method]}")
    if not parts:
        return ""
    return f"; for an error of 10⁻⁶ at L = {plain(curvature)} and λ₁ = 0 at most {listing(parts)} were needed"


def _corollary(tables: Tables) -> str:
    """Compare the gap with Corollary 1 as printed, and with the step that is taken."""
    rows = tables["convergence"].query("method == 'paper'")
    # Both are compared beyond rounding of the objective.
    broken = rows["gap"] > rows["printed_bound"] * (1 + 1e-9) + 1e-12
    kept = rows["gap"] <= rows["step_bound"] * (1 + 1e-9) + 1e-12
    verdict = (
        f"The bound of Corollary 1 as printed (α ≤ λ₂ − L/2, a curvature where a step is meant) is broken in "
        f"{int(broken.sum())} of {len(rows)} measurements"
        if broken.any()
        else "The bound of Corollary 1 as printed holds in every measurement"
    )
    return f"{verdict}; with the step that is taken it holds in {percent(kept.mean())}."


def caption(tables: Tables) -> str:
    """Return the finding, Corollary 1, what is drawn, and the n."""
    table = tables["convergence"]
    if table.empty:
        return "Nothing was measured."
    instances = int(table["instance"].nunique())
    return sentences(
        finding(tables),
        _corollary(tables),
        f"Medians over random problems, n = {instances} for each L; λ₂ = L/2 + c₁.",
        f"Δ* has a relative KKT residual of {number(table['exact_residual'].max())} or less;",
        "errors below 10⁻¹⁶ are drawn there.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    ten = after_ten(tables)
    if ten.empty:
        return "Curves of errors against iterations." if len(tables["convergence"]) else "An empty panel."
    told = listing(f"{number(ten.iloc[0][L])} at L = {plain(L)}" for L in ten.columns)
    return (
        "Errors fall with iterations on logarithmic axes, the slower the larger L. After the paper's ten "
        f"steps they are {told}."
    )


register(
    FigureSpec(
        name="convergence",
        tables=("convergence",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=74,
    )
)
