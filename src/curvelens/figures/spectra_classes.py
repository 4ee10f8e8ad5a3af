"""Hessian spectra by digit, or whatever the classes are, and by the class whose score it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.interpret_path import name_of
from curvelens.figures.path import class_names
from curvelens.figures.spectra import smooth_rows
from curvelens.figures.wording import count, number, percent, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_ORDINALS = ("predicted", "second", "third")


def rank_rows(tables: Tables) -> DataFrame:
    """Return the rows of the series of several classes, by image and rank."""
    rows = succeeded(tables["spectra_sweep"])
    return rows[rows["series"] == "classes"].sort_values(["class_rank", "image_id"])


def ordinal(rank: int) -> str:
    """Return ``predicted``, ``second``, ``third``, ``4th`` …"""
    return _ORDINALS[rank - 1] if rank <= len(_ORDINALS) else f"{rank}th"


def _by_label(axes: Axes, rows: DataFrame, names: list[str]) -> None:
    axes.set_ylabel("eigenvalue (logit per\nsquared unit of L2)")
    axes.set_xlabel("true class of the image")
    if rows.empty:
        style.empty(axes, "no image with a spectrum")
        return
    labels = sorted({int(label) for label in rows["label"]})
    for column, colour, marker, text in (
        ("largest_eigenvalue", style.BLUE, "o", "largest"),
        ("smallest_eigenvalue", style.VERMILLION, "s", "smallest"),
    ):
        place = [labels.index(int(label)) for label in rows["label"]]
        axes.plot(place, rows[column], marker, color=colour, markerfacecolor="none", label=text)
    axes.axhline(0, color=style.QUIET, linewidth=0.8)
    shown = [style.literal(name_of(k, names)[:10]) for k in labels]
    axes.set_xticks(range(len(labels)), shown, rotation=90 if max(map(len, shown)) > 3 else 0)
    axes.legend(loc="best")


def _by_rank(axes: Axes, rows: DataFrame) -> None:
    axes.set_ylabel("eigenvalue (logit per\nsquared unit of L2)")
    axes.set_xlabel("class whose logit it is")
    if rows.empty:
        style.empty(axes, "no classes were compared")
        return
    ranks = sorted(rows["class_rank"].unique())
    for _, part in rows.groupby("image_id"):
        for column, colour, marks in (
            ("largest_eigenvalue", style.BLUE, "o-"),
            ("smallest_eigenvalue", style.VERMILLION, "s-"),
        ):
            place = [ranks.index(rank) for rank in part["class_rank"]]
            axes.plot(place, part[column], marks, color=colour, linewidth=0.6, alpha=0.7, mfc="none")
    axes.axhline(0, color=style.QUIET, linewidth=0.8)
    axes.set_xticks(range(len(ranks)), [ordinal(int(rank)) for rank in ranks])
    axes.margins(x=0.15)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw the ends of the spectrum by true class, and by the rank of the class explained."""
    figure, axes = style.panels(layout, 2, height=3.0)
    _by_label(axes[0], smooth_rows(tables), list(class_names(tables)))
    axes[0].set_title("By image: the predicted class's logit")
    _by_rank(axes[1], rank_rows(tables))
    axes[1].set_title("By logit: several at the same image")
    return figure


def spreads(tables: Tables) -> tuple[float, float]:
    """Return how far spectral radii differ between classes of images, and within them.

    Returns:
        Ratio of the largest to the smallest class median, and the median over classes of the ratio of the
        largest to the smallest image; NaN where there are fewer than two.
    """
    rows = smooth_rows(tables)
    groups = [part["spectral_radius"].to_numpy(float) for _, part in rows.groupby("label")]
    medians = [float(np.median(part)) for part in groups]
    inside = [float(part.max() / part.min()) for part in groups if len(part) > 1 and part.min() > 0]
    between = max(medians) / min(medians) if len(medians) > 1 and min(medians) > 0 else np.nan
    return between, float(np.median(inside)) if inside else np.nan


def against_predicted(rows: DataFrame) -> dict[int, float]:
    """Return the median ratio of a class's spectral radius to that of the predicted class, by rank."""
    table = rows.pivot_table(index="image_id", columns="class_rank", values="spectral_radius")
    if 1 not in table:
        return {}
    ratios = table.div(table[1], axis=0)
    return {int(rank): float(ratios[rank].median()) for rank in ratios if rank > 1}


def longer_end(rows: DataFrame) -> str:
    """Say for which share of images a logit bends up more than down at most, by the rank of its class."""
    up = (rows["largest_eigenvalue"] > -rows["smallest_eigenvalue"]).groupby(rows["class_rank"]).mean()
    if 1 not in up.index or len(up) < 2:
        return ""
    own, others = float(up[1]), float(up[up.index > 1].mean())
    told = f"the positive end is the longer one for {percent(own)} of the images, of other logits for"
    claim = (
        "The predicted logit bends down where its rivals bend up"
        if own < 0.5 <= others
        else "The predicted logit bends up where its rivals bend down"
        if others < 0.5 <= own
        else "The predicted logit and its rivals bend alike"
    )
    return f"{claim}: {told} {percent(others)}."


def caption(tables: Tables) -> str:
    """Return what differs between classes, what is drawn, and the n."""
    rows, ranked = smooth_rows(tables), rank_rows(tables)
    between, within = spreads(tables)
    classes = (
        f"Between classes of images the median spectral radius differs by a factor {number(between)}, within "
        f"a class by {number(within)} (median)."
        if between == between and within == within
        else ""
    )
    ratios = [f"{number(ratio)} for the {ordinal(rank)}" for rank, ratio in against_predicted(ranked).items()]
    other = (
        f"At the same image the spectral radius of other logits, as a multiple of the predicted one's, is "
        f"{', '.join(ratios)} (medians)."
        if ratios
        else ""
    )
    return sentences(
        longer_end(ranked),
        classes,
        other,
        "Largest and smallest eigenvalue of the input Hessian in the smooth network: of the predicted "
        f"class's logit for {count(rows['image_id'].nunique(), 'image')}, and of several classes' logits, "
        f"one line an image, for {count(ranked['image_id'].nunique(), 'image')}.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows, ranked = smooth_rows(tables), rank_rows(tables)
    if rows.empty:
        return "Empty panels: no spectrum of a smooth network."
    told = [
        f"{ordinal(int(rank))} {number(part['spectral_radius'].median())}"
        for rank, part in ranked.groupby("class_rank")
    ]
    positive = percent(float((rows["largest_eigenvalue"] > -rows["smallest_eigenvalue"]).mean()))
    return sentences(
        f"Ends of the spectrum for images of {rows['label'].nunique()} classes; the positive end is the "
        f"longer one for {positive}.",
        f"Median spectral radius by class explained: {', '.join(told)}." if told else "",
    )


register(
    FigureSpec(
        name="spectra_classes",
        tables=("spectra", "spectra_sweep"),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        rank=11,
    )
)
