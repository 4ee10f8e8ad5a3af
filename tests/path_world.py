"""A made-up path between two images: its table and the arrays of its film."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from curvelens.figures.film import Content
from curvelens.summaries.path import METHODS, PATH, jumps

T = 26
NAMES = ["cat, tabby", "<b>dog</b>", "fox $5"]


def table(switch: int | None = 13, width: float = 0.01, **columns: Any) -> pd.DataFrame:
    """A path from class 0 to class 1 that is crossed at ``switch``, as steeply as ``width`` is small."""
    t = np.linspace(0, 1, T)
    middle = 2.0 if switch is None else (switch - 0.5) / (T - 1)
    p = 1 / (1 + np.exp(np.clip((t - middle) / width, -50, 50)))
    step = 0.1 * np.ones(T)
    step[0] = np.nan
    made: dict[str, Any] = {
        "start_id": "a", "end_id": "b", "step": np.arange(T), "t": t, "distance": 20 * t, "start_class": 0,
        "end_class": 1, "start_probability": p, "end_probability": 1 - p, "prediction": (p < 0.5).astype(int),
        "confidence": np.maximum(p, 1 - p), "prediction_change": np.r_[np.nan, np.abs(np.diff(p))],
        "prediction_jump": False, "value": 5.0, "gradient_norm": 1.0, "slope": 0.0, "curvature": 0.0,
        "loss_curvature": p * (1 - p), "step_curvature": np.r_[np.nan, np.full(T - 2, 0.3), np.nan],
        "smoothed_curvature": np.nan, "start_score": 10 - 10 * t, "start_score_from_gradient": 10 - 10 * t,
        "start_score_from_smoothgrad": 10 - 10 * t, "regions_crossed": 4, "units_switched": 3,
        "switched_share": 0.03, "seconds": 1.0, "calls": 3,
    }  # fmt: skip
    for name, size in zip(METHODS, (3, 2, 1), strict=True):
        made |= {f"{name}_change": step / 2, f"{name}_distance": size * step, f"{name}_jump": False}
    made |= columns
    for name in METHODS:
        made[f"{name}_jump"] = jumps(np.broadcast_to(made[f"{name}_distance"], T))
    return PATH.validate(pd.DataFrame(made))


def arrays(channels: int = 1) -> dict[str, np.ndarray]:
    """Images and maps ``[T, channels, 8, 8]``."""
    rng = np.random.default_rng(0)
    maps = {name: rng.standard_normal((T, channels, 8, 8)) for name in METHODS}
    maps["vargrad"] = maps["vargrad"] ** 2
    return {"t": np.linspace(0, 1, T), "images": rng.random((T, channels, 8, 8)), **maps}


def content(frames: int) -> Content:
    """What a short film shows."""
    made = arrays()
    t = made["t"][:frames]
    return Content(made["images"][:frames], {"gradient": made["gradient"][:frames]}, t, {"1": t})
