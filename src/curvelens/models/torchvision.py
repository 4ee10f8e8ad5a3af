"""Classifiers of torchvision, without their trained weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from curvelens.models import REGISTRY
from curvelens.models._library import LibraryParameters
from curvelens.models._preprocessing import in_order

if TYPE_CHECKING:
    import torch

_RESERVED = ("num_classes", "progress")


class TorchvisionParameters(LibraryParameters):
    """Parameters of :func:`torchvision_model`; the normalisation is that of torchvision's own weights."""

    model: str = Field("resnet18", description="A name in torchvision.models.list_models().")


@REGISTRY.register(
    "torchvision",
    parameters=TorchvisionParameters,
    reference="TorchVision maintainers 2016, torchvision.models",
    fitted=in_order,
)
def torchvision_model(
    parameters: TorchvisionParameters, classes: int, image_shape: tuple[int, int, int]
) -> torch.nn.Module:
    """Image classifier of torchvision with untrained weights, or with those of a file (`weights`).

    Args:
        parameters: See :class:`TorchvisionParameters`.
        classes: Number of logits.
        image_shape: (C, H, W); the network takes 3 channels (``parameters.channels``).

    Returns:
        ``torch.nn.Sequential`` that ends in ``normalise`` and ``network``, ``[B, C, H, W] -> [B, classes]``.

    Raises:
        ConfigError: torchvision has no classifier of this name, or it does not take the options.
        ModelError: The network would be given other than three channels.
    """
    from difflib import get_close_matches

    import torchvision

    from curvelens.errors import ConfigError, ModelError
    from curvelens.models._library import made, outputs_to_make
    from curvelens.models._preprocessing import network_shape, prepared

    channels = network_shape(parameters, image_shape)[0]
    if channels != 3:
        raise ModelError(
            f"torchvision models take 3 channels, not {channels}; give parameters.channels: 3, which shows "
            "them grey images three times"
        )
    names = torchvision.models.list_models(module=torchvision.models)
    if parameters.model not in names:
        near = " or ".join(get_close_matches(parameters.model, names, n=3)) or "resnet18"
        raise ConfigError(f"parameters.model: torchvision has no classifier '{parameters.model}'; try {near}")
    count = outputs_to_make(parameters, classes)
    network = made(
        parameters.model,
        parameters.options,
        _RESERVED,
        lambda options: torchvision.models.get_model(
            parameters.model, weights=None, num_classes=count, **options
        ),
    )
    return prepared(network, parameters, image_shape)
