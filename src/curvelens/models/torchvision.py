"""Classifiers of torchvision, without their trained weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from curvelens.models import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    import torch


class TorchvisionParameters(Parameters):
    """Parameters of :func:`torchvision_model`; the normalisation is that of torchvision's own weights."""

    model: str = Field("resnet18", description="A name in torchvision.models.list_models().")
    mean: list[float] = Field(
        [0.485, 0.456, 0.406], min_length=1, description="Subtracted from pixels in [0, 1]."
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [0.229, 0.224, 0.225], min_length=1, description="Pixels are divided by it."
    )


@REGISTRY.register(
    "torchvision",
    parameters=TorchvisionParameters,
    reference="TorchVision maintainers 2016, torchvision.models",
)
def torchvision_model(
    parameters: TorchvisionParameters, classes: int, image_shape: tuple[int, int, int]
) -> torch.nn.Module:
    """Image classifier of torchvision with untrained weights.

    Args:
        parameters: See :class:`TorchvisionParameters`.
        classes: Number of logits.
        image_shape: (3, H, W).

    Returns:
        ``torch.nn.Sequential`` of ``normalise`` and ``network``, ``[B, 3, H, W] -> [B, classes]``.

    Raises:
        ConfigError: torchvision has no classifier of this name.
        ModelError: The images do not have three channels.
    """
    from collections import OrderedDict
    from difflib import get_close_matches

    import torchvision
    from torch import nn

    from curvelens.errors import ConfigError, ModelError
    from curvelens.models._layers import Normalise

    if image_shape[0] != 3:
        raise ModelError(f"torchvision models take 3 channels, not {image_shape[0]}; choose mlp or small_cnn")
    names = torchvision.models.list_models(module=torchvision.models)
    if parameters.model not in names:
        near = " or ".join(get_close_matches(parameters.model, names, n=3)) or "resnet18"
        raise ConfigError(f"parameters.model: torchvision has no classifier '{parameters.model}'; try {near}")
    network = torchvision.models.get_model(parameters.model, weights=None, num_classes=classes)
    normalise = Normalise(parameters.mean, parameters.std, 3)
    return nn.Sequential(OrderedDict(normalise=normalise, network=network))
