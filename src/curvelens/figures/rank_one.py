"""Is the Hessian of the loss of rank one? Fig. 5 to 7 of Singla et al. 2019, with the true asymptote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.wording import listing, number, percent, plain, sentences
from curvelens.summaries.theorems import FAMILIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from pandas import DataFrame

MARKS = {
    "orthonormal": style.Mark(style.BLUE, "o", "-", True),
    "gaussian": style.Mark(style.VERMILLION, "s", "--", True),
    "zipf": style.Mark(style.GREEN, "^", "-.", True),
}
NAMES = {
    "orthonormal": "orthogonal gradients, equal others",
    "gaussian": "random gradients, equal others (the paper's)",
    "zipf": "orthogonal gradients, others ∝ 1/rank",
}
ERROR = "relative error, rank one"

SHOWN = 100
"""Classes of Fig. 6, as nearly as there are."""


def rows_of(tables: Tables, family: str) -> DataFrame:
    """Return the rows of one family."""
    rows: DataFrame = tables["rank_one"]
    return rows[rows["family"] == family]


def surest(tables: Tables, family: str) -> DataFrame:
    """Return the rows of one family at the smallest 1 − p, by classes."""
    rows = rows_of(tables, family)
    return rows[rows["doubt"] == tables["rank_one"]["doubt"].min()].sort_values("classes")


def families(tables: Tables) -> list[str]:
    """Return the families that were measured, in their order."""
    return [name for name in FAMILIES if name in set(tables["rank_one"]["family"])]


def _with_classes(tables: Tables, family: str, c: int) -> DataFrame:
    rows = rows_of(tables, family)
    return rows[rows["classes"] == c]


def classes_shown(tables: Tables) -> int:
    """Return the number of classes nearest to that of Fig. 6."""
    return int(min(tables["rank_one"]["classes"].unique(), key=lambda c: abs(c - SHOWN)))


def _against_classes(axes: Axes, tables: Tables) -> None:
    least = tables["rank_one"]["doubt"].min()
    for family in families(tables):
        rows = surest(tables, family)
        axes.plot(rows["classes"], rows["paper_error"], label=NAMES[family], **MARKS[family].arguments())
    limit = tables["rank_one"].drop_duplicates("classes").sort_values("classes")
    axes.plot(
        limit["classes"], limit["asymptote"],
        color=style.INK, linestyle=":", label="exact limit as p → 1, about 1/√c", zorder=3,
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="classes c", ylabel=ERROR)
    style.title(axes, f"Fig. 5: 1 − p = {plain(least)}")


def _against_doubt(axes: Axes, tables: Tables) -> None:
    c = classes_shown(tables)
    for family in families(tables):
        rows = _with_classes(tables, family, c).sort_values("doubt")
        axes.plot(rows["doubt"], rows["paper_error"], **MARKS[family].arguments())
    axes.axhline(rows["asymptote"].iloc[0], color=style.INK, linestyle=":")
    _confidence(axes)
    style.title(axes, f"Fig. 6: {c:,} classes")


def _all(axes: Axes, tables: Tables) -> None:
    family = "gaussian" if "gaussian" in families(tables) else families(tables)[0]
    rows = rows_of(tables, family)
    numbers = sorted(rows["classes"].unique())
    for place, c in enumerate(numbers):
        line = rows[rows["classes"] == c].sort_values("doubt")
        shade = 0.25 + 0.75 * (place + 1) / len(numbers)
        axes.plot(line["doubt"], line["paper_error"], color=style.VERMILLION, alpha=shade, marker="s")
        axes.axhline(line["asymptote"].iloc[0], color=style.INK, linestyle=":", linewidth=0.9)
        least = line.iloc[0]
        axes.annotate(
            f"{c:,}", (least["doubt"], least["paper_error"]), (4, 4), textcoords="offset points", fontsize=8
        )
    _confidence(axes)
    style.title(axes, "Fig. 7: by classes")


def _plain_ticks(axis: Axis) -> None:
    """Label 0.03, 0.1, 0.3, … on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _confidence(axes: Axes) -> None:
    axes.set(xscale="log", yscale="log", xlabel="1 − p, surer to the right", ylabel=ERROR)
    axes.invert_xaxis()


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw the error of the rank-one approximation against classes and confidence."""
    figure, axes = style.panels(layout, 3, height=3.0)
    if tables["rank_one"].empty:
        for each in axes:
            style.empty(each, "nothing was measured")
        return figure
    _against_classes(axes[0], tables)
    _against_doubt(axes[1], tables)
    _all(axes[2], tables)
    for each in axes:
        _plain_ticks(each.yaxis)
    _plain_ticks(axes[0].xaxis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 if layout.narrow else 2)
    return figure


def finding(tables: Tables) -> str:
    """Say whether certainty makes the Hessian one of rank one."""
    if tables["rank_one"].empty:
        return ""
    c, family = classes_shown(tables), "gaussian" if "gaussian" in families(tables) else families(tables)[0]
    rows = _with_classes(tables, family, c).sort_values("doubt")
    unsure, sure = rows.iloc[-1], rows.iloc[0]
    lower = rows[rows["doubt"] >= 100 * sure["doubt"]]
    if lower.empty:
        return ""
    before = lower.iloc[0]
    stays = sure["paper_error"] > before["paper_error"] / 2
    told = (
        f"with {c:,} classes it falls from {number(unsure['paper_error'])} at 1 − p = "
        f"{plain(unsure['doubt'])} to {number(before['paper_error'], 3)} at {plain(before['doubt'])} "
        f"and {'stays at' if stays else 'goes on to'} {number(sure['paper_error'], 3)} at "
        f"{plain(sure['doubt'])} (limit for orthogonal gradients: {number(sure['asymptote'], 3)})"
    )
    claim = (
        "does not make the Hessian one of rank one: the error of the paper's approximation does not go to 0;"
        if stays
        else "makes the Hessian one of rank one: the error of the paper's approximation goes to 0;"
    )
    help_ = _classes_help(tables, family)
    return f"Certainty alone {claim} {told}{'; ' if help_ else ''}{help_}."


def _classes_help(tables: Tables, family: str) -> str:
    rows = surest(tables, family)
    if len(rows) < 2:
        return ""
    few, many = rows.iloc[0], rows.iloc[-1]
    return (
        f"what helps is the number of classes, {number(few['paper_error'])} with {int(few['classes'])} and "
        f"{number(many['paper_error'], 3)} with {int(many['classes']):,}"
    )


def _unequal(tables: Tables) -> str:
    rows = surest(tables, "zipf")
    if rows.empty:
        return ""
    last = rows.iloc[-1]
    return (
        f"The paper's simulation gives all other classes the same probability; where they fall as 1/rank, "
        f"the error with {int(last['classes']):,} classes is {number(last['paper_error'])} instead of "
        f"{number(last['exact_paper_error'], 2)}."
    )


def _explanations(tables: Tables) -> str:
    """Say how far CASO and CAFO, and g and the leading eigenvector, lie apart (Theorem 5)."""
    parts = []
    for family in families(tables):
        rows = rows_of(tables, family)
        far = rows.loc[rows["distance"].idxmax()]
        if far["distance"] < 1e-10:
            parts.append(f"exactly 0 for {NAMES[family]}, whatever the confidence: g is an eigenvector")
        else:
            parts.append(
                f"at most {number(far['distance'])} for {NAMES[family]} (1 − p = {plain(far['doubt'])}, "
                f"{int(far['classes']):,} classes; g is {number(far['angle'])}° off the eigenvector)"
            )
    return f"Distance of CASO and CAFO: {'; '.join(parts)}."


def caption(tables: Tables) -> str:
    """Return the finding, what other probabilities do, Theorem 5, and what is drawn."""
    if tables["rank_one"].empty:
        return "Nothing was measured."
    half = tables["rank_one"].query("doubt == 0.5 and family == 'orthonormal'")["paper_error"]
    return sentences(
        finding(tables),
        _unequal(tables),
        f"At p = 1/2 the approximation is as wrong as no Hessian at all ({percent(half.max())})."
        if len(half) and abs(half.max() - 1) < 1e-6
        else "",
        _explanations(tables),
        "Drawn: Frobenius norm of H − ggᵀ/(1 − p) over that of H, for a linear model with",
        f"{listing(f'{c:,}' for c in sorted(tables['rank_one']['classes'].unique()))} classes; dotted, its",
        "limit √((c − 2)/((c − 1)(c + 2))) for orthogonal gradients.",
        f"One model a point, n = {len(tables['rank_one'])}.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    if tables["rank_one"].empty:
        return "Empty panels: nothing was measured."
    rows = surest(tables, families(tables)[0])
    told = listing(f"{number(row.paper_error)} with {row.classes:,} classes" for row in rows.itertuples())
    return (
        "Errors fall along straight lines with the number of classes on logarithmic axes; against confidence "
        f"they fall at first and end in horizontal lines. At 1 − p = {plain(rows['doubt'].iloc[0])}: {told}."
    )


register(
    FigureSpec(
        name="rank_one",
        tables=("rank_one",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=70,
    )
)
