"""Tables of the spirometry study: curves, predictions, attributions and interactions by interval of 0.5 s."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from curvelens.tables import RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

NETWORKS = ("wide", "narrow")
READING = "volume at 1 s"
"""What one would read off the disturbed curve: the baseline of a network."""

MEAN = "mean of training"
GROUPS = ("early cough", "twin without cough", "no early cough", "recorded")
EARLY = 4.0
"""A cough is early where its plateau begins within so many seconds (Torop et al. 2023, Sec. 5.2)."""

SPLITS = ("train", "validation", "test", "twin", "recorded")
PAPER_MSE = {"train": 0.563, "test": 0.547}
"""Torop et al. 2023, App. E.1: efforts of the UK Biobank, which are not public; the unit is not stated."""

_CURVE = {"image_id": Column(str, "Name of the curve.")}
_NETWORK = {"network": Column(str, "Network, by the width of its kernels.", isin=NETWORKS)}
_STATUS = {name: RUN_COLUMNS[name] for name in ("status", "error")}

SPIROMETRY_CURVES = schema(
    "spirometry_curves",
    "Exhalation curves: simulated ones, and recorded ones where there are any.",
    {
        **_CURVE,
        "split": Column(
            str,
            "What the curve is for; a twin is an effort of the test split without its coughs.",
            isin=SPLITS,
        ),
        "fev1": Column(
            float,
            "Volume one second after time zero: of a simulated patient's undisturbed best effort, the "
            "target; of a recorded curve its own.",
            "L",
            gt=0,
        ),
        "volume_1s": Column(float, "Volume of this curve one second after time zero.", "L", ge=0),
        "fvc": Column(float, "Largest volume of this curve.", "L", gt=0),
        "coughs": Column(int, "Coughs; missing for recorded curves.", nullable=True, ge=0),
        "first_cough": Column(
            float,
            "When the first plateau begins, after time zero; missing without coughs and for recorded curves.",
            "s",
            nullable=True,
        ),
        **_STATUS,
    },
    keys=("image_id",),
)

SPIROMETRY_PREDICTIONS = schema(
    "spirometry_predictions",
    "What a network predicts for a curve.",
    {
        **_CURVE,
        **_NETWORK,
        "split": Column(str, "What the curve is for.", isin=SPLITS),
        "fev1": Column(float, "The target, see `spirometry_curves`.", "L", gt=0),
        "prediction": Column(float, "Predicted FEV1.", "L"),
    },
    keys=("image_id", "network"),
)

SPIROMETRY_NETWORKS = schema(
    "spirometry_networks",
    "How well FEV1 is predicted from disturbed curves, by networks and by two rules that know less.",
    {
        "predictor": Column(
            str,
            "A network, the volume of the disturbed curve at 1 s, or the mean target of training.",
            isin=(*NETWORKS, READING, MEAN),
        ),
        "split": Column(str, "Curves.", isin=SPLITS),
        "kernel_width": Column(int, "Samples that a kernel spans.", nullable=True, ge=1),
        "reach": Column(
            float,
            "Largest distance at which the kernels let two samples interact, blocks · (width − 1) samples.",
            "s",
            nullable=True,
            ge=0,
        ),
        "weights": Column(int, "Trained numbers in the network.", nullable=True, ge=1),
        "curves": Column(int, "Curves predicted.", ge=1),
        "mean_squared_error": Column(float, "Mean squared error.", "L²", ge=0),
        "mean_absolute_error": Column(float, "Mean absolute error.", "L", ge=0),
        "standard_error": Column(
            float, "Standard error of the mean absolute error over curves.", "L", nullable=True, ge=0
        ),
        "explained_variance": Column(
            float, "1 − mean squared error / variance of the targets.", nullable=True, le=1
        ),
        "paper_mse": Column(
            float, "Torop et al. 2023, App. E.1, other curves; unit not stated.", nullable=True, ge=0
        ),
    },
    keys=("predictor", "split"),
)

SPIROMETRY_EXPLANATIONS = schema(
    "spirometry_explanations",
    "One curve explained for one network: SmoothGrad and SmoothHess of predicted FEV1 from the same calls; "
    "shares and relative errors are missing where there is nothing to share.",
    {
        **_CURVE,
        **_NETWORK,
        "group": Column(str, "Why this curve was taken.", isin=GROUPS),
        "fev1": Column(float, "The target.", "L", gt=0),
        "prediction": Column(float, "Predicted FEV1.", "L"),
        "sigma": Column(float, "Smoothing.", "L", gt=0),
        "repeats": Column(int, "Independent estimates, from which error bars are taken.", ge=2),
        "attribution_error": Column(
            float,
            "Standard error of the attributions by interval over their size (L2 norms).",
            nullable=True,
            ge=0,
        ),
        "interaction_error": Column(
            float,
            "Standard error of the interactions by interval over their size (Frobenius norms).",
            nullable=True,
            ge=0,
        ),
        "radius": Column(float, "Radius of the ball for P_MSE, σ√300.", "L", gt=0),
        "pmse": Column(float, "P_MSE of SmoothHess + SmoothGrad.", "L²", ge=0),
        "pmse_first_order": Column(float, "P_MSE of SmoothGrad alone.", "L²", ge=0),
        "first_share": Column(
            float, "Share of |attribution| in the first interval.", nullable=True, ge=0, le=1
        ),
        "strongest": Column(
            float, "Start of the interval that interacts most with the first, itself left out.", "s", ge=0
        ),
        "strongest_in_plateau": Column(
            bool,
            "Whether a plateau overlaps that interval, for a twin one that it would have had; missing "
            "where there is none.",
            nullable=True,
        ),
        "plateau_share": Column(
            float,
            "Share of intervals after the first that a plateau overlaps: what chance gives.",
            nullable=True,
            ge=0,
            le=1,
        ),
        "near": Column(float, "Distance that counts as near: the narrow network's reach.", "s", ge=0),
        "near_share": Column(
            float,
            "Share of |interaction| between intervals that near or less lie between.",
            nullable=True,
            ge=0,
            le=1,
        ),
        "near_energy": Column(
            float,
            "The same of squared interactions, estimated from products of independent repeats, in which "
            "noise cancels; may leave [0, 1] where noise prevails.",
            nullable=True,
        ),
        "mean_distance": Column(
            float, "Mean distance of two intervals, weighted by |interaction|.", "s", nullable=True, ge=0
        ),
        "energy_distance": Column(
            float,
            "Mean distance weighted by squared interactions, estimated as near_energy.",
            "s",
            nullable=True,
        ),
        **RUN_COLUMNS,
    },
    keys=("image_id", "network"),
)

SPIROMETRY_INTERVALS = schema(
    "spirometry_intervals",
    "An interval of an explained curve: summed attribution, and interaction with the first interval.",
    {
        **_CURVE,
        **_NETWORK,
        "group": Column(str, "Why this curve was taken.", isin=GROUPS),
        "interval": Column(int, "Number of the interval, from 0.", ge=0),
        "start": Column(float, "Its start after time zero; it lasts 0.5 s.", "s", ge=0),
        "attribution": Column(float, "SmoothGrad, summed over the interval's samples.", "L/L"),
        "attribution_error": Column(float, "Its standard error.", "L/L", ge=0),
        "interaction": Column(float, "SmoothHess, summed over pairs with the first interval.", "1/L"),
        "interaction_error": Column(float, "Its standard error.", "1/L", ge=0),
        "plateau": Column(
            float,
            "Share of the interval in plateaus, for a twin those it would have had; missing where unknown.",
            nullable=True,
            ge=0,
            le=1,
        ),
    },
    keys=("image_id", "network", "interval"),
)

SPIROMETRY_INTERACTIONS = schema(
    "spirometry_interactions",
    "SmoothHess summed over the samples of two intervals of 0.5 s; each pair once.",
    {
        **_CURVE,
        **_NETWORK,
        "group": Column(str, "Why this curve was taken.", isin=GROUPS),
        "first": Column(int, "Number of one interval, from 0.", ge=0),
        "second": Column(int, "Number of the other one, not before the first.", ge=0),
        "interaction": Column(float, "Sum of the entries of the Hessian.", "1/L"),
        "standard_error": Column(float, "Its standard error over repeats.", "1/L", ge=0),
    },
    keys=("image_id", "network", "first", "second"),
)

SPIROMETRY_SAMPLES = schema(
    "spirometry_samples",
    "The explained curves as the networks see them.",
    {
        **_CURVE,
        "time": Column(float, "After time zero.", "s", ge=0),
        "volume": Column(float, "Volume exhaled.", "L"),
    },
    keys=("image_id", "time"),
)


def networks(
    predictions: pd.DataFrame, curves: pd.DataFrame, models: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """Return how well each network predicts each split, beside reading the curve off and guessing the mean.

    Args:
        predictions: :data:`SPIROMETRY_PREDICTIONS` of all networks.
        curves: :data:`SPIROMETRY_CURVES`.
        models: ``model.json`` of each network, by name.

    Returns:
        The table :data:`SPIROMETRY_NETWORKS`.
    """
    known = curves[(curves["status"] == "ok") & (curves["split"] != "twin")]
    predictions = predictions[predictions["split"] != "twin"]
    mean = float(known.loc[known["split"] == "train", "fev1"].mean())
    rules = [
        known.assign(predictor=READING, prediction=known["volume_1s"]),
        known.assign(predictor=MEAN, prediction=mean),
    ]
    parts = [predictions.assign(predictor=predictions["network"]), *rules]
    return frame([row for part in parts for row in _quality(part, models)], SPIROMETRY_NETWORKS)


def _quality(predictions: pd.DataFrame, models: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for (predictor, split), rows in predictions.groupby(["predictor", "split"]):
        error = rows["prediction"] - rows["fev1"]
        variance = float(rows["fev1"].var(ddof=0))
        squared = float((error**2).mean())
        model = models.get(str(predictor), {})
        parameters = model.get("parameters", {})
        yield {
            "predictor": predictor,
            "split": split,
            "kernel_width": parameters.get("width"),
            "reach": model.get("reach"),
            "weights": model.get("weights"),
            "curves": len(rows),
            "mean_squared_error": squared,
            "mean_absolute_error": float(error.abs().mean()),
            "standard_error": float(error.abs().std() / math.sqrt(len(rows))),
            "explained_variance": 1 - squared / variance if variance else math.nan,
            "paper_mse": PAPER_MSE.get(str(split)) if predictor == "wide" else None,
        }
