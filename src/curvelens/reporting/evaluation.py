"""The report's tables of how well networks classify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from curvelens.figures import evaluation as figure
from curvelens.figures.wording import MISSING, count, number, percent
from curvelens.reporting.html import Html, details, element, table

if TYPE_CHECKING:
    from pandas import DataFrame

_SHOWN = 50


def networks(found: Mapping[str, DataFrame]) -> Html:
    """Return accuracy and calibration, a row for each experiment.

    Args:
        found: The table ``evaluation`` by the name of the experiment.
    """
    body = []
    for name, summary in found.items():
        for _, row in summary.iterrows():
            ends = f" {percent(row['accuracy_low'], 1)} to {percent(row['accuracy_high'], 1)}"
            body.append(
                [
                    element("b", name),
                    f"{row['right']:,} of {row['images']:,}",
                    element("td", percent(row["accuracy"], 1), element("small", ends)),
                    percent(row["mean_confidence"], 1),
                    number(row["loss"]),
                    number(row["calibration_error"]),
                    f"{number(row['chance_calibration_error'])}, up to "
                    f"{number(row['chance_calibration_error_high'])}",
                ]
            )
    head = [["", "right", "accuracy", "mean confidence", "cross-entropy", "calibration error", "by chance"]]
    text = (
        "Test images whose class is known: how many are classified correctly, with the 95% Wilson interval "
        "of the share; mean probability of the predicted class; mean cross-entropy (nat); expected "
        "calibration error (Guo et al. 2017, eq. 3); the same for a network that is right exactly as often "
        "as it is confident, mean and 95% quantile."
    )
    return table(head, body, text)


def by_class(confusion: DataFrame) -> Html:
    """Return how often each class is recognised, folded away where there are many.

    Args:
        confusion: The table ``confusion``.
    """
    body = []
    for index, name in figure.classes(confusion).items():
        own, taken = confusion[confusion["label"] == index], confusion[confusion["prediction"] == index]
        right = int(own[own["prediction"] == index]["images"].sum())
        shares = [
            percent(right / n, 1) if n else MISSING for n in (own["images"].sum(), taken["images"].sum())
        ]
        body.append([element("b", name), f"{own['images'].sum():,}", f"{right:,}", *shares])
    head = [["class", "images", "right", "recall", "precision"]]
    text = (
        "Recall: share of the class that is recognised. Precision: share of such predictions that is right."
    )
    shown = table(head, body, text)
    return shown if len(body) <= figure.MOST_CLASSES else details(f"By class, {len(body)} of them", shown)


def misclassified(predictions: DataFrame, confusion: DataFrame) -> Html:
    """Return the misclassified images, the most confident first, with their sources; nothing where none is.

    Args:
        predictions: The table ``predictions``.
        confusion: The table ``confusion``, for the names of classes.
    """
    labelled = predictions[(predictions["status"] == "ok") & (predictions["label"] >= 0)]
    wrong = labelled[~labelled["correct"].astype(bool)]
    if wrong.empty:
        return Html()
    names = figure.classes(confusion)
    first = wrong.sort_values(["confidence", "image_id"], ascending=[False, True]).head(_SHOWN)
    sources = bool(first["origin"].notna().any())
    body = [
        [
            row.image_id,
            names[int(row.label)],
            names[int(row.prediction)],
            number(row.confidence, 3),
            *([row.origin if isinstance(row.origin, str) else MISSING] if sources else []),
        ]
        for row in first.itertuples()
    ]
    head = [["image", "true class", "predicted", "confidence", *(["source and terms"] if sources else [])]]
    more = f" The first {_SHOWN} of {len(wrong):,}." if len(wrong) > _SHOWN else ""
    text = f"Test images that are misclassified, the most confident first.{more}"
    return details(f"{count(len(wrong), 'misclassified image')}", table(head, body, text))
