"""Which intervals of an exhalation a network draws on for FEV1, and which of them interact.

Torop et al. 2023, Sec. 5.2, Fig. 3 and 4. SmoothGrad and SmoothHess of the prediction come from the same
gradient calls and are summed over intervals of 0.5 s. The calls are made in independent parts, whose spread
gives the error bars. Each coughing effort is explained beside its twin, the same effort without coughs: what
both show is not due to the cough.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from curvelens import targets
from curvelens.experiments.exhalations import CurveSet
from curvelens.experiments.rows import one_line
from curvelens.fidelity import perturbation_mse
from curvelens.jobs import progress
from curvelens.quadratic import LocalQuadratic
from curvelens.seeds import derive
from curvelens.smoothing import smooth_quadratic
from curvelens.spirometry import INTERVAL, SAMPLES
from curvelens.summaries.spirometry import (
    SPIROMETRY_EXPLANATIONS,
    SPIROMETRY_INTERACTIONS,
    SPIROMETRY_INTERVALS,
    SPIROMETRY_SAMPLES,
)
from curvelens.tables import FAILED, OK, frame

if TYPE_CHECKING:
    import pandas as pd

    from curvelens.studies import Spirometry
    from curvelens.tables import Table

GROUP = 10
"""Samples of an interval: 0.5 s."""

INTERVALS = SAMPLES // GROUP
_SAMPLES_OF_PMSE = 1000


def near(study: Spirometry) -> int:
    """Return how many intervals apart samples within the narrow network's reach may lie."""
    samples = min(study.blocks * (study.narrow - 1), SAMPLES - 1)
    return (samples + GROUP - 1) // GROUP


def explain_curves(
    study: Spirometry,
    model: torch.nn.Module,
    network: str,
    curves: CurveSet,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, pd.DataFrame]:
    """Explain the predicted FEV1 of the chosen curves.

    Args:
        study: The settings.
        model: Network on ``device``; it is left as it was found.
        network: "wide" or "narrow".
        curves: All curves.
        seed: Seed of the run.
        device: Where to compute.

    Returns:
        Tables by name: ``explanations``, ``intervals``, ``interactions``, ``samples``.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
    f = targets.regression(model)
    for index, group in progress(curves.explained(), f"explaining, {network} kernels", "curves"):
        name = curves.examples.ids[index]
        head: dict[str, Any] = {"image_id": name, "network": network, "group": group}
        began = time.perf_counter()
        x = torch.from_numpy(curves.examples.inputs[index]).to(device)
        for k, volume in enumerate(x[0].tolist()):
            rows["samples"].append({"image_id": name, "time": k * INTERVAL, "volume": volume})
        facts = {
            "fev1": float(curves.examples.targets[index]),
            "sigma": study.sigma,
            "repeats": study.repeats,
        }
        try:
            plateau = _in_plateau(curves, index)
            found = _estimate(study, f, x, derive(seed, name, "spirometry", "explanation"))
            told = _told(study, found, plateau)
            rows["intervals"] += [head | row for row in _interval_rows(found, plateau)]
            rows["interactions"] += [head | row for row in _pair_rows(found)]
            outcome = {**told, "calls": found.calls, "status": OK, "error": ""}
        except Exception as error:  # one bad curve spoils one row
            outcome = {"calls": 0, "status": FAILED, "error": one_line(error)}
        seconds = {"seconds": time.perf_counter() - began}
        rows["explanations"].append(head | facts | outcome | seconds)
    return {name: frame(rows[name], table) for name, table in _TABLES.items()}


_TABLES: dict[str, Table] = {
    "explanations": SPIROMETRY_EXPLANATIONS,
    "intervals": SPIROMETRY_INTERVALS,
    "interactions": SPIROMETRY_INTERACTIONS,
    "samples": SPIROMETRY_SAMPLES,
}


@dataclass(frozen=True)
class _Estimate:
    """Sums by interval, one estimate a repeat, float64 on the CPU.

    Attributes:
        attributions: ``[R, 30]``.
        interactions: ``[R, 30, 30]``.
        calls: Gradient calls made.
        prediction: f(x).
        pmse: P_MSE with and without curvature.
        radius: ε of P_MSE.
    """

    attributions: Tensor
    interactions: Tensor
    calls: int
    prediction: float
    pmse: tuple[float, float]
    radius: float


def grouped(gradient: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor]:
    """Return sums over intervals: ``[..., 300]`` -> ``[30]``, ``[300, 300]`` -> ``[30, 30]``, in float64."""
    blocks = hessian.double().reshape(INTERVALS, GROUP, INTERVALS, GROUP)
    return gradient.double().reshape(INTERVALS, GROUP).sum(1), blocks.sum((1, 3))


def _estimate(study: Spirometry, f: targets.Scalar, x: Tensor, seed: int) -> _Estimate:
    """Estimate both derivatives in independent parts; each gives both from the same calls."""
    parts = [
        smooth_quadratic(f, x, study.sigma, study.calls // study.repeats, seed=derive(seed, "part", part))
        for part in range(study.repeats)
    ]
    sums = [grouped(part.gradient, part.hessian()) for part in parts]
    gradient = torch.stack([part.gradient for part in parts]).mean(0)
    hessian = torch.stack([part.hessian() for part in parts]).mean(0)
    model = LocalQuadratic(parts[0].value, gradient, hessian)
    radius = study.sigma * math.sqrt(SAMPLES)
    both = perturbation_mse(
        f, [model, model.first_order()], x, radius, samples=_SAMPLES_OF_PMSE, seed=derive(seed, "P_MSE")
    )
    assert isinstance(both, list)
    return _Estimate(
        torch.stack([attribution for attribution, _ in sums]).cpu(),
        torch.stack([interaction for _, interaction in sums]).cpu(),
        sum(part.calls for part in parts),
        float(parts[0].value),
        (both[0].mean, both[1].mean),
        radius,
    )


def _in_plateau(curves: CurveSet, index: int) -> np.ndarray | None:
    """Return the share of each interval in plateaus, [30]; None where they are not known."""
    if curves.split[index] == "recorded":
        return None
    start = 0.5 * np.arange(INTERVALS)
    share = np.zeros(INTERVALS)
    for begin, end in curves.plateaus[index]:
        if np.isfinite(begin):
            share += np.clip(np.minimum(end, start + 0.5) - np.maximum(begin, start), 0, None) / 0.5
    return np.minimum(share, 1)


def _told(study: Spirometry, found: _Estimate, plateau: np.ndarray | None) -> dict[str, Any]:
    """Return what one row of :data:`SPIROMETRY_EXPLANATIONS` says."""
    attribution, interaction = found.attributions.mean(0), found.interactions.mean(0)
    strongest = int(interaction[0, 1:].abs().argmax()) + 1
    known = plateau is not None and bool((plateau[1:] > 0).any())
    within = near(study)
    return {
        "prediction": found.prediction,
        "attribution_error": _relative(found.attributions),
        "interaction_error": _relative(found.interactions),
        "radius": found.radius,
        "pmse": found.pmse[0],
        "pmse_first_order": found.pmse[1],
        "first_share": float(attribution[0].abs() / attribution.abs().sum()),
        "strongest": 0.5 * strongest,
        "strongest_in_plateau": bool(plateau[strongest] > 0) if plateau is not None and known else None,
        "plateau_share": float((plateau[1:] > 0).mean()) if plateau is not None and known else None,
        "near": 0.5 * within,
        **locality(found.interactions, within),
    }


def _relative(estimates: Tensor) -> float:
    """Return the norm of the standard error over that of the mean of independent estimates."""
    return float(_standard_error(estimates).norm() / estimates.mean(0).norm())


def _standard_error(estimates: Tensor) -> Tensor:
    return estimates.std(0) / math.sqrt(len(estimates))


def locality(estimates: Tensor, within: int) -> dict[str, float]:
    """Return how near to the diagonal interactions lie.

    The squared interactions are estimated without the bias that noise adds, E[a_r a_s] = E[a]² for
    independent estimates r ≠ s.

    Args:
        estimates: ``[R, m, m]``, independent estimates, R ≥ 2.
        within: Intervals apart that count as near.

    Returns:
        near_share, near_energy, and mean_distance and energy_distance in s.
    """
    count, m = len(estimates), estimates.shape[-1]
    apart = (torch.arange(m)[:, None] - torch.arange(m)).abs().to(estimates)
    size = estimates.mean(0).abs()
    energy = (estimates.sum(0) ** 2 - (estimates**2).sum(0)) / (count * (count - 1))
    return {
        "near_share": float(size[apart <= within].sum() / size.sum()),
        "near_energy": float(energy[apart <= within].sum() / energy.sum()),
        "mean_distance": 0.5 * float((apart * size).sum() / size.sum()),
        "energy_distance": 0.5 * float((apart * energy).sum() / energy.sum()),
    }


def _interval_rows(found: _Estimate, plateau: np.ndarray | None) -> list[dict[str, Any]]:
    attribution, interaction = found.attributions.mean(0), found.interactions.mean(0)
    errors = _standard_error(found.attributions), _standard_error(found.interactions)
    return [
        {
            "interval": k,
            "start": 0.5 * k,
            "attribution": float(attribution[k]),
            "attribution_error": float(errors[0][k]),
            "interaction": float(interaction[0, k]),
            "interaction_error": float(errors[1][0, k]),
            "plateau": None if plateau is None else float(plateau[k]),
        }
        for k in range(INTERVALS)
    ]


def _pair_rows(found: _Estimate) -> list[dict[str, Any]]:
    interaction, error = found.interactions.mean(0), _standard_error(found.interactions)
    pairs: Sequence[tuple[int, int]] = [(a, b) for a in range(INTERVALS) for b in range(a, INTERVALS)]
    return [
        {
            "first": a,
            "second": b,
            "interaction": float(interaction[a, b]),
            "standard_error": float(error[a, b]),
        }
        for a, b in pairs
    ]
