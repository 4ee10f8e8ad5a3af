"""How far curvature moves an explanation: CASO against CAFO at λ₁ = 0 (Singla et al. 2019, sec. 3.3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from curvelens import targets
from curvelens.context_aware import angle, cafo, caso, choose_l2, distance, kantorovich_distance
from curvelens.errors import ConfigError
from curvelens.experiments.local_models import build
from curvelens.experiments.rows import Item, per_image
from curvelens.quadratic import LocalQuadratic, MatrixFree
from curvelens.softmax_curvature import SoftmaxHessian, softmax_hessian
from curvelens.summaries.distances import DISTANCES
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from curvelens.store import ImageSet


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
