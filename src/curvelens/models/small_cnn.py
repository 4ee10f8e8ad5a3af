"""A small convolutional network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from curvelens.models import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    import torch


class SmallCnnParameters(Parameters):
    """Parameters of :func:`small_cnn`."""

    channels: list[Annotated[int, Field(ge=1)]] = Field(
        [16, 32], min_length=1, description="Channels of each block; each block halves height and width."
    )
    hidden: int = Field(64, ge=1, description="Width of the fully connected layer.")
    activation: Literal["relu", "softplus"] = Field("relu", description="Activation.")
    beta: float = Field(1.0, gt=0, description="Sharpness of SoftPlus; without effect on ReLU.")
    mean: list[float] = Field(
        [0.0], min_length=1, description="Subtracted from pixels in [0, 1]; 1 value or 1 a channel."
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0], min_length=1, description="Pixels are divided by it; 1 value or 1 a channel."
    )


@REGISTRY.register(
    "small_cnn", parameters=SmallCnnParameters, reference="LeCun, Bottou, Bengio and Haffner 1998, Fig. 2"
)
def small_cnn(
    parameters: SmallCnnParameters, classes: int, image_shape: tuple[int, int, int]
) -> torch.nn.Module:
    """Convolutional network with one hidden fully connected layer.

    A block is a 3 x 3 convolution, the activation and a 2 x 2 average. Averages instead of maxima keep a
    SoftPlus network smooth.

    Args:
        parameters: See :class:`SmallCnnParameters`.
        classes: Number of logits.
        image_shape: (C, H, W); H and W at least 2 to the number of blocks.

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
    if min(height, width) < 2**blocks:
        raise ModelError(
            f"small_cnn: {height} x {width} pixels are too few for {blocks} blocks; give fewer channels"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["normalise"] = Normalise(parameters.mean, parameters.std, channels)
    for index, (before, after) in enumerate(
        zip([channels, *parameters.channels], parameters.channels, strict=False), 1
    ):
        layers[f"convolution{index}"] = nn.Conv2d(before, after, 3, padding=1)
        layers[f"activation{index}"] = activation(parameters.activation, parameters.beta)
        layers[f"pool{index}"] = nn.AvgPool2d(2)
    size = parameters.channels[-1] * (height // 2**blocks) * (width // 2**blocks)
    layers["flatten"] = nn.Flatten()
    layers["hidden"] = nn.Linear(size, parameters.hidden)
    layers[f"activation{blocks + 1}"] = activation(parameters.activation, parameters.beta)
    layers["logits"] = nn.Linear(parameters.hidden, classes)
    return nn.Sequential(layers)
