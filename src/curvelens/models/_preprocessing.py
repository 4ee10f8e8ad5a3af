"""What lies around a network that was made elsewhere: size, channels, range of pixels, order of classes.

All of it is linear in the image and part of the model, so that explanations, radii and noise are in pixels of
the data set, and a network that is piecewise linear stays so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from curvelens.errors import on_one_line
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from torch import nn

_LARGEST_LIST = 2**20  # bytes of a file of class names
Size = Annotated[int, Field(ge=1, le=4096)]


class Preprocessing(Parameters):
    """Keys that networks made elsewhere share."""

    mean: list[float] = Field(
        [0.0],
        min_length=1,
        description="Subtracted from what `scale` makes of pixels: 1 value or 1 a channel.",
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0], min_length=1, description="Pixels are then divided by it: 1 value or 1 a channel."
    )
    scale: float = Field(
        1.0,
        gt=0,
        description="Pixels in [0, 1] are multiplied by it before `mean` and `std`: 255 for a network that "
        "was trained on values from 0 to 255.",
    )
    resize: Size | list[Size] | None = Field(
        None,
        description="Height and width that the network takes, one number or two, where images have others: "
        "they are brought to it inside the model, bilinearly, with anti-aliasing; null leaves their size.",
    )
    channels: Literal[1, 3] | None = Field(
        None,
        description="Channels that the network takes, where images have others: grey ones are given to it "
        "three times, of coloured ones the luma; null takes those of the images.",
    )
    class_names: list[str] | None = Field(
        None,
        description="Names of the network's outputs in their order, as a list or as a file: text with a name "
        "a line, or JSON. They are then put in the order of the data set's classes, which must be the same.",
    )
    outputs: list[Annotated[int, Field(ge=0)]] | None = Field(
        None,
        description="Numbers of the network's outputs that stand for the data set's classes, in their order, "
        "from 0; others are left out. null takes all, or the order that `class_names` says.",
    )

    @field_validator("class_names", mode="before")
    @classmethod
    def _names_of_file(cls, given: Any) -> Any:
        return read_class_names(given) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _consistent(self) -> Preprocessing:
        if isinstance(self.resize, list) and len(self.resize) != 2:
            raise ValueError(f"resize has {len(self.resize)} numbers; give one, or height and width")
        for key in ("class_names", "outputs"):
            values = getattr(self, key) or []
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{key}: {twice[0]!r} stands there twice; name each once")
        return self


def read_class_names(path: str | Path) -> list[str]:
    """Read the names of classes from a file.

    Args:
        path: UTF-8 text with a name a line, empty lines left out; or ``.json`` with a list of names, or a
            mapping of the classes' numbers, from 0 on, to names.

    Returns:
        The names, in the order of the classes.

    Raises:
        ValueError: The file is missing, too large, no text, or numbers are missing.
    """
    path = Path(path)
    if not os.path.isfile(path):  # unlike Path.is_file also for names that no file can have
        raise ValueError(f"class_names: there is no file {path}; correct the path, or give a list of names")
    if path.stat().st_size > _LARGEST_LIST:
        raise ValueError(f"class_names: {path} is larger than a list of names; give a name a line")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            found = json.loads(text)
        else:
            found = [line.strip() for line in text.splitlines() if line.strip()]
        if isinstance(found, dict):
            found = [found[str(index)] for index in range(len(found))]
    except (ValueError, KeyError, RecursionError) as error:
        raise ValueError(
            f"class_names: {path} is neither a name a line nor JSON ({type(error).__name__}); give a list of "
            "names, or a mapping of 0, 1, … to names"
        ) from error
    if not isinstance(found, list) or not all(isinstance(name, str) and on_one_line(name) for name in found):
        raise ValueError(f'class_names: {path} holds no list of names, one line each; give ["cat", "dog"]')
    return found


def in_order(parameters: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """Return the parameters with ``outputs`` in the order of a data set's classes.

    Args:
        parameters: Of :class:`Preprocessing`.
        class_names: Names of the data set's classes.

    Raises:
        ModelError: The network's classes are not the data set's.
    """
    from curvelens.errors import ModelError

    names = parameters.get("class_names")
    if names is None or parameters.get("outputs") is not None:
        return dict(parameters)
    if set(names) != set(class_names):
        lacking = [name for name in class_names if name not in names]
        unknown = [name for name in names if name not in class_names]
        parts = [f"lack {listed(lacking)} of the data set"] if lacking else []
        parts += [f"have {listed(unknown)}, which the data set has not"] if unknown else []
        raise ModelError(
            f"parameters.class_names {' and '.join(parts)}; give the same names to both, or say by number "
            "which outputs stand for the data set's classes (parameters.outputs)"
        )
    order = [names.index(name) for name in class_names]
    return {**parameters, "outputs": None if order == list(range(len(order))) else order}


def output_count(parameters: Preprocessing, classes: int) -> int | None:
    """Return how many outputs the network must have, or None where ``outputs`` leaves that open.

    Raises:
        ModelError: ``outputs`` has not one entry for each class.
    """
    from curvelens.errors import ModelError

    if parameters.class_names is not None:
        return len(parameters.class_names)
    if parameters.outputs is None:
        return classes
    if len(parameters.outputs) != classes:
        raise ModelError(
            f"parameters.outputs names {len(parameters.outputs)} outputs, and the data set has {classes} "
            "classes; name one for each class, in their order"
        )
    return None


def network_shape(parameters: Preprocessing, image_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the shape (C, H, W) that the network itself takes, for images of shape ``image_shape``."""
    channels, height, width = image_shape
    if parameters.resize is not None:
        size = parameters.resize
        height, width = (size, size) if isinstance(size, int) else size
    return parameters.channels or channels, height, width


def prepared(network: nn.Module, parameters: Preprocessing, image_shape: Sequence[int]) -> nn.Sequential:
    """Put what a network expects in front of it, and the choice of its outputs behind.

    Args:
        network: ``[B, C', H', W'] -> [B, n]``, for preprocessed images.
        parameters: What it expects.
        image_shape: (C, H, W) of images in [0, 1].

    Returns:
        ``[B, C, H, W] -> [B, classes]``, of ``resize``, ``channels``, ``normalise``, ``network``, ``classes``
        as far as there is something to do.

    Raises:
        ModelError: The images have neither 1 nor 3 channels where they are to be changed, or the numbers of
            means do not fit.
    """
    from collections import OrderedDict

    from torch import nn

    from curvelens.models._layers import Channels, Normalise, Outputs, Resize

    shape = network_shape(parameters, image_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if shape[1:] != tuple(image_shape[1:]):
        layers["resize"] = Resize(image_shape[1:], shape[1:])
    if shape[0] != image_shape[0]:
        layers["channels"] = Channels(image_shape[0], shape[0])
    mean, std = (
        [value / parameters.scale for value in values] for values in (parameters.mean, parameters.std)
    )
    layers["normalise"] = Normalise(mean, std, shape[0])
    for part in network.modules():
        # A ReLU in place overwrites what higher derivatives, and whoever looks at inner layers, still need.
        if getattr(part, "inplace", False) is True:
            part.__dict__["inplace"] = False
    layers["network"] = network
    if parameters.outputs is not None:
        layers["classes"] = Outputs(parameters.outputs)
    return nn.Sequential(layers)


def listed(names: Sequence[str]) -> str:
    """Return the first three of some names, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
