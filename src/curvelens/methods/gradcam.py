"""Grad-CAM, by Captum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.methods import REGISTRY, Explanation
from curvelens.methods._layers import FeatureMaps

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar


@REGISTRY.register(
    "gradcam",
    parameters=FeatureMaps,
    reference="Selvaraju et al. 2017, arXiv:1610.02391, eq. 1 and 2",
    signed=False,
)
def gradcam(f: Scalar, x: Tensor, seed: int, parameters: FeatureMaps) -> Explanation:
    """Feature maps weighed by the mean gradient of the scalar with respect to each, negative sums cut off.

    Where the scalar is a logit that averages the maps, it is the positive part of the class-activation map,
    divided by the number of positions.

    Args:
        f: Scalar of a convolutional network's output.
        x: The image, ``[C, H, W]``.
        seed: Unused: the method is deterministic.
        parameters: Which feature maps.

    Returns:
        ``coarse`` ``[h, w]``: ReLU(Σ_k α_k A_k), never negative, in units of the scalar. ``attribution``
        ``[C, H, W]``: the same, enlarged bilinearly and spread evenly over the channels. One gradient call,
        and one forward pass that finds the layer.

    Raises:
        ConfigError: The network has no such feature maps.
    """
    from captum.attr import LayerGradCam

    from curvelens.methods import _layers

    made, _ = _layers.calls("gradcam", f, x)
    layer = _layers.feature_call("gradcam", made, parameters.layer).module
    # The image asks for its gradient so that networks whose weights are frozen have a graph.
    image = x[None].detach().clone().requires_grad_()
    coarse = LayerGradCam(f, layer).attribute(image, relu_attributions=True)[0, 0].detach()
    maps = {"attribution": _layers.at_input_size(coarse, x), "coarse": coarse}
    return Explanation(maps, calls=1, forward_calls=1)
