"""What the estimators need of the rows z_i, D_i: sums over whole orthogonal matrices, or the rows."""

from __future__ import annotations

import torch
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.smoothing.subspace import LARGEST, leading_subspace

KEPT_ROWS = 4096  # rows that a dense accumulation keeps for error bars
ROW_BYTES = 4 * 2**30  # memory for rows that a matrix-free accumulation may take


class DenseMoments:
    """Sums Σ D zᵀ and Σ D Dᵀ, [d, d] each, in memory that does not grow with the number of rows.

    Rows are folded into the sums by whole orthogonal matrices (``unit`` rows); those of an incomplete last
    one stay apart in :meth:`tail`, because Σ z zᵀ is a multiple of I for whole matrices only.

    Args:
        size: d.
        unit: Rows that belong together: d for orthogonal directions, 1 for independent ones.
        energy: Whether Σ D Dᵀ is wanted.
        like: Gives dtype and device.
    """

    def __init__(self, size: int, unit: int, energy: bool, like: Tensor) -> None:
        self.size, self.unit = size, unit
        self.folded = 0
        self.outer = like.new_zeros(size, size)
        self.energy = like.new_zeros(size, size) if energy else None
        self.squares = 0.0
        self._tail: list[tuple[Tensor, Tensor]] = []
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._kept_rows = 0

    def add(self, z: Tensor, D: Tensor) -> None:
        """Add rows, both [m, d]."""
        if self.energy is not None:
            self.energy += D.T @ D
            if self._kept_rows < KEPT_ROWS:
                self._kept.append((z, D))
                self._kept_rows += len(z)
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
            self._tail = [(torch.cat([z for z, _ in self._tail]), torch.cat([D for _, D in self._tail]))]
        return self._tail[0] if self._tail else (self.outer[:0], self.outer[:0])

    def coordinates(self, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor, float]:
        """Return the leading subspace and the first few thousand rows within it.

        Args:
            rank: Dimensions r; None for min(d, 128).

        Returns:
            A basis U [d, r], z U and D U [m, r] in float64, and the mean of ‖D‖².
        """
        assert self.energy is not None, "made without energy"
        C = self.energy / self.count
        trace = float(C.diagonal().double().sum())
        most = min(rank or LARGEST, self.size)
        basis = leading_subspace(lambda columns: C @ columns, trace, self.size, most, C)
        z = torch.cat([z @ basis for z, _ in self._kept]).double()
        D = torch.cat([D @ basis for _, D in self._kept]).double()
        return basis, z, D, trace


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
        if 2 * (self._kept_rows + len(z)) * self.size * z.element_size() <= ROW_BYTES or not self._rows:
            self._rows.append((z, D))
            self._kept_rows += len(z)
            return
        if self._basis is None:
            self._basis = self._leading(LARGEST)
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
        return self._joined()

    def coordinates(self, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor, float]:
        """Return the leading subspace and the rows within it.

        Args:
            rank: Dimensions r; None for min(d, 128). At most a quarter of the rows, so that a regression
                within the subspace has rows to spare.

        Returns:
            A basis U [d, r], z U and D U [n, r] in float64, and the mean of ‖D‖².
        """
        most = max(1, min(rank or LARGEST, self.size, self._kept_rows // 4))
        basis = self._leading(most) if self._basis is None else self._basis
        z, D = self._joined()
        parts = [(z @ basis, D @ basis), *self._projected]
        energy = float(D.double().square().sum()) + self._later_energy
        return (
            basis,
            torch.cat([part for part, _ in parts]).double(),
            torch.cat([part for _, part in parts]).double(),
            energy / self.count,
        )

    def _joined(self) -> tuple[Tensor, Tensor]:
        if len(self._rows) > 1:
            self._rows = [(torch.cat([z for z, _ in self._rows]), torch.cat([D for _, D in self._rows]))]
        return self._rows[0]

    def _leading(self, rank: int) -> Tensor:
        D = self._joined()[1]
        trace = float(D.double().square().sum())
        return leading_subspace(lambda columns: D.T @ (D @ columns), trace, self.size, rank, D)
