"""Verdicts on printed numbers: reproduced, different, or not reproducible, by rules that are stated here.

Networks differ in scale and robustness even when trained alike. P_MSE scales with the square of a network's
scores, so a whole column of a table (all methods for one function at one radius) may be off by one factor;
what the paper claims is how methods compare within a column. The rules say which of the two is the case.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

BAND = 2.0
RATIO_BAND = 1.5
POINTS = 0.05
_Z = 1.96

REPRODUCED = "reproduced"
SCALED = "reproduced up to scale"
DIFFERS = "differs"
NOT_REPRODUCIBLE = "not reproducible"
KINDS = (REPRODUCED, SCALED, DIFFERS, NOT_REPRODUCIBLE)

RULES = {
    REPRODUCED: f"within a factor {BAND:g} of the printed number (parameters: {RATIO_BAND:g}); a share "
    f"within {100 * POINTS:g} points, or within the 95 % interval of the difference of both samples",
    SCALED: f"not so, but within a factor {RATIO_BAND:g} ({100 * POINTS:g} points) once the column is "
    "divided by (less) what its methods have in common: another network, the same comparison",
    DIFFERS: "neither",
    NOT_REPRODUCIBLE: "neither, and the printed number contradicts itself or the rest of the paper",
}


class Verdict(NamedTuple):
    """What is said of one printed number.

    Attributes:
        kind: One of :data:`KINDS`.
        reason: Why, in words; empty where it is reproduced.
    """

    kind: str
    reason: str


def of_error(ours: float, theirs: float, common: float = 1.0, doubt: str = "") -> Verdict:
    """Judge a positive number that scales with the network: a mean or standard deviation of P_MSE.

    Args:
        ours, theirs: The two numbers, > 0.
        common: Factor ours/theirs that the methods of the column share, see :func:`common_factor`.
        doubt: Why the printed number is not to be believed; empty if nothing speaks against it.
    """
    ratio = ours / theirs
    if _within(ratio, BAND):
        return Verdict(REPRODUCED, "")
    if doubt:
        return Verdict(NOT_REPRODUCIBLE, doubt)
    beside = ratio / common
    if _within(beside, RATIO_BAND):
        return Verdict(SCALED, f"all methods of this column are {_times(common)} here")
    return Verdict(DIFFERS, f"{_times(beside)} than the other methods of this column have it")


def of_share(ours: float, images: int, theirs: float, their_images: int, common: float = 0.0) -> Verdict:
    """Judge a share of images, such as post-hoc accuracy.

    Args:
        ours, theirs: Shares in [0, 1].
        images, their_images: Number of images of each.
        common: Difference ours − theirs that the methods of the column share, see :func:`common_shift`.
    """
    difference = ours - theirs
    # Agresti and Caffo 2000: one success and one failure more in each sample, so that 0 and 1 have a width.
    smoothed = [(p * n + 1, n + 2) for p, n in ((ours, images), (theirs, their_images))]
    variance = sum(k / n * (1 - k / n) / n for k, n in smoothed)
    if abs(difference) <= max(POINTS, _Z * math.sqrt(variance)) + 1e-12:
        return Verdict(REPRODUCED, "")
    beside = difference - common
    if abs(beside) <= POINTS + 1e-12:
        return Verdict(SCALED, f"all methods of this column are {_points(common)} here")
    return Verdict(DIFFERS, f"{_points(beside)} than the other methods of this column have it")


def of_parameter(ours: float, theirs: float, doubt: str = "") -> Verdict:
    """Judge a parameter that was chosen from a grid.

    Args:
        ours, theirs: The two values, > 0.
        doubt: Why the printed value is not to be believed; empty if nothing speaks against it.
    """
    ratio = ours / theirs
    if _within(ratio, RATIO_BAND):
        return Verdict(REPRODUCED, "")
    if doubt:
        return Verdict(NOT_REPRODUCIBLE, doubt)
    return Verdict(DIFFERS, f"{_times(ratio)}, chosen for another network")


def common_factor(ratios: Iterable[float]) -> float:
    """Return the median of positive ratios on a logarithmic scale; 1 if there are none.

    The median, so that one method that fares otherwise does not move the others.
    """
    logs = [math.log(ratio) for ratio in ratios if ratio > 0 and math.isfinite(ratio)]
    return math.exp(_median(logs)) if logs else 1.0


def common_shift(differences: Iterable[float]) -> float:
    """Return the median of differences; 0 if there are none."""
    found = [difference for difference in differences if math.isfinite(difference)]
    return _median(found) if found else 0.0


def exponent(radii: Sequence[float], values: Sequence[float]) -> float:
    """Return the power of the radius that values grow with: the slope of a line through both logarithms.

    Args:
        radii: At least two different radii, > 0.
        values: One for each, > 0.

    Returns:
        The slope; NaN if fewer than two radii are given.
    """
    if len(set(radii)) < 2:
        return math.nan
    x, y = [math.log(radius) for radius in radii], [math.log(value) for value in values]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return products / sum((a - middle_x) ** 2 for a in x)


def lowest_or_tied(means: Mapping[str, float], errors: Mapping[str, float], method: str) -> bool:
    """Say whether a method has the lowest mean, or one above it by no more than its own standard error.

    Args:
        means: Mean by method.
        errors: Standard error by method; NaN counts as 0.
        method: The method in question.
    """
    slack = errors.get(method, math.nan)
    return means[method] - (0.0 if math.isnan(slack) else slack) <= min(means.values())


def _within(ratio: float, band: float) -> bool:
    return 1 / band <= ratio * (1 + 1e-12) and ratio <= band * (1 + 1e-12)


def _median(numbers: Sequence[float]) -> float:
    ordered, half = sorted(numbers), len(numbers) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _times(ratio: float) -> str:
    size, word = (ratio, "higher") if ratio >= 1 else (1 / ratio, "lower")
    return f"{size:.2g} times {word}" if size < 100 else f"{size:,.0f} times {word}"


def _points(difference: float) -> str:
    return f"{abs(100 * difference):.0f} points {'higher' if difference >= 0 else 'lower'}"
