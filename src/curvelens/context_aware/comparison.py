"""Comparing and showing explanations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from curvelens.context_aware.proximal import penalty
from curvelens.errors import ArgumentError

if TYPE_CHECKING:
    from curvelens.context_aware.explanation import Array


def _unit(a: Array, name: str) -> Tensor:
    flat = torch.as_tensor(a).detach().reshape(-1).to(device="cpu", dtype=torch.float64)
    length = float(flat.norm())
    if not (math.isfinite(length) and length > 0):
        raise ArgumentError(
            f"{name}: length {length:g} has no direction; compare explanations that are finite and not zero"
        )
    return flat / length


def _units(a: Array, b: Array, name: str) -> tuple[Tensor, Tensor]:
    first, second = _unit(a, name), _unit(b, name)
    if len(first) != len(second):
        raise ArgumentError(
            f"{name}: {len(first)} and {len(second)} features; compare explanations of one input"
        )
    return first, second


def distance(a: Array, b: Array) -> float:
    """Return the distance of two explanations scaled to unit length (Singla et al. 2019, fig. 1 and 10).

    Args:
        a: [*shape].
        b: [*shape].

    Returns:
        Frobenius norm ‖a/‖a‖ − b/‖b‖‖, in [0, 2].

    Raises:
        ArgumentError: if an explanation is zero or not finite, or the sizes differ.
    """
    first, second = _units(a, b, "distance")
    return float((first - second).norm())


def angle(a: Array, b: Array) -> float:
    """Return the angle between two explanations, accurate for small angles too.

    Args:
        a: [*shape].
        b: [*shape].

    Returns:
        Degrees, in [0, 180].

    Raises:
        ArgumentError: if an explanation is zero or not finite, or the sizes differ.
    """
    first, second = _units(a, b, "angle")
    return math.degrees(2 * math.atan2(float((first - second).norm()), float((first + second).norm())))


def kantorovich_distance(largest: float, l2: float, smallest: float = 0.0) -> float:
    """Return the largest distance that CASO and CAFO can have at λ₁ = 0.

    Kantorovich's inequality gives cos ∠(g, A⁻¹g) ≥ 2√κ/(1 + κ) for A = 2λ₂I − H with condition number
    κ = (2λ₂ − l)/(2λ₂ − L); on unit vectors that is a distance of at most (√κ − 1)·√(2/(1 + κ)) < √2. For two
    eigenvalues l and L of H some g attains it.

    Args:
        largest: L, largest eigenvalue of H.
        l2: λ₂ > L/2.
        smallest: l, smallest eigenvalue of H; 0 fits every positive semidefinite H.

    Returns:
        Largest distance, in [0, √2).

    Raises:
        ArgumentError: if λ₂ ≤ L/2 or l > L.
    """
    if not (2 * l2 > largest >= smallest):
        raise ArgumentError(
            f"kantorovich_distance: needs 2λ₂={2 * l2:g} > L={largest:g} ≥ l={smallest:g}; take choose_l2(L)"
        )
    root = math.sqrt((2 * l2 - smallest) / (2 * l2 - largest))
    return (root - 1) * math.sqrt(2 / (1 + root * root))


def sparsity(delta: Array, groups: Array | None = None) -> float:
    """Return η, the share of pixels that are zero in every channel (Singla et al. 2019, sec. 4.1).

    Args:
        delta: [C, H, W], or any other shape, of which every entry is then a pixel.
        groups: As for :func:`~curvelens.context_aware.caso`; η is then the share of zero groups.

    Returns:
        η in [0, 1].

    Raises:
        ArgumentError: if the groups do not fit.
    """
    values = torch.as_tensor(delta).detach()
    if groups is None:
        return float((_pixels(values) == 0).double().mean())
    made = penalty(torch.as_tensor(groups).to(values.device), values.shape)
    return float((made.lengths(values.reshape(-1)) == 0).double().mean())


def _pixels(attribution: Tensor) -> Tensor:
    magnitude = attribution.detach().abs()
    return magnitude.sum(0) if magnitude.ndim == 3 else magnitude


def normalise(attribution: Array, percentile: float = 99.0) -> Tensor:
    """Return an explanation as a picture: magnitude, summed over channels, capped, scaled (Singla et al.
    2019, App. D).

    Args:
        attribution: [C, H, W]; any other shape is taken as pixels without channels.
        percentile: Percentile of the magnitudes that becomes 1, in (0, 100]. Where it is zero, because fewer
            pixels than that are not, the largest magnitude becomes 1.

    Returns:
        [H, W] (or the given shape), in [0, 1]; zeros for a zero explanation.

    Raises:
        ArgumentError: if the percentile is out of range or the explanation is not finite.
    """
    if not 0 < percentile <= 100:
        raise ArgumentError(f"normalise: percentile={percentile:g} must be in (0, 100]; 99 is usual")
    pixels = _pixels(torch.as_tensor(attribution))
    if pixels.numel() == 0 or not bool(torch.isfinite(pixels).all()):
        raise ArgumentError("normalise: the explanation must be a non-empty array of finite numbers")
    ordered = pixels.reshape(-1).sort().values
    position = percentile / 100 * (len(ordered) - 1)
    below = ordered[math.floor(position)]
    cap = float(below + (ordered[math.ceil(position)] - below) * (position % 1))
    cap = cap if cap > 0 else float(ordered[-1])
    return (pixels / cap).clamp(max=1) if cap > 0 else torch.zeros_like(pixels)
