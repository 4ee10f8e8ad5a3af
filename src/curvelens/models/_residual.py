"""Parts of residual networks. Every ReLU is a module that is used once, so that surrogates can replace it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from curvelens.models._layers import Normalise


class PaddedShortcut(nn.Module):
    """Every second row and column, with channels of zeros added: the shortcut without weights.

    He et al. 2015, sec. 3.3, option A. The paper does not say where the zeros go; half of them come before
    the channels and half after, as in the weights that are published for these networks.

    Args:
        added: Channels to add.
        stride: Step between the rows and columns kept.
    """

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = added // 2
        self.after = added - self.before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[B, C + added, H / stride, W / stride]``."""
        kept = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut (He et al. 2015, Fig. 2 and eq. 1).

    Args:
        before: Channels of the input.
        after: Channels of the output.
        stride: Step of the first convolution.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else PaddedShortcut(after - before, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block to ``x[B, C, H, W]``."""
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(inner + self.shortcut(x))


def with_penultimate(network: nn.Sequential, name: str) -> nn.Sequential:
    """Name the submodule whose units are the inner neurons; see ``curvelens.forward.penultimate_layer``."""
    network.__dict__["penultimate"] = name  # a plain attribute, which copies keep and state dicts leave out
    return network


def cifar_network(
    blocks: int, width: int, mean: Sequence[float], std: Sequence[float], classes: int, channels: int
) -> nn.Sequential:
    """Return the network of He et al. 2015, sec. 4.2, with ``blocks`` blocks a stage.

    Weights of convolutions and of the linear layer start as in He et al. 2015b, eq. 10.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["normalise"] = Normalise(mean, std, channels)
    layers["conv1"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    layers["bn1"] = nn.BatchNorm2d(width)
    layers["relu"] = nn.ReLU()
    before = width
    for stage in range(3):
        after = width * 2**stage
        strides = [1 if stage == 0 else 2] + [1] * (blocks - 1)
        layers[f"layer{stage + 1}"] = nn.Sequential(
            *(Block(before if index == 0 else after, after, stride) for index, stride in enumerate(strides))
        )
        before = after
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(before, classes)
    network = nn.Sequential(layers)
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    return with_penultimate(network, "pool")
