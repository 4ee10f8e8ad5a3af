"""The table of a path between two images, and the rule by which a step of it counts as a jump."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from curvelens.tables import Column, schema

if TYPE_CHECKING:
    import numpy as np

METHODS = ("gradient", "smoothgrad", "vargrad")

FENCE = 1.5
LEAST = 0.1
RULE = (
    f"a change of at least {LEAST:g} that lies more than {FENCE:g} interquartile ranges above the third "
    "quartile of all steps (Tukey's fence)"
)


def jumps(changes: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return which steps are jumps: outliers among the path's own steps, by Tukey's fence.

    A step jumps where its change is at least :data:`LEAST` and more than :data:`FENCE` interquartile ranges
    above the third quartile of all steps' changes: measured against the path itself, because how fast an
    explanation changes on its smooth stretches differs from network to network by orders of magnitude.

    Args:
        changes: Change at each step ``[T]``, >= 0; NaN where there is none, which is no jump.

    Returns:
        bool ``[T]``.
    """
    import numpy as np

    values = np.asarray(changes, float)
    known = values[~np.isnan(values)]
    if not known.size:
        return np.zeros(len(values), bool)
    low, high = np.quantile(known, [0.25, 0.75])
    return (np.nan_to_num(values) > high + FENCE * (high - low)) & (np.nan_to_num(values) >= LEAST)


_TURN = "1 − cosine of the angle between this {} and the previous step's; missing at the first step."
_DISTANCE = (
    "L2 distance of this {} from the previous step's, over the mean of their L2 norms; missing at the first "
    "step, and where a map is zero."
)
_JUMP = f"Whether {{}} is a jump: {RULE}."
_PREDICTED = "score of the class predicted here"

PATH = schema(
    "path",
    "The straight path from one image to another of a different class, x(t) = (1 − t)·start + t·end; u is "
    "its unit direction.",
    {
        "start_id": Column(str, "Name of the image at t = 0."),
        "end_id": Column(str, "Name of the image at t = 1."),
        "step": Column(int, "Number of the point, from 0.", ge=0),
        "t": Column(float, "Position on the path.", ge=0, le=1),
        "distance": Column(float, "L2 distance from the start; pixels in [0, 1].", unit="L2", ge=0),
        "start_class": Column(
            int, "True class of the image at t = 0, the predicted one where it is not known.", ge=0
        ),
        "end_class": Column(int, "The same at t = 1.", ge=0),
        "start_probability": Column(float, "SoftMax probability of the start's class.", ge=0, le=1 + 1e-6),
        "end_probability": Column(float, "SoftMax probability of the end's class.", ge=0, le=1 + 1e-6),
        "prediction": Column(int, "Class with the largest logit, whose logit is explained.", ge=0),
        "confidence": Column(float, "SoftMax probability of the predicted class.", ge=0, le=1 + 1e-6),
        "prediction_change": Column(
            float,
            "Total variation distance of the class probabilities from the previous step's; missing at the "
            "first step.",
            nullable=True,
            ge=0,
            le=1 + 1e-6,
        ),
        "prediction_jump": Column(bool, _JUMP.format("the change of the probabilities")),
        "value": Column(float, "The explained logit."),
        "gradient_norm": Column(float, "L2 norm of the gradient.", unit="logit/L2", ge=0),
        **{
            f"{name}_change": Column(float, _TURN.format(name), nullable=True, ge=0, le=2) for name in METHODS
        },
        **{
            f"{name}_distance": Column(float, _DISTANCE.format(name), nullable=True, ge=0, le=2 + 1e-6)
            for name in METHODS
        },
        **{f"{name}_jump": Column(bool, _JUMP.format(f"`{name}_distance`")) for name in METHODS},
        "slope": Column(float, f"Slope uᵀg of the {_PREDICTED}.", unit="logit/L2"),
        "curvature": Column(
            float,
            f"uᵀHu of the {_PREDICTED}, exact; 0 inside a linear region.",
            unit="logit/L2²",
        ),
        "loss_curvature": Column(
            float,
            "uᵀHu of the cross-entropy at the class predicted here, exact: for a piecewise-linear network "
            "the variance, over the classes' probabilities, of the logits' slopes along u.",
            unit="1/L2²",
        ),
        "step_curvature": Column(
            float,
            f"Second difference of the {_PREDICTED} over both neighbouring points: the mean of uᵀHu between "
            "them, jumps of the slope included, weighted towards the point; missing at the ends.",
            unit="logit/L2²",
            nullable=True,
        ),
        "smoothed_curvature": Column(
            float,
            "Change of the slope uᵀSG since the previous step over its length: the mean on it of uᵀ∇²h u, h "
            "being the smoothed logit whose gradient SmoothGrad is; missing at the first step and where the "
            "predicted class changes.",
            unit="logit/L2²",
            nullable=True,
        ),
        "start_score": Column(float, "Logit of the class predicted at t = 0."),
        "start_score_from_gradient": Column(
            float, "The same as the gradient at t = 0 predicts it, to first order."
        ),
        "start_score_from_smoothgrad": Column(float, "The same as SmoothGrad at t = 0 predicts it."),
        "regions_crossed": Column(
            int,
            "Borders of linear regions crossed since the previous step; missing at the first step, for "
            "networks that are not piecewise linear or have too many units to walk from border to border, "
            "and where ReLUs are not modules.",
            nullable=True,
            ge=0,
        ),
        "units_switched": Column(
            int,
            "Units of ReLU type on another of their linear pieces than at the previous step; those that "
            "switched there and back in between are not seen. Missing at the first step and without units.",
            nullable=True,
            ge=0,
        ),
        "switched_share": Column(
            float, "The same as a share of all units of ReLU type.", nullable=True, ge=0, le=1
        ),
        "seconds": Column(float, "Wall time spent on the step's explanations.", unit="s", ge=0),
        "calls": Column(int, "Gradient calls made for the step.", ge=0),
    },
    keys=("start_id", "end_id", "step"),
)
