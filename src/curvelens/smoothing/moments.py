"""What the estimators need of the rows z_i, D_i: sums over whole orthogonal matrices, or the rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.smoothing.subspace import LARGEST, leading_subspace

KEPT_ROWS = 4096  # rows that a dense accumulation keeps for error bars
ROW_BYTES = 4 * 2**30  # memory for rows that a matrix-free accumulation may take


@dataclass(frozen=True)
class Leading:
    """What is known within a leading eigenspace U of Σ D Dᵀ; [r, r] and [m, r] in float64.

    Attributes:
        basis: U, [d, r].
        outer: Uᵀ(Σ D zᵀ/n)U, [r, r].
        gram: Uᵀ(Σ z zᵀ/n)U, [r, r].
        covariance: Uᵀ(Σ D Dᵀ/n)U, [r, r].
        z: z U of some or all of the rows, [m, r].
        D: D U of the same rows, [m, r].
        energy: Mean of ‖D‖², inside U and outside.
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
    """Sums Σ D zᵀ and Σ D Dᵀ, [d, d] each, in memory that does not grow with the number of rows.

    Rows are folded into the sums by whole orthogonal matrices (``unit`` rows); those of an incomplete last
    one stay apart in :meth:`tail`, because Σ z zᵀ is a multiple of I for whole matrices only.

    Args:
        size: d.
        unit: Rows that belong together: d for orthogonal directions, 1 for independent ones.
        energy: Whether Σ D Dᵀ is wanted and, up to 128 features, Σ z zᵀ.
        like: Gives dtype and device.
    """

    def __init__(self, size: int, unit: int, energy: bool, like: Tensor) -> None:
        self.size, self.unit = size, unit
        self.folded = 0
        self.outer = like.new_zeros(size, size)
        self.energy = like.new_zeros(size, size) if energy else None
        self.gram = like.new_zeros(size, size) if energy and size <= LARGEST else None
        self.squares = 0.0
        self._tail: list[tuple[Tensor, Tensor]] = []
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._kept_rows = 0

    def add(self, z: Tensor, D: Tensor) -> None:
        """Add rows, both [m, d]."""
        if self.energy is not None:
            self.energy += D.T @ D
            room = KEPT_ROWS - self._kept_rows
            if room > 0:
                self._kept.append((z[:room], D[:room]))
                self._kept_rows += len(z[:room])
        if self.gram is not None:
            self.gram += z.T @ z
        self._tail.append((z, D))
        z, D = self.tail()
        whole = len(z) - len(z) % self.unit
        if whole:
            self._fold(z[:whole], D[:whole])
            self._tail = [(z[whole:], D[whole:])]

    def _fold(self, z: Tensor, D: Tensor) -> None:
        """Add whole matrices, and the squared norms of their symmetric parts for the spread between them."""
        self.folded += len(z)
        if self.unit == 1:
            self.outer += D.T @ z
            lengths = D.double().square().sum(1) * z.double().square().sum(1)
            self.squares += float((lengths + (D * z).double().sum(1).square()).sum()) / 2
            return
        parts = D.reshape(-1, self.unit, self.size).transpose(1, 2) @ z.reshape(-1, self.unit, self.size)
        self.outer += parts.sum(0)
        if self.energy is None:
            self.squares += float((parts + parts.transpose(1, 2)).double().square().sum()) / 4

    @property
    def count(self) -> int:
        """Number of rows so far."""
        return self.folded + sum(len(z) for z, _ in self._tail)

    def tail(self) -> tuple[Tensor, Tensor]:
        """Return the rows that do not make up a whole matrix, [m, d] each."""
        if len(self._tail) > 1:
            self._tail = [_joined(self._tail)]
        return self._tail[0] if self._tail else (self.outer[:0], self.outer[:0])

    def kept(self) -> tuple[Tensor, Tensor]:
        """Return the first rows, at most 4096, [m, d] each."""
        if len(self._kept) > 1:
            self._kept = [_joined(self._kept)]
        return self._kept[0]

    def leading(self, rank: int | None = None) -> Leading:
        """Return the leading subspace; rows of an incomplete matrix enter its sums as they are.

        Args:
            rank: Dimensions at most; None for min(d, 128).
        """
        assert self.energy is not None, "made without energy"
        n = self.count
        C = self.energy / n
        trace = float(C.diagonal().double().sum())
        U = leading_subspace(lambda columns: C @ columns, trace, self.size, _rank(rank, self.size, n), C)
        z, D = self.kept()
        tail_z, tail_D = self.tail()
        outer = U.T @ ((self.outer @ U) + tail_D.T @ (tail_z @ U)) / n
        if self.gram is not None:
            gram = U.T @ self.gram @ U / n
        else:
            inputs = tail_z @ U
            gram = (self.folded * torch.eye(U.shape[1]).to(U) + inputs.T @ inputs) / n
        covariance = U.T @ (C @ U)
        outer, gram, covariance = outer.double(), gram.double(), covariance.double()
        return Leading(U, outer, gram, covariance, (z @ U).double(), (D @ U).double(), trace, n, self.unit)


class RowMoments:
    """The rows themselves, for d too large for d×d sums or for fewer rows than features.

    Rows are kept up to 4 GiB. What comes later is projected onto the leading subspace of what came before.

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
            self._basis = self._leading(_rank(None, self.size, self._kept_rows))
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
                f" {ROW_BYTES / 2**30:.0f} GiB; ask for fewer calls or use the estimator 'regression'"
            )
        return self._whole()

    def leading(self, rank: int | None = None) -> Leading:
        """Return the leading subspace.

        Args:
            rank: Dimensions at most; None for min(d, 128).
        """
        U = self._leading(_rank(rank, self.size, self._kept_rows)) if self._basis is None else self._basis
        rows_z, rows_D = self._whole()
        z, D = (part.double() for part in _joined([(rows_z @ U, rows_D @ U), *self._projected]))
        n = self.count
        energy = float(rows_D.double().square().sum()) + self._later_energy
        return Leading(U, D.T @ z / n, z.T @ z / n, D.T @ D / n, z, D, energy / n, n, 1)

    def _whole(self) -> tuple[Tensor, Tensor]:
        if len(self._rows) > 1:
            self._rows = [_joined(self._rows)]
        return self._rows[0]

    def _leading(self, rank: int) -> Tensor:
        D = self._whole()[1]
        trace = float(D.double().square().sum())
        return leading_subspace(lambda columns: D.T @ (D @ columns), trace, self.size, rank, D)


def _rank(wanted: int | None, size: int, rows: int) -> int:
    """Return the dimensions of a leading subspace, fewer where rows are scarce, to leave some to spare."""
    return min(wanted or LARGEST, size, size if rows >= size else max(1, rows // 4))


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([z for z, _ in parts]), torch.cat([D for _, D in parts])
