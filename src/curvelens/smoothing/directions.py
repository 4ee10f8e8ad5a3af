"""Random directions for Gaussian smoothing, drawn in fixed blocks so that chunk sizes never change a number.

A block holds rows z_i and importance weights w_i with ``E mean(w_i φ(z_i)) = E φ(z)``, z ~ N(0, I), for every
even φ (points are used in pairs ±z, except by the plain estimator).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.seeds import derive, generator

LENGTHS = ("size_biased", "chi", "fixed")
LAWS = ("orthogonal", "normal", "sobol")

_BLOCK_ELEMENTS = 2**25  # numbers in a block at most
_BLOCK_ROWS = 1024  # rows in a block of independent directions at most
_SMALL_ROWS = 512  # small orthogonal matrices are drawn in batches of about this many rows
_SHARED = 16  # blocks that share one Haar matrix, each with its own signed permutation of the features
_SHARED_FROM = 128  # below this many features there are too few signed permutations to rely on
_CACHED_ELEMENTS = 2**21  # Haar matrices up to this size are kept for the next call with the same seed

Block = tuple[Tensor, Tensor]


class Directions:
    """A stream of directions, the same whatever the portions in which it is read.

    Args:
        law: "orthogonal": rows of Haar-random orthogonal matrices times lengths; "normal": independent
            N(0, I); "sobol": a scrambled Sobol sequence mapped to N(0, I).
        size: Number of features d.
        seed: Any integer; same seed, same directions.
        lengths: Of orthogonal directions. "size_biased": ℓ from χ_{d+2}, weights d/ℓ², unbiased and exact on
            quadratics; "chi": ℓ from χ_d, so that each row is N(0, I); "fixed": ℓ = √d, biased by O(1/d).
        like: Gives dtype and device.

    Raises:
        ArgumentError: if "sobol" is asked for more than 21,201 features.
    """

    def __init__(self, law: str, size: int, seed: int, lengths: str, like: Tensor) -> None:
        if law == "orthogonal":
            self._blocks = _orthogonal(size, seed, lengths, like)
        elif law == "sobol":
            if size > torch.quasirandom.SobolEngine.MAXDIM:
                raise ArgumentError(
                    f"estimator 'sobol': {size} features exceed the {torch.quasirandom.SobolEngine.MAXDIM}"
                    " dimensions of the Sobol sequence; use 'regression'"
                )
            self._blocks = _sobol(size, seed, like)
        else:
            self._blocks = _normal(size, seed, like)
        self._rest: Block = (like.new_empty(0, size), like.new_empty(0))

    def take(self, rows: int) -> Block:
        """Return the next directions.

        Args:
            rows: How many, ≥ 1.

        Returns:
            z [rows, d] and weights w [rows].
        """
        parts = [self._rest]
        have = len(self._rest[1])
        while have < rows:
            parts.append(next(self._blocks))
            have += len(parts[-1][1])
        z, w = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        self._rest = z[rows:], w[rows:]
        return z[:rows], w[:rows]


def _orthogonal(size: int, seed: int, lengths: str, like: Tensor) -> Iterator[Block]:
    """Yield Haar-random orthogonal directions, whole d×d matrices unless d > 5792.

    From 128 features on, sixteen blocks share one Haar matrix, each after a random signed permutation of the
    features: every block is Haar-distributed, and a permutation costs far less than a QR factorisation.
    """
    rows = min(size, max(1, _BLOCK_ELEMENTS // size))
    draw = _cached_haar if rows * size <= _CACHED_ELEMENTS else _haar
    sharing = _SHARED if size >= _SHARED_FROM and rows == size else 1
    index = 0
    while True:
        matrix = draw(seed, index - index % sharing, size, rows, like.dtype, like.device)
        if index % sharing:
            random = generator(seed, "smoothing", index)
            order = torch.randperm(size, generator=random).to(like.device)
            signs = torch.randint(0, 2, (size,), generator=random).to(like) * 2 - 1
            matrix = matrix[:, order] * signs
        length, weight = _lengths(lengths, len(matrix), size, seed, index)
        yield matrix * length.to(like)[:, None], weight.to(like)
        index += 1


def _haar(seed: int, index: int, size: int, rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return matrices with orthonormal rows, uniform under rotation, one below the other: [m · rows, size].

    The Q of a normal matrix is uniform once the signs of R's diagonal are made positive (Stewart 1980).
    """
    count = max(1, _SMALL_ROWS // size)
    random = generator(seed, "smoothing", index)
    normal = torch.randn(count, size, rows, generator=random, dtype=dtype).to(device)
    orthonormal, triangle = torch.linalg.qr(normal)
    signs = torch.where(triangle.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(normal)
    return (orthonormal * signs[:, None, :]).transpose(1, 2).reshape(-1, size)


_cached_haar = lru_cache(maxsize=4)(_haar)


def _lengths(law: str, rows: int, size: int, seed: int, index: int) -> Block:
    """Return lengths and importance weights, each [rows], for directions uniform on the sphere.

    The density of χ_{d+2} is ℓ²/d times that of χ_d: the weights d/ℓ² keep every expectation under N(0, I),
    and with them w z zᵀ = d (z/ℓ)(z/ℓ)ᵀ no longer depends on ℓ, so that an orthogonal block sums to d·I.
    """
    ones = torch.ones(rows, dtype=torch.float64)
    if law == "fixed":
        return math.sqrt(size) * ones, ones
    random = np.random.default_rng(derive(seed, "smoothing", "lengths", index))
    squared = torch.from_numpy(random.chisquare(size + 2 if law == "size_biased" else size, rows))
    return squared.sqrt(), size / squared if law == "size_biased" else ones


def _normal(size: int, seed: int, like: Tensor) -> Iterator[Block]:
    rows = max(1, min(_BLOCK_ROWS, _BLOCK_ELEMENTS // size))
    index = 0
    while True:
        random = generator(seed, "smoothing", index)
        yield torch.randn(rows, size, generator=random, dtype=like.dtype).to(like.device), like.new_ones(rows)
        index += 1


def _sobol(size: int, seed: int, like: Tensor) -> Iterator[Block]:
    engine = torch.quasirandom.SobolEngine(size, scramble=True, seed=derive(seed, "smoothing", "sobol"))
    rows = max(1, min(_BLOCK_ROWS, _BLOCK_ELEMENTS // size))
    edge = 2.0**-32  # half the spacing of the sequence's 30-bit fractions: keeps the normals finite
    while True:
        uniform = engine.draw(rows, dtype=torch.float64).clamp(edge, 1 - edge)
        yield torch.special.ndtri(uniform).to(like), like.new_ones(rows)
