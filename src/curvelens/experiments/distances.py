"""How far curvature moves an explanation: CASO against CAFO at λ₁ = 0 (Singla et al. 2019, sec. 3.3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens import targets
from curvelens.context_aware import angle, cafo, caso, choose_l2, distance, kantorovich_distance
from curvelens.errors import ConfigError
from curvelens.experiments.local_models import build
from curvelens.experiments.rows import Item, per_image
from curvelens.quadratic import LocalQuadratic, MatrixFree
from curvelens.softmax_curvature import SoftmaxHessian, softmax_hessian
from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from curvelens.store import ImageSet

DISTANCES = schema(
    "distances",
    "CASO against CAFO of the cross-entropy at the predicted label, λ₁ = 0 (Singla et al. 2019, Fig. 1).",
    {
        **IMAGE_COLUMNS,
        "entropy": Column(float, "Entropy of the SoftMax probabilities.", unit="nat", ge=0),
        "effective_classes": Column(float, "exp(entropy): how many classes compete.", ge=1 - 1e-9),
        "largest_eigenvalue": Column(float, "L, largest eigenvalue of the input Hessian of the loss.", ge=0),
        "lambda2": Column(float, "λ₂ = L/2 + c₁, half of that in the authors' code.", gt=0),
        "distance": Column(
            float, "Frobenius distance of CASO and CAFO, both scaled to unit length.", ge=0, le=2
        ),
        "angle": Column(float, "Angle between CASO and CAFO.", unit="°", ge=0, le=180),
        "kantorovich_bound": Column(
            float, "Largest distance possible at this L and λ₂, by Kantorovich's inequality.", ge=0, le=2
        ),
        "kkt_residual": Column(float, "Relative violation of CASO's optimality conditions.", ge=0),
        **RUN_COLUMNS,
    },
    keys=("image_id",),
)

DISTANCES_SUMMARY = schema(
    "distances_summary",
    "Distance of CASO and CAFO by confidence: one row for all images, one for each quantile group.",
    {
        "group": Column(int, "0 for all images, else the quantile group, 1 for the least confident.", ge=0),
        "images": Column(int, "Images in the group that did not fail.", ge=1),
        "confidence_low": Column(float, "Smallest confidence in the group.", ge=0, le=1 + 1e-6),
        "confidence_high": Column(float, "Largest confidence in the group.", ge=0, le=1 + 1e-6),
        "mean": Column(float, "Mean distance.", ge=0, le=2),
        "median": Column(float, "Median distance.", ge=0, le=2),
        "standard_deviation": Column(
            float, "Standard deviation of the distance over images.", nullable=True, ge=0
        ),
        "mean_angle": Column(float, "Mean angle.", unit="°", ge=0, le=180),
        "mean_bound": Column(float, "Mean of the largest distance possible.", ge=0, le=2),
        "spearman": Column(
            float,
            "Spearman's rank correlation of distance with confidence; missing for fewer than 4 images.",
            nullable=True,
            ge=-1 - 1e-9,
            le=1 + 1e-9,
        ),
        "spearman_low": Column(
            float, "Lower end of its 95 % interval (Bonett and Wright 2000).", nullable=True
        ),
        "spearman_high": Column(float, "Upper end of its 95 % interval.", nullable=True),
    },
    keys=("group",),
)

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def distances(
    model: torch.nn.Module,
    images: ImageSet,
    *,
    c1: float = 10.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> pd.DataFrame:
    """Compare CASO with CAFO on every image.

    Args:
        model: Classifier on ``device`` and in ``dtype``; L is exact for a piecewise-linear network.
        images: The images.
        c1: λ₂ = L/2 + c₁, > 0.
        device: Device of the model.
        dtype: Precision of the model; None means float32.

    Returns:
        The table :data:`DISTANCES`; an image that fails becomes a failed row.

    Raises:
        ConfigError: if ``c1`` is not positive.
    """
    if not (math.isfinite(c1) and c1 > 0):
        raise ConfigError(f"distances.c1: {c1:g} is not positive; 10 is the paper's")

    def compare(item: Item) -> dict[str, Any]:
        gradient, H, (smallest, largest), calls = _curvature(model, item)
        l2 = choose_l2(largest, c1)
        first = cafo(gradient, 0.0, l2)
        second = caso(gradient, H, 0.0, l2)
        p = item.logits.double().softmax(0)
        entropy = max(0.0, float(-(p * p.clamp_min(1e-300).log()).sum()))
        return {
            "entropy": entropy,
            "effective_classes": math.exp(entropy),
            "largest_eigenvalue": largest,
            "lambda2": l2,
            "distance": distance(first.delta, second.delta),
            "angle": angle(first.delta, second.delta),
            "kantorovich_bound": kantorovich_distance(largest, l2, smallest),
            "kkt_residual": second.residual,
            "calls": calls,
        }

    rows = per_image(images, model, compare, description="distances", device=device, dtype=dtype)
    return frame(rows, DISTANCES)


def _curvature(
    model: torch.nn.Module, item: Item
) -> tuple[torch.Tensor, SoftmaxHessian | LocalQuadratic, tuple[float, float], int]:
    """Return gradient and Hessian of the loss, bounds ≤ 0 and ≥ 0 of its eigenvalues, and the gradient calls.

    In closed form for a piecewise-linear network, where no eigenvalue is negative; else by differentiation.
    Where the explanations need no further products, the gradient is in double precision, so that they are,
    too: distances below the rounding of single precision are real.
    """
    if targets.logits(model).piecewise_linear:
        hessian = softmax_hessian(model, item.x)
        return hessian.gradient.double(), hessian, (0.0, hessian.largest_eigenvalue), hessian.calls
    q = build("plain", model, lambda network: targets.loss(network, item.prediction), item.x)["H+G"]
    smallest, largest, products = extreme_eigenvalues(q)
    gradient = q.gradient if isinstance(q.curvature, MatrixFree) else q.gradient.double()
    return gradient, q, (min(0.0, smallest), max(0.0, largest)), q.calls + products


def extreme_eigenvalues(q: LocalQuadratic) -> tuple[float, float, int]:
    """Return the smallest and the largest eigenvalue of a local model's curvature.

    Args:
        q: Local model; a matrix-free curvature is searched by Lanczos' method, first for the eigenvalue of
            largest magnitude and then, shifted by it, for the one furthest from it.

    Returns:
        Smallest, largest, and the number of products made.
    """
    if not isinstance(q.curvature, MatrixFree):
        values, _ = q.eigh()
        found = [float(value) for value in values] if len(values) == q.size else [0.0, *values.tolist()]
        return min(found), max(found), 0
    products = 0
    matvec, size = q.curvature.matvec, q.size

    def shifted(columns: torch.Tensor, shift: float) -> torch.Tensor:
        nonlocal products
        products += columns.shape[1]
        return matvec(columns) - shift * columns

    first = float(MatrixFree(lambda v: shifted(v, 0.0), size).eigh(1, q.gradient)[0])
    other = first + float(MatrixFree(lambda v: shifted(v, first), size).eigh(1, q.gradient)[0])
    return min(first, other), max(first, other), products


def summarise(table: pd.DataFrame, groups: int = 5) -> pd.DataFrame:
    """Summarise distances by confidence.

    Args:
        table: The table :data:`DISTANCES`; failed rows are left out.
        groups: Number of quantile groups, each with nearly the same number of images; at most one an image.

    Returns:
        The table :data:`DISTANCES_SUMMARY`; empty if no image succeeded.
    """
    fine = table[table["status"] == OK].sort_values(["confidence", "image_id"], kind="stable")
    if fine.empty:
        return frame([], DISTANCES_SUMMARY)
    parts = np.array_split(np.arange(len(fine)), max(1, min(groups, len(fine))))
    rows = [_group(fine, 0), *(_group(fine.iloc[part], number) for number, part in enumerate(parts, 1))]
    return frame(rows, DISTANCES_SUMMARY)


def _group(rows: pd.DataFrame, number: int) -> dict[str, Any]:
    found, confidence = rows["distance"].astype(float), rows["confidence"].astype(float)
    spearman, low, high = rank_correlation(confidence.to_numpy(), found.to_numpy())
    return {
        "group": number,
        "images": len(rows),
        "confidence_low": confidence.min(),
        "confidence_high": confidence.max(),
        "mean": found.mean(),
        "median": found.median(),
        "standard_deviation": found.std(),
        "mean_angle": rows["angle"].astype(float).mean(),
        "mean_bound": rows["kantorovich_bound"].astype(float).mean(),
        "spearman": spearman,
        "spearman_low": low,
        "spearman_high": high,
    }


def rank_correlation(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Return Spearman's rank correlation and its 95 % interval.

    The interval is that of Fisher's transformation with variance (1 + r²/2)/(n − 3) (Bonett and Wright 2000).

    Args:
        a: [n].
        b: [n].

    Returns:
        Correlation and interval, each in [-1, 1]; NaN for n < 4 or where a or b does not vary.
    """
    if len(a) < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan, math.nan, math.nan
    from scipy.stats import spearmanr

    r = float(np.clip(spearmanr(a, b).statistic, -1, 1))
    if abs(r) == 1:
        return r, r, r
    center, spread = math.atanh(r), Z95 * math.sqrt((1 + r * r / 2) / (len(a) - 3))
    return r, math.tanh(center - spread), math.tanh(center + spread)
