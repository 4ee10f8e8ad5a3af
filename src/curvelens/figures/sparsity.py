"""Sparsity against λ₁ over images, and what a sparse explanation has in common with a clipped gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.sparsity_path import penalty
from curvelens.figures.wording import count, number, percent, sentences
from curvelens.summaries.sparsity import CAFO, CASO

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_LOOK: dict[str, dict[str, Any]] = {
    CAFO: {"color": style.GREEN, "linestyle": "--", "marker": "^"},
    CASO: {"color": style.BLUE, "linestyle": "-", "marker": "o"},
}
_SPARSE, _EMPTY = 0.5, 0.995  # η between which supports are compared: nearly the whole image, next to nothing


def rows_of(tables: Tables) -> DataFrame:
    """Return the rows of CAFO and CASO of the kind of block that is drawn: single values where they are."""
    rows = succeeded(tables["sparsity"])
    rows = rows[rows["method"].isin([CAFO, CASO])]
    kinds = rows["block"].unique().tolist()
    return rows[rows["block"] == ("values" if "values" in kinds else kinds[0])] if kinds else rows


def _lines(axes: Axes, rows: DataFrame) -> None:
    """Draw η against λ₁, a line for each image and method, the ones chosen filled."""
    for method, look in _LOOK.items():
        of_method = rows[(rows["method"] == method) & (rows["lambda1"] > 0)]
        for _, path in of_method.groupby("image_id"):
            path = path.sort_values("lambda1")
            axes.plot(
                path["lambda1"], path["block_sparsity"], color=look["color"], linestyle=look["linestyle"],
                linewidth=0.9, alpha=0.55,
            )  # fmt: skip
        best = of_method[of_method["chosen"].astype(bool)]
        # Those of CAFO are hollow and larger: where both are chosen, both are seen.
        hollow = {"markersize": 8, "markerfacecolor": "none"} if method == CAFO else {"markersize": 4.5}
        axes.plot(
            best["lambda1"], best["block_sparsity"], look["marker"], color=look["color"],
            label=f"{method}, chosen", **hollow,
        )  # fmt: skip
    axes.axhspan(float(rows["least"].iloc[0]), 1, color=style.GRID, zorder=0)
    axes.set_xscale("log")
    unit = "pixels" if rows["block"].iloc[0] == "values" else "blocks"
    axes.set(xlabel="λ₁ (log)", ylabel=f"η, share of zero {unit}", ylim=(-0.03, 1.04))
    axes.legend(loc="lower right", fontsize=7.5)


def _overlap(axes: Axes, rows: DataFrame) -> None:
    """Draw Jaccard indices at equal sparsity: with the clipped gradient, of both methods."""
    for method, look in _LOOK.items():
        some = compared(rows, method)
        axes.plot(
            1 - some["block_sparsity"], some["jaccard_gradient"].astype(float), look["marker"],
            color=look["color"], markersize=4, alpha=0.6, markeredgewidth=0, label=method,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set(
        xlabel="share of pixels kept, 1 − η (log)",
        ylabel="Jaccard index with\nclipped gradient",
        ylim=(0, 1.04),
    )
    axes.legend(loc="lower left", fontsize=7.5)


def _noise(axes: Axes, rows: DataFrame) -> None:
    """Draw the share of isolated pixels against that of the clipped gradient."""
    top = 0.05
    for method, look in _LOOK.items():
        some = compared(rows, method)
        own, theirs = (some[name].astype(float) for name in ("isolated", "isolated_gradient"))
        axes.plot(
            theirs, own, look["marker"], color=look["color"], markersize=4, alpha=0.6, markeredgewidth=0,
            label=method,
        )  # fmt: skip
        top = max([top, *own, *theirs])
    axes.plot([0, top], [0, top], color=style.QUIET, linestyle=":", linewidth=1)
    axes.set(
        xlabel="isolated pixels, clipped gradient", ylabel="isolated pixels, CAFO or CASO",
        xlim=(0, top * 1.04), ylim=(0, top * 1.04),
    )  # fmt: skip
    axes.legend(loc="upper left", fontsize=7.5)


def compared(rows: DataFrame, method: str) -> DataFrame:
    """Return the rows of a method whose support is compared: sparse, but with pixels enough to compare."""
    sparse = (rows["block_sparsity"] >= _SPARSE) & (rows["block_sparsity"] <= _EMPTY)
    found: DataFrame = rows[(rows["method"] == method) & sparse & (rows["lambda1"] > 0)]
    return found


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw η against λ₁, overlap with and noise against the clipped gradient."""
    figure, axes = style.panels(layout, 3, height=3.0)
    rows = rows_of(tables)
    if rows.empty:
        for each in axes:
            style.empty(each, "no image was computed")
        return figure
    for each, panel, text in zip(
        axes,
        (_lines, _overlap, _noise),
        ("Sparsity along λ₁", "Which pixels are kept", "How scattered they are"),
        strict=True,
    ):
        panel(each, rows)
        style.title(each, text)
    return figure


def _chosen(rows: DataFrame, method: str) -> DataFrame:
    return rows[rows["chosen"].astype(bool) & (rows["method"] == method)]


def _etas(rows: DataFrame, method: str) -> str:
    values = _chosen(rows, method)["block_sparsity"].astype(float)
    return f"{method} {values.median():.3f} (median; {values.min():.3f} to {values.max():.3f})"


def _decades(rows: DataFrame) -> str:
    """Say over how many powers of ten the λ₁ chosen are spread."""
    l1 = _chosen(rows, CASO)["lambda1"].astype(float)
    spread = float(np.log10(l1.max() / l1.min())) if len(l1) and l1.min() > 0 else 0.0
    range_ = f"those chosen for CASO lie between {penalty(l1.min())} and {penalty(l1.max())}"
    if spread < 1:
        return f"one λ₁ would nearly do: {range_}"
    return f"no one λ₁ would do: {range_}, {count(round(spread), 'power')} of ten apart"


def caption(tables: Tables) -> str:
    """Return what was found, what is drawn, and the n."""
    rows = rows_of(tables)
    if rows.empty:
        return "No image was computed."
    same = int((_same(rows)).sum())
    overlap = compared(rows, CASO)["jaccard_gradient"].astype(float)
    n = rows["image_id"].nunique()
    return sentences(
        f"η of the explanations chosen: {_etas(rows, CAFO)}, {_etas(rows, CASO)};",
        f"{_decades(rows)}.",
        f"CAFO and CASO get the same λ₁ in {same} of {count(n, 'image')}.",
        "First panel: a line for each image, in grey the range that λ₁ is chosen for.",
        f"Second: supports against that of the gradient clipped to as many pixels, η from {_SPARSE:g} to",
        f"{_EMPTY:g}; the median Jaccard index of CASO and it is {number(overlap.median())}.",
        "Third: share of the pixels kept that have no neighbour; above the dotted line it is larger than the",
        "clipped gradient's.",
    )


def _same(rows: DataFrame) -> Any:
    pair = rows[rows["chosen"].astype(bool)].pivot_table("lambda1", "image_id", "method")
    return pair[CAFO] == pair[CASO]


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = rows_of(tables)
    if rows.empty:
        return "Empty panels: no image was computed."
    pairs = compared(rows, CASO)
    above = (pairs["isolated"].astype(float) > pairs["isolated_gradient"].astype(float)).mean()
    return (
        f"Rising curves of sparsity over λ₁ for {count(rows['image_id'].nunique(), 'image')}, from 0 to 1; "
        f"the chosen ones at {_etas(rows, CAFO)} and {_etas(rows, CASO)}. Overlap of CASO with the clipped "
        f"gradient between {number(pairs['jaccard_gradient'].astype(float).min())} and "
        f"{number(pairs['jaccard_gradient'].astype(float).max())}; {percent(above)} of its points have more "
        "isolated pixels than the clipped gradient."
    )


register(FigureSpec(name="sparsity", tables=("sparsity",), draw=draw, caption=caption, alt=alt, rank=35))
