"""The report's tables of CASO against CAFO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from curvelens.figures.wording import MISSING, count, number
from curvelens.reporting.html import Html, details, element, table

if TYPE_CHECKING:
    from pandas import DataFrame, Series

FORM_NAMES = {
    "factor": "closed form, whole factor",
    "products": "closed form, by products",
    "differentiation": "differentiated twice",
}


def correlation(row: Series) -> str:
    """Return Spearman's rank correlation with its interval, such as ``−0.8 (−0.9 to −0.6)``.

    Args:
        row: A row of the table ``distances_summary``.
    """
    if row["spearman"] != row["spearman"]:
        return MISSING
    low, high = number(row["spearman_low"]), number(row["spearman_high"])
    return f"{number(row['spearman'])} ({low} to {high})"


def networks(found: Mapping[str, tuple[DataFrame, DataFrame]]) -> Html:
    """Return a row for each experiment: rank correlation, and what an explanation cost.

    Args:
        found: Tables ``distances_summary`` and ``distances`` by the name of the experiment.
    """
    body = []
    for name, (summary, images) in found.items():
        row = summary[summary["group"] == 0].iloc[0]
        form = images[images["status"] == "ok"]["curvature"].mode().iloc[0]
        body.append(
            [
                element("b", name),
                FORM_NAMES[form],
                f"{int(row['images']):,}",
                correlation(row),
                number(row["calls"], 3),
                f"{number(row['saving'], 3)} ×",
                int(row["solving_calls"]),
                number(row["kkt_residual"]),
                number(row["seconds"]),
            ]
        )
    head = [
        *("experiment", "Hessian of the loss", "images", "rank correlation", "passes"),
        *("saved", "beyond L, at most", "residual, at most", "seconds"),
    ]
    text = (
        "Spearman's rank correlation of the CASO–CAFO distance with confidence, with its 95% interval; "
        "reverse passes of an explanation (mean), how many times fewer than the whole Hessian takes (mean), "
        "and how many come on top of those that find L. Singla et al. (2019) draw the same for 1,000 images "
        "of ImageNet, Fig. 1 for ResNet-50, Fig. 10 for SE-ResNet-50, and claim a large distance where "
        "confidence is low and almost none where it is high; they print no correlation."
    )
    return table([head], body, text)


def by_confidence(summary: DataFrame) -> Html:
    """Return the distance by groups of confidence.

    Args:
        summary: The table ``distances_summary``.
    """
    body = []
    for _, row in summary[summary["group"] > 0].iterrows():
        deviation = row["standard_deviation"]
        body.append(
            [
                f"{number(row['confidence_low'], 3)} to {number(row['confidence_high'], 3)}",
                f"{int(row['images']):,}",
                number(row["median"]),
                Html(
                    number(row["mean"]),
                    element("small", f"± {number(deviation)}" if deviation == deviation else ""),
                ),
                f"{number(row['mean_angle'])}°",
                number(row["mean_bound"]),
                number(row["effective_classes"]),
                number(row["largest_eigenvalue"]),
                number(row["calls"], 3),
                number(row["seconds"]),
            ]
        )
    head = [
        *("confidence", "images", "median distance", "mean ± s. d.", "mean angle", "mean bound"),
        *("classes that matter", "L", "passes", "seconds"),
    ]
    text = (
        "Distance of CASO from CAFO in groups of equally many images, by confidence. Bound: the largest "
        "distance possible at an image's L and λ₂. Classes that matter, the exponential of the entropy, and "
        "L are medians of a group. The table distances has a row for each image."
    )
    return details("The distance by confidence", table([head], body, text))


def forms(rows: DataFrame) -> Html:
    """Return what each form of the Hessian cost, and how far its explanations lie from the first's.

    Args:
        rows: The table ``curvature_forms``.
    """
    fine = rows[rows["status"] == "ok"]
    body = []
    everything = fine["classes"].max()
    parts = [
        (form, classes, part)
        for form in FORM_NAMES
        for classes, part in fine[fine["curvature"] == form].groupby("classes")
    ]
    for form, classes, part in parts:
        name = FORM_NAMES[form] if classes == everything else f"closed form, factor of {classes} classes"
        relative = part["largest_eigenvalue_error"].astype(float) / part["largest_eigenvalue"].astype(float)
        body.append(
            [
                element("b", name),
                number(part["calls"].mean(), 3),
                number(part["seconds"].mean(), 2),
                number(relative.max(), 2),
                number(part["difference"].max(), 2),
            ]
        )
    text = (
        "CASO at λ₁ = 0 with the Hessian of the loss held in each form "
        f"({count(fine['image_id'].nunique(), 'image')}): reverse passes (a Hessian-vector product counts as "
        "one), seconds, how far L may be off as a share of it (of a factor of few classes, the bound on what "
        "the others add to the Hessian), and the largest relative distance from the first form's "
        "explanation. For the whole factor of ResNet-50 with 1,000 classes Singla et al. (2019) report 4.2 s "
        "on a GTX 1080 Ti."
    )
    return table([["Hessian", "passes", "seconds", "error of L", "distance"]], body, text)
