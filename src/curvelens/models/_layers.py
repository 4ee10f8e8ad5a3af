"""Layers that architectures share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from curvelens.errors import ModelError


class Normalise(nn.Module):
    """Subtract a mean and divide by a standard deviation per channel: ``(x - mean) / std``.

    Being inside the model, it lets noise, radii and penalties mean the same for every model: pixels are in
    [0, 1].

    Args:
        mean: One value, or one a channel.
        std: The same, positive.
        channels: Channels of the images.

    Raises:
        ModelError: The numbers of values do not fit the channels, or a standard deviation is not positive.
    """

    is_affine = True
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels: int) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels):
                raise ModelError(
                    f"normalisation: {name} has {len(values)} values, the images' channels are {channels}; "
                    f"give 1 value{f' or {channels}' if channels > 1 else ''}"
                )
        if min(std) <= 0:
            raise ModelError(f"normalisation: std {list(std)} is not positive; give values > 0")
        self.register_buffer("mean", torch.tensor([float(value) for value in mean]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor([float(value) for value in std]).view(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``x[B, C, H, W]``."""
        return (x - self.mean) / self.std


class Resize(nn.Module):
    """Bring images to another height and width, bilinearly and with anti-aliasing: two products of matrices.

    Args:
        before: Height and width of the images.
        after: Height and width to bring them to.
    """

    rows: torch.Tensor
    columns: torch.Tensor

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("rows", _interpolation(before[0], after[0]), persistent=False)
        self.register_buffer("columns", _interpolation(before[1], after[1]).mT.contiguous(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Resize ``x[B, C, H, W]``."""
        return torch.matmul(torch.matmul(self.rows, x), self.columns)


def _interpolation(before: int, after: int) -> torch.Tensor:
    """Return the matrix ``[after, before]`` of linear interpolation with anti-aliasing."""
    unit = torch.eye(before, dtype=torch.float64)[None, None]
    return nn.functional.interpolate(unit, (after, before), mode="bilinear", antialias=True)[0, 0].float()


class Channels(nn.Module):
    """Give grey images three equal channels, or coloured ones their luma (ITU-R BT.601) as the only one.

    Args:
        before: Channels of the images, 1 or 3.
        after: The other of the two.

    Raises:
        ModelError: The images have another number of channels.
    """

    luma: torch.Tensor

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        if {before, after} != {1, 3}:
            raise ModelError(
                f"parameters.channels: images of {before} channels do not become images of {after}; "
                "leave it out"
            )
        self.after = after
        weights = torch.tensor([0.299, 0.587, 0.114])
        self.register_buffer("luma", weights.view(1, 3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convert ``x[B, C, H, W]``."""
        if self.after == 3:
            return x.expand(-1, 3, -1, -1)
        return (x * self.luma).sum(1, keepdim=True)


class Outputs(nn.Module):
    """Some outputs of a network, in another order.

    Args:
        indices: Which, each at most once.
    """

    indices: torch.Tensor

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("indices", torch.tensor(list(indices)), persistent=False)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Choose from ``y[B, n]``."""
        return y[:, self.indices]


class Residual(nn.Module):
    """``x + body(x)``.

    Args:
        body: Layers that keep the shape of their input.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add to ``x[B, C, H, W]`` what the body makes of it."""
        result: torch.Tensor = x + self.body(x)
        return result


class LogSumExp(nn.Module):
    """One logit for each group of logits: the logarithm of the sum of their exponentials.

    The SoftMax of the result is the SoftMax of all logits, summed over each group and scaled to sum to one.

    Args:
        groups: Positions of each group's logits.
    """

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.names = [f"group_{number}" for number in range(len(groups))]
        for name, members in zip(self.names, groups, strict=True):
            self.register_buffer(name, torch.tensor(list(members)), persistent=False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Merge ``z[B, k]`` to ``[B, groups]``."""
        return torch.stack([z[:, getattr(self, name)].logsumexp(1) for name in self.names], 1)


def activation(name: str, beta: float) -> nn.Module:
    """Return ReLU or SoftPlus(beta); SoftPlus keeps torch's linear threshold, without which it overflows."""
    return nn.ReLU() if name == "relu" else nn.Softplus(beta=beta, threshold=20.0)
