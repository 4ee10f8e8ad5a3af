"""How a network is trained, as the configuration says it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from curvelens.registry import Parameters

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Parameters):
    """Random changes of training images, drawn anew for each image and update; without any by default."""

    model_config = ConfigDict(allow_inf_nan=False)

    crop: float = Field(
        1.0, gt=0, le=1, description="Smallest share of the image that a random square cut-out keeps; 1: all."
    )
    flip: Share = Field(0.0, description="Probability of a horizontal flip.")
    jitter: Share = Field(0.0, description="Probability of a change of colours, by the next four keys.")
    brightness: Share = Field(0.0, description="Brightness is multiplied by 1 - b to 1 + b.")
    contrast: Share = Field(0.0, description="The same for contrast.")
    saturation: Share = Field(0.0, description="The same for saturation; for RGB images.")
    hue: float = Field(0.0, ge=0, le=0.5, description="Largest turn of the hue, in turns; for RGB images.")
    grayscale: Share = Field(0.0, description="Probability of losing all colour; for RGB images.")


class Training(Parameters):
    """Stochastic gradient descent; the papers' schedule is in config/paper.yaml."""

    model_config = ConfigDict(allow_inf_nan=False)

    optimizer: Literal["sgd", "adam", "rmsprop"] = Field("sgd", description="Update rule.")
    epochs: Count = Field(40, description="Passes over the training images.")
    updates: Count | None = Field(None, description="Updates in total; where given, `epochs` has no effect.")
    batch_size: Count = Field(64, description="Images per update.")
    learning_rate: Positive = Field(0.05, description="Step size at the start, after any warm-up.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; ignored by Adam and RMSProp.")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty on the weights.")
    decay_at: list[Count] = Field(
        default_factory=list, description="Updates after which the learning rate falls to a tenth."
    )
    warmup_epochs: int = Field(0, ge=0, description="Epochs in which the learning rate rises linearly.")
    warmup_learning_rate: Positive = Field(0.01, description="Step size at the start of the warm-up.")
    final_learning_rate: Positive | None = Field(
        None, description="Step size that a cosine falls to by the last update; null: none."
    )
    augmentation: Augmentation | None = Field(None, description="Random changes of training images.")

    @model_validator(mode="after")
    def _one_decay(self) -> Training:
        if self.decay_at and self.final_learning_rate is not None:
            raise ValueError("decay_at and final_learning_rate are both given; choose steps or a cosine")
        return self


def learning_rate(parameters: Training, update: int, batches: int, total: int) -> float:
    """Return the learning rate of an update.

    Linear over the warm-up, then a cosine (Loshchilov and Hutter 2017, eq. 5, without restarts) or steps.

    Args:
        parameters: The schedule.
        update: Updates made before this one.
        batches: Updates in an epoch.
        total: Updates in all.
    """
    warmup, peak = parameters.warmup_epochs * batches, parameters.learning_rate
    if update < warmup:
        return parameters.warmup_learning_rate + (peak - parameters.warmup_learning_rate) * update / warmup
    if parameters.final_learning_rate is None:
        return peak * 0.1 ** sum(update >= at for at in parameters.decay_at)
    end = parameters.final_learning_rate
    done = (update - warmup) / max(1, total - 1 - warmup)
    return end + (peak - end) * (1 + math.cos(math.pi * done)) / 2
