"""The stage `competing`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from curvelens.sections.common import Closed, Count, Share

ClassName = Annotated[int, Field(ge=0)] | str


def _default_methods() -> dict[str, dict[str, Any]]:
    return {"gradient": {}, "smoothgrad": {}, "vargrad": {}}


class Competing(Closed):
    """Explanations of two classes on one image: errors, and pictures that show several objects."""

    mistakes: Count = Field(
        5,
        description="Misclassified test images, explained for the predicted and the true class, the surest "
        "first; where there are fewer, the least sure of the others fill up, with the runner-up for the true "
        "class, and are marked.",
    )
    scenes: dict[str, Annotated[list[str], Field(min_length=1)]] | None = Field(
        None,
        description="Ids of test images that are explained for both `classes`, by what is special about "
        "them, such as `dog and cat`; null takes the three on which the two classes come closest.",
    )
    scene_dataset: str | None = Field(
        None, description="A key of `datasets`: where the scenes come from; null: the network's own."
    )
    classes: tuple[ClassName, ClassName] | None = Field(
        None,
        description="The two classes of the scenes, by name or index; null takes the two most probable ones "
        "of each image.",
    )
    scalar: Literal["logit", "probability", "log_probability", "margin"] = Field(
        "logit", description="The number of a class that is explained."
    )
    methods: dict[str, dict[str, Any]] = Field(
        default_factory=_default_methods,
        description="Registered methods with their parameters.",
        min_length=1,
    )
    scene_method: str = Field("smoothgrad", description="The method, one of them, that explains the scenes.")
    keep: Share = Field(0.1, description="Share of the pixels, those of largest magnitude, in a region.")
    blur: float = Field(
        2.0,
        ge=0,
        description="Standard deviation, in pixels, of the Gaussian that smooths magnitudes before regions "
        "are cut out; 0 leaves them as they are.",
    )

    @model_validator(mode="after")
    def _scenes_have_their_method(self) -> Competing:
        if self.scene_method not in self.methods:
            raise ValueError(f"scene_method = {self.scene_method!r} is none of methods; add it there")
        if self.classes is not None and self.classes[0] == self.classes[1]:
            raise ValueError(f"classes are twice {self.classes[0]!r}; name two")
        named = [name for ids in (self.scenes or {}).values() for name in ids]
        if len(set(named)) < len(named):
            raise ValueError("scenes names an image twice; name each once")
        return self
