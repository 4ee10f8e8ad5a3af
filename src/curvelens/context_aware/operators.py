"""The Hessian of a context-aware objective in each form it may come in, behind one interface.

Every operator works on flattened vectors [d] in double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.quadratic import Dense, LocalQuadratic, LowRank, MatrixFree
from curvelens.softmax_curvature import SoftmaxHessian
from curvelens.softmax_products import SoftmaxProducts

Extremes = tuple[float, float]


class Operator(Protocol):
    """A symmetric matrix H of which only what the solvers need is known.

    Attributes:
        epsilon: Relative rounding error of its products.
    """

    epsilon: float

    def apply(self, v: Tensor) -> Tensor:
        """Return Hv, [d]."""

    def extremes(self) -> Extremes | None:
        """Return bounds (low ≤ 0, high ≥ 0) that hold all eigenvalues, the tightest with these signs, if
        known."""

    def check(self, l2: float) -> None:
        """Refuse λ₂ ≤ L/2 where that can be known.

        Raises:
            ArgumentError: if 2λ₂I − H is not positive definite.
        """

    def solve(self, g: Tensor, l2: float) -> Tensor | None:
        """Return (2λ₂I − H)⁻¹g, [d], or None where products alone do not give it directly."""


def not_concave(l2: float, largest: float | None = None) -> ArgumentError:
    """Return the error for λ₂ ≤ L/2.

    Args:
        l2: λ₂.
        largest: L, where known.
    """
    if largest is None:
        return ArgumentError(
            f"caso: λ₂={l2:g} is at most half the largest eigenvalue of H, so there is no maximum; "
            "take choose_l2(L) with that eigenvalue L"
        )
    return ArgumentError(
        f"caso: λ₂={l2:g} must exceed L/2={largest / 2:g} (L: largest eigenvalue of H), or there is no "
        "maximum; take choose_l2(L)"
    )


class Zero:
    """H = 0."""

    epsilon = torch.finfo(torch.float64).eps

    def apply(self, v: Tensor) -> Tensor:
        """Return zeros, [d]."""
        return torch.zeros_like(v)

    def extremes(self) -> Extremes:
        """Return (0, 0)."""
        return 0.0, 0.0

    def check(self, l2: float) -> None:
        """Accept every λ₂ > 0."""

    def solve(self, g: Tensor, l2: float) -> Tensor:
        """Return g/(2λ₂), [d]."""
        return g / (2 * l2)


class Spectral:
    """H = V diag(θ) Vᵀ with orthonormal V, e.g. from a low-rank factor.

    Args:
        values: θ, [k].
        vectors: V, [d, k].
    """

    epsilon = torch.finfo(torch.float64).eps

    def __init__(self, values: Tensor, vectors: Tensor) -> None:
        self.values = values
        self.vectors = vectors

    def apply(self, v: Tensor) -> Tensor:
        """Return Hv, [d]."""
        return self.vectors @ (self.values * (self.vectors.T @ v))

    def columns(self, v: Tensor) -> Tensor:
        """Return H times columns, [d, m]."""
        return self.vectors @ (self.values[:, None] * (self.vectors.T @ v))

    def extremes(self) -> Extremes:
        """Return the smallest and largest eigenvalue, zero included."""
        if len(self.values) == 0:
            return 0.0, 0.0
        return min(0.0, float(self.values.min())), max(0.0, float(self.values.max()))

    def check(self, l2: float) -> None:
        """Refuse λ₂ ≤ L/2."""
        largest = self.extremes()[1]
        if 2 * l2 <= largest:
            raise not_concave(l2, largest)

    def solve(self, g: Tensor, l2: float) -> Tensor:
        """Return (2λ₂I − H)⁻¹g, [d] or columns [d, m], by Woodbury's identity in the eigenbasis."""
        gain = 1 / (2 * l2 - self.values) - 1 / (2 * l2)
        part = self.vectors.T @ g
        return g / (2 * l2) + self.vectors @ (gain.reshape(-1, *[1] * (g.ndim - 1)) * part)


class Matrix:
    """H held in full.

    Args:
        matrix: [d, d], symmetric.
    """

    epsilon = torch.finfo(torch.float64).eps

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self._last: tuple[float, Tensor] | None = None

    def apply(self, v: Tensor) -> Tensor:
        """Return Hv, [d]."""
        return self.matrix @ v

    def extremes(self) -> None:
        """Return None: all eigenvalues would cost far more than the solution."""

    def check(self, l2: float) -> None:
        """Refuse λ₂ ≤ L/2, which is where 2λ₂I − H has no Cholesky factor."""
        self._factor(l2)

    def solve(self, g: Tensor, l2: float) -> Tensor:
        """Return (2λ₂I − H)⁻¹g, [d], by a Cholesky factorisation."""
        return torch.cholesky_solve(g[:, None], self._factor(l2))[:, 0]

    def _factor(self, l2: float) -> Tensor:
        if self._last is None or self._last[0] != l2:
            shifted = -self.matrix
            shifted.diagonal().add_(2 * l2)
            factor, info = torch.linalg.cholesky_ex(shifted)
            if int(info) != 0:
                raise not_concave(l2, float(torch.linalg.eigvalsh(self.matrix)[-1]))
            self._last = l2, factor
        return self._last[1]


class Products:
    """H known only by its products with columns.

    Args:
        matvec: [d, m] -> [d, m] in ``dtype``.
        dtype: Precision of the products.
    """

    def __init__(self, matvec: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
        self.matvec = matvec
        self.dtype = dtype
        self.epsilon = torch.finfo(dtype).eps

    def apply(self, v: Tensor) -> Tensor:
        """Return Hv, [d]."""
        product = self.matvec(v.to(self.dtype)[:, None])
        if product.shape != (len(v), 1):
            raise ArgumentError(
                f"caso: the product of H with [{len(v)}, 1] has shape {list(product.shape)}; it must map "
                "columns [d, m] to [d, m]"
            )
        return _finite(product[:, 0].detach().to(v.dtype))

    def extremes(self) -> None:
        """Return None."""

    def check(self, l2: float) -> None:
        """Accept every λ₂: the solvers notice a wrong curvature where they meet one."""

    def solve(self, g: Tensor, l2: float) -> None:
        """Return None: conjugate gradients are needed."""


def _finite(tensor: Tensor) -> Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise ArgumentError("caso: H holds numbers that are not finite; check the model and the input")
    return tensor


def spectral(H: LowRank) -> Spectral:
    """Return the eigendecomposition of a low-rank H in double precision.

    Raises:
        ArgumentError: if H is not finite.
    """
    like = torch.empty(0, dtype=torch.float64, device=H.factor.device)
    exact = LowRank(_finite(H.factor.detach().to(like)), _finite(H.weights.detach().to(like)))
    return Spectral(*exact.eigh(None, like))


def operator(H: Any, g: Tensor) -> Operator:
    """Put any form of the Hessian behind one interface.

    Args:
        H: See :func:`curvelens.context_aware.caso`; an operator is returned as it is.
        g: Gradient [*shape], whose size, device and dtype are those of the problem.

    Raises:
        ArgumentError: if H does not fit g.
    """
    if isinstance(H, Zero | Spectral | Matrix | Products):
        return H
    if isinstance(H, LocalQuadratic):
        H = H.curvature
    if isinstance(H, SoftmaxHessian):
        H = H.low_rank()
    if isinstance(H, SoftmaxProducts):
        H = MatrixFree(H.matvec, H.size)
    if H is None:
        return Zero()
    size, like = g.numel(), torch.empty(0, dtype=torch.float64, device=g.device)
    if isinstance(H, LowRank | MatrixFree | Dense) and H.size != size:
        raise ArgumentError(f"caso: H acts on {H.size} features, g has {size}; give both of the same input")
    if isinstance(H, LowRank):
        return spectral(H)
    if isinstance(H, MatrixFree):
        return Products(H.matvec, g.dtype)
    if isinstance(H, Dense):
        return Matrix(_finite(H.matrix.detach().to(like)))
    if callable(H):
        return Products(H, g.dtype)
    matrix = _finite(torch.as_tensor(H).detach().to(like))
    if matrix.shape != (size, size):
        raise ArgumentError(
            f"caso: H {list(matrix.shape)} must be [{size}, {size}] for the {size} features of g"
        )
    return Matrix((matrix + matrix.T) / 2)
