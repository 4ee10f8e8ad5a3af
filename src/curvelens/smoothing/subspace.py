"""Leading eigenspaces of D Dᵀ sums, and symmetric regression within them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvelens.seeds import generator

LARGEST = 128  # dimensions of a leading subspace at most
_FEW = 32  # dimensions that are tried first
_OVERSAMPLING = 16
_ITERATIONS = 2
_FLOOR = 1e-10  # residual variances below this share of the largest are taken as equal,
_ROUNDING = 1e-13  # as are those below this share of the energy
_TAIL = {torch.float32: 5e-7, torch.float64: 1e-13}  # share of the trace left out, well above rounding
_GROUPS = 128  # parts of the rows whose spread gives the error bar, where rows belong together


def leading_subspace(D: Tensor, rank: int) -> Tensor:
    """Return an orthonormal basis of the leading eigenspace of DᵀD.

    Randomised subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4) with a Rayleigh–Ritz step,
    from a fixed start, so that the same rows give the same basis. A few dimensions are tried first.

    Args:
        D: [n, d].
        rank: Dimensions at most, from 1 to d.

    Returns:
        [d, r], by decreasing Ritz value; r < rank where that leaves out next to nothing of ‖D‖².
    """
    size = D.shape[1]
    energy = float(D.double().square().sum())
    tail = energy * _TAIL.get(D.dtype, _TAIL[torch.float32])
    for most in sorted({min(_FEW, rank), rank}):
        columns = min(size, most + _OVERSAMPLING)
        random = generator(0, "subspace", size, columns)
        basis = torch.randn(size, columns, generator=random, dtype=D.dtype).to(D.device)
        if columns == size:
            basis = torch.eye(size, dtype=D.dtype, device=D.device)
        for _ in range(_ITERATIONS if columns < size else 0):
            basis = torch.linalg.qr(D.T @ (D @ basis))[0]
        image = (D @ basis).double()
        values, vectors = torch.linalg.eigh(image.T @ image)
        outside = energy - values.flip(0).cumsum(0)
        enough = int((outside > tail).sum()) + 1
        if enough <= most:
            break
    return basis @ vectors.flip(1)[:, : min(most, enough)].to(D)


@dataclass(frozen=True)
class Fit:
    """A symmetric regression D ≈ M z.

    Attributes:
        matrix: M, [r, r], float64.
        basis: Eigenvectors V of the residual covariance, [r, r].
        noise: Its eigenvalues ρ, [r], > 0.
    """

    matrix: Tensor
    basis: Tensor
    noise: Tensor

    def weights(self) -> Tensor:
        """Return ω [r, r], the share that output a on input b has in entry (a, b), in the basis V."""
        return self.noise[None, :] / (self.noise[:, None] + self.noise[None, :])


def fit_symmetric(outer: Tensor, gram: Tensor, covariance: Tensor, energy: float) -> Fit:
    """Return the symmetric M that minimises Σ (D − M z)ᵀ R⁻¹ (D − M z): generalised least squares.

    Entry (a, b) of the Hessian is seen twice, as output a on input b and as output b on input a, with noise
    in proportion to ρ_a and ρ_b. Their plain average is dominated by the noisier one; weighted by the inverse
    variances the noise becomes ρ_a ρ_b/(ρ_a + ρ_b), so that directions in which the gradient hardly changes
    add hardly any noise, though all are kept. The normal equations R⁻¹MS + SMR⁻¹ = R⁻¹G + GᵀR⁻¹ become
    diagonal in the eigenvectors of R^½ S R^½.

    Args:
        outer: G = Σ D zᵀ/n, [r, r], float64.
        gram: S = Σ z zᵀ/n, [r, r].
        covariance: R, that of the residuals, [r, r].
        energy: Mean of ‖D‖², the scale on which residuals are rounding.

    Returns:
        The fit.
    """
    noise, basis = torch.linalg.eigh((covariance + covariance.T) / 2)
    smallest = torch.finfo(noise.dtype).tiny ** 0.5
    noise = noise.clamp_min(max(float(noise[-1]) * _FLOOR, energy * _ROUNDING, smallest))
    root = noise.sqrt()
    inputs = basis.T @ gram @ basis
    scale, turn = torch.linalg.eigh(root[:, None] * inputs * root)
    scale = scale.clamp_min(torch.finfo(scale.dtype).eps * float(scale[-1]))
    remaining, matrix = basis.T @ outer @ basis, torch.zeros_like(outer)
    for _ in range(2):  # the second time against rounding, which a wide range of noise amplifies
        right = remaining / root[:, None] * root
        solved = (turn.T @ (right + right.T) @ turn) / (scale[:, None] + scale[None, :])
        step = root[:, None] * (turn @ solved @ turn.T) * root
        step = (step + step.T) / 2
        matrix, remaining = matrix + step, remaining - step @ inputs
    return Fit(basis @ matrix @ basis.T, basis, noise)


def spread(residuals: Tensor, inputs: Tensor, weights: Tensor, parameters: Tensor, together: int) -> float:
    """Return the estimated squared Frobenius error of a symmetric fit, from how its parts differ.

    The error of the fit is Σ S_i/n with S_i = ω ∘ (r_i z_iᵀ) + ωᵀ ∘ (r_i z_iᵀ)ᵀ, a sum over rows that are
    nearly independent: a cluster-robust sandwich estimate (White 1980). It sees the part of the noise that is
    symmetric, which the antisymmetric part of Σ D zᵀ does not show.

    Args:
        residuals: r = D − M z, [n, r], in the basis of the weights.
        inputs: z, [n, r], scaled to Σ z zᵀ = n I.
        weights: ω, [r, r].
        parameters: Fitted parameters per output, [r]; residuals are enlarged for them.
        together: Rows that are not independent of each other (d for whole orthogonal matrices of small d).

    Returns:
        The estimate for the mean over these n rows.
    """
    n, r = residuals.shape
    enlarged = residuals * (n / (n - parameters).clamp_min(1.0)).sqrt()
    size = -(-n // (_GROUPS * together)) * together
    groups = n // size
    if groups < _GROUPS // 2:
        # ‖S_i‖² of single rows, expanded: 2 Σ_ab ω_ab² r_a² z_b² + 2 Σ_ab ω_ab ω_ba r_a z_a r_b z_b.
        aligned = enlarged * inputs
        squares = ((enlarged.square() @ weights.square()) * inputs.square()).sum()
        return 2 * float(squares + ((aligned @ (weights * weights.T)) * aligned).sum()) / n**2
    shape = (groups, size, r)
    products = enlarged[: groups * size].reshape(shape).transpose(1, 2) @ inputs[: groups * size].reshape(
        shape
    )
    parts = weights * products + weights.T * products.transpose(1, 2)
    return float(parts.square().sum()) / (groups * size) / n
