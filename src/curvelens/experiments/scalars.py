"""The numbers that experiments explain, by their names in the configuration."""

from __future__ import annotations

from curvelens import targets

PREDICTED = {
    "predicted_logit": targets.logit,
    "predicted_probability": targets.probability,
    "predicted_log_probability": targets.log_probability,
    "margin": targets.margin,
}
"""Functions of a network and the class that it predicts."""
