"""Fully connected networks that predict numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from curvelens.models import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    import torch

Width = Annotated[int, Field(ge=1)]


class RegressionMlp(Parameters):
    """Parameters of :func:`regression_mlp`."""

    hidden: list[Width] = Field([64, 64, 64, 64, 64], min_length=1, description="Width of each hidden layer.")


@REGISTRY.register(
    "regression_mlp",
    parameters=RegressionMlp,
    reference="Torop et al. 2023, App. E.1 (6 layers for the synthetic targets; widths are ours)",
    regression=True,
)
def regression_mlp(parameters: RegressionMlp, classes: int, image_shape: tuple[int, ...]) -> torch.nn.Module:
    """Fully connected ReLU network that predicts numbers from inputs of any shape.

    Submodules are ``flatten``, ``linear1``, ``activation1``, …, ``output``. Inputs and outputs are not
    scaled. Weights start as in He et al. 2015, eq. 10, and biases as in PyTorch, so that the borders of the
    linear regions do not all meet at the origin.

    Args:
        parameters: See :class:`RegressionMlp`.
        classes: Numbers predicted.
        image_shape: Shape of one input.

    Returns:
        A ``torch.nn.Sequential``, ``[B, *image_shape] -> [B, classes]``.
    """
    import math
    from collections import OrderedDict
    from itertools import pairwise

    from torch import nn

    widths = [math.prod(image_shape), *parameters.hidden]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for index, (fan_in, fan_out) in enumerate(pairwise(widths), 1):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers[f"linear{index}"] = linear
        layers[f"activation{index}"] = nn.ReLU()
    layers["output"] = nn.Linear(widths[-1], classes)
    return nn.Sequential(layers)
