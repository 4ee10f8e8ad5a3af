"""Tables of Hessian spectra and their summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

FLAT, CONVEX, CONCAVE, ANISOTROPIC, MIXED = "flat", "convex", "concave", "strongly anisotropic", "mixed"


PIECEWISE = "flat (piecewise linear)"


VERDICTS = (FLAT, CONVEX, CONCAVE, ANISOTROPIC, MIXED, PIECEWISE)


_VERDICT = (
    f"`{PIECEWISE}`: the Hessian is exactly zero; `{FLAT}`: relative_curvature < 0.1; else `{CONVEX}` "
    f"(`{CONCAVE}`): at least 95 % of Σ|λ| is positive (negative); else `{ANISOTROPIC}`: anisotropy ≥ 10; "
    f"else `{MIXED}`. The numbers are the default thresholds."
)


_READING = {
    "positive_share": Column(float, "Share of eigenvalues above the near-zero threshold.", ge=0, le=1),
    "negative_share": Column(float, "Share of eigenvalues below minus the threshold.", ge=0, le=1),
    "near_zero_share": Column(
        float, "Share with |λ| at most the near-zero threshold times the spectral radius.", ge=0, le=1
    ),
    "largest_eigenvalue": Column(float, "Largest eigenvalue of H.", unit="logit/L2²"),
    "smallest_eigenvalue": Column(float, "Smallest (most negative) eigenvalue of H.", unit="logit/L2²"),
    "spectral_radius": Column(float, "Largest |λ|.", unit="logit/L2²", ge=0),
    "trace": Column(float, "Sum of the eigenvalues, the Laplacian.", unit="logit/L2²"),
    "positive_mass": Column(
        float, "Σ of the positive λ over Σ|λ|; missing where H = 0.", nullable=True, ge=0, le=1
    ),
    "effective_rank": Column(
        float, "exp of the entropy of |λ|/Σ|λ|: how many directions curve; 0 where H = 0.", ge=0
    ),
    "anisotropy": Column(
        float, "Largest |λ| over the mean |λ|: 1 when all directions curve alike.", ge=1 - 1e-9
    ),
    "relative_curvature": Column(
        float, "Largest |λ| times the segment's length over |g|: relative change of g to 2nd order.", ge=0
    ),
    "verdict": Column(str, _VERDICT, isin=VERDICTS),
}


SPECTRA = schema(
    "spectra",
    "Reading of the full input Hessian H of the largest logit, with gradient g, at one image.",
    {
        **IMAGE_COLUMNS,
        "model": Column(str, "Name of the network."),
        "activation": Column(
            str,
            "Its nonlinearity: `relu`, `softplus`; `curved` where it is not known to be piecewise linear.",
        ),
        "scalar": Column(str, "The number whose Hessian is taken."),
        **_READING,
        "gradient_norm": Column(float, "L2 norm of the gradient.", unit="logit/L2", ge=0),
        "gradient_change": Column(
            float,
            "|g(end of the segment) − g| / |g|, the segment in a random direction.",
            nullable=True,
            ge=0,
        ),
        "expansion_order": Column(
            float,
            "Power of the step with which the second-order expansion's error falls, 3 in theory; "
            "missing for piecewise-linear networks.",
            nullable=True,
        ),
        "curvature_error": Column(
            float,
            "Relative difference between vᵀHv and the measured change of g along v, the leading eigenvector; "
            "missing for piecewise-linear networks.",
            nullable=True,
            ge=0,
        ),
        "region_radius": Column(
            float,
            "Distance to the border of the linear region; missing if smooth.",
            unit="L2",
            nullable=True,
            ge=0,
        ),
        "regions_crossed": Column(
            int, "Borders of linear regions on the segment; missing if smooth.", nullable=True, ge=0
        ),
        "largest_gradient_jump": Column(
            float,
            "Largest change of the gradient at one border on the segment, 0 without any; missing if smooth.",
            unit="logit/L2",
            nullable=True,
            ge=0,
        ),
        **RUN_COLUMNS,
        "calls": Column(int, "Gradients and Hessian-vector products computed for the row.", ge=0),
    },
    keys=("model", "image_id"),
)


SWEEP = schema(
    "spectra_sweep",
    "Reading of further Hessians at some of the images: of SoftPlus surrogates of the ReLU network, from "
    "smooth to nearly ReLU, and of the logits of several classes in the smooth network.",
    {
        "series": Column(
            str,
            "`sharpness`: the predicted class in surrogates of growing beta; `classes`: several classes in "
            "the network trained with a smooth activation.",
            isin=("sharpness", "classes"),
        ),
        **IMAGE_COLUMNS,
        "model": Column(str, "Name of the network, that whose ReLUs are replaced or the smooth one."),
        "beta": Column(float, "Sharpness of the SoftPlus; missing in series `classes`.", nullable=True, gt=0),
        "of_class": Column(int, "Class whose logit it is.", ge=0),
        "class_rank": Column(int, "1 for the class with the largest logit.", ge=1),
        "class_probability": Column(float, "SoftMax probability of that class.", ge=0, le=1 + 1e-6),
        **_READING,
        "gradient_norm": Column(float, "L2 norm of the gradient.", unit="logit/L2", ge=0),
        "gradient_deviation": Column(
            float,
            "L2 distance of the surrogate's gradient from the ReLU network's, over the norm of that; missing "
            "in series `classes`.",
            nullable=True,
            ge=0,
        ),
        **RUN_COLUMNS,
        "calls": Column(int, "Gradients and Hessian-vector products computed for the row.", ge=0),
    },
    keys=("series", "model", "image_id", "beta", "of_class"),
)


EIGENVALUES = schema(
    "eigenvalues",
    "Every eigenvalue of the input Hessian of the largest logit.",
    {
        "image_id": IMAGE_COLUMNS["image_id"],
        "model": Column(str, "Name of the network."),
        "rank": Column(int, "1 for the largest eigenvalue, with its sign; d for the smallest.", ge=1),
        "eigenvalue": Column(float, "The eigenvalue.", unit="logit/L2²"),
    },
    keys=("model", "image_id", "rank"),
)


_MEDIANS = {
    "positive_share": "share of positive eigenvalues",
    "negative_share": "share of negative eigenvalues",
    "near_zero_share": "share of near-zero eigenvalues",
    "spectral_radius": "largest |λ|",
    "trace": "trace",
    "effective_rank": "effective rank",
    "anisotropy": "anisotropy",
    "relative_curvature": "relative curvature",
    "gradient_norm": "gradient norm",
    "gradient_change": "relative change of the gradient over the segment",
    "expansion_order": "order of the second-order expansion's error, 3 in theory",
    "region_radius": "distance to the border of the linear region",
    "regions_crossed": "number of borders on the segment",
    "largest_gradient_jump": "largest gradient jump on the segment",
}


def _column(verdict: str) -> str:
    return verdict.replace(" ", "_").replace("(", "").replace(")", "")


SPECTRA_SUMMARY = schema(
    "spectra_summary",
    "The spectra of one network over its images: medians and counts of verdicts.",
    {
        "model": Column(str, "Name of the network."),
        "activation": Column(str, "Its nonlinearity."),
        "images": Column(int, "Images that did not fail.", ge=0),
        **{
            name: Column(float, f"Median {text}; missing where no image has one.", nullable=True)
            for name, text in _MEDIANS.items()
        },
        **{_column(name): Column(int, f"Images found {name}.", ge=0) for name in VERDICTS},
    },
    keys=("model",),
)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each network: medians and counts of verdicts.

    Args:
        table: Rows of :data:`SPECTRA`, of one or several networks; failed rows are left out.

    Returns:
        The table :data:`SPECTRA_SUMMARY`.
    """
    rows = []
    for (model, activation), group in table.groupby(["model", "activation"], sort=True):
        fine = group[group["status"] == OK]
        medians = {name: float(fine[name].astype(float).median()) for name in _MEDIANS}
        counts = {_column(name): int((fine["verdict"] == name).sum()) for name in VERDICTS}
        rows.append({"model": model, "activation": activation, "images": len(fine)} | medians | counts)
    return frame(rows, SPECTRA_SUMMARY)
