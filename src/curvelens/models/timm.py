"""Classifiers of timm, without their trained weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from curvelens.models import REGISTRY
from curvelens.models._library import LibraryParameters
from curvelens.models._preprocessing import in_order

if TYPE_CHECKING:
    import torch

_RESERVED = ("num_classes", "in_chans", "cache_dir", "scriptable", "features_only", "out_indices")


class TimmParameters(LibraryParameters):
    """Parameters of :func:`timm_model`; the normalisation is the usual one of ImageNet."""

    model: str = Field("seresnet50", description="A name in timm.list_models().")


@REGISTRY.register(
    "timm", parameters=TimmParameters, reference="Wightman 2019, PyTorch Image Models", fitted=in_order
)
def timm_model(
    parameters: TimmParameters, classes: int, image_shape: tuple[int, int, int]
) -> torch.nn.Module:
    """Image classifier of timm with untrained weights, or with those of a file (`weights`).

    Singla et al. 2019, App. F.3 look at ``seresnet50``.

    Args:
        parameters: See :class:`TimmParameters`.
        classes: Number of logits.
        image_shape: (C, H, W); the network is made for so many channels, or for ``parameters.channels``.

    Returns:
        ``torch.nn.Sequential`` that ends in ``normalise`` and ``network``, ``[B, C, H, W] -> [B, classes]``.

    Raises:
        ConfigError: timm has no classifier of this name, or it does not take the options.
        ModelError: The numbers of means do not fit the channels.
    """
    from difflib import get_close_matches

    import timm

    from curvelens.errors import ConfigError
    from curvelens.models._library import made, outputs_to_make
    from curvelens.models._preprocessing import network_shape, prepared

    if not timm.is_model(parameters.model):
        near = " or ".join(get_close_matches(parameters.model, timm.list_models(), n=3)) or "seresnet50"
        raise ConfigError(f"parameters.model: timm has no classifier '{parameters.model}'; try {near}")
    count, channels = outputs_to_make(parameters, classes), network_shape(parameters, image_shape)[0]
    network = made(
        parameters.model,
        parameters.options,
        _RESERVED,
        lambda options: timm.create_model(
            parameters.model, pretrained=False, num_classes=count, in_chans=channels, **options
        ),
    )
    return prepared(network, parameters, image_shape)
