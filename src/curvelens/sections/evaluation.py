"""The stage `evaluation`."""

from __future__ import annotations

from pydantic import Field

from curvelens.sections.common import Closed, Count


class Evaluation(Closed):
    """How often a network is right, on which classes it errs, and whether its confidence can be believed."""

    images: Count | None = Field(None, description="Images of the test split; null: all.")
    bins: int = Field(10, ge=2, le=100, description="Bins of equal width, by confidence, of the calibration.")
