"""Products of a smoothed Hessian with given directions, from gradient calls made for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from curvelens.derivatives import gradient
from curvelens.errors import ArgumentError
from curvelens.seeds import generator
from curvelens.smoothing.covariance import Covariance

Function = Callable[[Tensor], Tensor]

_ROWS = 8  # pairs drawn and differentiated together: their number changes no result, only the memory


@dataclass(frozen=True)
class SmoothProducts:
    """Smoothed derivatives along given directions.

    Attributes:
        products: ∇²h(x) v for each direction v, [m, *shape].
        gradient: ∇h(x), [*shape]: SmoothGrad from the same calls.
        within: Independent estimates of v_iᵀ∇²h(x) v_j, [blocks, m, m], not symmetric; their mean is that of
            the products.
        calls: Gradient calls made.
    """

    products: Tensor
    gradient: Tensor
    within: Tensor
    calls: int


def smooth_products(
    f: Function, x: Tensor, directions: Tensor, sigma: float | Tensor, calls: int, seed: int = 0
) -> SmoothProducts:
    """Return products of SmoothHess with a few directions (Torop et al. 2023, eq. 7, within a subspace).

    Write ``z = Qa + r`` with Q [d, m] an orthonormal basis of the directions and ``r ⟂ Q``; a and r are
    independent. Stein's lemma in a alone gives ``Qᵀ∇²h = E a D(a, r)ᵀ`` with
    ``D(a, r) = [g(x + σ(Qa + r)) − g(x + σ(−Qa + r))] / 2σ``. Since r is the same in both points of a pair,
    the curvature along r, which is most of it where d is large, cancels instead of adding noise: where f is
    quadratic, D is HQa exactly and m pairs are enough. The a are rows of Haar-random orthogonal matrices
    times lengths ℓ from χ_{m+2} with weights m/ℓ², which is unbiased.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        x: ``[*shape]``, floating point.
        directions: ``[m, *shape]``, linearly independent, m ≥ 1.
        sigma: Standard deviation > 0, one per feature, or a Cholesky factor; see
            :func:`curvelens.smooth_quadratic`.
        calls: Gradient calls, at least 2 m; rounded down to whole blocks of 2 m.
        seed: Same seed, same random numbers.

    Returns:
        The products and SmoothGrad.

    Raises:
        ArgumentError: Shapes do not fit, calls do not suffice, or f has gradients that are not finite.
    """
    count, size = len(directions), x.numel()
    if directions.shape[1:] != x.shape or not 1 <= count <= size:
        raise ArgumentError(
            f"smooth_products: directions {list(directions.shape)} must be 1 to {size} of the shape of x, "
            f"{list(x.shape)}"
        )
    blocks = calls // (2 * count)
    if blocks < 1:
        raise ArgumentError(
            f"smooth_products: {calls} calls are too few for {count} directions; give at least {2 * count}"
        )
    covariance = Covariance(sigma, x)
    basis, triangle = torch.linalg.qr(covariance.unwhiten_transposed(directions.flatten(1).T))
    outer, total = x.new_zeros(count, size), x.new_zeros(size)
    within = x.new_zeros(blocks, count, count)
    for block in range(blocks):
        inputs, weights = _lengthened(count, generator(seed, "products", block, "inputs"), x)
        noise = generator(seed, "products", block, "rest")
        for start in range(0, count, _ROWS):
            a, w = inputs[start : start + _ROWS], weights[start : start + _ROWS]
            plus, minus = _gradients(f, x, covariance, basis, a, noise)
            change = covariance.whiten((plus - minus) / 2)
            outer += (a * w[:, None]).T @ change
            within[block] += (a * w[:, None]).T @ (change @ basis) / count
            total += ((plus + minus) / 2).sum(0)
    rows = blocks * count
    products = covariance.unwhiten(outer.T / rows) @ triangle
    return SmoothProducts(
        products.T.reshape(directions.shape),
        (total / rows).reshape(x.shape),
        triangle.T @ within @ triangle,
        2 * rows,
    )


def _lengthened(count: int, random: torch.Generator, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return a Haar-random orthogonal matrix whose rows have lengths ℓ from χ_{m+2}, and weights m/ℓ²."""
    normal = torch.randn(count, count, generator=random, dtype=torch.float64)
    rotation, triangle = torch.linalg.qr(normal)
    rotation = rotation * triangle.diagonal().sign()
    squares = torch.randn(count, count + 2, generator=random, dtype=torch.float64).square().sum(1)
    return (rotation * squares.sqrt()[:, None]).to(like), (count / squares).to(like)


def _gradients(
    f: Function, x: Tensor, covariance: Covariance, basis: Tensor, a: Tensor, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return g(x + L(Qa + r)) and g(x + L(−Qa + r)) for each row a, [rows, d] each."""
    rest = torch.randn(len(a), len(basis), generator=random, dtype=x.dtype).to(x.device)
    rest = covariance.displace(rest - (rest @ basis) @ basis.T)
    step = covariance.displace(a @ basis.T)
    points = (x.reshape(-1) + torch.cat([rest + step, rest - step])).reshape(-1, *x.shape)
    slopes = gradient(f, points).flatten(1)
    if not bool(torch.isfinite(slopes).all()):
        raise ArgumentError(
            "smooth_products: f has gradients that are not finite near x; use a smaller sigma or mend f"
        )
    return slopes[: len(a)], slopes[len(a) :]
