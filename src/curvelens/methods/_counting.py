"""How many evaluations a library makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar


class Counted:
    """A scalar, evaluated without a graph, that knows at how many points it was evaluated.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
    """

    def __init__(self, f: Scalar) -> None:
        self.f = f
        self.rows = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``f(x)``, ``[B]``, detached."""
        import torch

        from curvelens.chunks import in_chunks

        self.rows += len(x)
        with torch.no_grad():
            return in_chunks(self.f, x, "values")
