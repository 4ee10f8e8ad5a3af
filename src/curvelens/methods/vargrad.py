"""VarGrad: the variance of the gradient over noisy copies of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.methods import REGISTRY, Copies, Explanation, NoisyCopies

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar


@REGISTRY.register(
    "vargrad",
    parameters=NoisyCopies,
    reference="Adebayo et al. 2018, arXiv:1810.03292, with copies in pairs x ± noise",
    signed=False,
    copies=True,
)
def vargrad(f: Scalar, x: Tensor, seed: int, parameters: NoisyCopies, copies: Copies) -> Explanation:
    """Variance of the gradient over noisy copies: where the first-order explanation is unstable.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[*shape]``.
        seed: Seed of the image.
        parameters: Noise level and number of copies.
        copies: Gradients at the copies.

    Returns:
        ``attribution`` ``[*shape]``: the variance, never negative.
    """
    return Explanation({"attribution": copies.moments.variance}, copies.moments.calls)
