"""The exact step from the eigenpairs of H, by the secular equation (Moré & Sorensen 1983)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curvelens.trust_region.certificate import (
    BLOCK,
    Array,
    TrustRegionStep,
    as_radii,
    check_problem,
    expand,
    into_ball,
    pack,
    project,
    residuals_of,
)

_NEGLIGIBLE = 1e-290  # a scaled coefficient below this is taken as zero where the curvature is flat, too


@overload
def solve(
    gradient: Tensor, eigenvalues: Tensor, eigenvectors: Tensor, radius: float, complete: bool | None = None
) -> TrustRegionStep: ...
@overload
def solve(
    gradient: Tensor,
    eigenvalues: Tensor,
    eigenvectors: Tensor,
    radius: Sequence[float],
    complete: bool | None = None,
) -> list[TrustRegionStep]: ...
def solve(
    gradient: Tensor,
    eigenvalues: Tensor,
    eigenvectors: Tensor,
    radius: float | Sequence[float],
    complete: bool | None = None,
) -> TrustRegionStep | list[TrustRegionStep]:
    """Minimise ``g·s + ½ sᵀHs`` over ``‖s‖ ≤ radius`` exactly, with ``H = V diag(w) Vᵀ``.

    The secular equation ``‖s(λ)‖ = radius`` is solved by a safeguarded Newton iteration on ``1/‖s(λ)‖`` in
    float64 (Moré & Sorensen 1983, Sec. 3), in the variable ``λ + λ_min``, which keeps its relative accuracy
    in the nearly hard case. Where the eigenvectors do not span the space, H is zero outside their span, and
    the solution lies in that span and the component of g outside it.

    Args:
        gradient: ``g [d]``.
        eigenvalues: ``w [r]`` in any order, 0 ≤ r ≤ d; r = 0 means H = 0.
        eigenvectors: ``V [d, r]`` with orthonormal columns.
        radius: one radius > 0, or several; all are solved from the same factorisation.
        complete: whether V is to be taken as the whole space, so that the part of g outside its span is
            dropped; None means r == d.

    Returns:
        One :class:`TrustRegionStep`, or a list in the order of the radii.

    Raises:
        ArgumentError: for a radius that is not positive and finite, shapes that do not fit, or values that
            are not finite.
    """
    radii = as_radii(radius)
    size = check_problem(gradient, eigenvalues, eigenvectors)
    whole = eigenvalues.numel() == size if complete is None else complete
    g = gradient.detach().double()
    w = eigenvalues.detach().double().cpu().numpy()
    V = eigenvectors.detach()
    if V.numel() <= BLOCK:
        V = V.double()
    coefficients = project(V, g[None])[0]
    outside, length = _outside(V, g, coefficients, gradient.dtype, whole)
    c = coefficients.cpu().numpy()
    if not whole:
        w, c = np.append(w, 0.0), np.append(c, length)
    y, multipliers, hard = solve_diagonal(w, c, radii, _lowest_sign(V, w))
    coordinates = torch.from_numpy(y).to(g.device)
    steps = expand(V, coordinates[:, : V.shape[1]])
    if not whole:
        steps += coordinates[:, -1:] * outside
    steps = into_ball(steps.to(gradient.dtype), radii)
    values = (y * (c + 0.5 * y * w)).sum(axis=1)
    spectrum = (float(np.abs(w).max(initial=0.0)), float(w.min(initial=math.inf)))
    curved = expand(V, eigenvalues.detach().double() * project(V, steps))
    residuals = residuals_of(g, steps, curved, multipliers, radii, spectrum)
    return pack(radius, steps, values, multipliers, residuals, hard, radii)


def _outside(V: Tensor, g: Tensor, c: Tensor, dtype: torch.dtype, whole: bool) -> tuple[Tensor, float]:
    """Unit direction ``[d]`` and length of the part of g outside the span of V; 0 where it is rounding."""
    if whole:
        return torch.zeros_like(g), 0.0
    rest = g - expand(V, c[None])[0]
    rest -= expand(V, project(V, rest[None]))[0]  # the first pass leaves rounding
    length = float(rest.norm())
    if length <= 8 * torch.finfo(dtype).eps * math.sqrt(g.numel()) * float(g.norm()):
        return torch.zeros_like(g), 0.0
    return rest / length, length


def _lowest_sign(V: Tensor, w: Array) -> float:
    """Sign that makes the lowest eigenvector's largest entry positive: the same step on every machine."""
    if V.shape[1] == 0:
        return 1.0
    column = V[:, min(int(np.argmin(w)), V.shape[1] - 1)]
    return 1.0 if float(column[column.abs().argmax()]) >= 0 else -1.0


def solve_diagonal(
    w: Array, c: Array, radii: Array, sign: float = 1.0
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Minimise ``c·y + ½ Σ wᵢyᵢ²`` over ``‖y‖ ≤ radius`` for each radius.

    Works on the unit ball, ``u = y/radius``, in units where no coefficient exceeds 1, and in the shift
    ``t = λ − max(0, −min w)`` against the gaps ``wᵢ + max(0, −min w)``, of which the smallest is exact.

    Args:
        w: ``[r]`` eigenvalues.
        c: ``[r]`` gradient in the eigenbasis.
        radii: ``[m]``.
        sign: of the multiple of the lowest eigenvector added in the hard case.

    Returns:
        y ``[m, r]``, λ ``[m]`` and whether each was a hard case ``[m]``.
    """
    unit = np.maximum(np.abs(w).max(), np.abs(c).max() / radii)  # [m]
    if not unit.any():
        return np.zeros((radii.size, w.size)), np.zeros(radii.size), np.zeros(radii.size, dtype=bool)
    base = max(0.0, -float(w.min()))
    gaps = (w + base)[None] / unit[:, None]
    b = (c[None] / radii[:, None]) / unit[:, None]
    t = np.zeros(radii.size)
    b[(np.abs(b) <= _NEGLIGIBLE) & (gaps <= math.sqrt(_NEGLIGIBLE))] = 0.0
    with np.errstate(over="ignore"):
        at_zero = np.divide(b, gaps, out=np.where(b != 0, np.inf, 0.0), where=gaps > 0)
        outside = np.linalg.norm(at_zero, axis=1) > 1
    if outside.any():
        t[outside] = _shift(np.abs(b[outside]), gaps[outside])
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.where(outside[:, None], -b / (gaps + t[:, None]), -at_zero)
    hard = ~outside & (base > 0)
    lowest = int(np.argmin(w))
    room = np.sqrt(np.maximum(0.0, 1.0 - (u * u).sum(axis=1)))
    u[hard, lowest] += sign * room[hard]
    touching = (base > 0) & (t * unit <= 4 * np.finfo(np.float64).eps * base)
    return u * radii[:, None], base + t * unit, hard | touching


def _shift(b: Array, gaps: Array) -> Array:
    """Root t > 0 of ``‖b / (gaps + t)‖ = 1`` for each row, with ``‖b / gaps‖ > 1``.

    ``1/‖·‖`` is concave and increasing in t, so Newton from the left of the root converges monotonically; the
    bracket guards against rounding.

    Args:
        b: ``[m, r]`` in [0, 1].
        gaps: ``[m, r]`` in [0, 2].

    Returns:
        ``[m]``.
    """
    gaps = np.where(b > 0, gaps, 1.0)
    low = np.maximum(0.0, (b - gaps).max(axis=1))
    high = np.linalg.norm(b, axis=1) - gaps.min(axis=1, where=b > 0, initial=2.0)
    high = np.maximum(high, low)
    t = low
    for _ in range(200):
        shifted = gaps + t[:, None]
        terms = (b / shifted) ** 2
        squared = terms.sum(axis=1)
        norm = np.sqrt(squared)
        low, high = np.where(norm >= 1, t, low), np.where(norm < 1, t, high)
        proposal = t + (norm - 1) * squared / (terms / shifted).sum(axis=1)
        proposal = np.where((proposal >= low) & (proposal <= high), proposal, 0.5 * (low + high))
        if (np.abs(proposal - t) <= 2 * np.finfo(np.float64).eps * proposal).all():
            return proposal
        t = proposal
    return t
