"""How much worse than SmoothHess + SmoothGrad each local model is, beside the paper's ratios."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.fidelity import LAWS, labelled, main_law, scalar_name, scalars
from curvelens.figures.wording import count, listing, number, plain, sentences, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

REFERENCE = "SH+SG"
FACTOR = 1.5  # within which a printed ratio counts as reproduced
COMPARED = ("SP H+G", "SG")  # whose ratios Torop et al. 2023 build their claims on


def ratios(tables: Tables) -> DataFrame:
    """Return the summary with the paper's ratio, NaN where it prints none.

    Of the radius laws the paper's is taken where it was run.

    Args:
        tables: Holds ``fidelity``.
    """
    rows = tables["fidelity"].dropna(subset=["ratio"])
    laws = set(rows["law"])
    rows = rows[rows["law"] == ("paper" if "paper" in laws else main_law(rows))]
    printed = rows[rows["method"] == REFERENCE].set_index(["scalar", "radius"])["paper_mean"].to_dict()
    base = [printed.get(key, math.nan) for key in zip(rows["scalar"], rows["radius"], strict=True)]
    rows = labelled(rows.assign(paper_ratio=rows["paper_mean"] / base))
    return rows[(rows["method"] != REFERENCE) & (rows["ratio"] > 0)]


def verdicts(tables: Tables) -> DataFrame:
    """Say for each scalar, radius and law whether SH+SG has the lowest mean.

    Returns:
        Columns scalar, radius, law, rival (the best other model) and verdict: ``lowest``; ``tied`` where the
        rival is better by less than the standard error of the ratio of the two; else ``beaten``.
    """
    import pandas as pd

    rows = labelled(tables["fidelity"].dropna(subset=["ratio"]))
    records = []
    for (scalar, radius, law), group in rows[rows["method"] != REFERENCE].groupby(
        ["scalar", "radius", "law"]
    ):
        rival = group.loc[group["ratio"].idxmin()]
        short = 1 - rival["ratio"]
        error = rival["ratio_standard_error"]
        verdict = "lowest" if short < 0 else "tied" if not short > error else "beaten"
        records.append((scalar, radius, law, rival["method"], verdict))
    return pd.DataFrame(records, columns=["scalar", "radius", "law", "rival", "verdict"])


def growth(rows: DataFrame, column: str) -> list[float]:
    """Return the exponents p of means that grow as ε^p from the smallest to the largest radius, by scalar.

    Args:
        rows: Rows of one method and law.
        column: ``mean`` or ``paper_mean``.
    """
    found = []
    for _, group in rows.dropna(subset=[column]).groupby("scalar"):
        ordered = group[group[column] > 0].sort_values("radius")
        if len(ordered) > 1:
            first, last = ordered.iloc[0], ordered.iloc[-1]
            found.append(math.log(last[column] / first[column]) / math.log(last["radius"] / first["radius"]))
    return found


def _panel(axes: Axes, rows: DataFrame, scalar: str) -> None:
    """Draw a line of marks for each radius and method, the smallest radius on top."""
    rows = rows[rows["scalar"] == scalar]
    radii, methods = sorted(rows["radius"].unique().tolist()), style.order(rows["method"])
    places, labels = [], []
    for block, radius in enumerate(radii):
        for line, method in enumerate(methods):
            place = block * (len(methods) + 1) + line
            places.append(place)
            labels.append(f"{method}, ε = {plain(radius)}" if line == 0 else method)
            row = rows[(rows["radius"] == radius) & (rows["method"] == method)]
            if len(row):
                _mark(axes, row.iloc[0], place, methods)
    axes.axvline(1, color=style.INK, linewidth=0.8)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    steps = (1, 2, 5) if high < 100 * low else (1,)
    ticks = [step * 10.0**power for power in range(-6, 7) for step in steps]
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [plain(tick) for tick in shown])
    axes.set_xticks([], minor=True)
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("mean $P_\\mathrm{MSE}$ over that of SH+SG")


def _mark(axes: Axes, row: DataFrame, place: int, methods: list[str]) -> None:
    mark = style.mark(row["method"], methods)
    error = row["ratio_standard_error"]
    # A bar that reaches below zero has no lower end on a logarithmic axis.
    error = min(error, 0.95 * row["ratio"]) if error == error else 0.0
    printed = row["paper_ratio"]
    if printed == printed and row["method"] != "G":
        axes.plot([printed / FACTOR, printed * FACTOR], [place, place], color=style.GRID, linewidth=7)
        axes.plot(printed, place, linestyle="", marker="|", markersize=11, color=style.INK)
    axes.errorbar(row["ratio"], place, xerr=error, elinewidth=1, capsize=2, **mark.arguments())


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one panel a scalar."""
    rows = ratios(tables)
    names = scalars(rows)
    lines = rows.groupby("scalar").size().max() if len(rows) else 6
    figure, axes = style.panels(layout, max(len(names), 1), height=1.3 + 0.21 * (lines + 3))
    if not names:
        style.empty(axes[0], "no ratio to SmoothHess + SmoothGrad is known")
        return figure
    for one, scalar in zip(axes, names, strict=True):
        _panel(one, rows, scalar)
        style.title(one, scalar_name(scalar))
    if rows["paper_ratio"].notna().any():
        from matplotlib.lines import Line2D

        handles = [
            Line2D([], [], linestyle="", marker="|", markersize=11, color=style.INK),
            Line2D([], [], color=style.GRID, linewidth=7),
        ]
        labels = ["printed in the paper", f"within a factor {FACTOR:g} of it"]
        figure.legend(handles, labels, loc="outside lower center", ncols=1 if layout.narrow else 2)
    return figure


def _lowest(tables: Tables) -> str:
    """Say in how many settings SH+SG is the lowest, tied or beaten, and by what."""
    found = verdicts(tables)
    if found.empty:
        return ""
    total = len(found)
    of = found["verdict"].value_counts()
    if of.get("lowest", 0) == total:
        laws = listing(LAWS.get(law, law) for law in LAWS if (found["law"] == law).any())
        return (
            f"SH+SG has the lowest mean in all {count(total, 'setting')} of scalar, radius and law ({laws})"
        )
    parts = [
        f"SH+SG has the lowest mean in {of.get('lowest', 0)} of {total} settings of scalar, radius and law"
    ]
    for verdict, words in (("tied", "is tied within the standard error in"), ("beaten", "is beaten in")):
        rows = found[found["verdict"] == verdict]
        if len(rows):
            rivals = listing(style.order(rows["rival"]))
            parts.append(f"{words} {len(rows)} ({'with' if verdict == 'tied' else 'by'} {rivals})")
    return ", ".join(parts)


def _reproduced(rows: DataFrame) -> str:
    """Say how many of the paper's ratios ours come near."""
    both = rows[rows["method"].isin(COMPARED)].dropna(subset=["paper_ratio"])
    if both.empty:
        return ""
    off = (both["ratio"] / both["paper_ratio"]).map(lambda share: max(share, 1 / share))
    told = "; ".join(
        f"{method} to SH+SG {spread([*part['ratio']])}, printed {spread([*part['paper_ratio']])}"
        for method, part in ((name, both[both["method"] == name]) for name in COMPARED)
        if len(part)
    )
    return (
        f"{int((off <= FACTOR).sum())} of {count(len(both), 'printed ratio')} "
        f"are reproduced within a factor {FACTOR:g} ({told})"
    )


def _gradient(tables: Tables) -> str:
    """Say how the plain gradient's error grows, ours and the printed one."""
    rows = tables["fidelity"]
    rows = rows[(rows["law"] == "paper") & (rows["method"] == "G")]
    ours, theirs = growth(rows, "mean"), growth(rows, "paper_mean")
    if not ours or not theirs:
        return ""
    return (
        f"Row G of the paper is left out: from the smallest to the largest radius it grows as ε to the power "
        f"{spread(theirs)}, as the error of a slope that has nothing to do with the perturbation would, "
        f"ours as ε to the power {spread(ours)}; a slope that is exact at the image leaves an error of higher"
        " order"
    )


def finding(tables: Tables) -> str:
    """Say whether SH+SG is the lowest everywhere, and whether the paper's ratios come out."""
    parts = [part for part in (_lowest(tables), _reproduced(ratios(tables))) if part]
    return "; ".join(parts) + "." if parts else ""


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = ratios(tables)
    if rows.empty:
        return "No ratio to SmoothHess + SmoothGrad is known."
    gradient = _gradient(tables)
    images = listing(f"{n:,}" for n in sorted({int(n) for n in rows["images"]}))
    law = LAWS.get(rows["law"].iloc[0], rows["law"].iloc[0])
    return sentences(
        finding(tables),
        f"Mean error of each local model over that of SH+SG on the same {images} test images, lengths of the "
        f"perturbations: {law}; right of the line SH+SG is better. Bars are standard errors of the ratio.",
        f"{gradient}." if gradient else "",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = ratios(tables)
    if rows.empty:
        return "Empty panel: no ratio to SmoothHess + SmoothGrad is known."
    told = "; ".join(
        f"{method} {number(part['ratio'].min())} to {number(part['ratio'].max())}"
        for method, part in ((name, rows[rows["method"] == name]) for name in style.order(rows["method"]))
    )
    return f"Ratios of mean error to that of SH+SG on a logarithmic axis, over radii and scalars: {told}."


register(
    FigureSpec(
        name="fidelity_ratios",
        tables=("fidelity",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=41,
    )
)
