"""Tables of the distance between CASO and CAFO, and their summary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

FORMS = ("auto", "factor", "products", "differentiation")
"""How the Hessian of the loss may be held: see curvelens.loss_curvature."""

_FORM = Column(
    str,
    "How the Hessian was held: `factor`, a reverse pass a class; `products`, few of them; "
    "`differentiation`, twice, for networks that are not piecewise linear.",
    isin=FORMS[1:],
)


DISTANCES = schema(
    "distances",
    "CASO against CAFO of the cross-entropy at the predicted label, λ₁ = 0 (Singla et al. 2019, Fig. 1).",
    {
        **IMAGE_COLUMNS,
        "entropy": Column(float, "Entropy of the SoftMax probabilities.", unit="nat", ge=0),
        "effective_classes": Column(float, "exp(entropy): how many classes compete.", ge=1 - 1e-9),
        "largest_eigenvalue": Column(float, "L, largest eigenvalue of the input Hessian of the loss.", ge=0),
        "largest_eigenvalue_error": Column(
            float, "How far L may be off: an eigenvalue lies within this distance; 0 where it is exact.", ge=0
        ),
        "lambda2": Column(float, "λ₂ = L/2 + c₁, half of that in the authors' code.", gt=0),
        "distance": Column(
            float, "Frobenius distance of CASO and CAFO, both scaled to unit length.", ge=0, le=2
        ),
        "angle": Column(float, "Angle between CASO and CAFO.", unit="°", ge=0, le=180),
        "kantorovich_bound": Column(
            float, "Largest distance possible at this L and λ₂, by Kantorovich's inequality.", ge=0, le=2
        ),
        "kkt_residual": Column(float, "Relative violation of CASO's optimality conditions.", ge=0),
        "precision": Column(
            str,
            "Of the network: `float64` where `float32` left a residual above 1e-6.",
            isin=("float32", "float64"),
        ),
        "curvature": _FORM,
        "full_calls": Column(
            int,
            "Reverse passes that the whole Hessian would have taken: one a class, or one a feature.",
            ge=1,
        ),
        "solving_calls": Column(
            int, "Reverse passes made for CASO after L was known; part of `calls`.", ge=0
        ),
        **RUN_COLUMNS,
    },
    keys=("image_id",),
)


FORM_COMPARISON = schema(
    "curvature_forms",
    "CASO at λ₁ = 0 computed with the Hessian held in each form.",
    {
        **IMAGE_COLUMNS,
        "curvature": _FORM,
        "classes": Column(int, "Classes whose gradients a factor holds; all of them in other forms.", ge=1),
        "largest_eigenvalue": Column(float, "L, largest eigenvalue of the input Hessian of the loss.", ge=0),
        "largest_eigenvalue_error": Column(
            float, "How far L may be off; of a factor, the bound on what its other classes add.", ge=0
        ),
        "distance": Column(float, "Distance of CASO from CAFO.", ge=0, le=2),
        "difference": Column(float, "Relative L2 distance of CASO from that of the first form.", ge=0),
        **RUN_COLUMNS,
    },
    keys=("image_id", "curvature", "classes"),
)


DISTANCES_SUMMARY = schema(
    "distances_summary",
    "Distance of CASO and CAFO by confidence: one row for all images, one for each quantile group.",
    {
        "group": Column(int, "0 for all images, else the quantile group, 1 for the least confident.", ge=0),
        "images": Column(int, "Images in the group that did not fail.", ge=1),
        "confidence_low": Column(float, "Smallest confidence in the group.", ge=0, le=1 + 1e-6),
        "confidence_high": Column(float, "Largest confidence in the group.", ge=0, le=1 + 1e-6),
        "mean": Column(float, "Mean distance.", ge=0, le=2),
        "median": Column(float, "Median distance.", ge=0, le=2),
        "standard_deviation": Column(
            float, "Standard deviation of the distance over images.", nullable=True, ge=0
        ),
        "mean_angle": Column(float, "Mean angle.", unit="°", ge=0, le=180),
        "mean_bound": Column(float, "Mean of the largest distance possible.", ge=0, le=2),
        "effective_classes": Column(float, "Median number of classes that compete.", ge=1 - 1e-9),
        "largest_eigenvalue": Column(float, "Median of L.", ge=0),
        "calls": Column(float, "Mean number of reverse passes.", ge=0),
        "saving": Column(float, "Mean of the passes of the whole Hessian divided by those made.", ge=0),
        "solving_calls": Column(int, "Most reverse passes made for CASO after L was known.", ge=0),
        "kkt_residual": Column(float, "Largest relative violation of CASO's optimality conditions.", ge=0),
        "seconds": Column(float, "Mean time of an image.", unit="s", ge=0),
        "spearman": Column(
            float,
            "Spearman's rank correlation of distance with confidence; missing for fewer than 4 images.",
            nullable=True,
            ge=-1 - 1e-9,
            le=1 + 1e-9,
        ),
        "spearman_low": Column(
            float, "Lower end of its 95 % interval (Bonett and Wright 2000).", nullable=True
        ),
        "spearman_high": Column(float, "Upper end of its 95 % interval.", nullable=True),
    },
    keys=("group",),
)


Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def summarise(table: pd.DataFrame, groups: int = 5) -> pd.DataFrame:
    """Summarise distances by confidence.

    Args:
        table: The table :data:`DISTANCES`; failed rows are left out.
        groups: Number of quantile groups, each with nearly the same number of images; at most one an image.

    Returns:
        The table :data:`DISTANCES_SUMMARY`; empty if no image succeeded.
    """
    fine = table[table["status"] == OK].sort_values(["confidence", "image_id"], kind="stable")
    if fine.empty:
        return frame([], DISTANCES_SUMMARY)
    parts = np.array_split(np.arange(len(fine)), max(1, min(groups, len(fine))))
    rows = [_group(fine, 0), *(_group(fine.iloc[part], number) for number, part in enumerate(parts, 1))]
    return frame(rows, DISTANCES_SUMMARY)


def _group(rows: pd.DataFrame, number: int) -> dict[str, Any]:
    found, confidence = rows["distance"].astype(float), rows["confidence"].astype(float)
    spearman, low, high = rank_correlation(confidence.to_numpy(), found.to_numpy())
    return {
        "group": number,
        "images": len(rows),
        "confidence_low": confidence.min(),
        "confidence_high": confidence.max(),
        "mean": found.mean(),
        "median": found.median(),
        "standard_deviation": found.std(),
        "mean_angle": rows["angle"].astype(float).mean(),
        "mean_bound": rows["kantorovich_bound"].astype(float).mean(),
        "effective_classes": rows["effective_classes"].astype(float).median(),
        "largest_eigenvalue": rows["largest_eigenvalue"].astype(float).median(),
        "calls": rows["calls"].astype(float).mean(),
        "saving": (rows["full_calls"].astype(float) / rows["calls"].astype(float)).mean(),
        "solving_calls": rows["solving_calls"].astype(int).max(),
        "kkt_residual": rows["kkt_residual"].astype(float).max(),
        "seconds": rows["seconds"].astype(float).mean(),
        "spearman": spearman,
        "spearman_low": low,
        "spearman_high": high,
    }


def rank_correlation(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Return Spearman's rank correlation and its 95 % interval.

    The interval is that of Fisher's transformation with variance (1 + r²/2)/(n − 3) (Bonett and Wright 2000).

    Args:
        a: [n].
        b: [n].

    Returns:
        Correlation and interval, each in [-1, 1]; NaN for n < 4 or where a or b does not vary.
    """
    if len(a) < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan, math.nan, math.nan
    from scipy.stats import spearmanr

    r = float(np.clip(spearmanr(a, b).statistic, -1, 1))
    if abs(r) == 1:
        return r, r, r
    center, spread = math.atanh(r), Z95 * math.sqrt((1 + r * r / 2) / (len(a) - 3))
    return r, math.tanh(center - spread), math.tanh(center + spread)
