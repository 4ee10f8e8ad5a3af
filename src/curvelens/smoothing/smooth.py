"""Local quadratic models of Gaussian-smoothed functions, from gradient calls alone (Torop et al. 2023).

With h(x) = E f(x + δ), δ ~ N(0, Σ), the gradient is ∇h = E g(x + δ) (SmoothGrad) and the Hessian is
∇²h = E Σ⁻¹ δ g(x + δ)ᵀ (SmoothHess, eq. 7). The value is f(x), not h(x) (eq. 10). The estimators, with
z ~ N(0, I) and D(z) = [g(x + σz) − g(x − σz)]/2σ, for which ∇²h = E z D(z)ᵀ:

- ``regression`` (default): orthogonal directions; the symmetric H that fits D ≈ H z by generalised least
  squares, in which directions along which the gradient hardly changes add hardly any noise. With fewer pairs
  than features, within the leading eigenspace of Σ D Dᵀ.
- ``projected``: orthogonal directions; the mean of sym(z Dᵀ), projected onto that eigenspace.
- ``orthogonal``: the mean of sym(z Dᵀ) over the rows of Haar-random orthogonal matrices.
- ``antithetic`` and ``sobol``: the same over independent or scrambled Sobol normals.
- ``plain``: the mean of sym(z g(x + σz)ᵀ)/σ over independent normals, eq. 8 as printed.

The last four are unbiased. ``projected`` leaves out what lies outside its subspace. ``regression`` finds its
weights in the same rows: a bias of second order in the noise, none on quadratics.

Lengths of orthogonal directions: ``size_biased`` draws ℓ from χ_{d+2} and weights by d/ℓ², which is unbiased
and recovers a quadratic exactly from one orthogonal matrix. ``fixed``, ℓ = √d, recovers quadratics too but
averages over a sphere instead of a Gaussian: a bias of order 1/d, negligible at d = 784 but not at d = 2.
``chi`` draws ℓ from χ_d: unbiased, but exact on quadratics only with ``regression`` up to 128 features. The
first is the default from 3 features on; below, its weights give SmoothGrad an infinite variance, and ``chi``
is. A number of calls that is a multiple of 2d uses whole orthogonal matrices; the rows of an incomplete one
enter as corrections.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from curvelens.derivatives import value
from curvelens.errors import ArgumentError
from curvelens.quadratic import LocalQuadratic, LowRank, MatrixFree
from curvelens.smoothing.covariance import Covariance
from curvelens.smoothing.directions import LENGTHS, Directions
from curvelens.smoothing.estimators import Estimate, averaged, averaged_operator, projected, regression
from curvelens.smoothing.moments import DenseMoments, RowMoments
from curvelens.smoothing.sampling import Sampler

ESTIMATORS = ("regression", "projected", "orthogonal", "antithetic", "sobol", "plain")
DEFAULT = "regression"

_LAWS = {"plain": "normal", "antithetic": "normal", "sobol": "sobol"}
_DENSE_FEATURES = 4096  # above, no d×d matrix is formed unless the caller asks for it
_BATCH_ROWS = 2048  # directions evaluated together at most
_BATCH_ELEMENTS = 2**23  # numbers in a batch of directions: several copies of it exist at a time
_FIRST_CALLS = 256  # of calls="auto"

Function = Callable[[Tensor], Tensor]
Moments = DenseMoments | RowMoments


@dataclass(frozen=True)
class GradientMoments:
    """Moments of the gradient of f at x + δ, δ ~ N(0, Σ).

    Attributes:
        mean: SmoothGrad, [*shape].
        variance: VarGrad, [*shape]. That of the even part of the gradient among n pairs is divided by n − 1,
            which is unbiased for independent directions; orthogonal ones make it too large by 1/(n − 1) at
            most.
        stderr: Standard error of the mean, [*shape], as if directions were independent.
        calls: Gradient calls made.
    """

    mean: Tensor
    variance: Tensor
    stderr: Tensor
    calls: int


def smooth_quadratic(
    f: Function,
    x: Tensor,
    sigma: float | Tensor = 0.01,
    calls: int | Literal["auto"] = 4096,
    estimator: str = DEFAULT,
    seed: int = 0,
    *,
    lengths: str | None = None,
    rank: int | float | None = None,
    tolerance: float = 0.05,
    max_calls: int = 2**17,
    chunk: int | None = None,
    matrix_free: bool | None = None,
) -> LocalQuadratic:
    """Return f(x), SmoothGrad and SmoothHess at x (Torop et al. 2023, eq. 7 and 10; see the module).

    Args:
        f: Scalar, [B, *shape] -> [B].
        x: [*shape], floating point; everything follows its dtype and device.
        sigma: Standard deviation > 0 in units of x; or one per feature, [*shape]; or a Cholesky factor L of
            Σ, lower triangular [d, d].
        calls: Gradient calls, ≥ 2, rounded down to whole pairs (not by "plain"). "auto" doubles from 256
            until ``.error`` ≤ tolerance.
        estimator: "regression", "projected", "orthogonal", "antithetic", "sobol" or "plain".
        seed: Same seed, same directions, whatever the chunk; also for several sigma, where it saves time.
        lengths: Of orthogonal directions: "size_biased", "chi" or "fixed"; None for "size_biased", for d ≤ 2
            "chi".
        rank: Of "projected": columns kept, ≥ 1; or a share of energy to retain, in (0, 1); None chooses the
            rank of least estimated risk.
        tolerance: Of calls="auto", > 0.
        max_calls: Of calls="auto", ≥ 2.
        chunk: Points differentiated at once; None chooses by memory. Does not change the result.
        matrix_free: Whether to avoid d×d matrices; None does for d > 4096. The curvature is then low-rank
            for "regression" and "projected", a product with all rows for the others.

    Returns:
        The local model. ``.calls``: gradient calls made. ``.error``: estimated relative Frobenius error of
        the curvature where Σ = I; inf where noise hides it. ``.info``: estimator, sigma, lengths,
        smoothed_value (h(x)), value_calls (of f alone), gradient_error (relative, estimated),
        gradient_variance (VarGrad, [*shape]), gradient_stderr (of SmoothGrad, [*shape]), and the rank
        of the leading eigenspace with the share of ‖D‖² in it (energy). Of "regression" also
        eigenvalue_error: the spectral norm of half the difference between fits to two halves of the rows, by
        about which eigenvalues may be off (Weyl's inequality); NaN from very few rows.

    Raises:
        ArgumentError: for arguments out of range, or gradients that are not finite.
    """
    lengths = lengths or ("size_biased" if x.numel() > 2 else "chi")
    _check(x, calls, estimator, lengths, rank, tolerance, max_calls)
    moments = _moments(x, estimator, matrix_free)
    sampler = _sampler(f, x.detach(), sigma, moments, estimator, seed, lengths, chunk)
    for target in _targets(calls, max_calls):
        _collect(sampler, moments, target)
        estimate = _estimate(moments, estimator, rank)
        if estimate.relative_error() <= tolerance:
            break
    return _model(sampler, estimate, estimator, lengths)


def smooth_gradient(
    f: Function, x: Tensor, sigma: float | Tensor, calls: int, seed: int = 0, chunk: int | None = None
) -> GradientMoments:
    """Return mean and variance of the gradient over the points of :func:`curvelens.smooth_quadratic`.

    With the same arguments the mean is that model's gradient, to the last bit: asking for the curvature as
    well changes nothing.

    Args:
        f: Scalar, [B, *shape] -> [B].
        x: [*shape], floating point.
        sigma: Standard deviation > 0, one per feature, or a Cholesky factor.
        calls: Gradient calls, ≥ 4, rounded down to whole pairs ±δ.
        seed: Same seed, same points.
        chunk: Points differentiated at once; None chooses by memory.

    Raises:
        ArgumentError: if an argument is out of range, or f has gradients that are not finite.
    """
    size = x.numel()
    if size == 0 or not x.is_floating_point():
        raise ArgumentError(f"smooth_gradient: x {list(x.shape)} must hold floating-point features")
    if calls < 4:
        raise ArgumentError(f"smooth_gradient: {calls} calls give no variance; make at least 4")
    lengths = "size_biased" if size > 2 else "chi"
    directions = Directions("orthogonal", size, seed, x.reshape(-1), lengths, size <= _DENSE_FEATURES)
    sampler = Sampler(f, x.detach(), Covariance(sigma, x), directions, True, chunk)
    drawn = 0
    while drawn < calls // 2:
        rows = min(_batch(size), calls // 2 - drawn)
        sampler.draw(rows)
        drawn += rows
    variance, stderr = sampler.spread()
    return GradientMoments(sampler.gradient()[0], variance, stderr, sampler.calls)


def _targets(calls: int | Literal["auto"], max_calls: int) -> Iterator[int]:
    """Yield the numbers of calls after which to look at the error."""
    if calls != "auto":
        yield calls
        return
    target = _FIRST_CALLS
    while target < max_calls:
        yield target
        target *= 2
    yield max_calls


def _moments(x: Tensor, estimator: str, matrix_free: bool | None) -> Moments:
    size = x.numel()
    if size > _DENSE_FEATURES if matrix_free is None else matrix_free:
        return RowMoments(size)
    return DenseMoments(size, 1 if estimator in _LAWS else size, x.detach().reshape(-1))


def _sampler(
    f: Function,
    x: Tensor,
    sigma: float | Tensor,
    moments: Moments,
    estimator: str,
    seed: int,
    lengths: str,
    chunk: int | None,
) -> Sampler:
    size = x.numel()
    whole = isinstance(moments, DenseMoments) or size <= _DENSE_FEATURES
    law = _LAWS.get(estimator, "orthogonal")
    directions = Directions(law, size, seed, x.reshape(-1), lengths, whole)
    return Sampler(f, x, Covariance(sigma, x), directions, estimator != "plain", chunk)


def _check(
    x: Tensor,
    calls: int | str,
    estimator: str,
    lengths: str,
    rank: int | float | None,
    tolerance: float,
    max_calls: int,
) -> None:
    if not x.is_floating_point() or x.numel() == 0:
        raise ArgumentError(f"x: needs at least one feature of floating point, got {list(x.shape)} {x.dtype}")
    if estimator not in ESTIMATORS:
        raise ArgumentError(f"estimator: {estimator!r} is unknown; choose one of {', '.join(ESTIMATORS)}")
    if lengths not in LENGTHS:
        raise ArgumentError(f"lengths: {lengths!r} is unknown; choose one of {', '.join(LENGTHS)}")
    if calls != "auto" and (not isinstance(calls, int) or calls < 2):
        raise ArgumentError(f"calls: must be 'auto' or at least 2, got {calls!r}")
    if max_calls < 2 or not tolerance > 0:
        raise ArgumentError(
            f"calls='auto': needs max_calls >= 2, tolerance > 0, got {max_calls} and {tolerance}"
        )
    if rank is not None and not (0 < rank < 1 if isinstance(rank, float) else rank >= 1):
        raise ArgumentError(f"rank: must be an integer >= 1 or a share of energy in (0, 1), got {rank!r}")


def _collect(sampler: Sampler, moments: Moments, calls: int) -> None:
    """Draw until ``calls`` gradient calls have been made, rounded down to whole pairs."""
    wanted = calls // 2 if sampler.paired else calls
    while moments.count < wanted:
        moments.add(*sampler.draw(min(_batch(moments.size), wanted - moments.count)))


def _batch(size: int) -> int:
    """Return how many directions of ``size`` features are evaluated together."""
    return max(1, min(_BATCH_ROWS, _BATCH_ELEMENTS // size))


def _estimate(moments: Moments, estimator: str, rank: int | float | None) -> Estimate:
    if estimator == "regression":
        return regression(moments)
    if estimator == "projected":
        return projected(moments, rank)
    return averaged(moments) if isinstance(moments, DenseMoments) else averaged_operator(moments)


def _model(sampler: Sampler, estimate: Estimate, estimator: str, lengths: str) -> LocalQuadratic:
    covariance = sampler.covariance
    gradient, gradient_error = sampler.gradient()
    variance, stderr = sampler.spread()
    info: dict[str, Any] = {
        "estimator": estimator,
        "sigma": covariance.describe(),
        "smoothed_value": sampler.value(),
        "value_calls": 1,
        "gradient_error": gradient_error,
        "gradient_variance": variance,
        "gradient_stderr": stderr,
        **estimate.info,
    }
    if estimator not in _LAWS:
        info["lengths"] = lengths
    if estimate.halves is not None:
        info["eigenvalue_error"] = _spectral_norm(*estimate.halves, covariance)
    return LocalQuadratic(
        value(sampler.f, sampler.x[None])[0],
        gradient,
        _unwhitened(estimate.curvature, covariance),
        calls=sampler.calls,
        error=estimate.relative_error(),
        info=info,
    )


def _spectral_norm(basis: Tensor, matrix: Tensor, covariance: Covariance) -> float:
    """Return ‖L⁻ᵀ U M Uᵀ L⁻¹‖₂."""
    if not bool(torch.isfinite(matrix).all()):
        return math.nan
    triangle = torch.linalg.qr(covariance.unwhiten(basis), mode="r")[1].double()
    return float(torch.linalg.matrix_norm(triangle @ matrix @ triangle.T, 2))


def _unwhitened(
    curvature: Tensor | LowRank | MatrixFree, covariance: Covariance
) -> Tensor | LowRank | MatrixFree:
    """Return L⁻ᵀ H_u L⁻¹, the Hessian in x-space."""
    if isinstance(curvature, Tensor):
        return covariance.unwhiten(covariance.unwhiten(curvature).T)
    if isinstance(curvature, LowRank):
        return LowRank(covariance.unwhiten(curvature.factor), curvature.weights)
    inner = curvature.matvec
    return MatrixFree(
        lambda columns: covariance.unwhiten(inner(covariance.unwhiten_transposed(columns))), curvature.size
    )
