"""How far two maps of one image agree: as vectors, in rank, in mass, and in the regions that stand out.

A map is ``[H, W]``, its channels summed; its magnitude is its absolute value. Regions are what a stated rule
leaves of a map: the share of pixels with the largest magnitude, perhaps after a blur.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from curvelens.errors import ArgumentError


def magnitude(values: np.ndarray, blur: float = 0.0) -> np.ndarray:
    """Return the absolute value of a map, blurred by a Gaussian.

    Args:
        values: ``[H, W]``.
        blur: Standard deviation in pixels, >= 0; borders are continued by their last value.

    Returns:
        float64 ``[H, W]``, never negative.
    """
    found = np.abs(np.asarray(values, np.float64))
    if blur > 0:
        from scipy.ndimage import gaussian_filter

        found = gaussian_filter(found, blur, mode="nearest")
    return found


def kept(values: np.ndarray, share: float, blur: float = 0.0) -> np.ndarray:
    """Return the pixels that stand out: the share with the largest magnitude.

    Args:
        values: ``[H, W]``.
        share: In (0, 1]; the number of pixels is rounded up. Of equal ones the first are taken.
        blur: See :func:`magnitude`.

    Returns:
        bool ``[H, W]``; a pixel of magnitude zero never stands out.

    Raises:
        ArgumentError: The share is out of range.
    """
    if not 0 < share <= 1:
        raise ArgumentError(f"kept: share = {share} is not in (0, 1]; give the share of pixels to keep")
    found = magnitude(values, blur)
    count = int(np.ceil(share * found.size - 1e-9))
    mask = np.zeros(found.size, bool)
    mask[np.argsort(-found, axis=None, kind="stable")[:count]] = True
    return mask.reshape(found.shape) & (found > 0)


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Jaccard index of two regions, in [0, 1]; NaN where both are empty."""
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else float("nan")


def chance_overlap(share: float) -> float:
    """Return the expected intersection over the expected union of two independent regions of that share."""
    return share / (2 - share)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of the angle between two maps, in [-1, 1]; NaN where one is zero."""
    u, v = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    lengths = np.linalg.norm(u) * np.linalg.norm(v)
    return float(np.clip(u @ v / lengths, -1, 1)) if lengths > 0 else float("nan")


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation of two maps' values, in [-1, 1]; NaN where one is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(np.asarray(one, np.float64), axis=None) for one in (a, b)]
    return cosine(*(one - one.mean() for one in ranks))


def common_mass(a: np.ndarray, b: np.ndarray) -> float:
    """Return what two maps have in common when the magnitudes of each are scaled to sum to one.

    Returns:
        ``sum(min(|a| / sum|a|, |b| / sum|b|))``, in [0, 1]: one less the total variation distance; NaN where
        a map is zero.
    """
    masses = [magnitude(one) for one in (a, b)]
    if min(one.sum() for one in masses) == 0:
        return float("nan")
    return float(np.minimum(*(one / one.sum() for one in masses)).sum())


def half_mass(values: np.ndarray, blur: float = 0.0) -> float:
    """Return the smallest share of pixels that holds half of a map's magnitude; NaN where it is zero.

    It is 0.5 for an even map and near 0 for one that stands on a few pixels.
    """
    mass = np.sort(magnitude(values, blur), axis=None)[::-1].cumsum()
    if mass[-1] == 0:
        return float("nan")
    return float((np.searchsorted(mass, mass[-1] / 2) + 1) / mass.size)


class Overlap(NamedTuple):
    """How far two maps of one image agree.

    Attributes:
        cosine: Of the maps with their signs.
        rank_correlation: Spearman's, of the magnitudes.
        common_mass: See :func:`common_mass`.
        iou: Intersection over union of the regions kept.
        half_mass_a, half_mass_b: See :func:`half_mass`, after the blur.
    """

    cosine: float
    rank_correlation: float
    common_mass: float
    iou: float
    half_mass_a: float
    half_mass_b: float


def compare(a: np.ndarray, b: np.ndarray, share: float, blur: float = 0.0) -> Overlap:
    """Compare two maps.

    Args:
        a, b: ``[H, W]``.
        share, blur: The rule of the regions, see :func:`kept`.
    """
    return Overlap(
        cosine(a, b),
        rank_correlation(magnitude(a), magnitude(b)),
        common_mass(a, b),
        intersection_over_union(kept(a, share, blur), kept(b, share, blur)),
        half_mass(a, blur),
        half_mass(b, blur),
    )
