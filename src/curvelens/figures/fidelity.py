"""Which local model is faithful at which radius: P_MSE of the local models."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.wording import count, listing, number, plain, sentences, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

SCALARS = {"predicted_logit": "class logit", "inner_neuron": "inner neuron"}
LAWS = {"ball": "uniform in the ball", "paper": "uniform radius, as published"}
NOISE = {"per_feature": "noise per pixel", "full": "correlated noise"}
FIRST_ORDER = ("SG", "SP G", "SW G", "G", *(f"SG, {noise}" for noise in NOISE.values()))


def scalar_name(scalar: str) -> str:
    """Return the name of a scalar for people."""
    return SCALARS.get(scalar, scalar)


def labelled(rows: DataFrame) -> DataFrame:
    """Return the summary with methods named by their noise too, where that is not isotropic."""
    shaped = ~rows["covariance"].isin(["isotropic", "none"])
    names = rows["method"].where(~shaped, rows["method"] + ", " + rows["covariance"].map(NOISE))
    return rows.assign(method=names)


def _rows(tables: Tables) -> DataFrame:
    return labelled(tables["fidelity"].dropna(subset=["mean"]))


def main_law(rows: DataFrame) -> str:
    """Return the radius law that findings are told about: the true ball where it was run."""
    laws = rows["law"].unique().tolist()
    return "ball" if "ball" in laws or not laws else laws[0]


def scalars(rows: DataFrame) -> list[str]:
    """Return the scalars present, the known ones first."""
    present = rows["scalar"].unique().tolist()
    return [name for name in SCALARS if name in present] + [name for name in present if name not in SCALARS]


def panel(
    axes: Axes, tables: Tables, scalar: str | None = None, law: str | None = None, legend: bool = False
) -> None:
    """Draw mean P_MSE against radius, one line a method, into ``axes``; the paper's values as crosses."""
    rows = _rows(tables)
    law = law or main_law(rows)
    axes.set_xlabel("radius ε (L2, pixels in [0, 1])")
    axes.set_ylabel("mean $P_\\mathrm{MSE}$\n(squared units of the scalar)")
    rows = rows[rows["law"] == law]
    rows = rows[rows["scalar"] == (scalar or next(iter(scalars(rows)), ""))]
    rows = rows[rows["mean"] > 0]
    if rows.empty:
        style.empty(axes, "no local model was measured")
        return
    radii = sorted(rows["radius"].unique().tolist())
    methods = style.order(rows["method"])
    for place, method in enumerate(methods):
        line = rows[rows["method"] == method].sort_values("radius")
        shift = 1.025 ** (
            place - (len(methods) - 1) / 2
        )  # side by side, so that error bars can be told apart
        # A bar that reaches below zero has no lower end on a logarithmic axis.
        error = line["standard_error"].fillna(0).clip(upper=line["mean"] * 0.95)
        axes.errorbar(
            line["radius"] * shift,
            line["mean"],
            yerr=error,
            label=method,
            elinewidth=1,
            capsize=2,
            **style.mark(method, methods).arguments(),
        )
        published = line.dropna(subset=["paper_mean"])
        axes.plot(
            published["radius"] * shift,
            published["paper_mean"],
            linestyle="",
            marker="_",
            markersize=13,
            markeredgewidth=2.2,
            color=style.mark(method, methods).colour,
            alpha=0.55,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(radii, [plain(radius) for radius in radii])
    axes.set_xticks([], minor=True)
    if legend:
        axes.legend(loc="upper left")


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one row a scalar and one column a radius law."""
    rows = _rows(tables)
    pairs = [
        (scalar, law)
        for scalar in scalars(rows)
        for law in sorted(rows["law"].unique(), key=list(LAWS).index)
        if len(rows[(rows["scalar"] == scalar) & (rows["law"] == law)])
    ]
    figure, axes = style.panels(layout, max(len(pairs), 1), height=2.9, columns=max(rows["law"].nunique(), 1))
    if not pairs:
        panel(axes[0], tables)
        return figure
    for one, (scalar, law) in zip(axes, pairs, strict=True):
        panel(one, tables, scalar, law)
        style.title(one, f"{scalar_name(scalar)}, {LAWS.get(law, law)}")
    handles, labels = axes[0].get_legend_handles_labels()
    if rows["paper_mean"].notna().any():
        from matplotlib.lines import Line2D

        handles.append(
            Line2D([], [], linestyle="", marker="_", markersize=13, markeredgewidth=2.2, color=style.QUIET)
        )
        labels.append("printed in the paper")
    figure.legend(handles, labels, loc="outside lower center", ncols=2 if layout.narrow else 6)
    return figure


def winners(tables: Tables) -> DataFrame:
    """Return the best method for each scalar and radius under the main law.

    Returns:
        Columns scalar, radius, method, mean, first_order (the best first-order mean; NaN where none was run)
        and gain (first_order / mean).
    """
    import pandas as pd

    rows = _rows(tables)
    rows = rows[rows["law"] == main_law(rows)]
    records = []
    groups = dict(iter(rows.groupby(["scalar", "radius"])))
    for scalar, radius in sorted(groups, key=lambda key: (scalars(rows).index(key[0]), key[1])):
        group = groups[scalar, radius]
        best = group.loc[group["mean"].idxmin()]
        first = group.loc[group["method"].isin(FIRST_ORDER), "mean"].min()
        gain = first / best["mean"] if best["mean"] > 0 else float("nan")
        records.append((scalar, radius, best["method"], best["mean"], first, gain))
    return pd.DataFrame(records, columns=["scalar", "radius", "method", "mean", "first_order", "gain"])


def headline(tables: Tables) -> str:
    """Return a few words for the first page's panel."""
    won = Counter(winners(tables)["method"])
    if not won:
        return "Faithfulness of local models"
    best, times = won.most_common(1)[0]
    where = "at every radius" if times == won.total() else f"{times} times of {won.total()}"
    return f"{best} is the most faithful {where}"


def finding(tables: Tables) -> str:
    """Say which local model has the lowest error, and how much curvature gains over first order."""
    won = winners(tables)
    if won.empty:
        return ""
    images = int(_rows(tables)["images"].max())
    counted = Counter(won["method"]).most_common()
    best, times = counted[0]
    gains = won.loc[won["method"] == best, "gain"].dropna()
    where = f"radius {listing(plain(radius) for radius in sorted(won['radius'].unique()))}"
    if len(won["scalar"].unique()) > 1:
        where += f", for {listing(scalar_name(name) for name in won['scalar'].unique())}"
    if times == len(won):
        long = style.METHOD_NAMES.get(best)
        start = f"{f'{long} ({best})' if long else best} is the most faithful local model: at {where}"
    else:
        others = listing(f"{method} in {n}" for method, n in counted[1:])
        start = "No local model is the most faithful throughout: "
        start += f"{best} is in {times} of {len(won)} settings, {others} ({where})"
    if best in FIRST_ORDER:
        return f"{start}; second order does not help there (n = {images})."
    if gains.empty:
        return f"{start} (n = {images})."
    below = f"{spread([*gains])} times below that of the best first-order model"
    return f"{start}, its mean squared error is {below} (n = {images})."


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = _rows(tables)
    images = sorted({int(n) for n in rows["images"]})
    published = (
        "Short bars mark what Torop et al. (2023, Tables 5 and 7) print for their own network and images; "
        "they belong to the published law."
        if rows["paper_mean"].notna().any()
        else ""
    )
    return sentences(
        finding(tables) or "No local model was measured.",
        "Mean squared error of each local model on random points within ε; error bars are standard errors "
        "over images. Solid "
        "lines are second-order models, dashed ones first-order.",
        published,
        f"{listing(f'{n:,}' for n in images)} test images; σ and β chosen on validation images."
        if images
        else "",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    won = winners(tables)
    if won.empty:
        return "Empty panel: no local model was measured."
    told = "; ".join(
        f"{scalar_name(row.scalar)} at radius {plain(row.radius)}: {row.method} with {number(row.mean)}, "
        "best first-order "
        f"model {number(row.first_order)}"
        for row in won.itertuples()
    )
    models = count(_rows(tables)["method"].nunique(), "local model")
    return f"Error against radius on logarithmic axes for {models}. Lowest: {told}."


register(
    FigureSpec(
        name="fidelity", tables=("fidelity",), draw=draw, caption=caption, alt=alt, finding=finding, rank=40
    )
)
