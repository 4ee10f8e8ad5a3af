"""Tables of trust radii: rows for every image and local model, and their summary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.errors import DataError
from curvelens.summaries.distances import rank_correlation
from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("SH+SG", "SG", "SP H+G", "SP G", "G")


PARAMETERS = {"SH+SG": "sigma", "SG": "sigma", "SP H+G": "beta", "SP G": "beta", "G": ""}


CENSORED = ("", "below", "above")


_CENSORED = (
    "Empty; `below`: the fidelity is below the threshold at the smallest radius already; `above`: it is not "
    "at the largest."
)


_MODEL_COLUMNS = {
    "method": Column(
        str,
        "SmoothHess + SmoothGrad, SmoothGrad, SoftPlus Hessian + gradient, SoftPlus gradient, or gradient.",
        isin=METHODS,
    ),
    "parameter": Column(str, "What the model depends on; empty for G.", isin=("sigma", "beta", "")),
    "parameter_value": Column(
        float, "σ (standard deviation, pixels in [0, 1]) or β (sharpness of SoftPlus).", nullable=True, gt=0
    ),
    "threshold": Column(float, "Relative fidelity that is asked for.", gt=0, lt=1),
}


TRUST = schema(
    "trust_images",
    "How far one local model of one image may be believed: the largest radius within which its relative "
    "fidelity, the share of the function's mean squared change that it predicts, is at least the threshold.",
    {
        **IMAGE_COLUMNS,
        "split": Column(
            str, "Whether the image serves to choose parameters or to report.", isin=("validation", "test")
        ),
        "scalar": Column(str, "The function that is modelled, e.g. `predicted_logit`."),
        **_MODEL_COLUMNS,
        "law": Column(str, "Law of the perturbations' lengths.", isin=("ball", "paper")),
        "trust_radius": Column(
            float, "The radius, pixels in [0, 1]; where censored, its bound.", unit="L2", gt=0
        ),
        "low": Column(float, "Lower end of its 95 % interval; 0 where below all radii.", unit="L2", ge=0),
        "high": Column(float, "Upper end; missing where above all radii.", unit="L2", nullable=True, gt=0),
        "censored": Column(str, _CENSORED, isin=CENSORED),
        "fidelity": Column(float, "Relative fidelity at the radius, the nearest that was evaluated.", le=1),
        "fidelity_stderr": Column(float, "Its standard error from the finite number of perturbations.", ge=0),
        "region_radius": Column(
            float,
            "Distance to the border of the linear region; missing if the network is not piecewise linear.",
            unit="L2",
            nullable=True,
            ge=0,
        ),
        "evaluations": Column(
            int, "Evaluations of the function on the image, shared by all its local models.", ge=1
        ),
        **RUN_COLUMNS,
        "seconds": Column(
            float,
            "Wall time to make the model; SG shares that of SH+SG and its calls, and so do thresholds.",
            unit="s",
            ge=0,
        ),
        "calls": Column(int, "Gradient calls to make the model.", ge=0),
    },
    keys=("image_id", "split", "method", "parameter_value", "threshold"),
)


_INTERVAL = "Lower end of its 95 % interval (Bonett and Wright 2000).", "Upper end of its 95 % interval."


def _correlation_columns(name: str, text: str) -> dict[str, Column]:
    told = (f"Spearman's rank correlation of the trust radius with {text}; missing for fewer than 4 images.",)
    return {
        name + end: Column(float, meaning, nullable=True, ge=-1 - 1e-9, le=1 + 1e-9)
        for end, meaning in zip(("", "_low", "_high"), (*told, *_INTERVAL), strict=True)
    }


TRUST_SUMMARY = schema(
    "trust",
    "Trust radii over the test images. Censored ones count with their bounds, which leaves a median correct "
    "unless it is a bound itself.",
    {
        **_MODEL_COLUMNS,
        "chosen": Column(
            bool, "Whether of all values of its parameter this has the largest `validation_mean`."
        ),
        "images": Column(int, "Test images that did not fail.", ge=1),
        "median": Column(float, "Median trust radius.", unit="L2", gt=0),
        "median_low": Column(
            float,
            "Lower end of its 95 % interval, from order statistics; missing for fewer than 6 images.",
            unit="L2",
            nullable=True,
            gt=0,
        ),
        "median_high": Column(float, "Upper end.", unit="L2", nullable=True, gt=0),
        "lower_quartile": Column(float, "A quarter of the images have less.", unit="L2", gt=0),
        "upper_quartile": Column(float, "A quarter of the images have more.", unit="L2", gt=0),
        "below": Column(float, "Share of images censored from below.", ge=0, le=1),
        "above": Column(float, "Share of images censored from above.", ge=0, le=1),
        "validation_mean": Column(
            float,
            "Geometric mean over the validation images, censored radii with their bounds.",
            unit="L2",
            nullable=True,
            gt=0,
        ),
        "region_ratio": Column(
            float,
            "Median of trust radius / distance to the border of the linear region; missing if smooth.",
            nullable=True,
            gt=0,
        ),
        **_correlation_columns("confidence_spearman", "confidence"),
        **_correlation_columns("region_spearman", "the distance to the border of the linear region"),
        "calls": Column(float, "Mean number of gradient calls to make the model.", ge=0),
        "seconds": Column(float, "Mean wall time to make the model.", unit="s", ge=0),
    },
    keys=("threshold", "method", "parameter_value"),
)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise trust radii over the test images, and mark the parameter that validation images choose.

    Each parameter is chosen by the geometric mean over the validation images, in which a model that is wrong
    from the start on some images pays for them; of equal ones the smallest.

    Args:
        table: The table :data:`TRUST`; failed rows are left out.

    Returns:
        The table :data:`TRUST_SUMMARY`.

    Raises:
        DataError: If no validation image or no test image succeeded.
    """
    fine = table[table["status"] == OK]
    validation, test = (fine[fine["split"] == split] for split in ("validation", "test"))
    if validation.empty or test.empty:
        raise DataError(
            "trust: needs validation images to choose parameters on and test images to report on; all of one "
            "kind failed, see the errors"
        )
    case = ["threshold", "method", "parameter_value"]
    logs = validation.assign(log=np.log(validation["trust_radius"].astype(float)))
    means = logs.groupby(case, dropna=False)["log"].mean().reset_index()
    best = means.sort_values(["log", "parameter_value"], ascending=[False, True])
    chosen = {_key(row) for row in best.drop_duplicates(["threshold", "method"]).itertuples()}
    known = {_key(row): math.exp(row.log) for row in means.itertuples()}
    rows = []
    for values, group in test.groupby(case, dropna=False):
        head = dict(zip(case, values, strict=True))
        key = (head["threshold"], head["method"], _number(head["parameter_value"]))
        head |= {"parameter": group["parameter"].iloc[0], "chosen": key in chosen}
        rows.append(head | {"validation_mean": known.get(key)} | _summary(group))
    return frame(rows, TRUST_SUMMARY)


def _number(value: float) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _key(row: Any) -> tuple[float, str, float | None]:
    return row.threshold, row.method, _number(row.parameter_value)


def _summary(group: pd.DataFrame) -> dict[str, Any]:
    radius = group["trust_radius"].to_numpy(float)
    region = group["region_radius"].to_numpy(float)
    known = region > 0  # false for missing ones; an image on a border has no ratio
    low, high = median_interval(radius)
    found: dict[str, Any] = {
        "images": len(group),
        "median": float(np.median(radius)),
        "median_low": low,
        "median_high": high,
        "lower_quartile": float(np.quantile(radius, 0.25)),
        "upper_quartile": float(np.quantile(radius, 0.75)),
        "below": float((group["censored"] == "below").mean()),
        "above": float((group["censored"] == "above").mean()),
        "region_ratio": float(np.median(radius[known] / region[known])) if known.any() else None,
        "calls": float(group["calls"].astype(float).mean()),
        "seconds": float(group["seconds"].mean()),
    }
    confidence = group["confidence"].to_numpy(float)
    for name, other, rows in (
        ("confidence_spearman", confidence, np.ones(len(group), bool)),
        ("region_spearman", region, known),
    ):
        numbers = rank_correlation(other[rows], radius[rows])
        found |= dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))
    return found


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """Return a 95 % interval for the median that assumes nothing of the distribution.

    The interval runs from the k-th smallest to the k-th largest value, with the largest k for which a
    binomial count of n tosses is below k with probability ≤ 2.5 %.

    Args:
        values: [n].

    Returns:
        Its ends; NaN for n < 6, for which there is no such interval.
    """
    from scipy.stats import binom

    n = len(values)
    k = int(binom.ppf(0.025, n, 0.5))
    if n < 6 or k < 1:
        return math.nan, math.nan
    ordered = np.sort(values)
    return float(ordered[k - 1]), float(ordered[n - k])
