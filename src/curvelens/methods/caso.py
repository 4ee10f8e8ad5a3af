"""CASO: the change of the image that raises the loss most to second order, sparse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.methods import REGISTRY, Explanation
from curvelens.methods._context_aware import Penalties, curvature_of, explain

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.loss_curvature import LossCurvature
    from curvelens.targets import Scalar


@REGISTRY.register(
    "caso",
    parameters=Penalties,
    reference="Singla et al. 2019, arXiv:1902.00407, eq. 5, solved to a KKT residual",
    signed=True,
    sense="slope",
    shares=curvature_of,
    context_aware=True,
)
def caso(f: Scalar, x: Tensor, seed: int, parameters: Penalties, curvature: LossCurvature) -> Explanation:
    """The sparse change of the image that lowers the class's probability most, with the loss's curvature.

    Args:
        f: Scalar of a network; the loss of the class that it is about is explained, else that of the
            predicted class.
        x: The image, ``[*shape]``.
        seed: Seed of the image.
        parameters: Penalties.
        curvature: Gradient and Hessian of the loss, in the form that costs fewest passes.

    Returns:
        As :func:`curvelens.methods.cafo.cafo`, of the Δ that maximises gᵀΔ + ½ΔᵀHΔ − λ₁‖Δ‖₁ − λ₂‖Δ‖₂².

    Raises:
        ArgumentError: ``f`` is no scalar of a network, or the gradient of its loss is zero.
    """
    return explain(f, x, parameters, curvature, second_order=True)
