"""Functions whose Gaussian-smoothed gradient and Hessian have a closed form, to hold estimators against."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.quadratic import LowRank
from curvelens.seeds import generator


@dataclass(frozen=True)
class Ridges:
    """A network with one hidden layer, ``f(x) = Σ_j a_j ReLU(w_jᵀx + b_j)``.

    With ``m = Wx + b`` and ``s_j = σ‖w_j‖``, each unit sees ``m_j + s_j z``, z standard normal, so that the
    smoothed function is ``Σ a_j [m_j Φ(m_j/s_j) + s_j φ(m_j/s_j)]``, and its derivatives follow.

    Attributes:
        weights: ``W [m, d]``, rows that are not zero.
        biases: ``b [m]``.
        amplitudes: ``a [m]``.
    """

    weights: Tensor
    biases: Tensor
    amplitudes: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return f, ``x [B, d] -> [B]``."""
        return torch.relu(x @ self.weights.T + self.biases) @ self.amplitudes

    def _scaled(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Return ``s [m]`` and ``m/s [m]``."""
        if not 0 < sigma < math.inf:
            raise ArgumentError(f"sigma: must be a positive number, got {sigma}")
        spread = sigma * self.weights.norm(dim=1)
        return spread, (self.weights @ x + self.biases) / spread

    def smoothed_value(self, x: Tensor, sigma: float) -> Tensor:
        """Return ``E f(x + σz)``, a scalar, for ``x [d]`` and σ > 0."""
        spread, t = self._scaled(x, sigma)
        return (self.amplitudes * spread * (t * torch.special.ndtr(t) + _density(t))).sum()

    def smoothed_gradient(self, x: Tensor, sigma: float) -> Tensor:
        """Return ``Σ a_j Φ(m_j/s_j) w_j``, ``[d]``, for ``x [d]`` and σ > 0."""
        _, t = self._scaled(x, sigma)
        return (self.amplitudes * torch.special.ndtr(t)) @ self.weights

    def smoothed_hessian(self, x: Tensor, sigma: float) -> Tensor:
        """Return ``Σ a_j φ(m_j/s_j)/s_j w_j w_jᵀ``, ``[d, d]``, for ``x [d]`` and σ > 0."""
        spread, t = self._scaled(x, sigma)
        return self.weights.T @ ((self.amplitudes * _density(t) / spread)[:, None] * self.weights)

    def to(self, device: torch.device | str) -> Ridges:
        """Return the function with its parameters on a device."""
        return Ridges(self.weights.to(device), self.biases.to(device), self.amplitudes.to(device))


@dataclass(frozen=True)
class Quadratic:
    """``f(x) = ½ xᵀAx + bᵀx``, whose Hessian smoothing does not change.

    Attributes:
        matrix: ``A [d, d]``, symmetric.
        slope: ``b [d]``.
    """

    matrix: Tensor
    slope: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return f, ``x [B, d] -> [B]``."""
        return ((x @ self.matrix) * x).sum(1) / 2 + x @ self.slope

    def smoothed_value(self, x: Tensor, sigma: float) -> Tensor:
        """Return ``f(x) + ½ σ² tr A``, a scalar, for ``x [d]``."""
        return self(x[None])[0] + sigma**2 * self.matrix.trace() / 2

    def smoothed_gradient(self, x: Tensor, sigma: float) -> Tensor:
        """Return ``Ax + b``, ``[d]``, for ``x [d]`` and any σ."""
        return self.matrix @ x + self.slope

    def smoothed_hessian(self, x: Tensor, sigma: float) -> Tensor:
        """Return A, ``[d, d]``, for ``x [d]`` and any σ."""
        return self.matrix

    def to(self, device: torch.device | str) -> Quadratic:
        """Return the function with its parameters on a device."""
        return Quadratic(self.matrix.to(device), self.slope.to(device))


def random_ridges(d: int, units: int, seed: int, dtype: torch.dtype = torch.float64) -> Ridges:
    """Return a random network with one hidden layer, its scale independent of d and of the units.

    Rows of W and biases are drawn such that at ``x ~ N(0, I)`` the distances ``(w_jᵀx + b_j)/‖w_j‖`` to the
    units' kinks are about standard normal; amplitudes have both signs.

    Args:
        d: Input features, at least 1.
        units: Hidden units, at least 1.
        seed: Seed.
        dtype: Of the parameters, on the CPU.
    """
    source = generator(seed, "random ridges")
    weights = torch.randn(units, d, generator=source, dtype=torch.float64)
    weights = weights / weights.norm(dim=1, keepdim=True)
    biases = torch.randn(units, generator=source, dtype=torch.float64) / math.sqrt(d)
    amplitudes = torch.randn(units, generator=source, dtype=torch.float64) / math.sqrt(units)
    return Ridges(weights.to(dtype), biases.to(dtype), amplitudes.to(dtype))


def random_quadratic(d: int, seed: int, dtype: torch.dtype = torch.float64) -> Quadratic:
    """Return a random quadratic with a Gaussian symmetric matrix, ``‖A‖_F ≈ 1``, and ``‖b‖ ≈ 1``.

    Args:
        d: Input features, at least 1.
        seed: Seed.
        dtype: Of the parameters, on the CPU.
    """
    source = generator(seed, "random quadratic")
    square = torch.randn(d, d, generator=source, dtype=torch.float64) / d
    slope = torch.randn(d, generator=source, dtype=torch.float64) / math.sqrt(d)
    return Quadratic(((square + square.T) / math.sqrt(2)).to(dtype), slope.to(dtype))


def random_softmax(
    d: int, classes: int, largest: float, seed: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, LowRank]:
    """Return gradient [d] and Hessian of the cross-entropy of a random linear classifier, float64.

    The classifier's weights W and its logits are Gaussian (standard deviation 2); the label is the predicted
    class. So ``g = W(p - y)`` and ``H = W(diag p - pp^T)W^T`` (Singla et al. 2019, eq. 14 and 15).

    Args:
        d: Input features, at least 1.
        classes: Classes, at least 2.
        largest: Largest eigenvalue of H, > 0, to which W is scaled.
        seed: Seed.
        device: Where both lie.
    """
    source = generator(seed, "random softmax")
    W = torch.randn(d, classes, generator=source, dtype=torch.float64)
    p = (2 * torch.randn(classes, generator=source, dtype=torch.float64)).softmax(0)
    slope = p.clone()
    slope[p.argmax()] -= 1
    root = p.sqrt()
    factor = W @ (torch.diag(root) - torch.outer(p, root))
    scale = math.sqrt(largest) / float(torch.linalg.matrix_norm(factor, 2))
    return (scale * (W @ slope)).to(device), LowRank((scale * factor).to(device))


def _density(t: Tensor) -> Tensor:
    return torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi)
