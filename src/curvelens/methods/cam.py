"""Class-activation map: the last feature maps, weighed as the layer after the pooling weighs their means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.methods import REGISTRY, Explanation
from curvelens.registry import NoParameters

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar


@REGISTRY.register(
    "cam", reference="Zhou et al. 2016, arXiv:1512.04150, eq. 2", signed=True, sense="contribution"
)
def cam(f: Scalar, x: Tensor, seed: int, parameters: NoParameters) -> Explanation:
    """Class-activation map, of networks that average their last feature maps before a single linear layer.

    Args:
        f: A logit, or a margin of logits (the map of one class less that of the other).
        x: The image, ``[C, H, W]``.
        seed: Unused: the method is deterministic.
        parameters: None.

    Returns:
        ``coarse`` ``[h, w]``: Σ_k w_k A_k with feature maps A and the class's weights w, in units of the
        logit; its mean over positions is the logit less its bias. ``attribution`` ``[C, H, W]``: the same,
        enlarged bilinearly and spread evenly over the channels, so that their sum is the map. One forward
        pass, no gradient.

    Raises:
        ConfigError: The network is not of this kind, or the scalar is not linear in its logits.
    """
    import torch

    from curvelens.errors import ConfigError
    from curvelens.methods import _layers

    features, weights, logits = _layers.averaged_features(f, x)
    if not f.linear_head:
        raise ConfigError(f"cam: {f.name} is not linear in the logits; explain predicted_logit or margin")
    with torch.enable_grad():
        y = logits.detach().clone().requires_grad_()
        (share,) = torch.autograd.grad(f.apply_head(y).sum(), y)
    coarse = torch.einsum("k,khw->hw", share[0] @ weights, features)
    maps = {"attribution": _layers.at_input_size(coarse, x), "coarse": coarse}
    return Explanation(maps, calls=0, forward_calls=1)
