"""Which linear piece every unit of ReLU type is on: cheap enough for networks with millions of units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from curvelens.forward import evaluation_mode
from curvelens.tracing import linear_pieces

_ELEMENTWISE = (nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.RReLU, nn.PReLU)


def activation_pattern(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the linear piece of every unit of ReLU type at one point.

    Two points in the same linear region have the same pattern, and between two points each unit that differs
    has crossed a border; one that switches there and back is not seen.

    Args:
        model: Any network; it is left as it was found. Modules that are not of ReLU type do not count, nor do
            ReLUs that are called as functions.
        x: One input ``[*shape]``.

    Returns:
        For each call of a ReLU-type module an integer tensor ``[*units]``: how many breakpoints lie below the
        pre-activation; for max pooling the index of the largest entry of each window. Empty where the network
        has no such module.
    """
    found: list[Tensor] = []

    def record(module: nn.Module, inputs: Any) -> None:
        z = inputs[0].detach()
        if isinstance(module, nn.MaxPool2d):
            _, largest = functional.max_pool2d(
                z, module.kernel_size, module.stride, module.padding, module.dilation, return_indices=True
            )
            found.append(largest[0])
        else:
            pieces = [z[0] > point for point in linear_pieces(module)[0]]
            found.append(torch.stack(pieces).sum(0, dtype=torch.int8))

    modules = [part for part in model.modules() if isinstance(part, (*_ELEMENTWISE, nn.MaxPool2d))]
    # A hook before the module sees its input even where the module then writes over it.
    hooks = [part.register_forward_pre_hook(record) for part in modules]
    try:
        with evaluation_mode(model), torch.no_grad():
            model(x.unsqueeze(0))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def units_switched(before: list[Tensor], after: list[Tensor]) -> int:
    """Return how many units are on another linear piece in one pattern than in another of the same network.

    Args:
        before: From :func:`activation_pattern`.
        after: From :func:`activation_pattern`, at an input of the same shape.
    """
    return sum(int((old != new).sum()) for old, new in zip(before, after, strict=True))
