"""The step from products with H alone, in a Krylov subspace (Gould, Lucidi, Roma & Toint 1999)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.seeds import generator
from curvelens.trust_region.certificate import (
    Array,
    TrustRegionStep,
    as_radii,
    check_problem,
    into_ball,
    pack,
    project,
    residuals_of,
)
from curvelens.trust_region.secular import solve_diagonal

_CONVERGED_SHARE = 0.1  # of the spectrum's width: above it a Ritz pair may hide a lower eigenvalue


@overload
def solve_matrix_free(
    gradient: Tensor,
    matvec: Callable[[Tensor], Tensor],
    radius: float,
    tolerance: float = 1e-6,
    max_size: int = 600,
    seed: int = 0,
) -> TrustRegionStep: ...
@overload
def solve_matrix_free(
    gradient: Tensor,
    matvec: Callable[[Tensor], Tensor],
    radius: Sequence[float],
    tolerance: float = 1e-6,
    max_size: int = 600,
    seed: int = 0,
) -> list[TrustRegionStep]: ...
def solve_matrix_free(
    gradient: Tensor,
    matvec: Callable[[Tensor], Tensor],
    radius: float | Sequence[float],
    tolerance: float = 1e-6,
    max_size: int = 600,
    seed: int = 0,
) -> TrustRegionStep | list[TrustRegionStep]:
    """Minimise ``g·s + ½ sᵀHs`` over ``‖s‖ ≤ radius`` from products with H alone.

    A block Lanczos process with full reorthogonalisation starts at g and at a random vector; the problem
    restricted to the subspace is solved exactly, as in Gould et al. 1999. The random vector takes the place
    of their restart: it brings in the lowest eigenvector where g has no part of it (the hard case), and it
    makes the positive semidefiniteness of H + λI testable: a Krylov space of g never shows what it misses.

    Args:
        gradient: ``g [d]``.
        matvec: products with the symmetric H, ``[d, m] -> [d, m]``.
        radius: one radius > 0, or several; all are solved in the same subspace.
        tolerance: the iteration stops when every step's ``residual`` is at most this, with λ_min(H) replaced
            by a lower bound that fails with a probability of about 0.001.
        max_size: largest dimension of the subspace; memory is two ``[d, max_size]`` arrays in the dtype of g.
        seed: of the random starting vector.

    Returns:
        One :class:`TrustRegionStep`, or a list in the order of the radii. Where the tolerance was not met, a
        warning says so and ``residual`` says by how much.

    Raises:
        ArgumentError: for a radius that is not positive and finite, a gradient that is not a finite vector, a
            tolerance ≤ 0, or a ``matvec`` that is clearly not symmetric.
    """
    radii = as_radii(radius)
    g = gradient.detach()
    check_problem(g, g.new_empty(0), g.new_empty(g.numel(), 0))
    if not tolerance > 0:
        raise ArgumentError(f"solve_matrix_free: tolerance must be > 0, not {tolerance}; 1e-6 suits float32")
    space = _Krylov(g, matvec, seed)
    limit = min(g.numel(), max_size)
    check_at = 0
    while True:
        exhausted = space.grow(limit)
        if not exhausted and space.size < check_at:
            continue
        check_at = space.size + max(4, space.size // 5)
        steps, values, multipliers, residuals, hard = space.minimise(radii)
        if exhausted or residuals.max() <= tolerance:
            break
    if residuals.max() > max(tolerance, 50 * torch.finfo(g.dtype).eps):
        message = f"trust-region step: residual {residuals.max():.1e} above {tolerance:.1e}; raise max_size"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return pack(radius, steps, values, multipliers, residuals, hard, radii)


class _Krylov:
    """An orthonormal basis grown by block Lanczos, with H times the basis kept beside it."""

    def __init__(self, gradient: Tensor, matvec: Callable[[Tensor], Tensor], seed: int) -> None:
        self.gradient = gradient
        self.matvec = matvec
        self.depth = 0
        self.invariant = False
        d = gradient.numel()
        self.basis = gradient.new_empty(d, 0)
        self.image = gradient.new_empty(d, 0)
        noise = torch.randn(d, generator=generator(seed, "trust region", d), dtype=torch.float64)
        self.block = torch.stack([gradient, noise.to(gradient)], dim=1)

    @property
    def size(self) -> int:
        """Dimension of the subspace so far."""
        return self.basis.shape[1]

    def grow(self, limit: int) -> bool:
        """Add the next block; return whether the space is invariant under H or has reached ``limit``."""
        fresh = self._orthonormal(self.block)[:, : limit - self.size]
        if fresh.shape[1] == 0:
            self.invariant = True
            return True
        self.depth += 1
        image = self.matvec(fresh).to(fresh.dtype)
        self.basis = torch.cat([self.basis, fresh], dim=1)
        self.image = torch.cat([self.image, image], dim=1)
        self.block = image
        self.invariant = self.size == self.gradient.numel()
        return self.size >= limit

    def _orthonormal(self, block: Tensor) -> Tensor:
        """Columns of ``block`` made orthonormal to the basis and one another; what vanishes is dropped."""
        kept = self.basis
        threshold = 100 * torch.finfo(block.dtype).eps
        for column in block.T:
            length = column.norm()
            if float(length) == 0:
                continue
            v = column / length
            for _ in range(2):
                v = v - kept @ (kept.T @ v)
            remaining = v.norm()
            if float(remaining) > threshold:
                v = v / remaining
                v = v - kept @ (kept.T @ v)
                kept = torch.cat([kept, (v / v.norm())[:, None]], dim=1)
        return kept[:, self.size :]

    def minimise(self, radii: Array) -> tuple[Tensor, Array, Array, Array, NDArray[np.bool_]]:
        """Solve in the subspace: steps ``[m, d]``, values, multipliers, residuals, hard cases ``[m]``."""
        projected = project(self.basis, self.image.T)
        skew, size = float((projected - projected.T).norm()), float(projected.norm())
        if skew > 1e-3 * size:
            raise ArgumentError(
                f"solve_matrix_free: matvec is not symmetric (relative skew part {skew / size:.1e}); "
                "pass products with (H + Hᵀ)/2"
            )
        w, U = torch.linalg.eigh((projected + projected.T) / 2)
        g = self.gradient.double()
        c = (project(self.basis, g[None])[0] @ U).cpu().numpy()
        values_w = w.cpu().numpy()
        y, multipliers, hard = solve_diagonal(values_w, c, radii)
        inner = (torch.from_numpy(y).to(U.device) @ U.T).to(self.basis.dtype)
        steps = into_ball(inner @ self.basis.T, radii)
        values = (y * (c + 0.5 * y * values_w)).sum(axis=1)
        bound = self._lower_bound(w, U[:, 0].to(self.basis.dtype))
        spectrum = (float(np.abs(values_w).max(initial=0.0)), bound)
        residuals = residuals_of(g, steps, inner @ self.image.T, multipliers, radii, spectrum)
        return steps, values, multipliers, residuals, hard

    def _lower_bound(self, ritz: Tensor, lowest: Tensor) -> float:
        """A number that λ_min(H) does not fall below, except with a probability of about 0.001.

        After k steps from a random vector the lowest Ritz value exceeds λ_min by more than a share ε of the
        spectrum's width with a probability of at most ``1.648 √d exp(−√ε (2k − 1))`` (Kuczyński &
        Woźniakowski 1992, Estimating the largest eigenvalue by the power and Lanczos algorithms with a random
        start). Once that share is small, the residual norm of the lowest Ritz pair is the sharper bound.

        Args:
            ritz: ``[k]`` Ritz values, ascending.
            lowest: ``[k]`` coordinates of the lowest Ritz vector in the basis.
        """
        first, width = float(ritz[0]), float(ritz[-1] - ritz[0])
        if self.invariant:
            return first
        drift = float((self.image @ lowest - first * (self.basis @ lowest)).norm())
        share = (math.log(1.648e3 * math.sqrt(self.gradient.numel())) / (2 * self.depth - 1)) ** 2
        bound = first - share * (width + 2 * drift)
        return max(bound, first - drift) if share <= _CONVERGED_SHARE else bound
