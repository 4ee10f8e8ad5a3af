"""Gaussian-smoothed gradients and Hessians (Torop et al. 2023) from gradient calls alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from curvelens.derivatives import gradient
from curvelens.errors import ArgumentError
from curvelens.quadratic import LocalQuadratic
from curvelens.smoothing import directions
from curvelens.smoothing.covariance import Covariance

ESTIMATORS = ("projected", "orthogonal", "antithetic", "sobol", "plain")


def smooth_quadratic(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    sigma: float | Tensor = 0.01,
    calls: int = 4096,
    estimator: str = "projected",
    seed: int = 0,
    *,
    lengths: str = "size_biased",
    chunk: int | None = None,
) -> LocalQuadratic:
    """Return f(x), SmoothGrad and SmoothHess at x (Torop et al. 2023, eq. 7-8)."""
    if estimator not in ESTIMATORS:
        raise ArgumentError(f"estimator: {estimator!r} is unknown; choose one of {', '.join(ESTIMATORS)}")
    covariance = Covariance(sigma, x)
    size = x.numel()
    flat = x.reshape(-1)
    blocks = {
        "plain": lambda: directions.normal(size, seed, flat),
        "antithetic": lambda: directions.normal(size, seed, flat),
        "sobol": lambda: directions.sobol(size, seed, flat),
    }.get(estimator, lambda: directions.orthogonal(size, seed, lengths, flat))()
    paired = estimator != "plain"
    remaining = calls // 2 if paired else calls
    total, made = remaining, 0
    moments = [flat.new_zeros(size, size), flat.new_zeros(size, size)]
    energy = flat.new_zeros(size, size)
    weighted, weight = flat.new_zeros(size), 0.0
    for block in blocks:
        z, w = block.rows[:remaining], block.weights[:remaining]
        step = covariance.displace(z)
        points = torch.cat([flat + step, flat - step]) if paired else flat + step
        slopes = gradient(f, points.reshape(-1, *x.shape), chunk).reshape(len(points), size)
        made += len(points)
        mean = (slopes[: len(z)] + slopes[len(z) :]) / 2 if paired else slopes
        difference = (slopes[: len(z)] - slopes[len(z) :]) / 2 if paired else slopes
        D = covariance.whiten(difference)
        weighted += w @ mean
        weight += float(w.sum())
        for half in (0, 1):
            moments[half] += (D * w[:, None])[half::2].T @ z[half::2]
        energy += (D * w[:, None]).T @ D
        remaining -= len(z)
        if remaining == 0:
            break
    raw = (moments[0] + moments[1]) / total
    split = (moments[0] - moments[1]) / total
    estimate, noise = (raw + raw.T) / 2, (split + split.T) / 2
    info: dict[str, object] = {"estimator": estimator, "sigma": covariance.describe()}
    if estimator == "projected":
        values, vectors = torch.linalg.eigh(energy)
        share = values.clamp_min(0).flip(0).cumsum(0)
        rank = int((share < 0.95 * share[-1]).sum()) + 1
        basis = vectors[:, -rank:]
        estimate, noise = (basis @ (basis.T @ m @ basis) @ basis.T for m in (estimate, noise))
        info.update(rank=rank, energy=float(share[rank - 1] / share[-1]))
    error = float(noise.norm() / estimate.norm())
    curvature = covariance.unwhiten(covariance.unwhiten(estimate).T)
    with torch.no_grad():
        value = f(x[None])[0]
    return LocalQuadratic(
        value, (weighted / weight).reshape(x.shape), curvature, calls=made, error=error, info=info
    )
