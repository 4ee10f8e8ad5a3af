"""A network that runs the steps of a recipe one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from curvelens.models._recipe import references


class Step(NamedTuple):
    """One operation.

    Attributes:
        target: The name of a layer, or a function.
        args, kwargs: Its arguments; values are ``{"$": name}``.
        out: Names of the results.
    """

    target: str | Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    out: list[str | None]


class Program(nn.Module):
    """Operations on named values, from a batch of images to its logits.

    Args:
        layers: Modules by name.
        values: Tensors that the steps name, by name there: parameters or buffers.
        steps: The operations, in order.
        start: Name of the images.
        end: Name of the logits.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        values: Mapping[str, Tensor],
        steps: list[Step],
        start: str,
        end: str,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.values = nn.Module()
        for name, tensor in values.items():
            if isinstance(tensor, nn.Parameter):
                self.values.register_parameter(name, tensor)
            else:
                self.values.register_buffer(name, tensor)
        self.constants = list(values)
        self.steps, self.start, self.end = steps, start, end
        last = {name: i for i, step in enumerate(steps) for name in references([step.args, step.kwargs])}
        last[end] = len(steps)
        self.done: list[list[str]] = [[] for _ in range(len(steps) + 1)]  # what each step is the last to need
        for name, index in last.items():
            self.done[index].append(name)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of ``x[B, C, H, W]``."""
        known: dict[str, Any] = {name: getattr(self.values, name) for name in self.constants}
        known[self.start] = x
        for step, done in zip(self.steps, self.done, strict=False):
            args, kwargs = _filled(step.args, known), _filled(step.kwargs, known)
            target = self.layers[step.target] if isinstance(step.target, str) else step.target
            result = target(*args, **kwargs)
            if len(step.out) == 1:
                known[str(step.out[0])] = result
            else:
                known |= {name: result[place] for place, name in enumerate(step.out) if name is not None}
            for name in done:
                del known[name]
        logits: Tensor = known[self.end]
        return logits


class Blocks(nn.Module):
    """A program for a fixed number of images, run on any number: in blocks, the last one filled up.

    Args:
        program: ``[size, C, H, W] -> [size, n]``.
        size: The number.
    """

    def __init__(self, program: nn.Module, size: int) -> None:
        super().__init__()
        self.program = program
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of ``x[B, C, H, W]``."""
        lacking = -len(x) % self.size
        if lacking:
            x = torch.cat([x, *[x[-1:]] * lacking])
        parts = [self.program(part) for part in x.split(self.size)]
        logits = torch.cat(parts) if len(parts) != 1 else parts[0]
        return logits[: len(logits) - lacking] if lacking else logits


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return known[value["$"]] if "$" in value else {key: _filled(one, known) for key, one in value.items()}
    return [_filled(one, known) for one in value] if isinstance(value, list) else value
