"""The stage `path`."""

from __future__ import annotations

from pydantic import Field

from curvelens.sections.common import Closed, Positive


class Path(Closed):
    """The straight path between two images of different classes, explained at every point and filmed."""

    classes: tuple[int, int] | None = Field(
        None, description="Classes of the first and the last image; null takes the first two that differ."
    )
    steps: int = Field(26, ge=25, description="Points on the path, one frame each; a film of 5 s.")
    noise: Positive = Field(0.15, description="Standard deviation of SmoothGrad's and VarGrad's noise.")
    samples: int = Field(64, ge=2, description="Noisy copies per point.")
