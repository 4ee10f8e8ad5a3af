"""What stages with two steps share: parameters are chosen on validation images."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from curvelens.sections.common import Closed, Count, Positive


class Validated(Closed):
    """What two-stage experiments share: parameters are chosen on validation images only."""

    validation_images: Count = Field(10, description="Images that parameters are chosen on.")
    images: Count = Field(40, description="Images of the test split that results are reported on.")
    shards: Count = Field(2, description="Jobs per split.")
    calls: Count = Field(1568, ge=2, description="Gradient calls per smoothed model.")
    estimator: Literal["regression", "projected", "orthogonal", "antithetic", "sobol", "plain"] = Field(
        "regression", description="Estimator of the smoothed Hessian."
    )
    betas: list[Positive] = Field(
        default_factory=lambda: [5.0, 20.0, 80.0],
        description="SoftPlus sharpness, the grid searched; empty: no SoftPlus, for a network without ReLU.",
    )

    _grids: ClassVar[tuple[str, ...]] = ("betas",)
    _elsewhere: ClassVar[tuple[str, ...]] = ("shards",)

    def of_split(self, split: str) -> dict[str, Any]:
        """Return the settings that measurements on one split depend on, with its number of ``images``.

        Args:
            split: ``validation`` or ``test``; the test split knows no grids.
        """
        left_out = {"images", "validation_images", *self._elsewhere}
        left_out |= set() if split == "validation" else set(self._grids)
        count = self.validation_images if split == "validation" else self.images
        return {"images": count, **self.model_dump(mode="json", exclude=left_out)}
