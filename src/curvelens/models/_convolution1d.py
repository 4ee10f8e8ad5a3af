"""Layers of one-dimensional convolutional networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

_FOURIER_WIDTH = 32
"""Kernels from this width on are applied in the frequency domain, where their width costs nothing: on one
core, with 20 channels and 300 samples, ten times as fast at width 200 and half as fast at width 5."""


class SameConvolution(nn.Module):
    """Convolution ``y[o, t] = bias[o] + Σ_{i, k} weight[o, i, k] x[i, t + k − (K − 1)//2]``, zeros outside.

    The same as ``torch.nn.Conv1d(..., padding="same")``, weights and their initial values included.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        width: K, the samples that the kernel spans.
    """

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        like = nn.Conv1d(inputs, outputs, width)
        assert like.bias is not None
        self.weight, self.bias = like.weight, like.bias

    def extra_repr(self) -> str:
        """Say the sizes where the module is printed."""
        outputs, inputs, width = self.weight.shape
        return f"{inputs}, {outputs}, width={width}"

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x[B, inputs, T]`` into ``[B, outputs, T]``."""
        width = self.weight.shape[-1]
        before, after = (width - 1) // 2, width // 2
        if width < _FOURIER_WIDTH:
            return conv1d(pad(x, (before, after)), self.weight, self.bias)
        return self._in_frequency(x, before, after)

    def _in_frequency(self, x: Tensor, before: int, after: int) -> Tensor:
        length = x.shape[-1]
        # What wraps around falls on zeros, or on outputs that are cut off.
        period = _fast_length(max(length + max(before, after), self.weight.shape[-1]))
        spectrum = torch.fft.rfft(x, period).permute(2, 0, 1)
        kernel = torch.fft.rfft(self.weight, period).conj().permute(2, 1, 0)
        product = torch.fft.irfft(torch.bmm(spectrum, kernel).permute(1, 2, 0), period)
        return product.roll(before, -1)[..., :length] + self.bias[:, None]


class ResidualBlock(nn.Module):
    """Convolution, batch normalisation, ReLU and dropout, added to the input (Torop et al. 2023, App. E).

    Args:
        inputs: Channels of the input; where they are fewer than ``outputs`` they must be 1, and the input is
            added to every channel.
        outputs: Channels of the output.
        width: Samples that the kernel spans.
        dropout: Share of the values dropped in training.
    """

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.convolution = SameConvolution(inputs, outputs, width)
        self.normalisation = nn.BatchNorm1d(outputs)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, inputs, T]`` to ``[B, outputs, T]``."""
        return x + self.dropout(self.activation(self.normalisation(self.convolution(x))))


class Affine(nn.Module):
    """``(x − mean) / std`` before a network, or ``mean + std · x`` behind it.

    Args:
        mean: Subtracted, or added.
        std: Divided by, or multiplied by; positive.
        inverse: Whether it stands behind the network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("std", torch.tensor(float(std)))

    def forward(self, x: Tensor) -> Tensor:
        """Map values of any shape."""
        return self.mean + self.std * x if self.inverse else (x - self.mean) / self.std


def _fast_length(least: int) -> int:
    """Return the smallest even 5-smooth number ≥ ``least``, for which a Fourier transform is fast."""
    length = least + least % 2
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2
