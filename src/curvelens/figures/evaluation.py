"""Is a network right as often as it is confident, and which classes does it take for which?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.wording import count, listing, number, percent, sentences, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

MOST_CLASSES = 12
_PAIRS = 8
_LETTERS = 14


def _summary(tables: Tables) -> Series | None:
    rows: DataFrame = tables["evaluation"]
    return None if rows.empty else rows.iloc[0]


def errors(confusion: DataFrame) -> DataFrame:
    """Return the pairs of different classes that were confused, the most frequent first."""
    wrong = confusion[confusion["label"] != confusion["prediction"]]
    return wrong.sort_values(["images", "label", "prediction"], ascending=[False, True, True])


def classes(confusion: DataFrame) -> dict[int, str]:
    """Return the names of all classes that occur, as a label or a prediction, by index."""
    found: dict[int, str] = {}
    for column in ("label", "prediction"):
        found |= dict(zip(confusion[column].astype(int), confusion[f"{column}_name"], strict=True))
    return dict(sorted(found.items()))


def _reliability(axes: Axes, rows: DataFrame, narrow: bool) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence of the prediction", ylabel="share that is right")
    style.title(axes, "Right when it is sure?")
    total = rows["images"].sum()
    width = rows["confidence_to"] - rows["confidence_from"]
    axes.bar(
        rows["confidence_from"], rows["images"] / max(1, total), width,
        align="edge", color=style.GRID, edgecolor="white", label="share of the images",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], color=style.QUIET, linestyle=":", label="perfect calibration")
    filled = rows[rows["images"] > 0]
    x, y = filled["mean_confidence"].to_numpy(float), filled["accuracy"].to_numpy(float)
    ends = filled[["accuracy_low", "accuracy_high"]].to_numpy(float)
    bars = np.abs(ends.T - y)
    axes.errorbar(x, y, bars, fmt="o", color=style.BLUE, capsize=2, label="right, 95% interval", zorder=3)
    # Points may lie anywhere inside, so the legend lies below.
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.16), ncols=1 if narrow else 2)


def _matrix(axes: Axes, confusion: DataFrame) -> None:
    names = classes(confusion)
    place = {index: position for position, index in enumerate(names)}
    counts = np.zeros((len(names), len(names)))
    for row in confusion.itertuples():
        counts[place[row.label], place[row.prediction]] = row.images
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    small = len(names) > 8
    for (i, j), images in np.ndenumerate(counts):
        if images:
            colour = "white" if shares[i, j] > 0.55 else style.INK
            axes.text(
                j, i, f"{images:,.0f}", ha="center", va="center", color=colour, fontsize=7 if small else 9
            )
    texts = [style.literal(shortened(name, _LETTERS)) for name in names.values()]
    turned = max(map(len, texts)) > 3 and len(texts) > 4
    axes.set_xticks(
        range(len(names)), texts, rotation=60 if turned else 0, ha="right" if turned else "center"
    )
    axes.set_yticks(range(len(names)), texts)
    axes.grid(False)
    axes.set(xlabel="predicted class", ylabel="true class")


def _pairs(axes: Axes, confusion: DataFrame) -> None:
    rows = errors(confusion).head(_PAIRS).iloc[::-1]
    texts = [
        style.literal("\n→ ".join(shortened(name, 20) for name in pair))
        for pair in zip(rows["label_name"], rows["prediction_name"], strict=True)
    ]
    axes.barh(range(len(rows)), rows["images"], color=style.VERMILLION)
    axes.set_yticks(range(len(rows)), texts, fontsize=7)
    axes.set_xlabel("images (true class → prediction)")
    style.integers(axes.xaxis)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw the reliability diagram, and the confusion matrix or its largest errors."""
    confusion: DataFrame = tables["confusion"]
    figure, axes = style.panels(layout, 2, height=3.6)
    _reliability(axes[0], tables["reliability"], layout.narrow)
    if confusion.empty:
        style.empty(axes[1], "no image with a label")
    elif len(classes(confusion)) <= MOST_CLASSES:
        _matrix(axes[1], confusion)
    elif errors(confusion).empty:
        style.empty(axes[1], "no image is misclassified")
    else:
        _pairs(axes[1], confusion)
    style.title(axes[1], "What is taken for what?")
    return figure


def finding(tables: Tables) -> str:
    """Say whether the network's confidence can be believed."""
    row = _summary(tables)
    if row is None:
        return ""
    evidence = (
        f"predictions are right for {percent(row['accuracy'], 1)} of the test images (95% interval "
        f"{percent(row['accuracy_low'], 1)} to {percent(row['accuracy_high'], 1)}) with a mean confidence of "
        f"{percent(row['mean_confidence'], 1)}; the expected calibration error is "
        f"{number(row['calibration_error'])}, where chance alone gives up to "
        f"{number(row['chance_calibration_error_high'])} (n = {int(row['images']):,})."
    )
    if row["calibration_error"] <= row["chance_calibration_error_high"]:
        return f"Confidence is as good as its word, as far as this many images tell: {evidence}"
    if row["mean_confidence"] > row["accuracy_high"]:
        return f"The network is surer than it is right: {evidence}"
    if row["mean_confidence"] < row["accuracy_low"]:
        return f"The network is right more often than it is sure: {evidence}"
    return f"Confidence is off at some levels, though not on average: {evidence}"


def _confused(tables: Tables) -> str:
    rows = errors(tables["confusion"])
    if rows.empty:
        return "No image is misclassified."
    most = [
        f"{one.label_name} for {one.prediction_name} ({count(int(one.images), 'image')})"
        for one in rows.head(2).itertuples()
    ]
    return f"Most often it takes {listing(most)}."


def caption(tables: Tables) -> str:
    """Return the finding, the definition of the calibration error, what is drawn, and the n."""
    row = _summary(tables)
    if row is None:
        return "No test image has a label, so accuracy and calibration are not known."
    many = len(classes(tables["confusion"])) > MOST_CLASSES
    return sentences(
        finding(tables),
        _confused(tables),
        "First panel: images in bins of equal width by the probability of the predicted class; the share",
        "that is right with its 95% Wilson interval, against the mean confidence of the bin; bars: the share",
        "of the images in each bin. The expected calibration error is the mean distance from the diagonal",
        f"over {int(row['bins'])} bins, weighted by their images (Guo et al. 2017, eq. 3); chance: the 95%",
        "quantile for a network that is right exactly as often as it is confident.",
        "Second: the pairs of classes that are confused most often."
        if many
        else "Second: images of each true class by prediction, shaded by their share of the class.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    row = _summary(tables)
    if row is None:
        return "Empty panels: no test image has a label."
    filled = tables["reliability"][tables["reliability"]["images"] > 0]
    points = [
        f"{percent(accuracy)} right at {percent(confidence)}"
        for confidence, accuracy in zip(filled["mean_confidence"], filled["accuracy"], strict=True)
    ]
    return sentences(
        f"Reliability diagram of {count(int(row['images']), 'image')}: {listing(points)}.", _confused(tables)
    )


register(
    FigureSpec(
        name="evaluation",
        tables=("evaluation", "reliability", "confusion"),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=95,
    )
)
