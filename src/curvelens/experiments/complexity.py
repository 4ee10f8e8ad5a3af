"""Error of SmoothHess against calls and dimension, where the truth is known (Torop et al. 2023, eq. 9)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curvelens.jobs import progress
from curvelens.seeds import derive, generator
from curvelens.summaries.complexity import COMPLEXITY
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from curvelens.known import Quadratic, Ridges


def complexity(
    *,
    dimensions: Sequence[int],
    calls: Sequence[int],
    widths: Sequence[float],
    quadratic: bool,
    sigma: float,
    repeats: int,
    estimators: Sequence[str],
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Estimate the smoothed Hessian of random functions of which it is known in closed form.

    Everything is computed in float64. Each function is drawn anew for every repeat and shared by all
    estimators and numbers of calls; directions are independent between all rows.

    Args:
        dimensions: Input features d, each at least 3.
        calls: Gradient calls n, each at least 2.
        widths: ReLU units for each input feature.
        quadratic: Whether to add a quadratic.
        sigma: σ > 0.
        repeats: Functions for each dimension and width.
        estimators: Names from :data:`curvelens.smoothing.ESTIMATORS`.
        seed: Seed of the run.
        device: Where to compute.

    Returns:
        The table :data:`~curvelens.summaries.complexity.COMPLEXITY`.

    Raises:
        ArgumentError: An estimator is unknown or a number out of range.
    """
    kinds = [("ridges", width) for width in widths] + ([("quadratic", math.nan)] if quadratic else [])
    drawn = list(itertools.product(kinds, dimensions, range(repeats)))
    rows: list[dict[str, Any]] = []
    for (kind, width), d, repeat in progress(drawn, "sample complexity", "functions"):
        purpose = (f"{kind} {width:g} {d}", repeat, "sample complexity")
        known, x = _draw(kind, width, d, derive(seed, *purpose), device)
        head = {"function": kind, "width": width, "dimension": d, "repeat": repeat}
        truth = known.smoothed_hessian(x, sigma)
        for estimator, n in itertools.product(estimators, calls):
            directions = derive(seed, *purpose, estimator, n)
            rows.append(head | _measure(known, x, truth, sigma, estimator, n, directions))
    return frame(rows, COMPLEXITY)


def _draw(
    kind: str, width: float, d: int, seed: int, device: torch.device | str
) -> tuple[Ridges | Quadratic, torch.Tensor]:
    """Return a function and the point at which it is explained, on the device."""
    import torch

    from curvelens.known import random_quadratic, random_ridges

    known = random_quadratic(d, seed) if kind == "quadratic" else random_ridges(d, math.ceil(width * d), seed)
    x = torch.randn(d, generator=generator(seed, "point"), dtype=torch.float64)
    return known.to(device), x.to(device)


def _measure(
    known: Ridges | Quadratic,
    x: torch.Tensor,
    truth: torch.Tensor,
    sigma: float,
    estimator: str,
    calls: int,
    seed: int,
) -> dict[str, Any]:
    import torch

    from curvelens.smoothing import smooth_quadratic

    q = smooth_quadratic(known, x, sigma, calls, estimator, seed, matrix_free=False)
    difference = q.hessian() - truth
    spectral = torch.linalg.matrix_norm(difference, 2) / torch.linalg.matrix_norm(truth, 2)
    told = q.error if q.error is not None and math.isfinite(q.error) else math.nan
    return {
        "estimator": estimator,
        "calls": calls,
        "relative_error": float(difference.norm() / truth.norm()),
        "spectral_error": float(spectral),
        "estimated_error": told,
    }
