"""The stage `fidelity`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from curvelens.sections.common import Count, Law, Positive
from curvelens.sections.validated import Validated

Function = Literal["predicted_logit", "inner_neuron"]
Shape = Literal["isotropic", "per_feature", "full"]


def _default_laws() -> list[Law]:
    return ["ball", "paper"]


def _default_covariance() -> list[Shape]:
    return ["isotropic"]


def _default_scalars() -> list[Function]:
    return ["predicted_logit", "inner_neuron"]


class Fidelity(Validated):
    """P_MSE of local models (Torop et al. 2023, Tables 1, 3, 5, 6)."""

    radii: list[Positive] = Field(
        default_factory=lambda: [0.25, 0.5, 1.0],
        min_length=1,
        description="Radii of the ball, L2 norm, pixels in [0, 1].",
    )
    laws: list[Law] = Field(
        default_factory=_default_laws,
        min_length=1,
        description="`ball`: uniform in the ball; `paper`: uniform radius, as the published code draws it.",
    )
    scalars: list[Function] = Field(
        default_factory=_default_scalars,
        min_length=1,
        description="Functions that are modelled.",
    )
    neuron_class: Annotated[int, Field(ge=0)] | str = Field(
        3, description="Class (name or index) whose training images activate the inner neuron most."
    )
    covariance: list[Shape] = Field(
        default_factory=_default_covariance,
        min_length=1,
        description="Smoothing noise: `isotropic`, or shaped by the training images' variances "
        "(`per_feature`) or covariance (`full`); each in turn.",
    )
    sigma_factors: list[Positive] = Field(
        default_factory=lambda: [0.5, 0.75, 1.0],
        min_length=1,
        description="sigma = factor * radius / sqrt(d), the grid searched.",
    )
    swish_betas: list[Positive] | None = Field(
        None, description="Swish sharpness, the grid searched; null: that of `betas`; empty: no Swish."
    )
    samples: Count = Field(2000, ge=2, description="Perturbations per image, radius and law.")

    _grids: ClassVar[tuple[str, ...]] = ("betas", "swish_betas", "sigma_factors")
    _elsewhere: ClassVar[tuple[str, ...]] = ("shards", "neuron_class")

    @model_validator(mode="after")
    def _swish_like_softplus(self) -> Fidelity:
        self.swish_betas = self.betas if self.swish_betas is None else self.swish_betas
        return self
