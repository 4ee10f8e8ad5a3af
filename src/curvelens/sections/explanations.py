"""The stage `explanations`."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from curvelens.sections.common import Closed, Count, Positive, Predicted, Share, check_radii


def _default_methods() -> dict[str, dict[str, Any]]:
    return {"gradient": {}, "smoothgrad": {}, "vargrad": {}}


class MapTrust(Closed):
    """How far each stored map may be believed, a column of their index."""

    threshold: Share = Field(0.9, description="Share of the mean squared change that a map has to predict.")
    samples: Count = Field(100, ge=2, description="Perturbations per image and radius.")
    smallest: Positive = Field(0.125, description="Smallest radius looked at, L2 norm.")
    largest: Positive = Field(16.0, description="Largest radius looked at.")

    @model_validator(mode="after")
    def _ascending(self) -> MapTrust:
        check_radii(self.smallest, self.largest)
        return self


class Explanations(Closed):
    """Per-image explanations, stored in shards."""

    images: Count = Field(100, description="Images of the test split, taken class by class.")
    shards: Count = Field(2, description="Jobs; each should be minutes of work at your scale.")
    scalar: Predicted = Field("predicted_logit", description="The number that is explained.")
    trust: MapTrust | None = Field(
        default_factory=lambda: MapTrust(),
        description="How far each map may be believed, a column of the index; null leaves it out.",
    )
    methods: dict[str, dict[str, Any]] = Field(
        default_factory=_default_methods,
        description="Registered methods with their parameters.",
        min_length=1,
    )
