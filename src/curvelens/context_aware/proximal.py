"""Sparsity penalties of a context-aware explanation: of single entries, or of groups of them together.

Values are flattened, [d] or, for several explanations at once, columns [d, m]; λ₁ is then a number or [m].
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from curvelens.errors import ArgumentError

Weight = float | Tensor


class Penalty(Protocol):
    """λ₁ times a norm of Δ."""

    def prox(self, values: Tensor, threshold: Weight) -> Tensor:
        """Return the minimiser of ½‖v − values‖² + threshold·norm(v), same shape."""

    def norm(self, values: Tensor) -> Tensor:
        """Return the norm, [] or [m]."""

    def violation(self, delta: Tensor, slope: Tensor, l1: Weight) -> Tensor:
        """Return the smallest element of slope − λ₁∂norm(Δ), same shape: zero at an optimum only."""

    def dual_norm(self, g: Tensor) -> Tensor:
        """Return the λ₁ from which on Δ = 0 is optimal for gradient g, [] or [m]."""

    def lengths(self, values: Tensor) -> Tensor:
        """Return the Euclidean length of each group, [groups] or [groups, m]."""


def soft_threshold(values: Tensor, threshold: Weight) -> Tensor:
    """Move every entry towards zero by ``threshold``, to exactly zero where it is smaller.

    The proximal operator of ``threshold``·‖·‖₁ (Parikh and Boyd 2014, sec. 6.5.2).

    Args:
        values: Any shape.
        threshold: ≥ 0; a tensor must broadcast.

    Returns:
        Same shape.
    """
    return values.sign() * (values.abs() - threshold).clamp_min(0)


class Entries:
    """λ₁‖Δ‖₁, the paper's penalty: every entry for itself."""

    def prox(self, values: Tensor, threshold: Weight) -> Tensor:
        """See :class:`Penalty`."""
        return soft_threshold(values, threshold)

    def norm(self, values: Tensor) -> Tensor:
        """See :class:`Penalty`."""
        return values.abs().sum(0)

    def violation(self, delta: Tensor, slope: Tensor, l1: Weight) -> Tensor:
        """See :class:`Penalty`."""
        return torch.where(delta != 0, slope - l1 * delta.sign(), soft_threshold(slope, l1))

    def dual_norm(self, g: Tensor) -> Tensor:
        """See :class:`Penalty`."""
        return g.abs().amax(0)

    def lengths(self, values: Tensor) -> Tensor:
        """See :class:`Penalty`."""
        return values.abs()


class Groups:
    """λ₁ Σ √n_G ‖Δ_G‖₂ over groups G of n_G entries: a group is zero as a whole or not at all.

    The group lasso of Yuan and Lin 2006, whose √n_G makes λ₁ comparable between groups of any size and, for
    groups of one entry, the same as for single entries.

    Args:
        labels: Group of each entry, integers [d].

    Raises:
        ArgumentError: if the labels are not integers.
    """

    def __init__(self, labels: Tensor) -> None:
        if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
            raise ArgumentError(f"groups: labels {list(labels.shape)} must be integers, one for each entry")
        _, self._group, counts = labels.unique(return_inverse=True, return_counts=True)
        self._root = counts.to(torch.float64).sqrt()

    def prox(self, values: Tensor, threshold: Weight) -> Tensor:
        """See :class:`Penalty`."""
        lengths = self.lengths(values)
        return values * self._shrink(lengths, threshold)[self._group]

    def norm(self, values: Tensor) -> Tensor:
        """See :class:`Penalty`."""
        lengths = self.lengths(values)
        return (self._weights(lengths) * lengths).sum(0)

    def violation(self, delta: Tensor, slope: Tensor, l1: Weight) -> Tensor:
        """See :class:`Penalty`."""
        lengths, slopes = self.lengths(delta), self.lengths(slope)
        weights = self._weights(lengths) * l1
        pull = torch.where(lengths > 0, weights / lengths.clamp_min(torch.finfo(lengths.dtype).tiny), 0.0)
        inside = slope * self._shrink(slopes, l1)[self._group]
        return torch.where((lengths > 0)[self._group], slope - pull[self._group] * delta, inside)

    def dual_norm(self, g: Tensor) -> Tensor:
        """See :class:`Penalty`."""
        lengths = self.lengths(g)
        return (lengths / self._weights(lengths)).amax(0)

    def _weights(self, like: Tensor) -> Tensor:
        return self._root.to(like).reshape(-1, *[1] * (like.ndim - 1))

    def lengths(self, values: Tensor) -> Tensor:
        """See :class:`Penalty`."""
        squares = values.new_zeros(len(self._root), *values.shape[1:])
        return squares.index_add_(0, self._group, values.square()).sqrt()

    def _shrink(self, lengths: Tensor, threshold: Weight) -> Tensor:
        """Return (1 − threshold √n_G/‖v_G‖)₊ of each group."""
        kept = 1 - self._weights(lengths) * threshold / lengths.clamp_min(torch.finfo(lengths.dtype).tiny)
        return kept.clamp_min(0)


ENTRIES = Entries()


def penalty(groups: Tensor | None, shape: torch.Size) -> Penalty:
    """Return the penalty for an explanation of a given shape.

    Args:
        groups: None for single entries; else integers that name each entry's group, of the explanation's
            shape or of its trailing dimensions: [H, W] for an explanation [C, H, W] puts the channels of a
            pixel, or of a super-pixel, together.
        shape: Shape of the explanation.

    Raises:
        ArgumentError: if the groups do not fit the shape.
    """
    if groups is None:
        return ENTRIES
    labels = torch.as_tensor(groups)
    if labels.shape != shape[len(shape) - labels.ndim :]:
        raise ArgumentError(
            f"groups {list(labels.shape)} do not fit an explanation {list(shape)}; give a group for each "
            "entry, or for each pixel"
        )
    return Groups(labels.expand(shape).reshape(-1))
