"""Local quadratic models f(x) + g·δ + ½ δᵀHδ with dense, low-rank or matrix-free curvature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, overload

import torch
from torch import Tensor

from curvelens import trust_region
from curvelens.errors import ArgumentError
from curvelens.trust_region import TrustRegionStep

DENSE_LIMIT = 4 * 2**30  # bytes; a d×d matrix above this is not formed unless the caller raises the limit


class _Curvature(Protocol):
    """What the three forms of curvature have in common."""

    @property
    def size(self) -> int: ...

    def apply(self, columns: Tensor) -> Tensor: ...

    def quadratic_form(self, rows: Tensor) -> Tensor: ...

    def dense(self, like: Tensor) -> Tensor: ...

    def eigh(self, count: int | None, like: Tensor) -> tuple[Tensor, Tensor]: ...


def _by_magnitude(eigenvalues: Tensor, eigenvectors: Tensor) -> tuple[Tensor, Tensor]:
    order = eigenvalues.abs().argsort(descending=True, stable=True)
    return eigenvalues[order], eigenvectors[:, order]


class Dense:
    """A symmetric matrix held in full.

    Args:
        matrix: [d, d]; only its symmetric part is used.

    Raises:
        ArgumentError: if the matrix is not square.
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ArgumentError(
                f"curvature: expected a [d, d] matrix, got {list(matrix.shape)}; flatten the features first"
            )
        self.matrix = (matrix + matrix.T) / 2
        self._eigen: tuple[Tensor, Tensor] | None = None

    @property
    def size(self) -> int:
        """Number of features d."""
        return self.matrix.shape[0]

    def apply(self, columns: Tensor) -> Tensor:
        """Return H @ columns: [d, m] -> [d, m]."""
        return self.matrix @ columns

    def quadratic_form(self, rows: Tensor) -> Tensor:
        """Return δᵀHδ for each row: [B, d] -> [B]."""
        return ((rows @ self.matrix) * rows).sum(1)

    def dense(self, like: Tensor) -> Tensor:
        """Return the matrix [d, d]."""
        return self.matrix

    def eigh(self, count: int | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return eigenvalues [k] by decreasing magnitude and eigenvectors [d, k]; cached."""
        if self._eigen is None:
            self._eigen = _by_magnitude(*torch.linalg.eigh(self.matrix))
        values, vectors = self._eigen
        return values[:count], vectors[:, :count]


class LowRank:
    """H = F diag(w) Fᵀ; the columns of F need not be orthonormal.

    Args:
        factor: F, [d, r].
        weights: w, [r]; ones if None.

    Raises:
        ArgumentError: if the shapes do not fit.
    """

    def __init__(self, factor: Tensor, weights: Tensor | None = None) -> None:
        if factor.ndim != 2:
            raise ArgumentError(
                f"LowRank: factor must be [d, r], got {list(factor.shape)}; flatten the features first"
            )
        if weights is None:
            weights = torch.ones(factor.shape[1], dtype=factor.dtype, device=factor.device)
        if weights.shape != factor.shape[1:]:
            raise ArgumentError(
                f"LowRank: weights must be [{factor.shape[1]}] to fit the factor, got {list(weights.shape)}"
            )
        self.factor = factor
        self.weights = weights
        self._eigen: tuple[Tensor, Tensor] | None = None

    @property
    def size(self) -> int:
        """Number of features d."""
        return self.factor.shape[0]

    def apply(self, columns: Tensor) -> Tensor:
        """Return H @ columns: [d, m] -> [d, m]."""
        return self.factor @ (self.weights[:, None] * (self.factor.T @ columns))

    def quadratic_form(self, rows: Tensor) -> Tensor:
        """Return δᵀHδ for each row: [B, d] -> [B]."""
        return (rows @ self.factor).square() @ self.weights

    def dense(self, like: Tensor) -> Tensor:
        """Return F diag(w) Fᵀ, [d, d]."""
        return (self.factor * self.weights) @ self.factor.T

    def eigh(self, count: int | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the min(r, d) eigenpairs that the factor spans, by decreasing magnitude, cached.

        F = QR gives H = Q (R diag(w) Rᵀ) Qᵀ: an r×r eigenproblem instead of d×d.
        """
        if self._eigen is None:
            basis, triangle = torch.linalg.qr(self.factor)
            core = (triangle * self.weights) @ triangle.T
            values, vectors = _by_magnitude(*torch.linalg.eigh((core + core.T) / 2))
            self._eigen = values, basis @ vectors
        values, vectors = self._eigen
        return values[:count], vectors[:, :count]


class MatrixFree:
    """A symmetric operator known only by its products.

    Args:
        matvec: [d, m] -> [d, m], H times each column.
        size: d.
    """

    def __init__(self, matvec: Callable[[Tensor], Tensor], size: int) -> None:
        self.matvec = matvec
        self._size = size
        self._eigen: tuple[Tensor, Tensor] | None = None

    @property
    def size(self) -> int:
        """Number of features d."""
        return self._size

    def apply(self, columns: Tensor) -> Tensor:
        """Return H @ columns: [d, m] -> [d, m]."""
        return self.matvec(columns)

    def quadratic_form(self, rows: Tensor) -> Tensor:
        """Return δᵀHδ for each row: [B, d] -> [B]."""
        return (self.matvec(rows.T).T * rows).sum(1)

    def dense(self, like: Tensor) -> Tensor:
        """Return the matrix [d, d], by d products."""
        matrix = self.matvec(torch.eye(self._size, dtype=like.dtype, device=like.device))
        return (matrix + matrix.T) / 2

    def eigh(self, count: int | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ``count`` leading eigenpairs by implicitly restarted Lanczos (SciPy's ARPACK), cached.

        Raises:
            ArgumentError: if ``count`` is None and d is too large for all eigenpairs.
        """
        if self._eigen is not None and count is not None and len(self._eigen[0]) >= count:
            return self._eigen[0][:count], self._eigen[1][:, :count]
        if count is None or 2 * count >= self._size:
            _check_dense(
                self._size, like, DENSE_LIMIT, "eigh of a matrix-free curvature: ask for fewer eigenpairs"
            )
            values, vectors = _by_magnitude(*torch.linalg.eigh(self.dense(like)))
            self._eigen = values, vectors
            return values[:count], vectors[:, :count]
        self._eigen = self._lanczos(count, like)
        return self._eigen

    def _lanczos(self, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
        import numpy as np
        from scipy.sparse.linalg import LinearOperator, eigsh

        def product(columns: np.ndarray) -> np.ndarray:
            block = torch.from_numpy(np.ascontiguousarray(columns.reshape(self._size, -1)))
            result = self.matvec(block.to(device=like.device, dtype=like.dtype))
            return result.detach().cpu().numpy().reshape(columns.shape)

        operator = LinearOperator(
            (self._size, self._size), matvec=product, matmat=product, dtype=like.detach().cpu().numpy().dtype
        )
        start = torch.randn(
            self._size, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        ).numpy()
        values, vectors = eigsh(operator, k=count, which="LM", v0=start)
        return _by_magnitude(
            torch.from_numpy(values.copy()).to(like), torch.from_numpy(np.ascontiguousarray(vectors)).to(like)
        )


def _check_dense(size: int, like: Tensor, limit: int, what: str) -> None:
    needed = size * size * like.element_size()
    if needed > limit:
        raise ArgumentError(
            f"{what} ({size}×{size} takes {needed / 2**30:.1f} GiB, the limit is {limit / 2**30:.1f} GiB)"
        )


class LocalQuadratic:
    """A local model q(δ) = f(x) + g·δ + ½ δᵀHδ.

    Args:
        value: f(x); a number or a tensor with one element.
        gradient: g, [*shape].
        curvature: H as a tensor [d, d], a :class:`LowRank`, a :class:`MatrixFree`, or None: first order.
        calls: Gradient calls that were made to find the model.
        error: Estimated relative Frobenius error of the curvature; NaN where unknown.
        info: Whatever else the estimator reports.

    Raises:
        ArgumentError: if the curvature's size is not the number of features of the gradient.
    """

    def __init__(
        self,
        value: Tensor | float,
        gradient: Tensor,
        curvature: Tensor | LowRank | MatrixFree | Dense | None = None,
        *,
        calls: int = 0,
        error: float = float("nan"),
        info: dict[str, Any] | None = None,
    ) -> None:
        self.gradient = gradient
        self.value = torch.as_tensor(value, dtype=gradient.dtype, device=gradient.device).reshape(())
        self.curvature: _Curvature | None
        self.curvature = Dense(curvature) if isinstance(curvature, Tensor) else curvature
        if self.curvature is not None and self.curvature.size != gradient.numel():
            raise ArgumentError(
                f"LocalQuadratic: curvature acts on {self.curvature.size} features but the gradient has"
                f" {gradient.numel()}; give both for the same input"
            )
        self.calls = calls
        self.error = error
        self.info = {} if info is None else info

    @property
    def size(self) -> int:
        """Number of features d."""
        return self.gradient.numel()

    def __repr__(self) -> str:
        kind = "none" if self.curvature is None else type(self.curvature).__name__
        return (
            f"LocalQuadratic(value={float(self.value):.6g}, shape={list(self.gradient.shape)},"
            f" curvature={kind}, calls={self.calls}, error={self.error:.3g})"
        )

    def _rows(self, tensor: Tensor, name: str) -> Tensor:
        if tensor.shape[1:] != self.gradient.shape:
            raise ArgumentError(
                f"{name}: expected [m, {', '.join(map(str, self.gradient.shape))}], got {list(tensor.shape)};"
                " put the displacements along a leading axis"
            )
        return tensor.reshape(len(tensor), self.size)

    def __call__(self, delta: Tensor) -> Tensor:
        """Return the model's value at displacements (Torop et al. 2023, eq. 10).

        Args:
            delta: [B, *shape], displacements from x.

        Returns:
            [B].

        Raises:
            ArgumentError: if the shape does not fit.
        """
        rows = self._rows(delta, "q(delta)")
        result = self.value + rows @ self.gradient.reshape(-1)
        if self.curvature is not None:
            result = result + self.curvature.quadratic_form(rows) / 2
        return result

    def hessian(self, limit: int = DENSE_LIMIT) -> Tensor:
        """Return H as a matrix.

        Args:
            limit: Largest size in bytes that is formed.

        Returns:
            [d, d], symmetric.

        Raises:
            ArgumentError: if d×d numbers take more than ``limit`` bytes.
        """
        _check_dense(
            self.size, self.gradient, limit, "hessian(): use hvp() or eigh(k) instead, or raise limit="
        )
        if self.curvature is None:
            return self.gradient.new_zeros(self.size, self.size)
        return self.curvature.dense(self.gradient)

    def hvp(self, v: Tensor) -> Tensor:
        """Return Hessian-vector products.

        Args:
            v: [m, *shape].

        Returns:
            [m, *shape], H v for each.

        Raises:
            ArgumentError: if the shape does not fit.
        """
        rows = self._rows(v, "hvp(v)")
        if self.curvature is None:
            return torch.zeros_like(v)
        return self.curvature.apply(rows.T).T.reshape(v.shape)

    def eigh(self, k: int | None = None) -> tuple[Tensor, Tensor]:
        """Return leading eigenpairs, by decreasing magnitude; the factorisation is made once.

        Args:
            k: How many; None for all that the curvature holds (r for a low-rank factor: the others are zero).

        Returns:
            Eigenvalues [k] and orthonormal eigenvectors [d, k].

        Raises:
            ArgumentError: if k < 1, or if all pairs of a large matrix-free curvature are asked for.
        """
        if k is not None and k < 1:
            raise ArgumentError(f"eigh(k): k must be at least 1, got {k}")
        if self.curvature is None:
            return self.gradient.new_zeros(0), self.gradient.new_zeros(self.size, 0)
        return self.curvature.eigh(k, self.gradient)

    @overload
    def minimize(self, radius: float) -> TrustRegionStep: ...

    @overload
    def minimize(self, radius: Sequence[float]) -> list[TrustRegionStep]: ...

    def minimize(self, radius: float | Sequence[float]) -> TrustRegionStep | list[TrustRegionStep]:
        """Minimise g·δ + ½ δᵀHδ over ‖δ‖₂ ≤ radius exactly (Moré and Sorensen 1983).

        Args:
            radius: Largest length of the step, > 0, or several; all share one factorisation.

        Returns:
            A step with ``.step`` [*shape], ``.value`` (g·s + ½ sᵀHs, without f(x)), ``.multiplier`` and
            ``.residual``; a list of them if ``radius`` is a sequence.

        Raises:
            ArgumentError: if a radius is not positive.
        """
        flat = self.gradient.reshape(-1)
        if isinstance(self.curvature, MatrixFree):
            steps = trust_region.solve_matrix_free(flat, self.curvature.matvec, radius)
        else:
            values, vectors = self.eigh()
            steps = trust_region.solve(flat, values, vectors, radius, complete=vectors.shape[1] == self.size)
        if isinstance(steps, list):
            return [replace(step, step=step.step.reshape(self.gradient.shape)) for step in steps]
        return replace(steps, step=steps.step.reshape(self.gradient.shape))

    def first_order(self) -> LocalQuadratic:
        """Return the same model without its curvature."""
        return LocalQuadratic(self.value, self.gradient, None, calls=self.calls, info=dict(self.info))
