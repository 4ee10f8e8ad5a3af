"""SmoothGrad: the mean gradient over noisy copies of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.methods import REGISTRY, Copies, Explanation, NoisyCopies

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar


@REGISTRY.register(
    "smoothgrad",
    parameters=NoisyCopies,
    reference="Smilkov et al. 2017, arXiv:1706.03825, with copies in pairs x ± noise",
    signed=True,
    sense="slope",
    local_model=True,
    copies=True,
)
def smoothgrad(f: Scalar, x: Tensor, seed: int, parameters: NoisyCopies, copies: Copies) -> Explanation:
    """Mean gradient over noisy copies, the gradient of the Gaussian-smoothed scalar.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[*shape]``.
        seed: Seed of the image.
        parameters: Noise level and number of copies.
        copies: Gradients at the copies.

    Returns:
        ``attribution`` ``[*shape]``: the mean; ``standard_error`` ``[*shape]``: its Monte Carlo error.
    """
    from curvelens import derivatives
    from curvelens.quadratic import LocalQuadratic

    found = copies.moments
    model = LocalQuadratic(derivatives.value(f, x[None])[0], found.mean, calls=found.calls)
    return Explanation({"attribution": found.mean, "standard_error": found.stderr}, found.calls, model)
