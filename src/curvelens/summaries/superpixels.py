"""The table of interactions between super-pixels."""

from __future__ import annotations

from curvelens.tables import IMAGE_COLUMNS, RUN_COLUMNS, Column, schema

METHODS = ("SH+SG", "SP H+G", "SW H+G")

SUPERPIXELS = schema(
    "superpixels",
    "Interactions between super-pixels by a local model of the predicted logit (Torop et al. 2023, Fig. 6).",
    {
        **IMAGE_COLUMNS,
        "method": Column(str, "Local model whose Hessian is summed.", isin=METHODS),
        "parameter": Column(str, "Name of its parameter.", isin=("sigma", "beta")),
        "parameter_value": Column(float, "Its value: of pixels for sigma, 1/pre-activation for beta.", gt=0),
        "superpixels": Column(int, "Number of super-pixels.", ge=2),
        "object": Column(
            int, "Super-pixel with the largest sum of the gradient in magnitude, by the first method.", ge=0
        ),
        "shown": Column(
            int, "Super-pixel that interacts most with the object, by the first method; the one drawn.", ge=0
        ),
        "partner": Column(int, "Super-pixel that the one shown interacts with most, by this method.", ge=0),
        "interaction": Column(float, "Their interaction, the Hessian summed over all pairs.", unit="logit"),
        "interaction_error": Column(
            float, "Its standard error from the finite number of calls; 0 where exact.", "logit", True, ge=0
        ),
        "touching": Column(bool, "Whether the two super-pixels have a common border."),
        "relative_error": Column(
            float, "Estimated relative error of all interactions (Frobenius); 0 where exact.", "", True, ge=0
        ),
        "agreement": Column(
            float,
            "Correlation of the interactions between different super-pixels with those of the first method.",
            nullable=True,
            ge=-1 - 1e-9,
            le=1 + 1e-9,
        ),
        "radius": Column(float, "Radius of P_MSE's ball, L2 norm.", gt=0),
        "law": Column(str, "Law of its perturbations.", isin=("ball", "paper")),
        "pmse": Column(float, "P_MSE of the local model.", unit="logit²", ge=0),
        "pmse_error": Column(float, "Its standard error over the perturbations.", unit="logit²", ge=0),
        "shared_scale": Column(bool, "Whether all maps of an image are drawn on one colour scale."),
        **RUN_COLUMNS,
    },
    keys=("image_id", "method"),
)
