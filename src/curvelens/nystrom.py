"""A positive semidefinite matrix learnt from its products with a few directions.

From ``Y = H Q`` with orthonormal Q the Nyström approximation ``H~ = Y (Q^T Y)^+ Y^T`` is exact on the span of
Q and nowhere larger than H: ``0 <= H~ <= H`` (Halko, Martinsson and Tropp 2011, sec. 5.4). What is maximised
with H~ in place of H is therefore a lower bound that touches the true objective at every direction already
tried, so that solving and trying in turn climbs to the true maximum, one product a round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.quadratic import LowRank
from curvelens.seeds import generator

NEGLIGIBLE = 8.0  # multiples of rounding below which a part outside the span teaches nothing


class Largest(NamedTuple):
    """The largest eigenvalue.

    Attributes:
        value: L, from below.
        error: An eigenvalue lies within this distance of it; quadratically closer where it stands alone.
        products: Products made to find it.
    """

    value: float
    error: float
    products: int


class Nystrom:
    """What is known of H.

    Args:
        matvec: Products with columns, [d, m] -> [d, m] in ``dtype``.
        size: d.
        dtype: Precision of the products; all else is in double precision.
        device: Where they are computed.

    Attributes:
        products: Products made so far.
    """

    def __init__(
        self,
        matvec: Callable[[Tensor], Tensor],
        size: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self._matvec, self.size, self.dtype = matvec, size, dtype
        self._Q = torch.zeros(size, 0, dtype=torch.float64, device=device)
        self._Y = torch.zeros_like(self._Q)
        self._model: LowRank | None = None
        self.products = 0

    @property
    def rank(self) -> int:
        """Directions known."""
        return self._Q.shape[1]

    def apply(self, columns: Tensor) -> Tensor:
        """Return H times columns [d, m] in double precision, and learn from it.

        Only what lies outside the span of the directions known costs products; the rest follows by linearity.

        Raises:
            ArgumentError: if a product is not finite.
        """
        columns = columns.to(self._Q)
        new = self._outside(columns)
        if new.shape[1]:
            images = self._matvec(new.to(self.dtype)).detach().to(self._Q)
            if images.shape != new.shape or not bool(torch.isfinite(images).all()):
                raise ArgumentError(
                    f"products of H with {list(new.shape)} are {list(images.shape)} or not finite; check the "
                    "model and the input"
                )
            self.products += new.shape[1]
            self._Q, self._Y = torch.cat([self._Q, new], 1), torch.cat([self._Y, images], 1)
            self._model = None
        return self._Y @ (self._Q.T @ columns)

    def _outside(self, columns: Tensor) -> Tensor:
        """Return an orthonormal basis of what the columns add to the span of Q, [d, k]."""
        basis = self._Q
        for column in columns.T:
            rest, length = column, float(column.norm())
            for _ in range(2):  # once is not enough (Giraud and Langou 2002)
                rest = rest - basis @ (basis.T @ rest)
            if float(rest.norm()) > NEGLIGIBLE * torch.finfo(self.dtype).eps * length:
                basis = torch.cat([basis, rest[:, None] / rest.norm()], 1)
        return basis[:, self.rank :]

    def _floor(self, values: Tensor) -> float:
        return math.sqrt(torch.finfo(self.dtype).eps) * float(values.abs().max()) if len(values) else 0.0

    def _middle(self) -> tuple[Tensor, Tensor]:
        middle = self._Q.T @ self._Y
        values, vectors = torch.linalg.eigh((middle + middle.T) / 2)
        return values, vectors

    def low_rank(self) -> LowRank:
        """Return H~ as a factor [d, r].

        Eigenvalues of Q^T Y that rounding may have made are left out, so that H~ errs by no more than the
        square root of the products' relative rounding error, times L.
        """
        if self._model is None:
            values, vectors = self._middle()
            kept = values > self._floor(values)
            self._model = LowRank(self._Y @ (vectors[:, kept] / values[kept].sqrt()))
        return self._model

    def largest_eigenvalue(self, start: Tensor, tolerance: float, seed: int = 0, limit: int = 200) -> Largest:
        """Find the largest eigenvalue by Lanczos' method on all that is known.

        Args:
            start: First direction, [d]; a random one joins it, so that no eigenvector is missed.
            tolerance: Largest error of L, in its units, > 0.
            seed: Seed of the random direction.
            limit: Most products.

        Returns:
            L, with the residual of its eigenvector as ``error``.
        """
        before = self.products
        if self.rank == 0:
            random = torch.randn(
                self.size, generator=generator(seed, "largest eigenvalue"), dtype=torch.float64
            )
            self.apply(torch.stack([start.reshape(-1).to(self._Q), random.to(self._Q)], 1))
        while True:
            values, vectors = self._middle()
            if len(values) == 0:
                return Largest(0.0, 0.0, self.products - before)
            theta, s = values[-2:].flip(0), vectors[:, -2:].flip(1)
            remainders = self._Y @ s - (self._Q @ s) * theta
            error = remainders.norm(dim=0)
            top, noise = float(theta[0]), 8 * torch.finfo(self.dtype).eps * float(theta[0].abs())
            found = Largest(max(top, 0.0), float(error[0]), self.products - before)
            # The start may be an eigenvector of a smaller one: the second must not hide a larger.
            hidden = len(theta) > 1 and float(theta[1] + error[1]) > top + max(tolerance, noise)
            gap = float(theta[0] - theta[1]) if len(theta) > 1 else 0.0
            likely = min(found.error, found.error**2 / gap) if gap > 0 else found.error
            converged = likely <= max(tolerance, noise)
            if (converged and not hidden) or found.products >= limit or self.rank == self.size:
                return found
            known, worst = self.rank, int(converged)
            self.apply(remainders[:, worst, None])
            if self.rank == known:
                return found
