"""The result of a trust-region solve, its certificate, and what every solver shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curvelens.errors import ArgumentError

Array = NDArray[np.float64]

BLOCK = 1 << 22  # entries of a matrix that are converted to float64 at a time


@dataclass(frozen=True)
class TrustRegionStep:
    """A global minimiser of ``m(s) = g·s + ½ sᵀHs`` over ``‖s‖ ≤ radius``, with its certificate.

    Attributes:
        step: ``[d]`` the minimiser s, in the dtype and on the device of the gradient.
        value: ``m(s)``, at most 0: the predicted change of the function, without the constant term.
        multiplier: λ ≥ 0 of the constraint; 0 where the minimiser lies inside the ball.
        residual: how far the step is from satisfying the conditions of Moré & Sorensen 1983; the largest of
            ``‖(H + λI)s + g‖ / (‖g‖ + (‖H‖ + λ)‖s‖)`` (stationarity),
            ``λ |radius − ‖s‖| / (‖g‖ + (‖H‖ + λ)‖s‖)`` (complementarity),
            ``max(0, −λ_min(H) − λ) / (‖H‖ + λ)`` (positive semidefiniteness of H + λI) and
            ``max(0, ‖s‖ / radius − 1)`` (feasibility), evaluated at the returned, rounded step.
        hard_case: whether λ equals −λ_min(H) > 0 to rounding, since g is orthogonal to the lowest eigenspace;
            a multiple of a lowest eigenvector then reaches the sphere, and its mirror image is as good.
        radius: the radius, in the units of the input.
    """

    step: Tensor
    value: float
    multiplier: float
    residual: float
    hard_case: bool
    radius: float


def as_radii(radius: float | Sequence[float]) -> Array:
    """Return one or several radii as ``[m]`` float64; refuse what is not positive and finite."""
    radii = np.atleast_1d(np.asarray(radius, dtype=np.float64))
    if radii.ndim != 1 or radii.size == 0:
        raise ArgumentError("trust region: radius must be a number or a non-empty list of numbers")
    if not (np.isfinite(radii).all() and (radii > 0).all()):
        raise ArgumentError(f"trust region: every radius must be positive and finite, not {radii.tolist()}")
    return radii


def check_problem(gradient: Tensor, eigenvalues: Tensor, eigenvectors: Tensor) -> int:
    """Refuse shapes ``[d], [r], [d, r]`` that do not fit and values that are not finite; return d."""
    size = gradient.numel()
    if gradient.ndim != 1 or size == 0:
        raise ArgumentError(f"trust region: gradient must be a flat vector [d], not {list(gradient.shape)}")
    expected = (size, eigenvalues.numel())
    if eigenvalues.ndim != 1 or eigenvectors.shape != expected or expected[1] > size:
        found = f"{list(eigenvalues.shape)} and {list(eigenvectors.shape)}"
        raise ArgumentError(
            f"trust region: eigenvalues [r] and eigenvectors [{size}, r] with r ≤ {size} wanted, got {found}"
        )
    for name, array in (("gradient", gradient), ("eigenvalues", eigenvalues)):
        if not torch.isfinite(array).all():
            raise ArgumentError(
                f"trust region: {name} holds NaN or infinity; check the function at this point"
            )
    return size


def _blocks(V: Tensor) -> list[slice]:
    rows = max(1, BLOCK // max(1, V.shape[1]))
    return [slice(start, start + rows) for start in range(0, V.shape[0], rows)]


def project(V: Tensor, A: Tensor) -> Tensor:
    """``A V`` in float64, converted by blocks of V's rows: V ``[d, r]``, A ``[m, d]`` -> ``[m, r]``."""
    parts = [A[:, rows].double() @ V[rows].double() for rows in _blocks(V)]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def expand(V: Tensor, Y: Tensor) -> Tensor:
    """``Y Vᵀ`` in float64, converted by blocks of V's rows: V ``[d, r]``, Y ``[m, r]`` -> ``[m, d]``."""
    parts = [Y @ V[rows].double().T for rows in _blocks(V)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def into_ball(steps: Tensor, radii: Array) -> Tensor:
    """Shrink the rows of ``[m, d]`` that rounding pushed outside their radius."""
    norms = steps.double().norm(dim=1)
    bound = torch.from_numpy(radii).to(norms.device)
    factors = torch.where(norms > bound, bound / norms.clamp(min=torch.finfo(torch.float64).tiny), 1.0)
    return steps * factors.to(steps.dtype)[:, None]


def residuals_of(
    g: Tensor, steps: Tensor, curved: Tensor, multipliers: Array, radii: Array, spectrum: tuple[float, float]
) -> Array:
    """The residual that :class:`TrustRegionStep` defines, for the rows of ``steps [m, d]``.

    ``curved`` is ``H s [m, d]`` and ``spectrum`` is ``(‖H‖, λ_min(H))``.
    """
    s = steps.double()
    multiplier = torch.from_numpy(multipliers).to(s.device)[:, None]
    stationary = (curved.double() + multiplier * s + g.double()).norm(dim=1).cpu().numpy()
    norms = s.norm(dim=1).cpu().numpy()
    size, lowest = spectrum
    scale = float(g.double().norm()) + (size + multipliers) * norms
    complementary = multipliers * np.abs(radii - norms)
    indefinite = np.maximum(0.0, -lowest - multipliers)
    tiny = np.finfo(np.float64).tiny
    parts = (
        stationary / np.maximum(scale, tiny),
        complementary / np.maximum(scale, tiny),
        indefinite / np.maximum(size + multipliers, tiny),
        np.maximum(0.0, norms / radii - 1),
    )
    return np.max(parts, axis=0)


def pack(
    radius: float | Sequence[float],
    steps: Tensor,
    values: Array,
    multipliers: Array,
    residuals: Array,
    hard: NDArray[np.bool_],
    radii: Array,
) -> TrustRegionStep | list[TrustRegionStep]:
    """One result for a number, a list for a sequence."""
    results = [
        TrustRegionStep(steps[i], float(v), float(m), float(e), bool(h), float(r))
        for i, (v, m, e, h, r) in enumerate(zip(values, multipliers, residuals, hard, radii, strict=True))
    ]
    return results[0] if np.ndim(radius) == 0 else results
