"""The smoothing covariance Σ = LLᵀ as a scalar, per-feature standard deviations, or a Cholesky factor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from curvelens.errors import ArgumentError


class Covariance:
    """Maps between x-space and the whitened space u, x + L u with u ~ N(0, I).

    Args:
        sigma: A number > 0, a tensor shaped like x with entries > 0, or a Cholesky factor [d, d] of Σ.
        x: [*shape], the point that is explained; gives d, dtype and device.

    Raises:
        ArgumentError: if sigma is not positive, not finite, or shaped like neither x nor [d, d].
    """

    def __init__(self, sigma: float | Tensor, x: Tensor) -> None:
        size = x.numel()
        self.factor: float | Tensor
        self.triangular = False
        if not isinstance(sigma, Tensor) or sigma.ndim == 0:
            self.factor = float(sigma)
            positive = math.isfinite(self.factor) and self.factor > 0
        else:
            moved = sigma.detach().to(x)
            if moved.shape == x.shape:
                self.factor = moved.reshape(-1)
                diagonal = self.factor
            elif moved.shape == (size, size):
                self.factor, self.triangular = moved, True
                diagonal = moved.diagonal()
                if bool((moved.triu(1) != 0).any()):
                    raise ArgumentError(
                        "sigma: a [d, d] factor must be lower triangular; pass torch.linalg.cholesky(Σ)"
                    )
            else:
                raise ArgumentError(
                    f"sigma: shape {list(sigma.shape)} is neither a number, nor that of x {list(x.shape)},"
                    f" nor [{size}, {size}]"
                )
            positive = bool(torch.isfinite(moved).all() and (diagonal > 0).all())
        if not positive:
            raise ArgumentError("sigma: every standard deviation must be finite and > 0")

    def displace(self, rows: Tensor) -> Tensor:
        """Return L u for each row u: [m, d] -> [m, d]."""
        return (
            rows @ self.factor.T
            if isinstance(self.factor, Tensor) and self.triangular
            else rows * self.factor
        )

    def whiten(self, gradients: Tensor) -> Tensor:
        """Return Lᵀ g for each row g, the gradient in u-space: [m, d] -> [m, d]."""
        return (
            gradients @ self.factor
            if isinstance(self.factor, Tensor) and self.triangular
            else gradients * self.factor
        )

    def unwhiten(self, columns: Tensor) -> Tensor:
        """Return L⁻ᵀ c for each column c: [d, m] -> [d, m]; takes a factor of H in u-space to one of H."""
        if not isinstance(self.factor, Tensor):
            return columns / self.factor
        if self.triangular:
            return torch.linalg.solve_triangular(self.factor.T, columns, upper=True)
        return columns / self.factor[:, None]

    def describe(self) -> float | str:
        """Return the scalar, or a word for the form."""
        if isinstance(self.factor, float):
            return self.factor
        return "factor" if self.triangular else "per feature"

    def unwhiten_transposed(self, columns: Tensor) -> Tensor:
        """Return L⁻¹ c for each column c: [d, m] -> [d, m]."""
        if isinstance(self.factor, Tensor) and self.triangular:
            return torch.linalg.solve_triangular(self.factor, columns, upper=False)
        return self.unwhiten(columns)
