"""Tables of how explanations do by every measure: rows for every image and method, and their summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.seeds import derive
from curvelens.summaries.resampling import holm, interval, proportion_interval, sign_flip
from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

HIGHER, LOWER = "higher", "lower"
IMAGE, GRID = "image", "grid"
RANDOM = "random"
"""The method that knows nothing: a map of noise, beside which the others are shown."""
REFERENCE = "gradient"
"""The method that the others are compared with in pairs."""


@dataclass(frozen=True)
class Metric:
    """One measure of an explanation.

    Attributes:
        title: Its name for people.
        better: ``higher`` or ``lower``.
        meaning: One sentence.
        at: What the column ``at`` holds, empty where it is missing.
    """

    title: str
    better: str
    meaning: str
    at: str = ""


METRICS: dict[str, Metric] = {
    "pointing": Metric("pointing game", HIGHER, "whether the most important pixel lies on the object"),
    "energy": Metric("energy inside", HIGHER, "share of the importance that lies on the object"),
    "pixel_auc": Metric("pixel AUC", HIGHER, "area under the ROC curve of importance against the mask"),
    "best_iou": Metric("best IoU", HIGHER, "largest intersection over union of all thresholds"),
    "mean_iou": Metric("mean IoU", HIGHER, "intersection over union, mean over the thresholds"),
    "iou": Metric("IoU", HIGHER, "intersection over union at a threshold", "threshold"),
    "localization_error": Metric(
        "localisation error",
        LOWER,
        "distance of the most important pixel from the object's centre / diagonal",
    ),
    "deletion": Metric(
        "deletion AUC", LOWER, "probability, mean while the most important pixels are deleted"
    ),
    "insertion": Metric("insertion AUC", HIGHER, "probability, mean while the most important are inserted"),
    "deletion_loss": Metric("deletion AUC of the loss", HIGHER, "the same of −log p"),
    "insertion_loss": Metric("insertion AUC of the loss", LOWER, "the same of −log p"),
    "unexplained": Metric(
        "unexplained", LOWER, "P_MSE of the loss / its mean squared change, the map as a slope", "radius"
    ),
    "pmse": Metric("P_MSE of the loss", LOWER, "the same, not divided", "radius"),
    "own_unexplained": Metric(
        "unexplained by its local model", LOWER, "the same of the method's own model of the loss", "radius"
    ),
    "sensitivity": Metric("sensitivity", LOWER, "change of the map of unit length under noise, mean"),
    "max_sensitivity": Metric("max. sensitivity", LOWER, "the same, largest of the draws"),
    "randomization": Metric(
        "similarity to random",
        LOWER,
        "rank correlation with the map of a randomised network",
        "share of layers",
    ),
    "seconds": Metric("seconds", LOWER, "wall time of one map, as if no gradient call were shared"),
    "memory": Metric("memory", LOWER, "peak memory of tensors, MiB"),
    "calls": Metric("gradient calls", LOWER, "gradient calls that one map rests on"),
}
LOCALIZATION = ("pointing", "energy", "pixel_auc", "best_iou", "mean_iou", "iou", "localization_error")

_SCENE = Column(
    str, "What was explained: an image of the test split, or a grid of several.", isin=(IMAGE, GRID)
)
_METHOD = Column(str, f"Registered name of the method, or `{RANDOM}`: a map of noise, for comparison.")
_AT = Column(
    float,
    "Where the measure was taken: threshold of `iou`, radius (L2) of `unexplained`, `pmse` and "
    "`own_unexplained`, share of the layers of `randomization`; else missing.",
    nullable=True,
    gt=0,
)
_METRIC = Column(
    str,
    "; ".join(f"`{name}`: {metric.meaning}" for name, metric in METRICS.items()) + ".",
    isin=tuple(METRICS),
)

JUDGEMENT_IMAGES = schema(
    "judgement_images",
    "One measure of one explanation of one image, or of one grid of images.",
    {
        **IMAGE_COLUMNS,
        "scene": _SCENE,
        "target": Column(
            int, "Class that is explained: the predicted one, of a grid that of its cell.", ge=0
        ),
        "method": _METHOD,
        "metric": _METRIC,
        "at": _AT,
        "value": Column(float, "The measure; missing where it is not defined.", nullable=True),
        "stderr": Column(float, "Its standard error where it is sampled on the image.", nullable=True, ge=0),
        "chance": Column(
            float, "What a map that knows nothing is expected to get, where that is known.", nullable=True
        ),
        **RUN_COLUMNS,
    },
    keys=("scene", "image_id", "method", "metric", "at"),
)

JUDGEMENT_CURVES = schema(
    "judgement_curves",
    "Deletion and insertion curves, means over the images: the scalars while pixels are exchanged, the most "
    "important first.",
    {
        "method": _METHOD,
        "curve": Column(str, "Pixels deleted from the image, or inserted into the baseline.",
                        isin=("deletion", "insertion")),
        "share": Column(float, "Share of the pixels that are exchanged.", ge=0, le=1),
        "images": Column(int, "Images.", ge=1),
        "probability": Column(float, "Mean probability of the explained class.", ge=0, le=1 + 1e-6),
        "probability_stderr": Column(float, "Its standard error over the images; missing for one.",
                                     nullable=True, ge=0),
        "loss": Column(float, "Mean of −log of the probability.", ge=0),
    },
    keys=("method", "curve", "share"),
)  # fmt: skip

CURVE_PARTS = schema(
    "judgement_curve_parts",
    "Deletion and insertion curves of single images, of one shard.",
    {
        "image_id": IMAGE_COLUMNS["image_id"],
        "method": _METHOD,
        "curve": JUDGEMENT_CURVES.columns["curve"],
        "share": JUDGEMENT_CURVES.columns["share"],
        "probability": Column(float, "Probability of the explained class.", ge=0, le=1 + 1e-6),
        "loss": Column(float, "−log of it.", ge=0),
    },
    keys=("image_id", "method", "curve", "share"),
)

JUDGEMENT = schema(
    "judgement",
    "Every measure of every explanation method over the images, and compared with the gradient in pairs.",
    {
        "scene": _SCENE,
        "metric": _METRIC,
        "at": _AT,
        "method": _METHOD,
        "better": Column(str, "Which values are better.", isin=(HIGHER, LOWER)),
        "images": Column(int, "Images, or grids, for which the measure is defined.", ge=1),
        "mean": Column(float, "Mean over them."),
        "low": Column(
            float,
            "Lower end of its 95 % interval: bootstrap over the images (BCa), of a measure that is 0 or 1 "
            "that of Clopper and Pearson; missing for one image.",
            nullable=True,
        ),
        "high": Column(float, "Upper end.", nullable=True),
        "chance": Column(
            float,
            "Mean of what a map that knows nothing is expected to get, where that is known.",
            nullable=True,
        ),
        "gain": Column(
            float,
            f"Mean difference from `{REFERENCE}` on the same images, positive where the method is better.",
            nullable=True,
        ),
        "gain_low": Column(float, "Lower end of its 95 % interval (bootstrap).", nullable=True),
        "gain_high": Column(float, "Upper end.", nullable=True),
        "p_value": Column(
            float,
            "Two-sided p-value of the gain: all changes of sign for at most 13 images, else 9,999 at random.",
            nullable=True,
            ge=0,
            le=1,
        ),
        "p_holm": Column(
            float, "The same, adjusted by Holm for the number of methods.", nullable=True, ge=0, le=1
        ),
    },
    keys=("scene", "metric", "at", "method"),
)


def summarise(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Summarise measures over the images.

    Args:
        table: The table :data:`JUDGEMENT_IMAGES`; failed rows and undefined values are left out.
        seed: Seed of the resampling.

    Returns:
        The table :data:`JUDGEMENT`.
    """
    fine = table[(table["status"] == OK) & table["value"].notna()]
    made: list[dict[str, Any]] = []
    for (scene, metric, at), group in fine.groupby(["scene", "metric", "at"], dropna=False):
        wide = group.pivot_table("value", "image_id", "method").astype(float)
        chance = group.groupby("method")["chance"].mean()
        head = {"scene": scene, "metric": metric, "at": at, "better": METRICS[metric].better}
        rows = []
        for method in wide:
            resampling = derive(seed, "judgement", scene, metric, at, method)
            row = head | {"method": method, "chance": chance[method]}
            row |= _mean(wide[method].dropna().to_numpy(), metric == "pointing", resampling)
            if method not in (REFERENCE, RANDOM) and REFERENCE in wide:
                row |= _gain(wide[[method, REFERENCE]].dropna().to_numpy(), head["better"], resampling)
            rows.append(row)
        tested = [row for row in rows if row.get("p_value") is not None]
        for row, adjusted in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
            row["p_holm"] = adjusted
        made += rows
    return frame(made, JUDGEMENT)


def curves(parts: pd.DataFrame) -> pd.DataFrame:
    """Average deletion and insertion curves over the images.

    Args:
        parts: The table :data:`CURVE_PARTS`.

    Returns:
        The table :data:`JUDGEMENT_CURVES`.
    """
    groups = parts.groupby(["method", "curve", "share"])
    means = groups.agg(
        images=("image_id", "nunique"),
        probability=("probability", "mean"),
        probability_stderr=("probability", "sem"),
        loss=("loss", "mean"),
    )
    return frame(means.reset_index().to_dict("records"), JUDGEMENT_CURVES)


def _mean(values: np.ndarray, binary: bool, seed: int) -> dict[str, Any]:
    low, high = interval(values, seed)
    if binary and np.isin(values, (0, 1)).all():
        low, high = proportion_interval(int(values.sum()), len(values))
    return {"images": len(values), "mean": float(values.mean()), "low": low, "high": high}


def _gain(pairs: np.ndarray, better: str, seed: int) -> dict[str, Any]:
    if not len(pairs):
        return {}
    gains = (pairs[:, 0] - pairs[:, 1]) * (1 if better == HIGHER else -1)
    low, high = interval(gains, seed)
    found = {"gain": float(gains.mean()), "gain_low": low, "gain_high": high}
    return found | {"p_value": sign_flip(gains, seed)}
