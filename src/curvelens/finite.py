"""NaN and infinity, named: in which tensor, and how many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def not_finite(tensors: Mapping[str, torch.Tensor]) -> str:
    """Say which tensors hold NaN or infinity, and how many.

    Args:
        tensors: Tensors of any type by name, e.g. a state dict; whole numbers are always finite.

    Returns:
        For example ``linear1.weight: 3 of 640 values are not finite, and 2 more tensors``; empty where all
        are finite.
    """
    told = []
    for name, tensor in tensors.items():
        bad = int((~tensor.isfinite()).sum())
        if bad:
            told.append(f"{name}: {bad:,} of {tensor.numel():,} values are not finite")
    more = len(told) - 1
    return "".join(told[:1]) + (f", and {more} more tensor{'s' if more > 1 else ''}" if more > 0 else "")
