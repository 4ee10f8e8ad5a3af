"""The stage `superpixels`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curvelens.sections.common import Closed, Count, Law, Positive

InteractionMethod = Literal["SH+SG", "SP H+G", "SW H+G"]


def _default_interaction_methods() -> list[InteractionMethod]:
    return ["SH+SG", "SP H+G", "SW H+G"]


class Superpixels(Closed):
    """Interactions between super-pixels of single images (Torop et al. 2023, Fig. 6)."""

    images: Count = Field(3, description="Images of the test split, taken class by class.")
    shards: Count = Field(1, description="Jobs.")
    segments: tuple[int, int] = Field((20, 25), description="Fewest and most super-pixels of an image.")
    compactness: Positive | None = Field(
        None,
        description="SLIC's weight of nearness against colour; null takes the first of several values that "
        "gives as many super-pixels.",
    )
    methods: list[InteractionMethod] = Field(
        default_factory=_default_interaction_methods,
        min_length=1,
        description="Local models whose Hessians are summed: SmoothHess, SoftPlus, Swish.",
    )
    radius: Positive = Field(0.25, description="Radius of the ball that P_MSE is measured in, L2 norm.")
    law: Law = Field("ball", description="Law of the perturbations, as for `fidelity`.")
    samples: Count = Field(
        200, ge=2, description="Perturbations; a surrogate's Hessian is multiplied with each where d > 4096."
    )
    sigma_factor: Positive = Field(0.75, description="sigma = factor * radius / sqrt(d).")
    beta: Positive = Field(11.5, description="Sharpness of SoftPlus; Table 3 has 11.5 for CIFAR-10.")
    swish_beta: Positive = Field(8.5, description="Sharpness of Swish; Table 3 has 8.5 for CIFAR-10.")
    calls: Count = Field(1568, ge=2, description="Gradient calls of the smoothed model.")
    interaction_calls: Count | None = Field(
        None,
        description="Further gradient calls for the smoothed interactions alone; null sums the smoothed "
        "model's own Hessian, which takes about 2 d calls to know.",
    )
    shared_scale: bool = Field(
        False, description="One colour scale for all maps of an image, instead of one for each map."
    )

    @model_validator(mode="after")
    def _segments_make_sense(self) -> Superpixels:
        low, high = self.segments
        if not 2 <= low <= high:
            raise ValueError(f"segments = {low} to {high} are impossible; give 2 <= fewest <= most")
        if self.interaction_calls is not None and self.interaction_calls < 8 * high:
            raise ValueError(
                f"interaction_calls = {self.interaction_calls} give no error bar for {high} super-pixels; "
                f"give at least {8 * high}, or null"
            )
        return self
