"""SmoothGrad: the mean gradient over noisy copies of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from curvelens.methods import REGISTRY, Explanation
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar


class NoisyCopies(Parameters):
    """How the image is perturbed."""

    sigma: float = Field(0.15, gt=0, description="Standard deviation of the noise, in units of pixel value.")
    samples: int = Field(64, ge=2, description="Noisy copies, each one gradient call.")


@REGISTRY.register(
    "smoothgrad", parameters=NoisyCopies, reference="Smilkov et al. 2017, arXiv:1706.03825", signed=True
)
def smoothgrad(f: Scalar, x: Tensor, seed: int, parameters: NoisyCopies) -> Explanation:
    """Mean gradient over noisy copies, the gradient of the Gaussian-smoothed scalar.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[*shape]``.
        seed: Seed of the noise; VarGrad with the same seed sees the same copies.
        parameters: Noise level and number of copies.

    Returns:
        ``attribution`` ``[*shape]``: the mean; ``standard_error`` ``[*shape]``: its Monte Carlo error.
    """
    from curvelens.methods._noise import gradient_moments

    mean, variance = gradient_moments(f, x, seed, parameters.sigma, parameters.samples)
    return Explanation(
        {"attribution": mean, "standard_error": (variance / parameters.samples).sqrt()},
        calls=parameters.samples,
    )
