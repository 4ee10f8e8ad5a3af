"""Predictions of a network that was never there, for the tests of evaluation and of the report."""

from __future__ import annotations

import numpy as np
import pandas as pd

from curvelens import tables
from curvelens.summaries.evaluation import PREDICTIONS, confusion, summarise

NAMES = ["cat", """<script>alert("x")</script> & 'dog'""", "$x_1$ größer"]


def rows(confidence, right, labels=None, names=None):
    """A table of predictions; a wrong one is the next class."""
    n = len(confidence)
    labels = np.zeros(n, int) if labels is None else np.asarray(labels)
    made = [
        {
            "image_id": names[i] if names else f"i{i:05d}",
            "label": labels[i],
            "prediction": labels[i] if right[i] else (labels[i] + 1) % 3,
            "confidence": confidence[i],
            "correct": bool(right[i]),
            "loss": 0.1,
            "entropy": 0.2,
            "origin": None,
            "seconds": 0.0,
            "calls": 0,
            "status": "ok",
            "error": "",
        }
        for i in range(n)
    ]
    return tables.frame(made, PREDICTIONS)


def drawn(n=500, seed=0, power=1.0):
    """Confidences, and images that are right with probability confidence**power."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(1 / 3, 1, n)
    return confidence, rng.uniform(size=n) < confidence**power, rng.integers(0, 3, n)


def made(names: list[str] = NAMES, n: int = 500) -> dict[str, pd.DataFrame]:
    """Every table of the stage, of n images whose confidence is somewhat too large."""
    predicted = rows(*drawn(n, power=1.5))
    summary, reliability = summarise(predicted)
    return {
        "predictions": predicted,
        "evaluation": summary,
        "reliability": reliability,
        "confusion": confusion(predicted, names),
    }
