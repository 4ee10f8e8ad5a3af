"""CAFO: the change of the image that raises the loss most to first order, sparse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.methods import REGISTRY, Explanation
from curvelens.methods._context_aware import Penalties, curvature_of, explain

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.loss_curvature import LossCurvature
    from curvelens.targets import Scalar


@REGISTRY.register(
    "cafo",
    parameters=Penalties,
    reference="Singla et al. 2019, arXiv:1902.00407, eq. 3, solved exactly",
    signed=True,
    sense="slope",
    shares=curvature_of,
    context_aware=True,
)
def cafo(f: Scalar, x: Tensor, seed: int, parameters: Penalties, curvature: LossCurvature) -> Explanation:
    """The sparse change of the image that lowers the class's probability most, by the slope of the loss.

    Args:
        f: Scalar of a network; the loss of the class that it is about is explained, else that of the
            predicted class.
        x: The image, ``[*shape]``.
        seed: Seed of the image.
        parameters: Penalties.
        curvature: Gradient and largest eigenvalue of the loss.

    Returns:
        ``attribution`` ``[*shape]``: −Δ with Δ = soft(g, λ₁)/(2λ₂), in units of pixel value: as in the
        gradient of a score, brighter pixels where it is positive speak for the class. ``lambda1``,
        ``lambda1_share`` (of max|g|), ``lambda2``, ``largest_eigenvalue``, ``largest_eigenvalue_error``,
        ``kkt_residual``, ``iterations``, ``sparsity`` (η) and ``loss`` (at x + Δ), a number each.

    Raises:
        ArgumentError: ``f`` is no scalar of a network, or the gradient of its loss is zero.
    """
    return explain(f, x, parameters, curvature, second_order=False)
