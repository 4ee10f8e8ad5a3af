"""Which models are piecewise linear in their input, decided from their modules or their symbolic trace."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn
from torch.nn import functional

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_PIECEWISE_LINEAR_MODULES = {
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, *_BATCH_NORM),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Threshold),
    *(nn.Hardshrink, nn.Softshrink),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.Flatten, nn.Unflatten, nn.Identity, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
}
_PIECEWISE_LINEAR_FUNCTIONS = {
    *(operator.add, operator.iadd, operator.sub, operator.isub, operator.neg, operator.getitem),
    *(torch.add, torch.sub, torch.neg, torch.cat, torch.stack, torch.flatten, torch.reshape, torch.relu),
    *(
        torch.sum,
        torch.mean,
        torch.permute,
        torch.transpose,
        torch.squeeze,
        torch.unsqueeze,
        torch.abs,
        torch.clamp,
    ),
    *(torch.maximum, torch.minimum, torch.amax, torch.chunk, torch.split, getattr),
    *(
        functional.relu,
        functional.relu6,
        functional.leaky_relu,
        functional.hardtanh,
        functional.dropout,
        functional.avg_pool2d,
        functional.adaptive_avg_pool2d,
    ),
    *(functional.max_pool2d, functional.adaptive_max_pool2d, functional.pad, functional.interpolate),
}
_PIECEWISE_LINEAR_METHODS = {
    *(
        "add",
        "add_",
        "sub",
        "sub_",
        "neg",
        "flatten",
        "view",
        "reshape",
        "relu",
        "relu_",
        "sum",
        "mean",
        "permute",
    ),
    *(
        "transpose",
        "squeeze",
        "unsqueeze",
        "contiguous",
        "abs",
        "clamp",
        "amax",
        "chunk",
        "split",
        "size",
        "expand",
    ),
    *("to", "float", "double", "clone"),
}
_ELEMENTWISE_MODULES = {nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.Hardtanh, nn.Hardsigmoid, *_BATCH_NORM}
_ELEMENTWISE_FUNCTIONS = {
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.neg, torch.clamp, torch.relu, functional.relu),
    *("add", "sub", "mul", "div", "neg", "clamp", "relu"),
}
# Piecewise linear as long as only one operand, the first one for a quotient, depends on the input.
_PRODUCTS = {
    operator.mul,
    operator.imul,
    torch.mul,
    operator.matmul,
    torch.matmul,
    functional.linear,
    functional.conv2d,
    "mul",
    "mul_",
}
_QUOTIENTS = {operator.truediv, operator.itruediv, torch.div, "div", "div_"}

_ANSWERS: WeakKeyDictionary[nn.Module, dict[object, bool]] = WeakKeyDictionary()


def is_piecewise_linear(model: nn.Module, module: str | None = None) -> bool:
    """Say whether a model, run in evaluation mode, is known to be piecewise linear in its input.

    Models built of ``nn.Sequential`` and standard layers are judged by their types; others by their symbolic
    trace, in which products of two quantities that both depend on the input, and every operation not known to
    be piecewise linear, count as curved.

    Args:
        model: Any module.
        module: Name of a submodule; then the question is about its output instead of the model's.

    Returns:
        ``True`` where it is certain, ``False`` where it is not the case or cannot be told.
    """
    parts = list(model.modules())
    if all(_is_linear_type(part) for part in parts if type(part) is not nn.Sequential):
        return True
    kinds = tuple((type(part), getattr(part, "running_mean", part) is None) for part in parts)
    answers = _ANSWERS.setdefault(model, {})
    if (kinds, module) not in answers:
        answers[kinds, module] = _is_trace_piecewise_linear(model, module)
    return answers[kinds, module]


def is_elementwise_straight(layer: nn.Module) -> bool:
    """Say whether a layer, run in evaluation mode, is known to be piecewise linear with a diagonal Jacobian.

    Args:
        layer: A module that keeps the shape of its input, such as a ReLU, a batch normalisation by stored
            statistics, or a module of one's own that subtracts a mean and divides by a standard deviation.
    """
    if type(layer) in _ELEMENTWISE_MODULES:
        return _is_linear_type(layer)
    if type(layer).__module__.startswith("torch.nn.") or next(layer.children(), None) is not None:
        return False
    if not is_piecewise_linear(layer):
        return False
    answers = _ANSWERS.setdefault(layer, {})
    if "elementwise" not in answers:
        calls = [node for node in fx.Tracer().trace(layer).nodes if node.op.startswith("call_")]
        answers["elementwise"] = all(node.target in _ELEMENTWISE_FUNCTIONS for node in calls)
    return answers["elementwise"]


def _is_linear_type(module: nn.Module) -> bool:
    if isinstance(module, _BATCH_NORM) and module.running_mean is None:
        return False  # normalises by the batch's own statistics even in evaluation mode
    return type(module) in _PIECEWISE_LINEAR_MODULES


def _is_trace_piecewise_linear(model: nn.Module, module: str | None) -> bool:
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # a model with control flow that depends on data cannot be traced, whatever it raises
        return False
    dependent: set[fx.Node] = set()
    curved: set[fx.Node] = set()
    result: fx.Node | None = None
    for node in graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "placeholder" or any(source in dependent for source in inputs):
            dependent.add(node)
            if any(source in curved for source in inputs) or not _keeps_linearity(model, node, dependent):
                curved.add(node)
        if node.op == "call_module" and node.target == module and result is None:
            result = node
        if node.op == "output" and module is None:
            result = node
    return result is not None and result not in curved


def _keeps_linearity(model: nn.Module, node: fx.Node, dependent: set[fx.Node]) -> bool:
    target: Callable[..., Any] | str = node.target
    if node.op in ("placeholder", "output"):
        return True
    if node.op == "call_module":
        return _is_linear_type(model.get_submodule(str(target)))
    if target in _PRODUCTS:
        return sum(source in dependent for source in node.all_input_nodes) == 1 and not _is_square(node)
    if target in _QUOTIENTS:
        return not any(arg in dependent for arg in node.args[1:] if isinstance(arg, fx.Node))
    return target in (
        _PIECEWISE_LINEAR_FUNCTIONS if node.op == "call_function" else _PIECEWISE_LINEAR_METHODS
    )


def _is_square(node: fx.Node) -> bool:
    """Whether one node stands in both places of a product."""
    return len(node.args) > 1 and node.args[0] is node.args[1]
