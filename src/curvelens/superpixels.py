"""Super-pixels, and the interactions between them: the Hessian summed over pairs of regions of an image.

``I_AB = Σ_{i in A} Σ_{j in B} H_ij = s_Aᵀ H s_B`` with s_A the indicator of region A (Torop et al. 2023,
App. F.4): by how much moving all pixels of A changes the score's slope along those of B.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.quadratic import LocalQuadratic, LowRank, MatrixFree
from curvelens.smoothing.products import smooth_products

if TYPE_CHECKING:
    import numpy as np

_COMPACTNESS = (10.0, 3.0, 30.0, 1.0, 100.0, 300.0)  # tried in turn, first what scikit-image takes by default
_BATCH = 16  # indicator vectors multiplied with the Hessian together

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Interactions:
    """Interactions between super-pixels.

    Attributes:
        second: I, [s, s], symmetric, float64: in units of f per squared unit of x.
        first: Sum of the gradient over each super-pixel, [s], float64: in units of f per unit of x.
        stderr: Standard error of each interaction from the finite number of calls, [s, s], float64; zeros
            where there is none, NaN where it is not known.
        calls: Gradient calls made for them; a Hessian-vector product counts as one.
    """

    second: Tensor
    first: Tensor
    stderr: Tensor
    calls: int

    @property
    def error(self) -> float:
        """Estimated relative error ‖δI‖/‖I‖ (Frobenius); NaN where it is not known."""
        norm = float(self.second.norm())
        return float(self.stderr.norm()) / norm if norm > 0 else math.nan


def slic_segments(
    image: np.ndarray,
    segments: tuple[int, int] = (20, 25),
    compactness: float | None = None,
) -> np.ndarray:
    """Divide an image into super-pixels by SLIC (Achanta et al. 2012), as scikit-image does it.

    SLIC treats the number of segments as a wish. It is asked for several numbers, and where ``compactness``
    is None with several values of it, until it gives as many as wanted.

    Args:
        image: uint8 ``[C, H, W]``, C = 1 or 3.
        segments: Fewest and most segments, 2 ≤ fewest ≤ most.
        compactness: Weight of nearness against likeness of colour, > 0; None tries 10 first.

    Returns:
        int64 ``[H, W]``, numbers 0 to s − 1.

    Raises:
        ArgumentError: The image or a bound is not as described, or no number asked for gives as many.
    """
    low, high = segments
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ArgumentError(
            f"slic_segments: image {list(image.shape)} must be [C, H, W] with 1 or 3 channels"
        )
    if not 2 <= low <= high or (compactness is not None and not compactness > 0):
        raise ArgumentError(
            f"slic_segments: {low} to {high} segments of compactness {compactness} are impossible; give "
            "2 <= fewest <= most and a positive compactness"
        )
    middle = (low + high) / 2
    asked = sorted(range(max(2, low // 2), 3 * high + 1), key=lambda number: abs(number - middle))
    for weight in _COMPACTNESS if compactness is None else (compactness,):
        for number in asked:
            found = _slic(image, number, weight)
            if low <= int(found.max()) + 1 <= high:
                return found
    raise ArgumentError(
        f"slic_segments: no division of the {image.shape[1]} x {image.shape[2]} image into {low} to {high} "
        "segments was found; allow other numbers, or change the compactness"
    )


def _slic(image: np.ndarray, number: int, compactness: float) -> np.ndarray:
    import numpy as np
    from skimage.segmentation import slic

    grey = image.shape[0] == 1
    pixels = image[0] if grey else np.moveaxis(image, 0, -1)
    found = slic(
        pixels,
        n_segments=number,
        compactness=compactness,
        start_label=0,
        channel_axis=None if grey else -1,
        enforce_connectivity=True,
    )
    return np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.int64)


def indicators(segments: np.ndarray | Tensor, like: Tensor) -> Tensor:
    """Return the indicator vectors of super-pixels over all channels.

    Args:
        segments: Integers ``[H, W]``, numbers 0 to s − 1, each at least once.
        like: An image ``[C, H, W]``; gives shape, dtype and device.

    Returns:
        ``[s, C, H, W]``, ones and zeros.

    Raises:
        ArgumentError: The shapes differ, or a number is missing.
    """
    numbers = torch.as_tensor(segments).to(device=like.device, dtype=torch.int64)
    if like.ndim != 3 or numbers.shape != like.shape[1:]:
        raise ArgumentError(
            f"super-pixels: segments {list(numbers.shape)} do not cover an image {list(like.shape)}; give "
            "one number a pixel"
        )
    present = torch.unique(numbers)
    count = len(present)
    if not torch.equal(present, torch.arange(count, device=like.device)):
        raise ArgumentError("super-pixels: segments must be numbered 0, 1, 2, … without gaps")
    chosen = numbers[None] == present[:, None, None]
    return chosen[:, None].expand(count, *like.shape).to(like.dtype)


def superpixel_interactions(q: LocalQuadratic, segments: np.ndarray | Tensor) -> Interactions:
    """Sum the gradient and the Hessian of a local model over super-pixels: ``SᵀHS``, one product a segment.

    Args:
        q: Local model at an image ``[C, H, W]``.
        segments: Integers ``[H, W]``, numbers 0 to s − 1.

    Returns:
        The interactions; ``calls`` are the s products where the curvature is known by products only, else 0;
        ``stderr`` is zero unless the local model has an error of its own, and then not known.

    Raises:
        ArgumentError: The segments do not fit the image.
    """
    S = indicators(segments, q.gradient)
    rows = S.flatten(1)
    parts = [rows @ q.hvp(part).flatten(1).T for part in S.split(_BATCH)]
    second = torch.cat(parts, 1).double()
    first = (rows @ q.gradient.reshape(-1)).double()
    calls = len(S) if isinstance(q.curvature, MatrixFree) else 0
    stderr = torch.full_like(second, math.nan if q.error > 0 else 0.0)
    return Interactions((second + second.T) / 2, first, stderr, calls)


def smooth_interactions(
    f: Function,
    x: Tensor,
    segments: np.ndarray | Tensor,
    sigma: float | Tensor,
    calls: int,
    seed: int = 0,
) -> Interactions:
    """Return the interactions of SmoothHess between super-pixels from gradient calls made for them.

    The smoothed Hessian of f as a whole has d²/2 numbers, these are s²/2: with displacements whose part along
    the indicators alone changes sign within a pair, the rest of the curvature cancels instead of adding
    noise (see :func:`curvelens.smoothing.products.smooth_products`). They are those of ``smooth_quadratic``
    with the same ``sigma`` in the limit of many calls.

    Args:
        f: Scalar, ``[B, C, H, W] -> [B]``.
        x: ``[C, H, W]``.
        segments: Integers ``[H, W]``, numbers 0 to s − 1.
        sigma: Standard deviation of the smoothing, see :func:`curvelens.smooth_quadratic`.
        calls: Gradient calls, at least 2 s; rounded down to whole blocks of 2 s. The standard error comes
            from the spread between blocks and needs two of them.
        seed: Same seed, same directions.

    Raises:
        ArgumentError: The segments do not fit the image, or the calls do not suffice.
    """
    S = indicators(segments, x)
    found = smooth_products(f, x, S, sigma, calls, seed)
    rows = S.flatten(1)
    first = (rows @ found.gradient.reshape(-1)).double()
    blocks = found.within.double()
    blocks = (blocks + blocks.mT) / 2
    # The asymmetry would not do for an error bar: what a single ReLU adds is nearly symmetric.
    spread = blocks.std(0) / math.sqrt(len(blocks)) if len(blocks) > 1 else blocks[0] * math.nan
    return Interactions(blocks.mean(0), first, spread, found.calls)


def with_interactions(q: LocalQuadratic, segments: np.ndarray | Tensor, second: Tensor) -> LocalQuadratic:
    """Return a local model with given interactions between super-pixels, otherwise with the curvature of q.

    ``H' = H + E (I − SᵀHS) Eᵀ`` with ``E = S (SᵀS)⁻¹``: of the Hessians with ``SᵀH'S = I`` the one nearest to
    H in the Frobenius norm.

    Args:
        q: Local model at an image ``[C, H, W]``, its curvature dense or low-rank.
        segments: Integers ``[H, W]``, numbers 0 to s − 1.
        second: I, symmetric ``[s, s]``, as :func:`smooth_interactions` gives it.

    Raises:
        ArgumentError: The segments do not fit the image, or the curvature is known by products only.
    """
    if isinstance(q.curvature, MatrixFree):
        raise ArgumentError("with_interactions: the curvature is known by products only; give a low-rank one")
    S = indicators(segments, q.gradient).flatten(1)
    E = (S / S.sum(1, keepdim=True)).T
    change = (second - superpixel_interactions(q, segments).second.to(second)).to(E)
    curvature: Tensor | LowRank
    if isinstance(q.curvature, LowRank):
        weights, vectors = torch.linalg.eigh(change)
        old = q.curvature
        curvature = LowRank(torch.cat([old.factor, E @ vectors], 1), torch.cat([old.weights, weights]))
    else:
        curvature = q.hessian() + E @ change @ E.T
    return LocalQuadratic(q.value, q.gradient, curvature, calls=q.calls, error=q.error, info=dict(q.info))


def strongest_pair(second: Tensor, first: Tensor) -> tuple[int, int]:
    """Return the super-pixel to show and the one it interacts with most.

    The object is taken to be where the score depends on most: the super-pixel with the largest sum of the
    gradient, in magnitude. Shown is the other super-pixel whose interaction with it is largest in magnitude.

    Args:
        second: Interactions ``[s, s]``, s ≥ 2.
        first: Sums of the gradient ``[s]``.

    Returns:
        Number of the super-pixel to show, and of the object.
    """
    thing = int(first.abs().argmax())
    row = second[thing].abs().clone()
    row[thing] = -1
    return int(row.argmax()), thing


def strongest_off_diagonal(second: Tensor, place: int) -> tuple[int, float]:
    """Return the other super-pixel that ``place`` interacts with most in magnitude, and the value."""
    row = second[place].abs().clone()
    row[place] = -1
    other = int(row.argmax())
    return other, float(second[place, other])
