"""Interactions at the origin of a network of two features, beside the exact ones of its target.

Torop et al. 2023, Fig. 2 (Four Quadrant) and 5 (Nested Interactions): the Hessian of the network smoothed by
a Gaussian, over σ², and of its SoftPlus surrogate, over β. The paper compares with the coefficients of the
target; here the exact Hessian of the smoothed target stands beside each (``curvelens.synthetic``). Fig. 1:
the surface before and after smoothing.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from curvelens import derivatives, seeds, targets, training
from curvelens.errors import ArgumentError
from curvelens.jobs import progress
from curvelens.smoothing import smooth_quadratic
from curvelens.summaries.interactions import (
    ELEMENTS,
    INTERACTIONS,
    INTERACTIONS_SURFACE,
    SMOOTHHESS,
    SOFTPLUS,
)
from curvelens.surrogates import softplus_surrogate
from curvelens.synthetic import BOUND, PiecewiseQuadratic, Target, smoothed_values
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd

_MATCHES = 401  # values of σ² among which the nearest exact Hessian of a SoftPlus network is sought


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        sigma_squared: Lowest and highest variance of the Gaussian, > 0.
        betas: Lowest and highest sharpness of SoftPlus, > 0.
        levels: Values of each, evenly spread on a logarithmic scale, ends included; at least 2.
        calls: Gradient calls for each σ², shared among the repeats.
        repeats: Independent estimates for each σ², at least 2; their spread is the error bar.
        estimator: Estimator of the smoothed Hessian.
        seed: The run's seed.
    """

    sigma_squared: tuple[float, float] = (1e-3, 1.0)
    betas: tuple[float, float] = (1e-1, 1e4)
    levels: int = 61
    calls: int = 16384
    repeats: int = 8
    estimator: str = "sobol"
    seed: int = 0


def interactions(model: torch.nn.Module, target: Target, settings: Settings, name: str = "") -> pd.DataFrame:
    """Measure the Hessian at the origin over the whole range of both smoothers.

    All σ² see the same directions, so the curves are smooth in σ². The network is copied to double precision:
    at small σ single precision would show its rounding instead.

    Args:
        model: Regression of two features on any device, ``[B, 2] -> [B]`` or ``[B, 1]``; it is not changed.
        target: What it was trained on.
        settings: What is measured.
        name: Name of the study, part of the randomness.

    Returns:
        An ``INTERACTIONS`` table.

    Raises:
        ArgumentError: Too few calls for the repeats.
    """
    if settings.repeats < 2 or settings.calls < 2 * settings.repeats:
        raise ArgumentError(
            f"interactions: {settings.calls} calls cannot be shared among {settings.repeats} repeats; "
            "give at least 2 repeats and 2 calls for each"
        )
    network = copy.deepcopy(model).double()
    origin = torch.zeros(2, dtype=torch.float64, device=next(network.parameters()).device)
    rows = []
    for level in progress(_levels(settings.sigma_squared, settings.levels), "SmoothHess", "levels"):
        start = time.perf_counter()
        mean, stderr, calls = _smoothed(network, origin, level, settings, name)
        exact, inside = _exact(target, level)
        facts = {"matched": level, "calls": calls, "seconds": time.perf_counter() - start}
        rows.append(_row(SMOOTHHESS, level, mean, stderr, exact, inside) | facts)
    matches = _levels(settings.sigma_squared, _MATCHES)
    known = np.stack([target.plane.smoothed_hessian(math.sqrt(level)) for level in matches])
    for beta in progress(_levels(settings.betas, settings.levels), "SoftPlus", "levels"):
        start = time.perf_counter()
        surrogate = targets.regression(softplus_surrogate(network, beta))
        with warnings.catch_warnings():
            # The sharpest SoftPlus is linear near the origin: its Hessian is zero, which is the answer here.
            warnings.simplefilter("ignore", derivatives.ZeroHessianWarning)
            found = derivatives.hessian(surrogate, origin).cpu().numpy()
        nearest = matches[int(np.argmin(_deviation(found, known)))]
        exact, inside = _exact(target, nearest)
        # One Hessian-vector product for each feature.
        facts = {"matched": nearest, "calls": 2, "seconds": time.perf_counter() - start}
        rows.append(_row(SOFTPLUS, beta, found, np.zeros((2, 2)), exact, inside) | facts)
    return frame(rows, INTERACTIONS)


def surfaces(
    model: torch.nn.Module, target: Target, sigma_squared: list[float], points: int = 41
) -> pd.DataFrame:
    """Evaluate the network, and the network smoothed, on a square grid (as in Torop et al. 2023, Fig. 1).

    Args:
        model: Regression of two features; it is not changed.
        target: What it was trained on.
        sigma_squared: Variances of the Gaussian; 0 gives the network itself.
        points: Points along each feature, at least 2.

    Returns:
        An ``INTERACTIONS_SURFACE`` table.
    """
    axis = np.linspace(-BOUND, BOUND, points)
    first, second = np.meshgrid(axis, axis, indexing="ij")
    wanted = target.plane(np.stack([first, second], axis=-1).reshape(-1, 2))

    def network(x: np.ndarray) -> np.ndarray:
        return training.predict(model, x).astype(np.float64)

    rows: list[dict[str, Any]] = []
    for variance in sigma_squared:
        values = smoothed_values(network, axis, math.sqrt(variance)).ravel()
        rows += [
            {"sigma_squared": variance, "x1": x1, "x2": x2, "value": value, "target": known}
            for x1, x2, value, known in zip(first.ravel(), second.ravel(), values, wanted, strict=True)
        ]
    return frame(rows, INTERACTIONS_SURFACE)


def _levels(ends: tuple[float, float], count: int) -> list[float]:
    return [float(level) for level in np.geomspace(*ends, count)]


def _smoothed(
    network: torch.nn.Module, origin: torch.Tensor, variance: float, settings: Settings, name: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return mean and standard error of independent estimates of SmoothHess, and the calls that they took."""
    f = targets.regression(network)
    found = [
        smooth_quadratic(
            f,
            origin,
            sigma=math.sqrt(variance),
            calls=settings.calls // settings.repeats,
            estimator=settings.estimator,
            seed=seeds.derive(settings.seed, name, "interactions", repeat),
        )
        for repeat in range(settings.repeats)
    ]
    hessians = np.stack([quadratic.hessian().cpu().numpy() for quadratic in found])
    stderr: np.ndarray = hessians.std(0, ddof=1) / math.sqrt(settings.repeats)
    return hessians.mean(0), stderr, sum(quadratic.calls for quadratic in found)


def _exact(target: Target, variance: float) -> tuple[np.ndarray, np.ndarray]:
    def of(function: PiecewiseQuadratic) -> np.ndarray:
        return function.smoothed_hessian(math.sqrt(variance))

    return of(target.plane), of(target.inside)


def _deviation(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return max |found − exact| / max |exact| over the elements of ``[..., 2, 2]``."""
    deviation: np.ndarray = np.abs(found - exact).max((-2, -1)) / np.abs(exact).max((-2, -1))
    return deviation


def _row(
    smoother: str, level: float, mean: np.ndarray, stderr: np.ndarray, exact: np.ndarray, inside: np.ndarray
) -> dict[str, Any]:
    row: dict[str, Any] = {"smoother": smoother, "level": level, "deviation": float(_deviation(mean, exact))}
    for element in ELEMENTS:
        i, j = int(element[0]) - 1, int(element[1]) - 1
        for column, matrix in (("h", mean), ("stderr", stderr), ("exact", exact), ("inside", inside)):
            row[f"{column}{element}"] = float(matrix[i, j])
    return row
