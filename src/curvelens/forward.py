"""How a model is run: in evaluation mode, as far as a submodule, and left as it was found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from curvelens.errors import ArgumentError


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in evaluation mode for the length of a ``with`` block.

    Only the submodules found in training mode are switched, and switched back, also when the block raises.

    Args:
        model: Any module.

    Returns:
        A context manager that yields the model.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield model
    finally:
        for module in training:
            module.training = True


def penultimate_layer(model: nn.Module, x: Tensor) -> str:
    """Return the name of the last layer with weights that runs before the output layer.

    A model may name another submodule by an attribute ``penultimate``. Residual networks do: their last layer
    with weights is one term of a sum, not what the output layer reads.

    Args:
        model: Any module.
        x: Input to run it on, ``[B, *shape]``.

    Raises:
        ArgumentError: Fewer than two layers with weights ran.
    """
    named = getattr(model, "penultimate", None)
    if isinstance(named, str):
        return named
    called: list[str] = []
    thread = threading.get_ident()

    def recorder(name: str) -> Callable[..., None]:
        def record(*_: object) -> None:
            if threading.get_ident() == thread:
                called.append(name)

        return record

    handles = [
        module.register_forward_hook(recorder(name))
        for name, module in model.named_modules()
        if getattr(module, "weight", None) is not None and not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad(), evaluation_mode(model):
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    if len(called) < 2:
        raise ArgumentError(
            f"targets.inner_neuron: {len(called)} layers with weights ran, so there is no hidden layer; "
            "name one with targets.neuron"
        )
    return called[-2]


def read_outputs(
    model: nn.Module, readers: Sequence[tuple[str | None, Callable[[Tensor], Tensor]]], x: Tensor
) -> list[Tensor]:
    """Run a model once and read several of its outputs.

    Args:
        model: Any module.
        readers: Name of a submodule, None for the model itself, and what to take from its (first) output.
        x: ``[B, *shape]``.

    Returns:
        What each reader took.

    Raises:
        ArgumentError: The forward pass never runs a submodule.
    """
    thread = threading.get_ident()
    found: dict[int, Tensor] = {}

    def hook(place: int) -> Callable[..., None]:
        def read(module: nn.Module, inputs: object, output: Tensor) -> None:
            if threading.get_ident() == thread and place not in found:
                # A copy, because the next layer may work in place.
                found[place] = readers[place][1](output).clone()

        return read

    handles = [
        model.get_submodule(name).register_forward_hook(hook(place))
        for place, (name, _) in enumerate(readers)
        if name is not None
    ]
    try:
        output = model(x)
    finally:
        for handle in handles:
            handle.remove()
    for place, (name, take) in enumerate(readers):
        if name is None:
            found[place] = take(output)
        elif place not in found:
            raise ArgumentError(
                f"targets.neuron: the forward pass never runs submodule {name!r}; name another one"
            )
    return [found[place] for place in range(len(readers))]


class _Reached(BaseException):
    """Carries a submodule's output out of the forward pass; no Exception, so that no model swallows it."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


def submodule_output(model: nn.Module, module_name: str, x: Tensor) -> Tensor:
    """Run a model as far as a submodule, and return what that puts out.

    No hook stays behind, and threads that run the same model at the same time do not see each other's.

    Args:
        model: Any module.
        module_name: A name from ``model.named_modules()``; its first output counts if it is called again.
        x: ``[B, *shape]``.

    Raises:
        ArgumentError: The forward pass never runs the submodule.
    """
    thread = threading.get_ident()

    def stop(module: nn.Module, inputs: object, output: Tensor) -> None:
        if threading.get_ident() == thread:
            raise _Reached(output)

    handle = model.get_submodule(module_name).register_forward_hook(stop)
    try:
        model(x)
    except _Reached as reached:
        return reached.output
    finally:
        handle.remove()
    raise ArgumentError(
        f"targets.neuron: the forward pass never runs submodule {module_name!r}; name another one"
    )
