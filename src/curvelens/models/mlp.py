"""Fully connected networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from curvelens.models import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    import torch

Width = Annotated[int, Field(ge=1)]


class MlpParameters(Parameters):
    """Parameters of :func:`mlp`."""

    hidden: list[Width] = Field(
        [500, 300, 250, 250, 250], min_length=1, description="Width of each hidden layer."
    )
    activation: Literal["relu", "softplus"] = Field("relu", description="Activation of the hidden layers.")
    beta: float = Field(1.0, gt=0, description="Sharpness of SoftPlus; without effect on ReLU.")
    mean: list[float] = Field(
        [0.0], min_length=1, description="Subtracted from pixels in [0, 1]; 1 value or 1 a channel."
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0], min_length=1, description="Pixels are divided by it; 1 value or 1 a channel."
    )


@REGISTRY.register(
    "mlp", parameters=MlpParameters, reference="Torop et al. 2023, App. E.1 (500-300-250-250-250)"
)
def mlp(parameters: MlpParameters, classes: int, image_shape: tuple[int, int, int]) -> torch.nn.Module:
    """Fully connected network with ReLU or SoftPlus.

    Submodules are ``normalise``, ``flatten``, ``linear1``, ``activation1``, …, ``logits``; the output of the
    linear layer with the highest number is the pre-activation of the last hidden layer. Weights start as in
    He et al. 2015, eq. 10, and biases at zero. A SoftPlus network starts with the biases that cancel what
    SoftPlus(0) = log(2)/beta contributes to the next layer; without them its deep layers hardly learn.

    Args:
        parameters: See :class:`MlpParameters`.
        classes: Number of logits.
        image_shape: (C, H, W).

    Returns:
        A ``torch.nn.Sequential``, ``[B, C, H, W] -> [B, classes]``.
    """
    import math
    from collections import OrderedDict
    from itertools import pairwise

    import torch
    from torch import nn

    from curvelens.models._layers import Normalise, activation

    widths = [math.prod(image_shape), *parameters.hidden, classes]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["normalise"] = Normalise(parameters.mean, parameters.std, image_shape[0])
    layers["flatten"] = nn.Flatten()
    for index, (fan_in, fan_out) in enumerate(pairwise(widths), 1):
        last = index == len(widths) - 1
        linear = nn.Linear(fan_in, fan_out)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        if parameters.activation == "softplus" and index > 1:
            with torch.no_grad():
                linear.bias.sub_(linear.weight.sum(1) * (math.log(2) / parameters.beta))
        layers["logits" if last else f"linear{index}"] = linear
        if not last:
            layers[f"activation{index}"] = activation(parameters.activation, parameters.beta)
    return nn.Sequential(layers)
