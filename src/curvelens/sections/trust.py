"""The stage `trust`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curvelens.sections.common import Closed, Count, Law, Positive, Predicted, Share, check_radii

TrustMethod = Literal["SH+SG", "SG", "SP H+G", "SP G", "G"]


def _default_trust_methods() -> list[TrustMethod]:
    return ["SH+SG", "SG", "SP H+G", "SP G", "G"]


class Trust(Closed):
    """How far each local model may be believed: its trust radius, image by image."""

    validation_images: Count = Field(6, description="Images that sigma and beta are chosen on.")
    images: Count = Field(16, description="Images of the test split that results are reported on.")
    shards: Count = Field(1, description="Jobs.")
    methods: list[TrustMethod] = Field(
        default_factory=_default_trust_methods,
        min_length=1,
        description="Local models: SmoothHess + SmoothGrad, SmoothGrad, SoftPlus, gradient.",
    )
    thresholds: list[Share] = Field(
        default_factory=lambda: [0.9],
        min_length=1,
        description="Relative fidelity asked for: the share of the mean squared change that is predicted.",
    )
    scalar: Predicted = Field("predicted_logit", description="The number that is modelled.")
    law: Law = Field("ball", description="Law of the perturbations' lengths, as in `fidelity`.")
    smoothing_radii: list[Positive] = Field(
        default_factory=lambda: [1.0, 2.0, 4.0],
        min_length=1,
        description="sigma = radius / sqrt(d), the grid searched.",
    )
    betas: list[Positive] = Field(
        default_factory=lambda: [3.0, 6.0, 12.0],
        min_length=1,
        description="SoftPlus sharpness, the grid searched.",
    )
    smallest: Positive = Field(0.05, description="Smallest radius looked at, L2 norm.")
    largest: Positive = Field(16.0, description="Largest radius looked at.")
    samples: Count = Field(400, ge=2, description="Perturbations per image and radius.")
    calls: Count = Field(1568, ge=2, description="Gradient calls per smoothed model.")

    @model_validator(mode="after")
    def _ascending(self) -> Trust:
        check_radii(self.smallest, self.largest)
        return self
