"""The gradient itself, the first saliency map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.methods import REGISTRY, Explanation
from curvelens.registry import NoParameters

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar


@REGISTRY.register(
    "gradient",
    reference="Simonyan et al. 2014, arXiv:1312.6034, eq. 4",
    signed=True,
    sense="slope",
    local_model=True,
)
def gradient(f: Scalar, x: Tensor, seed: int, parameters: NoParameters) -> Explanation:
    """Gradient of the scalar with respect to the pixels.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[*shape]``.
        seed: Unused: the method is deterministic.
        parameters: None.

    Returns:
        ``attribution`` ``[*shape]``, in units of the scalar per unit of pixel value.
    """
    from curvelens import derivatives
    from curvelens.quadratic import LocalQuadratic

    found = derivatives.gradient(f, x[None])[0]
    model = LocalQuadratic(derivatives.value(f, x[None])[0], found, calls=1)
    return Explanation({"attribution": found}, calls=1, model=model)
