"""Residual networks of torchvision, for pictures as small as those of CIFAR-10."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from curvelens.models import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    import torch


class ResNetParameters(Parameters):
    """Parameters of :func:`resnet`."""

    model: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = Field(
        "resnet18", description="Which of He et al. 2015, Table 1."
    )
    mean: list[float] = Field(
        [0.4914, 0.4822, 0.4465],
        min_length=1,
        description="Subtracted from pixels in [0, 1]; the means of CIFAR-10.",
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [0.2470, 0.2435, 0.2616],
        min_length=1,
        description="Pixels are divided by it; the deviations of CIFAR-10.",
    )


@REGISTRY.register(
    "resnet",
    parameters=ResNetParameters,
    reference="He, Zhang, Ren and Sun 2015, Table 1; used by Torop et al. 2023, App. E.1 and Table 7",
)
def resnet(parameters: ResNetParameters, classes: int, image_shape: tuple[int, int, int]) -> torch.nn.Module:
    """ResNet-18 to ResNet-152 for small pictures: its first layer is 3 x 3 with stride 1, without pooling
    after it, so that pictures of 32 x 32 keep their detail.

    Everything else is torchvision's network, with its names. The inner neuron
    (:func:`curvelens.targets.inner_neuron`) is one of the means over positions that the output layer reads.

    Args:
        parameters: See :class:`ResNetParameters`.
        classes: Number of logits.
        image_shape: (C, H, W).

    Returns:
        ``torch.nn.Sequential`` of ``normalise`` and ``network``, ``[B, C, H, W] -> [B, classes]``.
    """
    from collections import OrderedDict

    import torchvision
    from torch import nn

    from curvelens.models._layers import Normalise
    from curvelens.models._residual import with_penultimate

    network = torchvision.models.get_model(parameters.model, weights=None, num_classes=classes)
    stem = nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    network.conv1, network.maxpool = stem, nn.Identity()
    for part in network.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    normalise = Normalise(parameters.mean, parameters.std, image_shape[0])
    layers = OrderedDict(normalise=normalise, network=network)
    return with_penultimate(nn.Sequential(layers), "network.avgpool")
