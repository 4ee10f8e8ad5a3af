"""Networks that a function of the user's own makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from curvelens.models import REGISTRY
from curvelens.models._preprocessing import Preprocessing, in_order

if TYPE_CHECKING:
    import torch


class FunctionParameters(Preprocessing):
    """Parameters of :func:`function`."""

    function: Annotated[
        str, StringConstraints(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*$")
    ] = Field(
        description="What makes the network, as `package.module:function`; it returns a torch.nn.Module. "
        "It is imported and called, so it is code that you trust."
    )
    folder: Path | None = Field(
        None, description="Folder that holds the module; null imports it from an installed package."
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="Arguments by name. `classes` and `image_shape` are given to a function that has them.",
    )
    trained: bool = Field(
        False,
        description="Whether the network comes with its trained weights; if not, they are read from "
        "`weights`, or the network is trained.",
    )

    @model_validator(mode="after")
    def _is_there(self) -> FunctionParameters:
        own_code(self.model_dump())
        return self


def own_code(parameters: Mapping[str, Any]) -> str:
    """Return the version of the code that :func:`function` runs, for parameters of it."""
    from curvelens.owncode import own_code_version

    return own_code_version(parameters["function"], parameters["folder"])


@REGISTRY.register(
    "function",
    parameters=FunctionParameters,
    reference="your own",
    pretrained=lambda parameters: parameters.trained,
    own_code=own_code,
    fitted=in_order,
)
def function(
    parameters: FunctionParameters, classes: int, image_shape: tuple[int, int, int]
) -> torch.nn.Module:
    """Network that a function of your own makes, imported from an installed package or from a folder.

    Args:
        parameters: See :class:`FunctionParameters`.
        classes: Number of logits.
        image_shape: (C, H, W).

    Returns:
        ``torch.nn.Sequential`` that ends in ``normalise`` and ``network``, ``[B, C, H, W] -> [B, classes]``.

    Raises:
        ConfigError: The function cannot be imported, or not be called with these arguments.
        ModelError: It does not return a module.
    """
    from torch import nn

    from curvelens import owncode
    from curvelens.errors import ModelError
    from curvelens.models._preprocessing import network_shape, output_count, prepared

    make = owncode.load(parameters.function, parameters.folder)
    known = {
        "classes": output_count(parameters, classes) or classes,
        "image_shape": network_shape(parameters, image_shape),
    }
    network = _called(parameters, make, known)
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"function {parameters.function} returned {type(network).__name__}; return a torch.nn.Module"
        )
    return prepared(network.cpu(), parameters, image_shape)


def _called(parameters: FunctionParameters, make: Any, known: dict[str, Any]) -> Any:
    import inspect

    from curvelens.errors import ConfigError, CurvelensError

    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # built in
        signature = inspect.Signature()
    arguments = {name: value for name, value in known.items() if name in signature.parameters}
    arguments |= parameters.arguments
    try:
        return make(**arguments)
    except CurvelensError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise ConfigError(
            f"function {parameters.function} failed when called with {arguments} ({type(error).__name__}: "
            f"{text}); correct the function or parameters.arguments"
        ) from error
