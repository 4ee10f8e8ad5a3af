"""The stage `path`."""

from __future__ import annotations

from pydantic import Field, model_validator

from curvelens.sections.common import Closed, Positive


class Path(Closed):
    """The straight path between two images of different classes, explained at every point and filmed."""

    classes: tuple[int | str, int | str] | None = Field(
        None,
        description="Classes of the first and the last image, by index or name: the first image of each that "
        "is classified correctly; null takes the first two classes that differ.",
    )
    ends: tuple[str, str] | None = Field(
        None, description="Names of the first and the last image, instead of `classes`."
    )
    steps: int = Field(26, ge=25, description="Points on the path, one frame each; a film of 5 s.")
    noise: Positive = Field(0.15, description="Standard deviation of SmoothGrad's and VarGrad's noise.")
    samples: int = Field(64, ge=4, description="Noisy copies per point.")

    @model_validator(mode="after")
    def _chosen_once(self) -> Path:
        if self.classes is not None and self.ends is not None:
            raise ValueError("classes and ends both choose the images; give one of them")
        return self
