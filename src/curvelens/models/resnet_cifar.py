"""Residual networks for pictures of 32 x 32 pixels, as He et al. designed them for CIFAR-10."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from curvelens.models import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    import torch


class ResNetCifarParameters(Parameters):
    """Parameters of :func:`resnet_cifar`; the normalisation is that of published weights."""

    depth: int = Field(
        20, ge=8, multiple_of=2, description="Layers with weights, 6n + 2: 20, 32, 44, 56, 110."
    )
    width: int = Field(16, ge=1, description="Channels of the first stage; the next have twice as many each.")
    mean: list[float] = Field(
        [0.485, 0.456, 0.406], min_length=1, description="Subtracted from pixels in [0, 1]."
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [0.229, 0.224, 0.225], min_length=1, description="Pixels are divided by it."
    )


@REGISTRY.register(
    "resnet_cifar",
    parameters=ResNetCifarParameters,
    reference="He, Zhang, Ren and Sun 2015, Deep Residual Learning for Image Recognition, sec. 4.2",
)
def resnet_cifar(
    parameters: ResNetCifarParameters, classes: int, image_shape: tuple[int, int, int]
) -> torch.nn.Module:
    """Residual network of depth 6n + 2 with shortcuts that have no weights (option A).

    A 3 x 3 convolution, three stages of n blocks with w, 2w and 4w channels, of which the second and third
    halve height and width, the mean over positions, and one linear layer. Submodules are ``normalise``,
    ``conv1``, ``bn1``, ``relu``, ``layer1`` to ``layer3``, ``pool``, ``flatten``, ``linear``, the names under
    which weights of these networks are commonly published. Each ReLU is a module of its own.

    The inner neuron of this network (:func:`curvelens.targets.inner_neuron`) is one of the 4w outputs of
    ``pool``, which the output layer reads.

    Args:
        parameters: See :class:`ResNetCifarParameters`.
        classes: Number of logits.
        image_shape: (C, H, W).

    Returns:
        A ``torch.nn.Sequential``, ``[B, C, H, W] -> [B, classes]``.

    Raises:
        ModelError: The depth is not 6n + 2.
    """
    from curvelens.errors import ModelError
    from curvelens.models._residual import cifar_network

    blocks, rest = divmod(parameters.depth - 2, 6)
    if rest:
        raise ModelError(f"resnet_cifar: depth {parameters.depth} is not 6n + 2; take 20, 32, 44, 56 or 110")
    return cifar_network(blocks, parameters.width, parameters.mean, parameters.std, classes, image_shape[0])
