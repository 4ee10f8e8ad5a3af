"""VarGrad: the variance of the gradient over noisy copies of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.methods import REGISTRY, Explanation
from curvelens.methods.smoothgrad import NoisyCopies

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar


@REGISTRY.register(
    "vargrad", parameters=NoisyCopies, reference="Adebayo et al. 2018, arXiv:1810.03292", signed=False
)
def vargrad(f: Scalar, x: Tensor, seed: int, parameters: NoisyCopies) -> Explanation:
    """Variance of the gradient over noisy copies: where the first-order explanation is unstable.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[*shape]``.
        seed: Seed of the noise; SmoothGrad with the same seed sees the same copies.
        parameters: Noise level and number of copies.

    Returns:
        ``attribution`` ``[*shape]``: the unbiased variance, never negative.
    """
    from curvelens.methods._noise import gradient_moments

    _, variance = gradient_moments(f, x, seed, parameters.sigma, parameters.samples)
    return Explanation({"attribution": variance}, calls=parameters.samples)
