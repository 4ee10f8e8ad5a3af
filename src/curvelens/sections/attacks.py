"""The stage `attacks`."""

from __future__ import annotations

from pydantic import Field

from curvelens.sections.common import Closed, Count, Positive
from curvelens.sections.validated import Validated


class Pgd(Closed):
    """Projected gradient descent in the L2 ball: the bound that no local model should beat."""

    steps: Count = Field(100, description="Gradient steps of each start.")
    restarts: Count = Field(5, description="Starts for each image and size: the image, then random ones.")
    relative_step: Positive = Field(0.05, description="Length of a step divided by the size of the attack.")


class Attacks(Validated):
    """Attacks that minimise a local model (Torop et al. 2023, Tables 2, 4, 8)."""

    magnitudes: list[Positive] = Field(
        default_factory=lambda: [0.25, 0.5, 0.75, 1.25, 1.75],
        min_length=1,
        description="Attack sizes, L2 norm.",
    )
    sigma_squared: list[Positive] = Field(
        default_factory=lambda: [1e-3, 5e-3, 2e-2, 6e-2],
        min_length=1,
        description="Smoothing variance, the grid searched.",
    )
    truncation: float | None = Field(
        None,
        gt=0,
        le=1,
        description="T of the paper's truncated steps (App. D.1), beside exact ones; null leaves them out.",
    )
    pgd: Pgd | None = Field(None, description="The bound; null leaves it out.")
