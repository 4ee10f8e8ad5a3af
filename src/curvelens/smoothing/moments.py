"""What the estimators need of the rows z_i, D_i: sums over whole orthogonal matrices, or the rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.smoothing.subspace import LARGEST, leading_subspace

KEPT_ROWS = 4096  # rows that a dense accumulation keeps
ROW_BYTES = 2**29  # memory for rows that a matrix-free accumulation keeps


@dataclass(frozen=True)
class Leading:
    """What is known within a leading eigenspace U of Σ D Dᵀ; [r, r] and [m, r] in float64.

    Attributes:
        basis: U, [d, r].
        outer: Uᵀ(Σ D zᵀ/n)U of all n rows, [r, r].
        gram: Uᵀ(Σ z zᵀ/n)U of all rows, [r, r].
        covariance: Uᵀ(Σ D Dᵀ/m)U of the rows below, [r, r].
        z: z U of some or all of the rows, [m, r].
        D: D U of the same rows, [m, r].
        energy: Mean of ‖D‖² over them, inside U and outside.
        count: Number n of all rows.
        together: Rows that are not independent of each other.
    """

    basis: Tensor
    outer: Tensor
    gram: Tensor
    covariance: Tensor
    z: Tensor
    D: Tensor
    energy: float
    count: int
    together: int

    def retained(self) -> float:
        """Return the share of the energy inside U, at most 1."""
        return min(1.0, float(self.covariance.trace()) / self.energy) if self.energy > 0 else 1.0


class DenseMoments:
    """The sum Σ D zᵀ, [d, d], in memory that does not grow with the number of rows.

    Rows are folded into the sum by whole orthogonal matrices (``unit`` rows); those of an incomplete last one
    stay apart in :meth:`tail`, because Σ z zᵀ is a multiple of I for whole matrices only. The first 4096 rows
    are kept, and as long as there are no more, none is folded before the sum is asked for.

    Args:
        size: d.
        unit: Rows that belong together: d for orthogonal directions, 1 for independent ones.
        like: Gives dtype and device.
    """

    def __init__(self, size: int, unit: int, like: Tensor) -> None:
        self.size, self.unit, self.count = size, unit, 0
        self._outer = like.new_zeros(size, size)
        self._gram = like.new_zeros(size, size) if size <= LARGEST else None
        self._folded = 0
        self._squares = 0.0
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, z: Tensor, D: Tensor) -> None:
        """Add rows, both [m, d]."""
        room = KEPT_ROWS - self.count
        if room > 0:
            self._kept.append((z[:room], D[:room]))
        self.count += len(z)
        self._waiting.append((z, D))
        if self.count - self._folded > KEPT_ROWS:
            self._fold()

    def _fold(self) -> None:
        """Add whole matrices to the sum, and the squared norms of their symmetric parts to another."""
        z, D = _joined(self._waiting) if self._waiting else (self._outer[:0], self._outer[:0])
        whole = len(z) - len(z) % self.unit
        self._waiting = [(z[whole:], D[whole:])]
        if not whole:
            return
        z, D = z[:whole], D[:whole]
        self._folded += whole
        if self._gram is not None:
            self._gram += z.T @ z
        if self.unit == 1:
            self._outer += D.T @ z
            lengths = D.double().square().sum(1) * z.double().square().sum(1)
            self._squares += float((lengths + (D * z).double().sum(1).square()).sum()) / 2
            return
        parts = D.reshape(-1, self.unit, self.size).transpose(1, 2) @ z.reshape(-1, self.unit, self.size)
        self._outer += parts.sum(0)
        self._squares += float((parts + parts.transpose(1, 2)).double().square().sum()) / 4

    def folded(self) -> tuple[int, Tensor, float]:
        """Return the number of rows in whole matrices, their Σ D zᵀ, and Σ ‖sym(Σ D zᵀ)‖² over matrices."""
        self._fold()
        return self._folded, self._outer, self._squares

    def tail(self) -> tuple[Tensor, Tensor]:
        """Return the rows that do not make up a whole matrix, [m, d] each."""
        self._fold()
        return self._waiting[0]

    def kept(self) -> tuple[Tensor, Tensor]:
        """Return the first rows, at most 4096, [m, d] each."""
        if len(self._kept) > 1:
            self._kept = [_joined(self._kept)]
        return self._kept[0]

    def leading(self, rank: int | None = None) -> Leading:
        """Return the leading subspace of the rows kept.

        Args:
            rank: Dimensions at most; None for min(d, 128).
        """
        z, D = self.kept()
        U = leading_subspace(D, _rank(rank, self.size, self.count))
        lead = _leading(U, [(z @ U, D @ U)], float(D.double().square().sum()), self.unit)
        if len(z) == self.count:
            return lead
        outer, gram = self._sums_within(U)
        return replace(lead, count=self.count, outer=outer, gram=gram)

    def _sums_within(self, U: Tensor) -> tuple[Tensor, Tensor]:
        """Return UᵀΣ D zᵀU/n and UᵀΣ z zᵀU/n of all rows; those of an incomplete matrix enter as they are."""
        z, D = self.tail()
        outer = U.T @ (self._outer @ U + D.T @ (z @ U))
        if self._gram is None:
            gram = self._folded * torch.eye(U.shape[1], dtype=U.dtype, device=U.device)
        else:
            gram = U.T @ self._gram @ U
        gram = gram + (z @ U).T @ (z @ U)
        return outer.double() / self.count, gram.double() / self.count


class RowMoments:
    """The rows themselves, for d too large for d×d sums or for fewer rows than features.

    Rows are kept up to 512 MiB. What comes later is projected onto the leading subspace of what came before.

    Args:
        size: d.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.count = 0
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._kept_rows = 0
        self._basis: Tensor | None = None
        self._projected: list[tuple[Tensor, Tensor]] = []
        self._later_energy = 0.0

    def add(self, z: Tensor, D: Tensor) -> None:
        """Add rows, both [m, d]."""
        self.count += len(z)
        room = max(1, ROW_BYTES // (2 * self.size * z.element_size())) - self._kept_rows
        if room > 0:
            self._rows.append((z[:room], D[:room]))
            self._kept_rows += len(z[:room])
            z, D = z[room:], D[room:]
        if not len(z):
            return
        if self._basis is None:
            self._basis = leading_subspace(self._whole()[1], _rank(None, self.size, self._kept_rows))
        self._projected.append((z @ self._basis, D @ self._basis))
        self._later_energy += float(D.double().square().sum())

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return z and D, [n, d] each.

        Raises:
            ArgumentError: if not all rows could be kept.
        """
        if self._projected:
            raise ArgumentError(
                f"smooth_quadratic: {self.count} rows of {self.size} features take more than"
                f" {ROW_BYTES / 2**20:.0f} MiB; ask for fewer calls or use the estimator 'regression'"
            )
        return self._whole()

    def leading(self, rank: int | None = None) -> Leading:
        """Return the leading subspace.

        Args:
            rank: Dimensions at most; None for min(d, 128).
        """
        z, D = self._whole()
        U = self._basis
        if U is None:
            U = leading_subspace(D, _rank(rank, self.size, self._kept_rows))
        energy = float(D.double().square().sum()) + self._later_energy
        return _leading(U, [(z @ U, D @ U), *self._projected], energy, 1)

    def _whole(self) -> tuple[Tensor, Tensor]:
        if len(self._rows) > 1:
            self._rows = [_joined(self._rows)]
        return self._rows[0]


def _rank(wanted: int | None, size: int, rows: int) -> int:
    """Return the dimensions of a leading subspace, fewer where rows are scarce, to leave some to spare."""
    return min(wanted or LARGEST, size, size if rows >= size else max(1, rows // 4))


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([z for z, _ in parts]), torch.cat([D for _, D in parts])


def _leading(U: Tensor, rows: list[tuple[Tensor, Tensor]], energy: float, together: int) -> Leading:
    z, D = (part.double() for part in _joined(rows))
    n = len(z)
    return Leading(U, D.T @ z / n, z.T @ z / n, D.T @ D / n, z, D, energy / n, n, together)
