"""A one-dimensional convolutional network with skip connections, for curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from curvelens.models import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    import torch


class ResidualCnn1dParameters(Parameters):
    """Parameters of :func:`residual_cnn_1d`."""

    blocks: int = Field(10, ge=1, description="Convolution blocks.")
    channels: int = Field(20, ge=1, description="Channels of every block.")
    width: int = Field(200, ge=1, description="Samples that a kernel spans.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Share of the values dropped in training.")
    mean: float = Field(0.0, description="Subtracted from the input.")
    std: float = Field(1.0, gt=0, description="The input is divided by it.")
    output_mean: float = Field(0.0, description="Output of a network whose last layer gives 0.")
    output_std: float = Field(1.0, gt=0, description="The last layer's output is multiplied by it.")


@REGISTRY.register(
    "residual_cnn_1d",
    regression=True,
    parameters=ResidualCnn1dParameters,
    reference="Torop et al. 2023, App. E.1, Spirometry; skip connections of He et al. 2016",
)
def residual_cnn_1d(
    parameters: ResidualCnn1dParameters, classes: int, image_shape: tuple[int, ...]
) -> torch.nn.Module:
    """One-dimensional convolutional network of blocks with skip connections.

    A block is a convolution that keeps the length, batch normalisation, ReLU and dropout, added to the
    block's input; the last layer sees every sample of every channel. The paper states the blocks, the
    kernel's width, the channels and the dropout; that the activation is a ReLU and what the last layer is are
    our reading.

    With kernels of width K and b blocks, two samples further apart than b(K − 1) meet in the last layer
    alone, which is linear: in evaluation mode their interaction is exactly zero.

    Args:
        parameters: See :class:`ResidualCnn1dParameters`.
        classes: Number of outputs.
        image_shape: (1, T), T samples.

    Returns:
        A ``torch.nn.Sequential``, ``[B, 1, T] -> [B, classes]``.

    Raises:
        ModelError: The inputs are not one channel of samples.
    """
    from collections import OrderedDict

    from torch import nn

    from curvelens.errors import ModelError
    from curvelens.models._convolution1d import Affine, ResidualBlock

    if len(image_shape) != 2 or image_shape[0] != 1:
        raise ModelError(
            f"residual_cnn_1d: inputs {list(image_shape)} are not one channel of samples; "
            "give the shape (1, T)"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["normalise"] = Affine(parameters.mean, parameters.std)
    for index in range(1, parameters.blocks + 1):
        layers[f"block{index}"] = ResidualBlock(
            1 if index == 1 else parameters.channels,
            parameters.channels,
            parameters.width,
            parameters.dropout,
        )
    layers["flatten"] = nn.Flatten()
    output = nn.Linear(parameters.channels * image_shape[1], classes)
    # Its inputs are many and large: random weights would drown what is learnt under noise.
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    layers["output"] = output
    layers["scale"] = Affine(parameters.output_mean, parameters.output_std, inverse=True)
    return nn.Sequential(layers)
