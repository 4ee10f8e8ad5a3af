"""From rows z_i, D_i with H = E z Dᵀ to a curvature and an estimate of its error.

All matrices are those of the whitened space, where z ~ N(0, I).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from curvelens.quadratic import LowRank, MatrixFree
from curvelens.smoothing.moments import DenseMoments, Leading, RowMoments
from curvelens.smoothing.subspace import Fit, fit_symmetric, spread

_NEGLIGIBLE = 1e-7  # eigenvalues below this share of the largest are left out of a low-rank curvature
_NEGLIGIBLE_TRUNCATION = 1e-2  # of the variance: what may be left out for the sake of a low rank
_PROBES = 16  # random vectors that estimate the norm of an operator


@dataclass(frozen=True)
class Estimate:
    """A curvature in the whitened space.

    Attributes:
        curvature: [d, d], or a low-rank or matrix-free operator.
        variance: Estimated squared Frobenius error from the finite number of rows.
        truncated: Estimated squared norm of what a projection left out.
        norm: Frobenius norm of the curvature.
        halves: A basis U [d, r], and half the difference of the fits to two halves of the rows, [r, r].
        info: What else to report.
    """

    curvature: Tensor | LowRank | MatrixFree
    variance: float
    norm: float
    truncated: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)
    halves: tuple[Tensor, Tensor] | None = None

    def relative_error(self) -> float:
        """Return the estimated relative Frobenius error; inf where noise hides the curvature altogether."""
        error = self.variance + self.truncated
        if error == 0:
            return 0.0
        true_norm = self.norm**2 - self.variance + self.truncated
        return math.sqrt(error / true_norm) if true_norm > 0 else math.inf


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def _mean_outer(moments: DenseMoments, fitted: Tensor | None) -> Tensor:
    """Return Σ D zᵀ/n, [d, d].

    Rows of an incomplete orthogonal matrix have Σ z zᵀ ≠ n I. They enter as corrections (D − H₀z) zᵀ to the
    H₀ fitted to the whole matrices, which is independent of them: unbiased, and exact on quadratics.
    """
    folded, outer, _ = moments.folded()
    z, D = moments.tail()
    if not len(z):
        return outer / folded
    if fitted is None:
        return (outer + D.T @ z) / moments.count
    return (outer + (D - z @ fitted).T @ z + len(z) * fitted) / moments.count


def averaged(moments: DenseMoments) -> Estimate:
    """Return the symmetrised mean of D zᵀ (Torop et al. 2023, eq. 8b), [d, d].

    Its variance comes from the spread between whole matrices or, for independent rows, between rows; from one
    orthogonal matrix alone, from the antisymmetric part of the mean, which is pure noise.
    """
    folded, total, squares = moments.folded()
    whole = folded // moments.unit
    fitted = _symmetric(total) / folded if whole else None
    outer = _mean_outer(moments, fitted)
    H = _symmetric(outer)
    norm = float(H.norm())
    if fitted is None:
        variance = _row_variance(*moments.tail(), norm)
    elif whole > 1:
        variance = squares / moments.unit**2 - whole * float(fitted.norm()) ** 2
        variance *= folded / moments.count / (whole * (whole - 1))
    elif moments.unit > 1:
        variance = float((outer - outer.T).norm()) ** 2 / 4
    else:
        variance = math.inf
    return Estimate(H, max(0.0, variance), norm)


def _row_variance(z: Tensor, D: Tensor, norm: float) -> float:
    """Return the squared error of the mean of sym(D zᵀ) over independent rows (an upper bound for others)."""
    n = len(z)
    if n < 2:
        return math.inf
    lengths = (D.double().square().sum(1) * z.double().square().sum(1) + (D * z).double().sum(1).square()) / 2
    return max(0.0, (float(lengths.mean()) - norm**2) / (n - 1))


def averaged_operator(moments: RowMoments) -> Estimate:
    """Return the estimate of :func:`averaged` as products ½[Dᵀ(Z v) + Zᵀ(D v)]/n, without a d×d matrix."""
    z, D = moments.rows()
    n = len(z)

    def matvec(columns: Tensor) -> Tensor:
        return (D.T @ (z @ columns) + z.T @ (D @ columns)) / (2 * n)

    random = torch.Generator().manual_seed(0)
    probes = torch.randn(moments.size, _PROBES, generator=random, dtype=z.dtype).to(z.device)
    norm = float(matvec(probes).norm()) / math.sqrt(_PROBES)
    return Estimate(MatrixFree(matvec, moments.size), _row_variance(z, D, norm), norm)


def projected(moments: DenseMoments | RowMoments, rank: int | float | None) -> Estimate:
    """Return Q sym(Qᵀ E[D zᵀ] Q) Qᵀ with Q the leading eigenvectors of Σ D Dᵀ, as a low-rank curvature.

    Args:
        moments: Rows or sums.
        rank: Columns of Q; a share of the energy in (0, 1) that Q retains; or None: the rank of least risk,
            where the noise is read from the antisymmetric part of the mean.
    """
    lead = moments.leading(moments.size if isinstance(rank, float) else rank)
    outer = lead.outer
    if isinstance(moments, DenseMoments):
        folded, total, _ = moments.folded()
        fitted = _symmetric(total) / folded if folded else None
        outer = (lead.basis.T @ _mean_outer(moments, fitted) @ lead.basis).double()
    share = lead.covariance.diagonal() / lead.energy if lead.energy > 0 else torch.ones_like(lead.D[0])
    k = _choose_rank(outer, share.cumsum(0), rank)
    H, z, D = _symmetric(outer[:k, :k]), lead.z[:, :k], lead.D[:, :k]
    half = torch.full_like(H, 0.5)
    variance = spread(D - z @ H, z, half, torch.full_like(z[0], k / 2), lead.together) * len(z) / lead.count
    retained = min(1.0, float(share[:k].sum()))
    norm = float(H.norm())
    info = {"rank": k, "energy": retained}
    truncated = _truncation(norm, lead.energy, retained)
    return Estimate(_low_rank(lead.basis[:, :k], H), variance, norm, truncated, info)


def _choose_rank(outer: Tensor, retained: Tensor, rank: int | float | None) -> int:
    """Return a rank from 1 to len(outer): given, by retained energy, or by estimated risk.

    With S and A the symmetric and antisymmetric parts of the leading k×k block, ‖S‖² estimates signal plus
    noise, ‖A‖² the noise, and the risk is ‖H‖² − ‖S‖² + 2‖A‖² up to what does not depend on k.
    """
    if isinstance(rank, int):
        return min(rank, len(outer))
    if isinstance(rank, float):
        return min(len(outer), int((retained < rank).sum()) + 1)
    signal, noise = ((outer + outer.T) / 2, (outer - outer.T) / 2)
    risk = (2 * noise.square() - signal.square()).cumsum(0).cumsum(1).diagonal()
    return int(risk.argmin()) + 1


def _truncation(norm: float, energy: float, retained: float) -> float:
    """Return an estimate of ‖H − PHP‖² for the projection P onto a leading subspace.

    E‖D‖² = ‖H‖² + noise. Taking the same share of Hessian in the energy outside as inside, what is left out
    has at most twice the Hessian's share of the energy outside.
    """
    inside = energy * retained
    if inside <= 0:
        return 0.0
    return 2 * min(1.0, norm**2 / inside) * energy * max(0.0, 1 - retained)


def _low_rank(basis: Tensor, matrix: Tensor) -> LowRank:
    """Return U M Uᵀ by the eigenvectors of M, without negligible ones."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = values.abs() > _NEGLIGIBLE * float(values.abs().max())
    return LowRank(basis @ vectors[:, kept].to(basis), values[kept].to(basis))


def regression(moments: DenseMoments | RowMoments) -> Estimate:
    """Return the symmetric H that fits D ≈ H z best by generalised least squares.

    The residual covariance R is estimated in the leading eigenspace U of Σ D Dᵀ and taken as a multiple of
    the identity outside it. From at least one whole orthogonal matrix all entries of H are estimated, [d, d];
    from fewer rows, or where nothing to speak of lies outside, those within U, as a low-rank curvature.
    """
    lead = moments.leading()
    z, D = lead.z, lead.D
    fit = fit_symmetric(lead.outer, lead.gram, lead.covariance, lead.energy)
    residuals = D - z @ fit.matrix
    fit = fit_symmetric(lead.outer, lead.gram, residuals.T @ residuals / len(D), lead.energy)
    residuals = D - z @ fit.matrix
    halves = lead.basis, _half_difference(z, D, residuals, lead.energy)
    inputs = torch.linalg.solve(lead.gram, z.T).T @ fit.basis
    parameters = fit.weights().sum(1) * len(z) / lead.count
    variance = spread(residuals @ fit.basis, inputs, fit.weights(), parameters, lead.together)
    variance *= len(z) / lead.count
    norm = float(fit.matrix.norm())
    truncated = _truncation(norm, lead.energy, lead.retained())
    info = {"rank": len(fit.matrix), "energy": lead.retained()}
    partial = truncated > _NEGLIGIBLE_TRUNCATION * variance and len(fit.matrix) < moments.size
    if partial and isinstance(moments, DenseMoments) and moments.folded()[0]:
        return _regression_full(moments, lead)
    return Estimate(_low_rank(lead.basis, fit.matrix), variance, norm, truncated, info, halves)


def _half_difference(z: Tensor, D: Tensor, residuals: Tensor, energy: float) -> Tensor:
    """Return (M₁ − M₂)/2 for the fits to two halves of the rows, [r, r]: the like of the fit's error."""
    n, r = z.shape
    if n < 2 * r:
        return z.new_full((r, r), float("nan"))
    covariance = residuals.T @ residuals / n
    first, second = (
        fit_symmetric(D[part::2].T @ z[part::2], z[part::2].T @ z[part::2], covariance, energy).matrix
        for part in (0, 1)
    )
    return (first - second) / 2


def _regression_full(moments: DenseMoments, lead: Leading) -> Estimate:
    z, D = moments.kept()
    folded, outer, _ = moments.folded()
    completed = _Completion(outer / folded, lead, z, D)
    if len(moments.tail()[0]):
        completed = _Completion(_mean_outer(moments, completed.hessian()), lead, z, D)
    V = completed.fit.basis
    residuals = (D @ completed.rotated - z @ completed.columns).double()
    halves = lead.basis, _half_difference(lead.z, lead.D, residuals @ V.T, lead.energy)
    parameters = completed.parameters() * len(z) / lead.count
    variance = spread(residuals, lead.z @ V, completed.fit.weights(), parameters, lead.together)
    variance *= len(z) / lead.count
    info = {"rank": len(V), "energy": lead.retained()}
    H = completed.hessian()
    return Estimate(H, variance + completed.outside_variance(), float(H.norm()), 0.0, info, halves)


class _Completion:
    """Generalised least squares for all of H, with a residual covariance that is known within U.

    Outside U the residual variance is one number, so that the fit has a closed form: entries within U by
    :func:`fit_symmetric`, those between U and the rest weighted likewise, the others averaged.

    Args:
        outer: G = Σ D zᵀ/n with Σ z zᵀ = n I, [d, d].
        lead: The leading subspace U, of fewer than d dimensions.
        z: Rows, [m, d], on which residuals are found.
        D: The same rows, [m, d].
    """

    def __init__(self, outer: Tensor, lead: Leading, z: Tensor, D: Tensor) -> None:
        U, covariance = lead.basis, lead.covariance
        self.outer, self.U, self._energy = outer, U, lead.energy
        self.size, self.rank = U.shape
        self._outputs = outer @ U  # every output on the inputs within U
        self._inputs = outer.T @ U  # the outputs within U on every input, transposed
        self._within = (U.T @ self._outputs).double()
        identity = torch.eye(self.rank, dtype=torch.float64, device=U.device)
        outside = lead.energy * (1 - lead.retained()) / (self.size - self.rank)
        self._fit(covariance, identity, outside)
        residuals = D @ U - z @ (self.columns @ self.fit.basis.T.to(U))
        residual = (residuals.T @ residuals).double() / len(D)
        left = float(residual.trace()) / float(covariance.trace()) if lead.energy > 0 else 0.0
        self._fit(residual, identity, outside * left)

    def _fit(self, covariance: Tensor, identity: Tensor, outside: float) -> None:
        self.fit: Fit = fit_symmetric(self._within, identity, covariance, self._energy)
        noise = self.fit.noise
        self.share = noise / (noise + outside)  # ω of the outputs outside U on the inputs within
        V = self.fit.basis.to(self.U)
        self.rotated = self.U @ V
        outputs, inputs, share = self._outputs @ V, self._inputs @ V, self.share.to(self.U)
        cross = outputs * share + inputs * (1 - share)
        cross = cross - self.rotated @ (self.rotated.T @ cross)
        within = (self.fit.basis.T @ self.fit.matrix @ self.fit.basis).to(self.U)
        self.columns = self.rotated @ within + cross  # H U V, [d, r]

    def hessian(self) -> Tensor:
        """Return H, [d, d]."""
        B = self.rotated
        # sym(G) with its columns and rows within U exchanged for the fitted ones.
        plain = (self.outer @ B + self.outer.T @ B) / 2
        change = self.columns - plain
        change = change - B @ (B.T @ change) / 2
        return _symmetric(self.outer) + torch.cat([B, change], 1) @ torch.cat([change, B], 1).T

    def parameters(self) -> Tensor:
        """Return how many parameters each output within U has been fitted with, [r]."""
        return self.fit.weights().sum(1) + (self.size - self.rank) * (1 - self.share)

    def outside_variance(self) -> float:
        """Return the squared error of the entries not within U, from the antisymmetric part of G, pure noise.

        Its entries have variance ρ_a + ρ_b, a weighted mean with share ω has ρ_a ρ_b/(ρ_a + ρ_b), which is
        ω(1 − ω) times as much.
        """
        difference = ((self._outputs - self._inputs) @ self.fit.basis.to(self.U)).double()
        within = self.rotated.double().T @ difference
        crossing = (difference.square().sum(0) - within.square().sum(0)).clamp_min(0)
        total = float((self.outer - self.outer.T).norm()) ** 2
        rest = max(0.0, total - 2 * float(crossing.sum()) - float(within.square().sum()))
        return 2 * float((self.share * (1 - self.share) * crossing).sum()) + rest / 4
