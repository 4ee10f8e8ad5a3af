"""How a network is trained, as the configuration says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from curvelens.registry import Parameters

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Training(Parameters):
    """Stochastic gradient descent; the papers' schedule is in config/paper.yaml."""

    model_config = ConfigDict(allow_inf_nan=False)

    optimizer: Literal["sgd", "adam", "rmsprop"] = Field("sgd", description="Update rule.")
    epochs: Count = Field(40, description="Passes over the training images.")
    updates: Count | None = Field(None, description="Updates in total; where given, `epochs` has no effect.")
    batch_size: Count = Field(64, description="Images per update.")
    learning_rate: Positive = Field(0.05, description="Step size at the start.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; ignored by Adam and RMSProp.")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty on the weights.")
    decay_at: list[Count] = Field(
        default_factory=list, description="Updates after which the learning rate falls to a tenth."
    )
