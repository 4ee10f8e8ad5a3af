"""A convolutional network that averages over the image before its only linear layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from curvelens.models import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    import torch


class AveragingCnnParameters(Parameters):
    """Parameters of :func:`averaging_cnn`."""

    channels: list[Annotated[int, Field(ge=1)]] = Field(
        [16, 32, 64, 128],
        min_length=1,
        description="Channels of each block; each block but the last halves height and width.",
    )
    activation: Literal["relu", "softplus"] = Field("relu", description="Activation.")
    beta: float = Field(1.0, gt=0, description="Sharpness of SoftPlus; without effect on ReLU.")
    mean: list[float] = Field(
        [0.5], min_length=1, description="Subtracted from pixels in [0, 1]; 1 value or 1 a channel."
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [0.25], min_length=1, description="Pixels are divided by it; 1 value or 1 a channel."
    )


@REGISTRY.register(
    "averaging_cnn",
    parameters=AveragingCnnParameters,
    reference="Lin, Chen and Yan 2014, Network in Network, sec. 3.2; Zhou et al. 2016, CAM, sec. 2",
)
def averaging_cnn(
    parameters: AveragingCnnParameters, classes: int, image_shape: tuple[int, int, int]
) -> torch.nn.Module:
    """Convolutions, an average over the whole image and one linear layer: class activation maps are exact.

    A block is a 3 x 3 convolution, batch normalisation, the activation and, but for the last block, a 2 x 2
    average. A logit is the average over the image of a map that the last block and the linear layer give.

    Args:
        parameters: See :class:`AveragingCnnParameters`.
        classes: Number of logits.
        image_shape: (C, H, W); H and W at least 2 to the number of blocks less one.

    Returns:
        A ``torch.nn.Sequential``, ``[B, C, H, W] -> [B, classes]``.

    Raises:
        ModelError: The images are too small for that many blocks.
    """
    from collections import OrderedDict

    from torch import nn

    from curvelens.errors import ModelError
    from curvelens.models._layers import Normalise, activation

    channels, height, width = image_shape
    blocks = len(parameters.channels)
    if min(height, width) < 2 ** (blocks - 1):
        raise ModelError(
            f"averaging_cnn: {height} x {width} pixels are too few for {blocks} blocks; give fewer channels"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["normalise"] = Normalise(parameters.mean, parameters.std, channels)
    for index, (before, after) in enumerate(
        zip([channels, *parameters.channels], parameters.channels, strict=False), 1
    ):
        layers[f"convolution{index}"] = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers[f"norm{index}"] = nn.BatchNorm2d(after)
        layers[f"activation{index}"] = activation(parameters.activation, parameters.beta)
        if index < blocks:
            layers[f"pool{index}"] = nn.AvgPool2d(2)
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["logits"] = nn.Linear(parameters.channels[-1], classes)
    return nn.Sequential(layers)
