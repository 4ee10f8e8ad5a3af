"""The stage `judging`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curvelens.sections.common import Closed, Count, Positive, Share


class Grids(Closed):
    """Pictures put together from several images: a map of one image's class should stay in its cell."""

    count: Count = Field(3, description="Grids; one class is explained in each.")
    shape: tuple[Count, Count] = Field(
        (2, 2), description="Rows and columns of images, all of different classes."
    )
    confidence: float = Field(
        0.5, ge=0, lt=1, description="Images are taken that are classified correctly and surer than this."
    )

    @model_validator(mode="after")
    def _several(self) -> Grids:
        if self.shape[0] * self.shape[1] < 2:
            raise ValueError("shape = [1, 1] leaves nothing to choose from; give two cells or more")
        return self


class Stability(Closed):
    """How much maps change when the image hardly does; every method explains noisy copies anew."""

    images: Count = Field(2, description="Images, the first of the stage.")
    sigma: Positive = Field(0.02, description="Standard deviation of the noise, in units of pixel value.")
    draws: Count = Field(3, description="Noisy copies of each image.")


class Randomization(Closed):
    """Whether maps change when the network's weights are randomised; every method explains such networks."""

    images: Count = Field(1, description="Images, the first of the stage.")
    stages: Count = Field(3, description="Random networks, from the output layer alone to all layers.")


class Judging(Closed):
    """The stored maps judged by numbers: do they point at the object, does the network react as they say?"""

    images: Count = Field(12, description="Images, the first of those that are explained.")
    shards: Count = Field(1, description="Jobs.")
    thresholds: list[Share] = Field(
        default_factory=lambda: [round(0.1 * step, 1) for step in range(1, 10)],
        min_length=1,
        description="Thresholds of the IoU, of importance capped at its 99 % quantile and scaled to [0, 1].",
    )
    baseline: Literal["blur", "mean", "black"] = Field(
        "blur", description="What takes the place of deleted pixels, and what pixels are inserted into."
    )
    blur: Positive = Field(
        0.05, le=1, description="Standard deviation of the blur as a share of the image's smaller side."
    )
    steps: Count = Field(12, description="Steps of the deletion and insertion curves.")
    radii: list[Positive] = Field(
        default_factory=lambda: [0.5, 2.0, 8.0],
        description="Radii of P_MSE of the loss, L2 norm; none leaves it out.",
    )
    samples: int = Field(
        64, ge=4, description="Perturbations at each radius: half choose a map's factor, half measure it."
    )
    grids: Grids | None = Field(None, description="Grids of several images; null leaves them out.")
    stability: Stability | None = Field(
        default_factory=lambda: Stability(),
        description="Stability under noise, and cost; null leaves them out.",
    )
    randomization: Randomization | None = Field(
        default_factory=lambda: Randomization(), description="The sanity check; null leaves it out."
    )
    again: list[str] | None = Field(
        None,
        description="Methods that explain anew (grids, noisy images, random networks); null: all.",
    )

    @model_validator(mode="after")
    def _enough_images(self) -> Judging:
        for name in ("stability", "randomization"):
            part = getattr(self, name)
            if part is not None and part.images > self.images:
                raise ValueError(
                    f"judging.{name}.images = {part.images} is more than judging.images = {self.images}; "
                    "ask for fewer"
                )
        return self
