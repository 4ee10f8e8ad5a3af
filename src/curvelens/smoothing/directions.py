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

_ROWS = 256  # rows drawn together; of small orthogonal matrices so many are drawn that they have 512 or so
_SMALL_ROWS = 512
_BLOCK_ELEMENTS = 2**23
_FEWEST_ROWS = 16
_FIRST_ROWS = 64  # rows of a shared matrix that are made first: many explanations need no more
_LARGE_ROWS = 1024  # most rows of it that are made together
_SHARED = 16  # orthogonal matrices made from one by signed permutations of the features
_SHARED_FROM = 128  # below this many features there are too few signed permutations to rely on
_CACHED_SIZE = 1448  # matrices up to this size (8 MiB in single precision) are kept for the next call

Block = tuple[Tensor, Tensor]


class Directions:
    """A stream of directions, the same whatever the portions in which it is read.

    Args:
        law: "orthogonal": rows of Haar-random orthogonal matrices times lengths; "normal": independent
            N(0, I); "sobol": a scrambled Sobol sequence mapped to N(0, I).
        size: Number of features d.
        seed: Any integer; same seed, same directions.
        whole: Whether orthogonal directions come as whole d×d matrices; else up to 256 at a time are
            orthogonal to each other.
        lengths: Of orthogonal directions. "size_biased": ℓ from χ_{d+2}, weights d/ℓ², unbiased and exact on
            quadratics; "chi": ℓ from χ_d, so that each row is N(0, I); "fixed": ℓ = √d, biased by O(1/d).
        like: Gives dtype and device.

    Raises:
        ArgumentError: if "sobol" is asked for more than 21,201 features.
    """

    def __init__(
        self, law: str, size: int, seed: int, like: Tensor, lengths: str = LENGTHS[0], whole: bool = True
    ) -> None:
        if law == "orthogonal":
            self._blocks = _orthogonal(size, seed, lengths, whole, like)
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


def _orthogonal(size: int, seed: int, lengths: str, whole: bool, like: Tensor) -> Iterator[Block]:
    """Yield rows of Haar-random orthogonal matrices.

    From 128 features on, sixteen matrices are made from one by random signed permutations of the features:
    each of them is Haar-distributed, and a permutation costs far less than an orthogonalisation.
    """
    if not whole or size < _SHARED_FROM:
        yield from _independent(size, seed, lengths, like)
    index = 0
    make = _cached_matrix if size <= _CACHED_SIZE else _Matrix
    matrix = make(seed, 0, size, like.dtype, like.device)
    while True:
        if index % _SHARED == 0:
            matrix = make(seed, index, size, like.dtype, like.device)
        random = generator(seed, "smoothing", "permutation", index)
        order = torch.randperm(size, generator=random).to(like.device)
        signs = torch.randint(0, 2, (size,), generator=random).to(like) * 2 - 1
        length, weight = (rows.to(like) for rows in _lengths(lengths, size, size, seed, index))
        start = 0
        for part in matrix.parts():
            stop = start + len(part)
            yield part[:, order] * (signs * length[start:stop, None]), weight[start:stop]
            start = stop
        index += 1


def _independent(size: int, seed: int, lengths: str, like: Tensor) -> Iterator[Block]:
    """Yield several d×d matrices at a time or, for larger d, up to 256 rows orthogonal to each other.

    For d beyond 32,768 there are fewer: an orthogonalisation holds several copies, and random rows of that
    many features are nearly orthogonal anyway.
    """
    rows = min(size, _ROWS, max(_FEWEST_ROWS, _BLOCK_ELEMENTS // size))
    count = -(-_SMALL_ROWS // rows) if rows == size else 1
    index = 0
    while True:
        random = generator(seed, "smoothing", index)
        normal = torch.randn(count, size, rows, generator=random, dtype=like.dtype)
        directions = _orthonormal(normal.to(like.device)).transpose(1, 2).reshape(-1, size)
        length, weight = _lengths(lengths, len(directions), size, seed, index)
        yield directions * length.to(like)[:, None], weight.to(like)
        index += 1


def _orthonormal(columns: Tensor) -> Tensor:
    """Return an orthonormal basis [..., d, m] of normal columns, uniform under rotation (Stewart 1980)."""
    basis, triangle = torch.linalg.qr(columns)
    return basis * torch.where(triangle.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(basis)[..., None, :]


class _Matrix:
    """A Haar-random orthogonal matrix whose rows are made when first asked for: 64, then up to 1024 at once.

    Args:
        seed: Of the stream.
        index: Of the matrix in the stream.
        size: d.
        dtype: Of the matrix.
        device: Of the matrix; the normal numbers that it is made from are drawn on the CPU.
    """

    def __init__(self, seed: int, index: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._random = generator(seed, "smoothing", index)
        self._made = torch.empty(0, size, dtype=dtype, device=device)
        rest = size - _FIRST_ROWS
        count = -(-rest // _LARGE_ROWS)
        self._stops = [_FIRST_ROWS + rest * i // count for i in range(count + 1)]

    def parts(self) -> Iterator[Tensor]:
        """Yield the rows, in parts."""
        start = 0
        for stop in self._stops:
            if len(self._made) < stop:
                self._extend(stop - start)
            yield self._made[start:stop]
            start = stop

    def _extend(self, rows: int) -> None:
        """Append rows, orthogonal to those before: block Gram–Schmidt.

        Rounding leaves parts along earlier rows, the longer the fewer features are left. Taking them away
        shortens the rows in second order; where that shows, one Newton–Schulz step restores them.
        """
        made = self._made
        normal = torch.randn(rows, made.shape[1], generator=self._random, dtype=made.dtype).to(made.device)
        new = _orthonormal((normal - (normal @ made.T) @ made).T).T
        if len(made):
            left = new @ made.T
            new = new - left @ made
            if left.square().sum(dim=1).max() > torch.finfo(new.dtype).eps:
                new = 1.5 * new - 0.5 * (new @ new.T) @ new
        self._made = torch.cat([made, new])


_cached_matrix = lru_cache(maxsize=4)(_Matrix)


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
    index = 0
    while True:
        random = generator(seed, "smoothing", index)
        yield (
            torch.randn(_ROWS, size, generator=random, dtype=like.dtype).to(like.device),
            like.new_ones(_ROWS),
        )
        index += 1


def _sobol(size: int, seed: int, like: Tensor) -> Iterator[Block]:
    engine = torch.quasirandom.SobolEngine(size, scramble=True, seed=derive(seed, "smoothing", "sobol"))
    edge = 2.0**-32  # half the spacing of the sequence's 30-bit fractions: keeps the normals finite
    while True:
        uniform = engine.draw(_ROWS, dtype=torch.float64).clamp(edge, 1 - edge)
        yield torch.special.ndtri(uniform).to(like), like.new_ones(_ROWS)
