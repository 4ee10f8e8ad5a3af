"""Forced exhalations as volume-time curves: simulated, read from files, and measured.

A curve is what Torop et al. (2023, App. E) give their network: the volume exhaled, in litres, at 300 times
50 ms apart (15 s). The first is time zero of the standard (see :mod:`curvelens.spirometry.indices`), so that
sample 20 of an undisturbed effort is its FEV1.
"""

from curvelens.spirometry.indices import INTERVAL, SAMPLES, Indices, measure, on_grid
from curvelens.spirometry.readers import Curves, read_curves
from curvelens.spirometry.simulator import (
    MOST_COUGHS,
    Effort,
    Simulated,
    cough_clock,
    emptied,
    flow,
    simulate,
)

__all__ = [
    "INTERVAL",
    "MOST_COUGHS",
    "SAMPLES",
    "Curves",
    "Effort",
    "Indices",
    "Simulated",
    "cough_clock",
    "emptied",
    "flow",
    "measure",
    "on_grid",
    "read_curves",
    "simulate",
]
