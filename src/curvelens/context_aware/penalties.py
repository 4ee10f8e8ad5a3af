"""Choosing the penalty λ₂ of CAFO and CASO."""

from __future__ import annotations

import math

from torch import Tensor

from curvelens.errors import ArgumentError


def choose_l2(largest_eigenvalue: float | Tensor, c1: float = 10.0) -> float:
    """Return λ₂ = L/2 + c₁ (Singla et al. 2019, sec. 3.1).

    Args:
        largest_eigenvalue: L, largest eigenvalue of H; counted as 0 if it is negative.
        c1: Distance from the border of concavity, > 0.

    Returns:
        λ₂ > L/2.

    Raises:
        ArgumentError: if c₁ is not positive or L is not finite.
    """
    largest = float(largest_eigenvalue)
    if not math.isfinite(largest) or not (math.isfinite(c1) and c1 > 0):
        raise ArgumentError(f"choose_l2: L={largest:g} must be finite and c1={c1:g} positive; c1=10 is usual")
    return max(largest, 0.0) / 2 + c1
