"""Random directions for Gaussian smoothing, drawn in fixed blocks so that chunk sizes never change a number.

A block holds rows z_i and importance weights w_i such that ``E mean(w_i φ(z_i)) = E φ(z)``, z ~ N(0, I), for even
functions φ (points are always used in pairs ±z, except by the plain estimator).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.seeds import derive, generator

SOBOL_DIMENSIONS = torch.quasirandom.SobolEngine.MAXDIM
LENGTHS = ("size_biased", "chi", "fixed")
_BLOCK_ELEMENTS = 2**25  # a block never holds more numbers than this
_SMALL_ROWS = 512  # small Haar matrices are drawn in batches of about this many rows
_PERMUTED = 16  # blocks that share one Haar matrix, each with its own signed permutation of the features
_PERMUTE_FROM = 128  # below this many features there are too few signed permutations to rely on


@dataclass(frozen=True)
class Block:
    """Directions drawn together.

    Attributes:
        rows: z, [m, d].
        weights: w, [m].
        complete: Whether the rows form whole orthogonal matrices, so that Σ w z zᵀ = m I.
    """

    rows: Tensor
    weights: Tensor
    complete: bool


def _lengths(law: str, rows: int, size: int, seed: int, index: int) -> tuple[Tensor, Tensor]:
    """Return lengths and importance weights, each [rows], for directions uniform on the sphere.

    ``size_biased`` draws ℓ from χ_{d+2}, whose density is ℓ²/d times that of χ_d, and weights by d/ℓ²: every
    expectation under N(0, I) is kept exactly, and w z zᵀ = d (z/ℓ)(z/ℓ)ᵀ no longer depends on ℓ.
    """
    ones = torch.ones(rows, dtype=torch.float64)
    if law == "fixed":
        return math.sqrt(size) * ones, ones
    random = np.random.default_rng(derive(seed, "smoothing", "lengths", index))
    squared = torch.from_numpy(random.chisquare(size + 2 if law == "size_biased" else size, rows))
    return squared.sqrt(), size / squared if law == "size_biased" else ones


def _haar(count: int, size: int, rows: int, random: torch.Generator, like: Tensor) -> Tensor:
    """Return ``count`` matrices [rows, size] with orthonormal rows, uniform under rotation."""
    normal = torch.randn(count, size, rows, generator=random, dtype=like.dtype).to(like.device)
    orthonormal, triangle = torch.linalg.qr(normal)
    signs = torch.where(triangle.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(like)
    return (orthonormal * signs[:, None, :]).transpose(1, 2)


def orthogonal(size: int, seed: int, lengths: str, like: Tensor) -> Iterator[Block]:
    """Yield blocks of Haar-random orthogonal directions.

    With d ≥ 128, sixteen blocks share one Haar matrix, each after its own random signed permutation of the
    features: every block is still exactly Haar-distributed, and a permutation is far cheaper than a QR.

    Args:
        size: Number of features d.
        seed: Any integer.
        lengths: "size_biased", "chi" or "fixed".
        like: Gives dtype and device.

    Yields:
        Blocks of d rows, of several whole d×d matrices for small d, or of fewer orthonormal rows for d > 5792.
    """
    rows = min(size, max(1, _BLOCK_ELEMENTS // size))
    count = max(1, _SMALL_ROWS // size)
    matrix = like.new_empty(0)
    index = 0
    while True:
        random = generator(seed, "smoothing", index)
        if size < _PERMUTE_FROM or rows < size or index % _PERMUTED == 0:
            matrix = _haar(count, size, rows, random, like).reshape(-1, size)
            directions = matrix
        else:
            order = torch.randperm(size, generator=random).to(like.device)
            signs = torch.randint(0, 2, (size,), generator=random).to(like) * 2 - 1
            directions = matrix[:, order] * signs
        length, weight = _lengths(lengths, len(directions), size, seed, index)
        yield Block(directions * length.to(like)[:, None], weight.to(like), rows == size)
        index += 1


def normal(size: int, seed: int, like: Tensor) -> Iterator[Block]:
    """Yield blocks of independent rows z ~ N(0, I)."""
    rows = max(1, min(1024, _BLOCK_ELEMENTS // size))
    index = 0
    while True:
        drawn = torch.randn(rows, size, generator=generator(seed, "smoothing", index), dtype=like.dtype)
        yield Block(drawn.to(like.device), like.new_ones(rows), False)
        index += 1


def sobol(size: int, seed: int, like: Tensor) -> Iterator[Block]:
    """Yield blocks of one scrambled Sobol sequence, mapped to normals by the inverse distribution function.

    Raises:
        ArgumentError: if d exceeds the 21,201 dimensions for which direction numbers are known.
    """
    if size > SOBOL_DIMENSIONS:
        raise ArgumentError(
            f"estimator 'sobol': {size} features exceed the {SOBOL_DIMENSIONS} dimensions of the Sobol sequence;"
            " use 'orthogonal' or 'projected'"
        )
    engine = torch.quasirandom.SobolEngine(size, scramble=True, seed=derive(seed, "smoothing", "sobol"))
    rows = max(1, min(1024, _BLOCK_ELEMENTS // size))
    while True:
        uniform = engine.draw(rows, dtype=torch.float64).clamp(2.0**-32, 1 - 2.0**-32)
        yield Block(torch.special.ndtri(uniform).to(like), like.new_ones(rows), False)
