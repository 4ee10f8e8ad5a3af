"""The index of the stored explanations, and the gradient calls that methods share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"

EXPLANATIONS = schema(
    "explanations",
    "Index of the stored explanations: one row per image and method, beside the arrays in npz.",
    {
        **IMAGE_COLUMNS,
        "target": Column(int, "Class whose score is explained.", ge=0),
        "scalar": Column(str, "The number that is explained, e.g. `predicted_logit`."),
        "value": Column(float, "The scalar at the image."),
        "method": Column(str, "Registered name of the method."),
        "parameters": Column(str, "The method's parameters, as JSON."),
        "trust_radius": Column(
            float,
            "How far the map may be believed: the largest radius within which the local model that it "
            "belongs to predicts the threshold's share of the scalar's mean squared change; missing where a "
            "map predicts no change, or where it was not asked for.",
            unit="L2",
            nullable=True,
            gt=0,
        ),
        "trust_low": Column(float, "Lower end of its 95 % interval.", unit="L2", nullable=True, ge=0),
        "trust_high": Column(
            float, "Upper end; missing where above all radii.", unit="L2", nullable=True, gt=0
        ),
        "trust_censored": Column(
            str,
            "`below` or `above` where the radius is not among those looked at but a bound; else empty.",
            nullable=True,
            isin=("", "below", "above"),
        ),
        "completeness_error": Column(
            float,
            "Sum of the attributions less the change of the scalar that they should sum to; missing for "
            "methods that promise no such thing.",
            unit="scalar",
            nullable=True,
        ),
        "attributed_change": Column(
            float,
            "The change of the scalar that they should sum to, f(x) - f(baseline); missing likewise.",
            unit="scalar",
            nullable=True,
        ),
        "seed": Column(
            int, "Seed of the method for this image, derived from (seed, image id, purpose).", ge=0
        ),
        **RUN_COLUMNS,
        "calls": Column(
            int, "Gradient calls made; those shared count for the first method that needs them.", ge=0
        ),
        "calls_alone": Column(int, "Gradient calls that the explanation rests on, shared or not.", ge=0),
        "forward_calls": Column(int, "Evaluations of the scalar without a gradient, beside them.", ge=0),
    },
    keys=("method", "image_id"),
)


SHARED_CALLS = schema(
    "shared_calls",
    "Gradient calls of each explanation method and of all together, made and as if each method were alone.",
    {
        "method": Column(str, f"Registered name of the method, or `{ALL}`."),
        "images": Column(int, "Images that did not fail.", ge=0),
        "calls": Column(int, "Gradient calls made.", ge=0),
        "calls_alone": Column(int, "Gradient calls if no method shared any.", ge=0),
        "saved": Column(float, "Share of the latter that was not made.", ge=0, le=1),
        "forward_calls": Column(int, "Evaluations of the scalar without a gradient.", ge=0),
    },
    keys=("method",),
)


def share(index: pd.DataFrame) -> pd.DataFrame:
    """Count the gradient calls that explanations made and would have made alone.

    Args:
        index: The table :data:`EXPLANATIONS`; failed rows are left out.

    Returns:
        The table :data:`SHARED_CALLS`: one row a method, and one for all.
    """
    fine = index[index["status"] == OK]
    groups = [*fine.groupby("method"), (ALL, fine)]
    rows = []
    for method, group in groups:
        made, alone = int(group["calls"].sum()), int(group["calls_alone"].sum())
        rows.append(
            {
                "method": method,
                "images": group["image_id"].nunique(),
                "calls": made,
                "calls_alone": alone,
                "saved": 1 - made / alone if alone else 0.0,
                "forward_calls": int(group["forward_calls"].sum()),
            }
        )
    return frame(rows, SHARED_CALLS)
