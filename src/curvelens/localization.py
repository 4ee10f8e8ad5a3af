"""Whether a map points at the object: measures against a mask of the object's pixels.

A map is read as importance first, one number a pixel, by :func:`importance`. Pixels of which nobody says
whether they show the object count neither way in any measure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from curvelens.errors import ArgumentError

THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 10))
QUANTILE = 0.99
"""Where importance is capped before it is compared with thresholds (Singla et al. 2019, App. D)."""


@dataclass(frozen=True)
class Localization:
    """How well a map finds an object; the better map has more of all but ``error``.

    Attributes:
        pointing: Pointing game (Zhang et al. 2018): share of the most important pixels, nearly always a
            single one, that lie on the object; 0 or 1 but for ties.
        energy: Share of all importance that lies on the object; of positive attributions in the cell of a
            grid it is the measure of Böhle et al. (2021, eq. 4).
        auc: Area under the ROC curve of importance as a classifier of pixels; 0.5 for a map by chance.
        iou: Intersection over union of the object with the pixels above a threshold, by threshold: of the
            importance capped at its 99 % quantile and scaled to [0, 1].
        best_iou: The largest of all thresholds that tell pixels apart, not only those of ``iou``.
        error: Distance between the most important pixel, for ties their centre, and the object's centre of
            mass, as a share of the picture's diagonal.
        chance: Share of the pixels that show the object: what ``pointing`` and ``energy`` are by chance, and
            the IoU of the whole picture.
    """

    pointing: float
    energy: float
    auc: float
    iou: dict[float, float]
    best_iou: float
    error: float
    chance: float

    @property
    def mean_iou(self) -> float:
        """Mean of ``iou`` over its thresholds."""
        return float(np.mean(list(self.iou.values())))


def importance(attribution: np.ndarray, *, contributions: bool = False) -> np.ndarray:
    """Read a map as the importance of pixels, which has no sign.

    Args:
        attribution: ``[C, H, W]``.
        contributions: Whether positive values speak for the class and negative ones against it. Then the
            channels are summed and what speaks against it counts as nothing; else magnitudes are summed
            (Singla et al. 2019, App. D), because the sign of a slope says which way to change a pixel.

    Returns:
        ``[H, W]`` in float64, nowhere negative.

    Raises:
        ArgumentError: The map is not ``[C, H, W]``, or not finite.
    """
    values = np.asarray(attribution, dtype=np.float64)
    if values.ndim != 3:
        raise ArgumentError(f"importance: a map must be [C, H, W], not {list(values.shape)}; reshape it")
    if not np.isfinite(values).all():
        raise ArgumentError("importance: the map has values that are not finite; check the method")
    return np.clip(values.sum(0), 0, None) if contributions else np.abs(values).sum(0)


def localization(
    pixels: np.ndarray,
    mask: np.ndarray,
    known: np.ndarray | None = None,
    thresholds: tuple[float, ...] = THRESHOLDS,
) -> Localization:
    """Compare the importance of pixels with where the object is.

    Args:
        pixels: ``[H, W]``, not negative, see :func:`importance`.
        mask: bool ``[H, W]``: where the object is.
        known: bool ``[H, W]``: the pixels that count; all by default.
        thresholds: In (0, 1).

    Raises:
        ArgumentError: The shapes differ, or of the pixels that count none or all show the object.
    """
    known = np.ones(mask.shape, bool) if known is None else known
    if not pixels.shape == mask.shape == known.shape:
        raise ArgumentError(
            f"localization: map {list(pixels.shape)}, mask {list(mask.shape)} and known pixels "
            f"{list(known.shape)} must have one shape; scale the mask to the map"
        )
    found, truth = pixels[known], mask[known]
    if not truth.any() or truth.all():
        raise ArgumentError(
            f"localization: {'all' if truth.any() else 'none'} of the pixels show the object; "
            "leave the image out"
        )
    scaled = _scaled(found)
    total = found.sum()
    return Localization(
        pointing=float(truth[found == found.max()].mean()),
        energy=float(found[truth].sum() / total) if total > 0 else float(truth.mean()),
        auc=_auc(found, truth),
        iou={threshold: _iou(scaled >= threshold, truth) for threshold in thresholds},
        best_iou=_best_iou(found, truth),
        error=_error(pixels, mask & known, known),
        chance=float(truth.mean()),
    )


def _scaled(found: np.ndarray) -> np.ndarray:
    """Cap importance at its 99 % quantile, or the maximum where a sparse map has 0 there; scale to [0, 1]."""
    cap = float(np.quantile(found, QUANTILE)) or float(found.max()) or 1.0
    return np.minimum(found / cap, 1)


def _auc(found: np.ndarray, truth: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, found))


def _iou(chosen: np.ndarray, truth: np.ndarray) -> float:
    union = (chosen | truth).sum()  # never 0: some pixel shows the object
    return float((chosen & truth).sum() / union)


def _best_iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest IoU over all thresholds, from one sort; pixels of equal importance go together."""
    order = np.argsort(-found, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.append(np.diff(found[order]) != 0, True)
    chosen = np.arange(1, len(found) + 1)
    return float((hits / (chosen + truth.sum() - hits))[last].max())


def _error(pixels: np.ndarray, mask: np.ndarray, known: np.ndarray) -> float:
    peak = np.argwhere(known & (pixels == pixels[known].max())).mean(0)
    height, width = pixels.shape
    return float(np.linalg.norm(peak - np.argwhere(mask).mean(0)) / math.hypot(height, width))
