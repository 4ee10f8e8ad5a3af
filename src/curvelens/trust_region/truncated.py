"""The step of Torop et al. 2023, App. D.1, which keeps the leading eigenvectors only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.trust_region.certificate import TrustRegionStep, check_problem, expand, project, residuals_of
from curvelens.trust_region.secular import solve


def truncated_paper_step(
    gradient: Tensor, eigenvalues: Tensor, eigenvectors: Tensor, radius: float, share: float
) -> TrustRegionStep:
    """Return the minimiser within the span of the leading eigenvectors, as Torop et al. 2023, eq. 66-71 do.

    Kept for comparison with :func:`solve`: the reduction drops the part of g outside the kept eigenvectors.
    The reduced problem is solved exactly instead of by the semidefinite programme of eq. 65.

    Args:
        gradient: ``g [d]``.
        eigenvalues: ``w [r]`` all non-zero eigenvalues of H, r ≥ 1, in any order.
        eigenvectors: ``V [d, r]`` with orthonormal columns.
        radius: > 0.
        share: T in (0, 1], the share of the eigenvalues' total magnitude to keep (see :func:`leading`).

    Returns:
        The step; its ``residual`` refers to the whole problem, so it shows what the truncation cost.

    Raises:
        ArgumentError: for a share outside (0, 1], no eigenvalue, or what :func:`solve` refuses.
    """
    size = check_problem(gradient, eigenvalues, eigenvectors)
    kept = leading(eigenvalues, share)
    reduced = solve(gradient, eigenvalues[kept], eigenvectors[:, kept], radius, complete=True)
    w, V = eigenvalues.detach().double(), eigenvectors.detach()
    step = reduced.step[None]
    curved = expand(V, w * project(V, step))
    lowest = float(w.min()) if w.numel() == size else min(float(w.min()), 0.0)
    spectrum = (float(w.abs().max()), lowest)
    multipliers, radii = np.array([reduced.multiplier]), np.array([reduced.radius])
    residuals = residuals_of(gradient.detach(), step, curved, multipliers, radii, spectrum)
    return replace(reduced, residual=float(residuals[0]))


def leading(eigenvalues: Tensor, share: float) -> Tensor:
    """Return the indices of the fewest eigenvalues that carry a share of the total magnitude (eq. 71).

    Args:
        eigenvalues: ``[r]`` in any order, r ≥ 1.
        share: T in (0, 1].

    Returns:
        ``[k]`` int64 indices, by decreasing magnitude.

    Raises:
        ArgumentError: for a share outside (0, 1] or no eigenvalue.
    """
    if not 0 < share <= 1:
        raise ArgumentError(f"truncated step: share must lie in (0, 1], not {share}")
    if eigenvalues.numel() == 0:
        raise ArgumentError("truncated step: no eigenvalues given; use solve for a first-order model")
    order = torch.argsort(eigenvalues.abs(), descending=True, stable=True)
    mass = eigenvalues.abs().double()[order].cumsum(0)
    k = int((mass < share * mass[-1]).sum()) + 1
    return order[: min(k, order.numel())]
