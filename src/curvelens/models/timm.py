"""Classifiers of timm, without their trained weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from curvelens.models import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    import torch


class TimmParameters(Parameters):
    """Parameters of :func:`timm_model`; the normalisation is the usual one of ImageNet."""

    model: str = Field("seresnet50", description="A name in timm.list_models().")
    mean: list[float] = Field(
        [0.485, 0.456, 0.406], min_length=1, description="Subtracted from pixels in [0, 1]."
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [0.229, 0.224, 0.225], min_length=1, description="Pixels are divided by it."
    )


@REGISTRY.register("timm", parameters=TimmParameters, reference="Wightman 2019, PyTorch Image Models")
def timm_model(
    parameters: TimmParameters, classes: int, image_shape: tuple[int, int, int]
) -> torch.nn.Module:
    """Image classifier of timm with untrained weights; Singla et al. 2019, App. F.3 look at ``seresnet50``.

    Args:
        parameters: See :class:`TimmParameters`.
        classes: Number of logits.
        image_shape: (3, H, W).

    Returns:
        ``torch.nn.Sequential`` of ``normalise`` and ``network``, ``[B, 3, H, W] -> [B, classes]``.

    Raises:
        ConfigError: timm has no classifier of this name.
        ModelError: The images do not have three channels.
    """
    from collections import OrderedDict
    from difflib import get_close_matches

    import timm
    from torch import nn

    from curvelens.errors import ConfigError, ModelError
    from curvelens.models._layers import Normalise

    if image_shape[0] != 3:
        raise ModelError(f"timm models take 3 channels, not {image_shape[0]}; choose mlp or small_cnn")
    if not timm.is_model(parameters.model):
        near = " or ".join(get_close_matches(parameters.model, timm.list_models(), n=3)) or "seresnet50"
        raise ConfigError(f"parameters.model: timm has no classifier '{parameters.model}'; try {near}")
    network = timm.create_model(parameters.model, pretrained=False, num_classes=classes)
    normalise = Normalise(parameters.mean, parameters.std, 3)
    return nn.Sequential(OrderedDict(normalise=normalise, network=network))
