"""Tables of the sample complexity of SmoothHess: errors, and the powers of n and d that they follow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from curvelens.tables import Column, frame, schema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ESTIMATORS = ("regression", "projected", "orthogonal", "antithetic", "sobol", "plain")
EXACT = 1e-9
"""Relative errors below are rounding in float64: the estimator recovers the function's Hessian."""

TARGET = 0.1
"""Relative error for which the gradient calls are stated."""

BLOCKS = 4
"""Rates are fitted over at least this many calls a feature: two whole orthogonal matrices in pairs."""

_FUNCTION = {
    "function": Column(
        str,
        "What is explained: `ridges`, one hidden layer of ReLU, or a quadratic.",
        isin=("ridges", "quadratic"),
    ),
    "width": Column(float, "ReLU units for each input feature.", gt=0, nullable=True),
    "estimator": Column(str, "Estimator of the smoothed Hessian.", isin=ESTIMATORS),
}

COMPLEXITY = schema(
    "complexity",
    "Error of one estimate of a smoothed Hessian that is known in closed form.",
    {
        **_FUNCTION,
        "dimension": Column(int, "Input features d.", ge=1),
        "calls": Column(int, "Gradient calls n.", ge=1),
        "repeat": Column(int, "Which random function of this kind.", ge=0),
        "relative_error": Column(float, "Frobenius norm of the error over that of the truth.", ge=0),
        "spectral_error": Column(float, "Spectral norm of the error over that of the truth (eq. 9).", ge=0),
        "estimated_error": Column(
            float,
            "The estimator's own estimate of relative_error; missing where noise hides it.",
            ge=0,
            nullable=True,
        ),
    },
    keys=("function", "width", "dimension", "estimator", "calls", "repeat"),
)

COMPLEXITY_RATES = schema(
    "complexity_rates",
    "Power that the error follows, ∝ calls^slope or dimension^slope, fitted for each random function.",
    {
        **_FUNCTION,
        "against": Column(str, "What the error is followed against.", isin=("calls", "dimension")),
        "at": Column(int, "The other one: the dimension, or the gradient calls.", ge=1),
        "norm": Column(str, "Norm of the error.", isin=("frobenius", "spectral")),
        "slope": Column(
            float, "Mean slope over repeats; missing where exact or one point only.", nullable=True
        ),
        "ci_low": Column(float, "Lower end of its 95 % interval (Student's t over repeats).", nullable=True),
        "ci_high": Column(float, "Upper end.", nullable=True),
        "points": Column(int, "Values of n or d in the fit.", ge=0),
        "repeats": Column(int, "Random functions.", ge=1),
        "exact": Column(bool, "Whether every error in the fit is rounding (< 1e-9)."),
        "calls_needed": Column(
            float,
            "Calls for an error of 0.1: read off, the fewest made at least; beyond them from the fit.",
            gt=0,
            nullable=True,
        ),
        "extrapolated": Column(bool, "Whether calls_needed lies beyond the calls that were made."),
    },
    keys=("function", "width", "estimator", "against", "at", "norm"),
)

_NORMS = {"frobenius": "relative_error", "spectral": "spectral_error"}


def rates(errors: pd.DataFrame) -> pd.DataFrame:
    """Return the fitted powers of calls, at each dimension, and of the dimension, at the most calls.

    Args:
        errors: :data:`COMPLEXITY`.

    Returns:
        The table :data:`COMPLEXITY_RATES`.
    """
    made = []
    for (function, width, estimator), part in errors.groupby(
        ["function", "width", "estimator"], dropna=False
    ):
        head = {"function": function, "width": width, "estimator": estimator}
        made += [head | row for row in _of_one(part)]
    return frame(made, COMPLEXITY_RATES)


def _of_one(part: pd.DataFrame) -> Iterator[dict[str, Any]]:
    most = int(part["calls"].max())
    for norm, column in _NORMS.items():
        for dimension, rows in part.groupby("dimension"):
            table = rows.pivot_table(column, "repeat", "calls")
            late = table.loc[:, table.columns >= BLOCKS * int(dimension)]
            fitted = _fit(late)
            yield {
                "against": "calls", "at": int(dimension), "norm": norm,
                **fitted, **_needed(table, late, fitted),
            }  # fmt: skip
        table = part[part["calls"] == most].pivot_table(column, "repeat", "dimension")
        none = {"calls_needed": math.nan, "extrapolated": False}
        yield {"against": "dimension", "at": most, "norm": norm, **_fit(table), **none}


def _fit(table: pd.DataFrame) -> dict[str, Any]:
    """Fit log error against log column for each row, and average the slopes with Student's interval."""
    import numpy as np
    from scipy.stats import t

    repeats, points = table.shape
    exact = bool(points and (table.to_numpy() < EXACT).all())
    found = {"slope": math.nan, "ci_low": math.nan, "ci_high": math.nan}
    if points >= 2 and not (table.to_numpy() < EXACT).any():
        slopes = np.polyfit(np.log(table.columns.to_numpy(float)), np.log(table.to_numpy().T), 1)[0]
        half = (
            t.ppf(0.975, repeats - 1) * slopes.std(ddof=1) / math.sqrt(repeats) if repeats > 1 else math.nan
        )
        found = {"slope": slopes.mean(), "ci_low": slopes.mean() - half, "ci_high": slopes.mean() + half}
    return {**found, "points": points, "repeats": repeats, "exact": exact}


def _needed(table: pd.DataFrame, late: pd.DataFrame, fitted: dict[str, Any]) -> dict[str, Any]:
    """Return the calls at which the geometric mean of the errors reaches :data:`TARGET`."""
    import numpy as np

    calls = np.log(table.columns.to_numpy(float))
    level = _log_mean(table)
    below = np.flatnonzero(level <= math.log(TARGET))
    if len(below):
        i = int(below[0])
        if i == 0:
            return {"calls_needed": math.exp(calls[0]), "extrapolated": False}
        share = (level[i - 1] - math.log(TARGET)) / (level[i - 1] - level[i])
        return {
            "calls_needed": math.exp(calls[i - 1] + share * (calls[i] - calls[i - 1])),
            "extrapolated": False,
        }
    if not fitted["slope"] < 0:
        return {"calls_needed": math.nan, "extrapolated": False}
    centre, height = np.log(late.columns.to_numpy(float)).mean(), _log_mean(late).mean()
    return {
        "calls_needed": math.exp(centre + (math.log(TARGET) - height) / fitted["slope"]),
        "extrapolated": True,
    }


def _log_mean(table: pd.DataFrame) -> np.ndarray:
    import numpy as np

    mean: np.ndarray = np.log(np.maximum(table.to_numpy(), 1e-300)).mean(0)
    return mean
