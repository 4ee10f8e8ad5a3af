"""Where first order misleads: how far the CASO and CAFO explanations lie apart, against confidence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import count, number, percent, plain, sentences
from curvelens.summaries import distances as summaries

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

CONFIDENT = 0.9
_POINTS: dict[str, Any] = {"markersize": 3.5, "alpha": 0.6, "markeredgewidth": 0}
_CROSSES: dict[str, Any] = {"markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.5}
_FLOOR = 1e-8  # a float32 confidence of exactly 1 is drawn here
_CHANGE = 1.1  # medians that differ by less than a tenth are called equal
_SMALL = 0.05  # unit vectors this near (3°) cannot be told apart as pictures
_FEWEST = 5  # images in a group that a median speaks for
_DECADES = 100  # distances that span more are drawn on a logarithmic axis
_WINDOWS = 5  # a running median is over a fifth of the images


def _rows(tables: Tables) -> DataFrame:
    return succeeded(tables["distances"]).dropna(subset=["confidence", "distance"])


def _groups(rows: DataFrame) -> tuple[DataFrame, DataFrame, float]:
    """Split into unsure and sure predictions, at 0.9 or, where one side would be too small, at the median."""
    threshold = CONFIDENT
    sizes = (rows["confidence"] < threshold).value_counts()
    if len(sizes) < 2 or sizes.min() < _FEWEST:
        threshold = float(rows["confidence"].median())
    return rows[rows["confidence"] < threshold], rows[rows["confidence"] >= threshold], threshold


def rank_correlation(rows: DataFrame) -> float:
    """Return Spearman's rank correlation of distance with confidence; NaN where either does not vary."""
    if rows["confidence"].nunique() < 2 or rows["distance"].nunique() < 2:
        return math.nan
    return float(rows["confidence"].rank().corr(rows["distance"].rank()))


def confidence_axis(axes: Axes, doubt: np.ndarray) -> None:
    """Label a logarithmic axis of ``1 − confidence`` with confidences, the surest to the right."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low = max(min(doubt.min(), 0.1), _FLOOR)
    powers = range(1, math.ceil(-math.log10(low)) + 1)
    step = 1 if len(powers) <= 5 else 2
    ticks = [10.0**-power for power in powers if (power - 1) % step == 0]
    ticks = [0.5, *ticks] if len(powers) <= 5 else ticks  # else it would touch its neighbour
    axes.set_xscale("log")
    axes.set_xlim(1.0, low / 2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _as_confidence(value)))
    axes.set_xlabel("confidence p (log scale of 1 − p)")


def _as_confidence(doubt: float) -> str:
    nines = round(-math.log10(doubt))
    if doubt > 0.3:
        return f"{1 - doubt:.1f}"
    return (
        f"{1 - doubt:.{nines}f}"
        if nines <= 4
        else f"1−10{str(-nines).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    )


def panel(axes: Axes, tables: Tables) -> None:
    """Draw distance against confidence into ``axes``, misclassified images apart."""
    rows = _rows(tables)
    axes.set_ylabel("CASO–CAFO distance\n(unit vectors; 0 to √2)")
    if rows.empty:
        style.empty(axes, "no image with a distance")
        return
    doubt = np.clip(1 - rows["confidence"].to_numpy(float), _FLOOR, 1)
    distance = rows["distance"].to_numpy(float)
    right = ((rows["label"] == rows["prediction"]) | (rows["label"] < 0)).to_numpy(bool)
    axes.plot(doubt[right], distance[right], "o", color=style.BLUE, label="right", **_POINTS)
    if not right.all():
        axes.plot(doubt[~right], distance[~right], "X", color=style.VERMILLION, label="wrong", **_CROSSES)
        axes.legend(title="prediction", loc="upper right")
    confidence_axis(axes, doubt)
    if _spans_decades(distance):
        axes.set_yscale("log")
        axes.set_ylabel("CASO–CAFO distance\n(unit vectors; at most √2; log)")
    else:
        axes.set_ylim(0, max(distance.max() * 1.1, 1e-6))


def _spans_decades(distance: np.ndarray) -> bool:
    return bool(distance.min() > 0 and distance.max() > _DECADES * np.median(distance))


def _bound(axes: Axes, rows: DataFrame) -> None:
    both = rows[["distance", "kantorovich_bound"]].dropna().to_numpy(float)
    axes.set_xlabel("largest distance that the bound allows")
    axes.set_ylabel("distance found")
    if not len(both):
        style.empty(axes, "no image with a bound")
        return
    low, top = 0.0, both.max() * 1.06 or 1.0
    if _spans_decades(both[:, 0]) and both.min() > 0:
        axes.set_xscale("log")
        axes.set_yscale("log")
        low, top = both.min() / 2, top * 1.5
    axes.plot([low, top], [low, top], color=style.QUIET, linestyle=":", label="the bound")
    axes.plot(both[:, 1], both[:, 0], "o", color=style.BLUE, **_POINTS)
    axes.set_xlim(low, top)
    axes.set_ylim(low, top)
    axes.legend(loc="upper left")


def window(images: int) -> int:
    """Return over how many images, neighbours in confidence, a running median is taken."""
    return max(_FEWEST, images // _WINDOWS)


def running_median(rows: DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the running median of the distance over images in the order of confidence.

    Args:
        rows: Columns ``confidence`` and ``distance``, of n images.

    Returns:
        Median doubt (1 − confidence) and median distance of each window, both [n − window + 1]; empty for
        fewer images than two windows.
    """
    ordered = rows.sort_values("confidence", kind="stable")
    width = window(len(ordered))
    if len(ordered) < 2 * width:
        return np.empty(0), np.empty(0)
    doubt = np.clip(1 - ordered["confidence"].to_numpy(float), _FLOOR, 1)
    found = (doubt, ordered["distance"].to_numpy(float))
    first, second = (np.median(np.lib.stride_tricks.sliding_window_view(a, width), axis=1) for a in found)
    return first, second


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw distance against confidence with its running median, and against the theoretical bound."""
    figure, axes = style.panels(layout, 2, height=3.1)
    panel(axes[0], tables)
    rows = _rows(tables)
    doubt, median = running_median(rows)
    if len(median):
        label = f"median of {window(len(rows))} neighbours"
        axes[0].plot(doubt, median, color=style.INK, label=label)
        axes[0].legend(loc="best")
    _bound(axes[1], rows)
    return figure


def headline(tables: Tables) -> str:
    """Return a few words for the first page's panel."""
    rows = _rows(tables)
    if rows.empty:
        return "CASO against CAFO"
    unsure, sure, _ = _groups(rows)
    low, high = unsure["distance"].median(), sure["distance"].median()
    if not max(low, high) >= _SMALL:
        return "Curvature matters little" + (", most where unsure" if low > _CHANGE * high else "")
    if low > _CHANGE * high:
        return "Curvature matters where the network is unsure"
    return (
        "Curvature matters where the network is sure"
        if high > _CHANGE * low
        else "Curvature matters alike at every confidence"
    )


def finding(tables: Tables) -> str:
    """Say whether curvature changes the explanation of unsure predictions more than that of sure ones."""
    rows = _rows(tables)
    if rows.empty:
        return ""
    unsure, sure, threshold = _groups(rows)
    if unsure.empty or sure.empty:
        return (
            "Confidence does not vary, so nothing can depend on it: median distance of CASO from CAFO "
            f"{number(rows['distance'].median())} on a scale from 0 to √2 "
            f"(n = {len(rows)})."
        )
    low, high = float(unsure["distance"].median()), float(sure["distance"].median())
    groups = (
        f"median distance of the second-order (CASO) from the first-order explanation (CAFO) {number(low)} "
        f"below a confidence of {plain(threshold)} "
        f"(n = {len(unsure)}) against {number(high)} above it (n = {len(sure)})"
    )
    if max(low, high) < _SMALL:
        where = ", and most where the network is unsure" if low > _CHANGE * high else ""
        most = number(rows["distance"].max())
        return f"Curvature moves explanations little{where}: {groups}, {most} at most where √2 is possible."
    if low > _CHANGE * high:
        times = f", {number(low / high)} times as far" if low < 1000 * high else ""
        return f"First order misleads where the network is unsure: {groups}{times}."
    if high > _CHANGE * low:
        return f"Curvature matters more where the network is sure, unlike in Singla et al. (2019): {groups}."
    return f"Curvature changes explanations about alike at every confidence: {groups}."


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = _rows(tables)
    bound = rows[["distance", "kantorovich_bound"]].dropna()
    above = int((bound["distance"] > bound["kantorovich_bound"] * (1 + 1e-4) + 1e-6).sum())
    labelled = rows[rows["label"] >= 0]
    right = percent((labelled["label"] == labelled["prediction"]).mean(), 1)
    return sentences(
        finding(tables) or "No image gave a distance.",
        _beside_the_paper(rows),
        "First panel: Frobenius distance of the CASO and CAFO explanations (λ₁ = 0), both scaled to unit",
        "length, one point an image"
        + (
            f", and its median over each {window(len(rows))} neighbours."
            if len(running_median(rows)[0])
            else "."
        ),
        "Second: the same distance against the most that Kantorovich's",
        f"inequality allows; {count(above, 'point lies', 'points lie') if above else 'no point lies'}",
        "above it.",
        f"{count(len(rows), 'test image')}, {right} classified correctly.",
        _cost(rows),
    )


def _beside_the_paper(rows: DataFrame) -> str:
    """Return the rank correlation with its interval, and whether the paper's figure is borne out."""
    r, low, high = summaries.rank_correlation(
        rows["confidence"].to_numpy(float), rows["distance"].to_numpy(float)
    )
    if math.isnan(r):
        return ""
    if high < 0:
        verdict = "as Fig. 1 of Singla et al. (2019) shows it, CASO parts from CAFO where confidence is low"
    elif low > 0:
        verdict = "the opposite of what Fig. 1 of Singla et al. (2019) shows"
    else:
        verdict = "too few images to tell whether the distance falls, as in Fig. 1 of Singla et al. (2019)"
    return (
        f"Spearman's rank correlation of distance with confidence is {number(r)} (95% interval "
        f"{number(low)} to {number(high)}): {verdict}."
    )


def _cost(rows: DataFrame) -> str:
    """Say how many reverse passes were saved, where they were."""
    saved = rows[rows["calls"] < rows["full_calls"]]
    if saved.empty:
        return ""
    times = number(float((saved["full_calls"] / saved["calls"]).mean()), 2)
    most = count(int(saved["solving_calls"].max()), "pass", "passes")
    return (
        f"An explanation took {number(saved['calls'].mean(), 2)} reverse passes on average, {times} times "
        f"fewer than the whole Hessian ({count(len(saved), 'image')}): those that find L and {most} at most "
        f"beyond them. Its optimality conditions hold to {number(saved['kkt_residual'].max(), 2)} or better."
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = _rows(tables)
    if rows.empty:
        return "Empty panels: no image gave a distance."
    return (
        f"Two scatter plots of {count(len(rows), 'image')}. Distances run from "
        f"{number(rows['distance'].min())} to "
        f"{number(rows['distance'].max())} while confidence runs from {number(rows['confidence'].min(), 3)} "
        "to "
        f"{number(rows['confidence'].max(), 5)}; their rank correlation is {number(rank_correlation(rows))}."
    )


register(
    FigureSpec(
        name="distances", tables=("distances",), draw=draw, caption=caption, alt=alt, finding=finding, rank=30
    )
)
