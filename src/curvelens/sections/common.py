"""What the sections of the configuration share: closed mappings, and the types of their values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# Names become those of folders and files.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=100)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Part = Count | Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Law = Literal["ball", "paper"]
Predicted = Literal["predicted_logit", "predicted_probability", "predicted_log_probability", "margin"]


def check_radii(smallest: float, largest: float) -> None:
    """Raise ValueError unless ``smallest`` is below ``largest``."""
    if not smallest < largest:
        raise ValueError(f"smallest = {smallest:g} is not below largest = {largest:g}; correct them")


class Closed(BaseModel):
    """A mapping that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
