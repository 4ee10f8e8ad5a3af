"""Grad-CAM++, by pytorch-grad-cam."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.methods import REGISTRY, Explanation
from curvelens.methods._layers import FeatureMaps

if TYPE_CHECKING:
    from torch import Tensor, nn

    from curvelens.targets import Scalar


@REGISTRY.register(
    "gradcam_plus_plus",
    parameters=FeatureMaps,
    reference="Chattopadhay et al. 2018, arXiv:1710.11063, eq. 19, of the exponential of the scalar",
    signed=False,
)
def gradcam_plus_plus(f: Scalar, x: Tensor, seed: int, parameters: FeatureMaps) -> Explanation:
    """Grad-CAM whose mean gradient counts positions by how much they matter, for several objects of a class.

    With g the gradient of f with respect to a feature map A, and y = exp(f), whose higher derivatives are
    powers of g where f is linear in A, ``α = ∂²y / (2 ∂²y + ΣA ∂³y) = g² / (2g² + ΣA g³)``; the map's weight
    is ``Σ α ReLU(g)``.

    Args:
        f: Scalar of a convolutional network's output.
        x: The image, ``[C, H, W]``.
        seed: Unused: the method is deterministic.
        parameters: Which feature maps; they should not be negative, as after a ReLU.

    Returns:
        ``coarse`` ``[h, w]``: ReLU(Σ_k w_k A_k), never negative, in units of the scalar. ``attribution``
        ``[C, H, W]``: the same, enlarged bilinearly and spread evenly over the channels. One gradient call,
        and one forward pass that finds the layer.

    Raises:
        ConfigError: The network has no such feature maps.
    """
    import torch
    from pytorch_grad_cam import GradCAMPlusPlus

    from curvelens.methods import _layers

    made, _ = _layers.calls("gradcam_plus_plus", f, x)
    layer = _layers.feature_call("gradcam_plus_plus", made, parameters.layer).module
    features, gradient = _features_and_gradient(f, layer, x)
    # The library's formula without its object, which sets gradients of the network's weights and scales the
    # map to [0, 1]. It adds 1e-6 to the denominator; α does not change when the gradient is divided by a
    # number and the maps are multiplied by it, and a gradient near 1 makes that addition negligible.
    scale = float(gradient.abs().max()) or 1.0
    numbers = [(scale * features).cpu().numpy(), (gradient / scale).cpu().numpy()]
    found = GradCAMPlusPlus.get_cam_weights(None, None, None, None, *numbers)
    weights = scale * torch.as_tensor(found).to(features)
    coarse = torch.einsum("k,khw->hw", weights[0], features[0]).relu()
    maps = {"attribution": _layers.at_input_size(coarse, x), "coarse": coarse}
    return Explanation(maps, calls=1, forward_calls=1)


def _features_and_gradient(f: Scalar, layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the layer's output ``[1, K, h, w]`` and the gradient of f with respect to it."""
    import torch

    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        with torch.enable_grad():
            value = f(x[None].detach().clone().requires_grad_())
            (gradient,) = torch.autograd.grad(value.sum(), kept[0])
    finally:
        handle.remove()
    return kept[0].detach(), gradient
