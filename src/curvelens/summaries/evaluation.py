"""Predictions of single images, and what they add up to: accuracy, confusion, calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.seeds import derive
from curvelens.summaries.attacks import wilson_interval
from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 1000
_AT_ONCE = 100

PREDICTIONS = schema(
    "predictions",
    "What a network says of one test image.",
    {
        **IMAGE_COLUMNS,
        "correct": Column(
            bool, "Whether prediction and label agree; missing without a label.", nullable=True
        ),
        "loss": Column(
            float, "Cross-entropy at the label; missing without a label.", "nat", nullable=True, ge=0
        ),
        "entropy": Column(float, "Entropy of the SoftMax probabilities.", "nat", ge=0),
        "origin": Column(
            str, "Source and terms of the image, where the data set knows them of each.", nullable=True
        ),
        **RUN_COLUMNS,
    },
    keys=("image_id",),
)

_SHARE: dict[str, Any] = {"ge": 0, "le": 1 + 1e-6}

EVALUATION = schema(
    "evaluation",
    "Accuracy and calibration of a network on the test images whose class is known.",
    {
        "images": Column(int, "Images whose class is known and that did not fail.", ge=1),
        "unlabelled": Column(int, "Images whose class is not known, left out.", ge=0),
        "right": Column(int, "Images that are classified correctly.", ge=0),
        "accuracy": Column(float, "Their share.", **_SHARE),
        "accuracy_low": Column(float, "Lower end of its 95 % interval (Wilson 1927).", **_SHARE),
        "accuracy_high": Column(float, "Upper end of its 95 % interval.", **_SHARE),
        "loss": Column(float, "Mean cross-entropy.", "nat", ge=0),
        "mean_confidence": Column(float, "Mean probability of the predicted class.", **_SHARE),
        "bins": Column(int, "Bins of equal width, by confidence.", ge=1),
        "calibration_error": Column(
            float,
            "Expected calibration error: Σ over bins of (images in it / images) |share right − mean "
            "confidence| (Guo et al. 2017, eq. 3).",
            **_SHARE,
        ),
        "chance_calibration_error": Column(
            float,
            "Its mean for a network that is right exactly as often as it is confident, with these "
            f"confidences: never 0, as images are finitely many ({DRAWS} draws).",
            **_SHARE,
        ),
        "chance_calibration_error_high": Column(float, "95 % quantile of those draws.", **_SHARE),
    },
)

CONFUSION = schema(
    "confusion",
    "How many test images of a class are taken for a class; pairs that do not occur are left out.",
    {
        "label": Column(int, "True class index.", ge=0),
        "prediction": Column(int, "Predicted class index.", ge=0),
        "label_name": Column(str, "Name of the true class."),
        "prediction_name": Column(str, "Name of the predicted class."),
        "images": Column(int, "Images.", ge=1),
    },
    keys=("label", "prediction"),
)

RELIABILITY = schema(
    "reliability",
    "Test images by confidence: how confident the network is, and how often it is right.",
    {
        "bin": Column(int, "Number of the bin, from 1.", ge=1),
        "confidence_from": Column(float, "Confidence is above this,", **_SHARE),
        "confidence_to": Column(float, "and at most this.", **_SHARE),
        "images": Column(int, "Images in the bin.", ge=0),
        "mean_confidence": Column(float, "Their mean confidence; missing for none.", nullable=True, **_SHARE),
        "accuracy": Column(float, "Share that is right; missing for none.", nullable=True, **_SHARE),
        "accuracy_low": Column(float, "Lower end of its 95 % interval.", nullable=True, **_SHARE),
        "accuracy_high": Column(float, "Upper end of its 95 % interval.", nullable=True, **_SHARE),
    },
    keys=("bin",),
)


def summarise(table: pd.DataFrame, bins: int = 10, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return accuracy with calibration, and the calibration bin by bin.

    Args:
        table: The table :data:`PREDICTIONS`; failed rows and those without a label are left out.
        bins: Bins of equal width by confidence; bin m holds confidences in ((m − 1)/M, m/M].
        seed: Seed of the draws that say what chance alone gives.

    Returns:
        The tables :data:`EVALUATION` and :data:`RELIABILITY`; the first is empty if no image has a label.
    """
    fine = table[table["status"] == OK]
    labelled = fine[fine["label"] >= 0]
    confidence = labelled["confidence"].to_numpy(float).clip(0, 1)
    right = labelled["correct"].to_numpy(float)
    edges = np.linspace(0, 1, bins + 1)
    where = np.searchsorted(edges[1:-1], confidence)
    reliability = [_bin(edges, m, confidence[where == m], right[where == m]) for m in range(bins)]
    if labelled.empty:
        return frame([], EVALUATION), frame(reliability, RELIABILITY)
    low, high = wilson_interval(int(right.sum()), len(right))
    chance = _by_chance(confidence, where, bins, seed)
    row = {
        "images": len(labelled),
        "unlabelled": len(fine) - len(labelled),
        "right": int(right.sum()),
        "accuracy": right.mean(),
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": labelled["loss"].astype(float).mean(),
        "mean_confidence": confidence.mean(),
        "bins": bins,
        "calibration_error": _calibration_error(right[None], confidence, where, bins)[0],
        "chance_calibration_error": chance.mean(),
        "chance_calibration_error_high": np.quantile(chance, 0.95),
    }
    return frame([row], EVALUATION), frame(reliability, RELIABILITY)


def confusion(table: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """Count how often each class is taken for each.

    Args:
        table: The table :data:`PREDICTIONS`; failed rows and those without a label are left out.
        class_names: Name of each class.

    Returns:
        The table :data:`CONFUSION`.
    """
    fine = table[(table["status"] == OK) & (table["label"] >= 0)]
    counts = fine.groupby(["label", "prediction"]).size()
    rows = [
        {
            "label": int(label),
            "prediction": int(prediction),
            "label_name": class_names[int(label)],
            "prediction_name": class_names[int(prediction)],
            "images": int(images),
        }
        for (label, prediction), images in counts.items()
    ]
    return frame(rows, CONFUSION)


def _bin(edges: np.ndarray, m: int, confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    n = len(right)
    low, high = wilson_interval(int(right.sum()), n) if n else (math.nan, math.nan)
    return {
        "bin": m + 1,
        "confidence_from": edges[m],
        "confidence_to": edges[m + 1],
        "images": n,
        "mean_confidence": confidence.mean() if n else math.nan,
        "accuracy": right.mean() if n else math.nan,
        "accuracy_low": low,
        "accuracy_high": high,
    }


def _calibration_error(right: np.ndarray, confidence: np.ndarray, where: np.ndarray, bins: int) -> np.ndarray:
    """Return the expected calibration error of each row of ``right [R, n]``: Σ_m |Σ_i∈m (right − p)| / n."""
    members = np.eye(bins)[where]
    error: np.ndarray = np.abs((right - confidence) @ members).sum(1) / len(confidence)
    return error


def _by_chance(confidence: np.ndarray, where: np.ndarray, bins: int, seed: int) -> np.ndarray:
    """Return the calibration error of draws in which image i is right with probability p_i, ``[DRAWS]``."""
    random = np.random.default_rng(derive(seed, "calibration by chance"))
    parts = [
        _calibration_error(random.random((_AT_ONCE, len(confidence))) < confidence, confidence, where, bins)
        for _ in range(DRAWS // _AT_ONCE)
    ]
    return np.concatenate(parts)
