"""Attacks compared in pairs on the same images: a difference can be clear where two intervals overlap."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Any

from curvelens.summaries.attacks import METHODS
from curvelens.tables import OK, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

ATTACKS_PAIRED = schema(
    "attacks_paired",
    "Two attacks of one size on the same test images.",
    {
        "method": Column(str, "One attack.", isin=METHODS),
        "other": Column(str, "The other.", isin=METHODS),
        "epsilon": Column(float, "Size of both, L2 norm, pixels in [0, 1].", gt=0),
        "images": Column(int, "Test images that both were made on.", ge=1),
        "only_method": Column(int, "Images whose prediction `method` alone changed.", ge=0),
        "only_other": Column(int, "Images whose prediction `other` alone changed.", ge=0),
        "difference": Column(
            float, "Accuracy left by `other` minus that by `method`: positive where `method` is stronger.",
            ge=-1, le=1,
        ),
        "ci_low": Column(float, "Lower end of its 95 % interval (Bonett and Price 2012).", ge=-1, le=1),
        "ci_high": Column(float, "Upper end.", ge=-1, le=1),
        "p_value": Column(float, "McNemar's exact test, two-sided, of this pair alone.", ge=0, le=1),
    },
    keys=("method", "other", "epsilon"),
)  # fmt: skip


def paired(test: pd.DataFrame) -> pd.DataFrame:
    """Compare all pairs of attacks at each size.

    Args:
        test: :data:`~curvelens.summaries.attacks.ATTACKS` of the test split.

    Returns:
        The table :data:`ATTACKS_PAIRED`; the attack that comes first in
        :data:`~curvelens.summaries.attacks.METHODS` is ``method``.
    """
    rows = test[test["status"] == OK]
    made: list[dict[str, Any]] = []
    for epsilon, part in rows.groupby("epsilon"):
        changed = part.pivot_table("changed", "image_id", "method", aggfunc="max").astype("boolean")
        present = [method for method in METHODS if method in changed]
        for method, other in combinations(present, 2):
            both = changed[[method, other]].dropna().astype(bool)
            if len(both):
                only_method = int((both[method] & ~both[other]).sum())
                only_other = int((both[other] & ~both[method]).sum())
                head = {"method": method, "other": other, "epsilon": epsilon, "images": len(both)}
                made.append(head | _compare(only_method, only_other, len(both)))
    return frame(made, ATTACKS_PAIRED)


def _compare(only_method: int, only_other: int, images: int) -> dict[str, Any]:
    low, high = paired_interval(only_method, only_other, images)
    return {
        "only_method": only_method,
        "only_other": only_other,
        "difference": (only_method - only_other) / images,
        "ci_low": low,
        "ci_high": high,
        "p_value": mcnemar(only_method, only_other),
    }


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test, 1 where no image tells the two apart.

    Args:
        only_first: Images on which the first alone succeeded.
        only_second: Images on which the second alone did.
    """
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return 1.0 if discordant == 0 else float(binomtest(only_first, discordant, 0.5).pvalue)


def paired_interval(
    only_first: int, only_second: int, images: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return an interval of the difference of two paired proportions (Bonett and Price 2012, adjusted Wald).

    One image is added to either kind of discordant ones, two to all, which keeps the interval honest for few
    images and for none that is discordant.

    Args:
        only_first: Images on which the first alone succeeded.
        only_second: Images on which the second alone did.
        images: All images, at least 1.
        confidence: In (0, 1).

    Returns:
        Lower and upper end of ``(only_first − only_second) / images``, in [−1, 1].
    """
    from scipy.stats import norm

    first, second = (only_first + 1) / (images + 2), (only_second + 1) / (images + 2)
    half = norm.ppf((1 + confidence) / 2) * math.sqrt((first + second - (first - second) ** 2) / (images + 2))
    return max(-1.0, first - second - half), min(1.0, first - second + half)
