"""Intervals and tests of means over few images that assume nothing of their distribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_RESAMPLES = 2000


def interval(values: np.ndarray, seed: int = 0) -> tuple[float | None, float | None]:
    """Return the 95 % bootstrap interval of a mean (BCa, Efron 1987).

    Args:
        values: [n].
        seed: Seed of the resampling.

    Returns:
        Its ends; both the mean where the values do not vary, None for fewer than two.
    """
    if len(values) < 2:
        return None, None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    from scipy.stats import bootstrap

    found = bootstrap((values,), np.mean, n_resamples=_RESAMPLES, rng=np.random.default_rng(seed))
    low, high = found.confidence_interval
    return float(low), float(high)


def proportion_interval(hits: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a proportion (Clopper and Pearson 1934)."""
    from scipy.stats import binomtest

    found = binomtest(hits, n).proportion_ci(method="exact")
    return float(found.low), float(found.high)


def sign_flip(differences: np.ndarray, seed: int = 0) -> float | None:
    """Return the two-sided p-value of a mean difference under changes of sign (Fisher's permutation test).

    Args:
        differences: [n], of pairs.
        seed: Seed of the signs where not all of them are tried.

    Returns:
        None for fewer than two pairs.
    """
    if len(differences) < 2:
        return None
    from scipy.stats import permutation_test

    found = permutation_test(
        (differences,), lambda values, axis: values.mean(axis), permutation_type="samples",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979).

    Args:
        p_values: Of the tests that belong together.

    Returns:
        The adjusted ones, in the same order.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = largest
    return found
