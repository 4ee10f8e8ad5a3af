"""SmoothHess: leading eigenpairs of the smoothed Hessian, with SmoothGrad and VarGrad from the same calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from curvelens.methods import REGISTRY, Copies, Explanation, NoisyCopies

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar


class CurvedCopies(NoisyCopies):
    """How the image is perturbed, and how much of the curvature is kept."""

    eigenpairs: int = Field(4, ge=1, description="Leading eigenpairs that are stored.")


@REGISTRY.register(
    "smoothhess",
    parameters=CurvedCopies,
    reference="Torop et al. 2023, eq. 7, by symmetric regression",
    signed=True,
    local_model=True,
    copies=True,
    curvature=True,
)
def smoothhess(f: Scalar, x: Tensor, seed: int, parameters: CurvedCopies, copies: Copies) -> Explanation:
    """Pixels that act together: the direction in which the smoothed gradient changes most.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[*shape]``.
        seed: Seed of the image.
        parameters: Noise level, number of copies, and of eigenpairs.
        copies: Gradients at the copies, with the curvature.

    Returns:
        ``attribution`` ``[*shape]``: the leading eigenvector of SmoothHess, of unit length, turned so that
        the score rises along it; ``eigenvalues`` ``[k]`` by decreasing magnitude and ``eigenvectors``
        ``[k, *shape]``, zero from the rank that the copies resolve on; ``smoothgrad`` and ``vargrad``
        ``[*shape]``; ``curvature_error`` and ``eigenvalue_error``, see :func:`curvelens.smooth_quadratic`.
    """
    q = copies.model
    assert q is not None  # asked for at registration
    count = parameters.eigenpairs
    found, vectors = q.eigh(min(count, q.size))
    values, pairs = x.new_zeros(count), x.new_zeros(count, *x.shape)
    values[: len(found)] = found
    pairs[: len(found)] = vectors.T.reshape(-1, *x.shape)
    rising = (pairs * q.gradient).flatten(1).sum(1) >= 0
    pairs = pairs * (2 * rising.to(x) - 1).reshape(-1, *[1] * x.ndim)
    maps = {
        "attribution": pairs[0],
        "eigenvalues": values,
        "eigenvectors": pairs,
        "smoothgrad": copies.moments.mean,
        "vargrad": copies.moments.variance,
        "curvature_error": x.new_tensor(q.error),
        "eigenvalue_error": x.new_tensor(q.info["eigenvalue_error"]),
    }
    return Explanation(maps, q.calls, q)
