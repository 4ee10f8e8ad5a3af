"""What the architectures of torchvision and of timm share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from curvelens.errors import ConfigError, ModelError
from curvelens.models._preprocessing import Preprocessing, output_count

if TYPE_CHECKING:
    from torch import nn

_WEIGHTS = ("weights", "pretrained", "checkpoint")  # beginnings of arguments that fetch or read weights


class LibraryParameters(Preprocessing):
    """Keys of a network that a library makes; the normalisation is the usual one of ImageNet."""

    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of the function that makes the network, such as {image_size: 64} for "
        "torchvision's vit_b_16 or {img_size: 64} for timm's transformers.",
    )
    num_classes: int | None = Field(
        None,
        ge=2,
        description="Outputs of the network, where `outputs` leaves some out; null takes the data set's "
        "classes.",
    )
    mean: list[float] = Field(
        [0.485, 0.456, 0.406],
        min_length=1,
        description="Subtracted from what `scale` makes of pixels: 1 value or 1 a channel.",
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [0.229, 0.224, 0.225],
        min_length=1,
        description="Pixels are then divided by it: 1 value or 1 a channel.",
    )


def outputs_to_make(parameters: LibraryParameters, classes: int) -> int:
    """Return how many outputs the network gets for a data set of ``classes`` classes.

    Raises:
        ModelError: ``outputs`` leaves that open, or the numbers contradict one another.
    """
    count = output_count(parameters, classes)
    if count is None and parameters.num_classes is None:
        raise ModelError(
            "parameters.outputs chooses among the network's outputs without saying how many there are; add "
            "parameters.num_classes, or class_names"
        )
    made = parameters.num_classes or count or classes
    if count not in (None, made):
        raise ModelError(
            f"parameters.num_classes is {made}, and there are {count} classes; name with parameters.outputs "
            "which outputs stand for them, or leave num_classes out"
        )
    if max(parameters.outputs or [0]) >= made:
        raise ModelError(
            f"parameters.outputs names output {max(parameters.outputs or [0])} of a network with {made}; "
            "they are counted from 0"
        )
    return made


def made(
    name: str,
    options: Mapping[str, Any],
    reserved: Sequence[str],
    make: Callable[[Mapping[str, Any]], nn.Module],
) -> nn.Module:
    """Make a network with the user's options.

    Args:
        name: The model's name, for messages.
        options: ``parameters.options``.
        reserved: Arguments that are given otherwise.
        make: Makes the network with options.

    Raises:
        ConfigError: An option is reserved, unknown or cannot be.
    """
    for key in options:
        if key.startswith(_WEIGHTS):
            raise ConfigError(
                f"parameters.options: {key} would fetch or read weights unchecked; name a file with "
                "`weights` beside `architecture`"
            )
        if key in reserved:
            raise ConfigError(f"parameters.options: {key} is set by curvelens; leave it out")
    try:
        return make(options)
    except Exception as error:
        if not options:
            raise
        text = " ".join(str(error).split())
        raise ConfigError(
            f"parameters.options: {name} cannot be made with {dict(options)} ({type(error).__name__}: {text})"
        ) from error
