"""Leading eigenpairs of a smoothed Hessian known from few gradients, with values that are not inflated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.seeds import derive
from curvelens.smoothing.products import smooth_products
from curvelens.smoothing.smooth import smooth_quadratic

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Eigenpairs:
    """Directions of large curvature.

    Attributes:
        eigenvalues: vᵀ∇²h v for each direction, [k], estimated independently of it, by decreasing magnitude.
        stderr: Their standard errors, [k]; NaN where the calls gave a single estimate.
        inflated: What the estimate that gave the directions says of the same directions, [k].
        eigenvectors: v, orthonormal, [k, *shape].
        calls: Gradient calls made.
    """

    eigenvalues: Tensor
    stderr: Tensor
    inflated: Tensor
    eigenvectors: Tensor
    calls: int


def leading_eigenpairs(
    f: Function, x: Tensor, sigma: float | Tensor, k: int, calls: int, seed: int = 0
) -> Eigenpairs:
    """Return leading eigenpairs of SmoothHess, directions and values from independent halves of the calls.

    The eigenvalues of a noisy matrix spread further than those of the true one, and the leading ones by most:
    the directions were chosen for being large, noise included. Here the first half of the calls chooses k
    directions, the second measures the curvature along them (:func:`smooth_products`), which is unbiased for
    these directions. As the directions are not exactly the eigenvectors, the largest and smallest value are
    in expectation bounds from inside for the largest and smallest eigenvalue (Courant and Fischer).

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        x: ``[*shape]``, floating point.
        sigma: See :func:`curvelens.smooth_quadratic`.
        k: Directions, ≥ 1.
        calls: Gradient calls in all, at least 4 k; 8 k for a standard error.
        seed: Same seed, same result.

    Returns:
        At most k pairs: as many as the first half of the calls can tell apart.

    Raises:
        ArgumentError: k or calls is out of range, or f has gradients that are not finite.
    """
    if k < 1 or calls < 4 * k:
        raise ArgumentError(
            f"leading_eigenpairs: {calls} calls for {k} pairs; ask for k >= 1 and calls >= 4 k"
        )
    first = smooth_quadratic(f, x, sigma, calls // 2, seed=derive(seed, "eigenpairs", "directions"))
    inflated, vectors = first.eigh(k)
    directions = vectors.T.reshape(-1, *x.shape)
    if not len(directions):
        return Eigenpairs(inflated, inflated.clone(), inflated, directions, first.calls)
    second = smooth_products(
        f, x, directions, sigma, calls - calls // 2, derive(seed, "eigenpairs", "values")
    )
    blocks = second.within.diagonal(dim1=1, dim2=2)
    values = blocks.mean(0)
    stderr = blocks.std(0) / math.sqrt(len(blocks)) if len(blocks) > 1 else values * math.nan
    order = values.abs().argsort(descending=True, stable=True)
    return Eigenpairs(
        values[order], stderr[order], inflated[order], directions[order], first.calls + second.calls
    )
