"""SmoothCAFO: CAFO of the mean gradient over noisy copies of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.methods import REGISTRY, Explanation
from curvelens.methods._context_aware import SmoothPenalties, curvature_of, explain

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.loss_curvature import LossCurvature
    from curvelens.targets import Scalar


@REGISTRY.register(
    "smoothcafo",
    parameters=SmoothPenalties,
    reference="Singla et al. 2019, arXiv:1902.00407, after Definition 4, with copies in pairs x ± noise",
    signed=True,
    sense="slope",
    shares=curvature_of,
    context_aware=True,
)
def smoothcafo(
    f: Scalar, x: Tensor, seed: int, parameters: SmoothPenalties, curvature: LossCurvature
) -> Explanation:
    """CAFO of the mean gradient of the loss over noisy copies of the image, the label fixed.

    Args:
        f: Scalar of a network; the loss of the class that it is about is explained, else that of the class
            predicted at the image itself.
        x: The image, ``[*shape]``.
        seed: Seed of the image.
        parameters: Penalties, noise level and number of copies.
        curvature: Means of gradient and Hessian of the loss over the copies.

    Returns:
        As :func:`curvelens.methods.cafo.cafo`; ``loss`` is that of the image itself, changed by Δ.

    Raises:
        ArgumentError: ``f`` is no scalar of a network, or the mean gradient is zero.
    """
    return explain(f, x, parameters, curvature, second_order=False)
