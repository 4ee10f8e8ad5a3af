"""The operations that an exported program may be made of, and what stands for each.

Layers become modules of ``torch.nn``, so that surrogates can replace their activations, linear regions can
be followed, and hooks find them. Other operations become functions, those that :mod:`curvelens.linearity`
knows where there are such. A program that names anything else is refused: the list is what keeps a file from
choosing what is run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Function = Callable[..., Any]


def activation(op: str, options: tuple[Any, ...]) -> nn.Module | None:
    """Return the module for an operation on each number by itself.

    Args:
        op: Name, such as ``aten.hardtanh``.
        options: Its arguments after the first.
    """
    if op == "aten.hardtanh" and tuple(options) == (0, 6):
        return nn.ReLU6()
    if op == "aten.gelu":
        return nn.GELU(approximate=options[0] if options else "none")
    if op == "aten.elu" and len(options) > 1:
        return None  # has scales that nn.ELU has not
    kind = _ACTIVATIONS.get(op)
    return kind(*options) if kind is not None else None


_ACTIVATIONS: dict[str, type[nn.Module]] = {
    **{"aten.relu": nn.ReLU, "aten.relu6": nn.ReLU6, "aten.hardtanh": nn.Hardtanh},
    **{"aten.leaky_relu": nn.LeakyReLU, "aten.elu": nn.ELU, "aten.selu": nn.SELU, "aten.celu": nn.CELU},
    **{"aten.silu": nn.SiLU, "aten.sigmoid": nn.Sigmoid, "aten.tanh": nn.Tanh, "aten.mish": nn.Mish},
    **{"aten.hardswish": nn.Hardswish, "aten.hardsigmoid": nn.Hardsigmoid, "aten.softplus": nn.Softplus},
    **{"aten.log_sigmoid": nn.LogSigmoid},
}

POOLINGS: dict[str, type[nn.Module]] = {
    **{"aten.max_pool2d": nn.MaxPool2d, "aten.max_pool2d_with_indices": nn.MaxPool2d},
    **{"aten.avg_pool2d": nn.AvgPool2d, "aten.adaptive_avg_pool2d": nn.AdaptiveAvgPool2d},
    **{"aten._adaptive_avg_pool2d": nn.AdaptiveAvgPool2d, "aten.adaptive_max_pool2d": nn.AdaptiveMaxPool2d},
}

# What gives back its first argument once training and the place in memory are left out of account.
SAME = {
    *("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.contiguous", "aten.clone"),
    *("aten.alias", "aten.lift_fresh_copy", "aten.lift_fresh", "aten.to", "aten._to_copy", "aten.type_as"),
}
IN_TRAINING = {
    "aten.dropout": 2,
    "aten.feature_dropout": 2,
    "aten.alpha_dropout": 2,
}  # which argument says so


def _add(x: Any, y: Any, *, alpha: Any = 1) -> Any:
    return torch.add(x, y if alpha == 1 else alpha * y)


def _subtract(x: Any, y: Any, *, alpha: Any = 1) -> Any:
    return torch.sub(x, y if alpha == 1 else alpha * y)


def _slice(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return operator.getitem(x, (slice(None),) * dim + (slice(start, end, step),))


def _select(x: Any, dim: int, index: Any) -> Any:
    return operator.getitem(x, (slice(None),) * dim + (index,))


def _size(x: Any, dim: int) -> Any:
    return x.size(dim)


def _expand(x: Any, size: Any, *, implicit: bool = False) -> Any:
    return x.expand(size)


def _expand_as(x: Any, other: Any) -> Any:
    return x.expand(other.size())


def _reshape_as(x: Any, other: Any) -> Any:
    return torch.reshape(x, other.size())


def _flatten(x: Any, start: int = 0, end: int = -1) -> Any:
    return torch.flatten(x, start, end)


def _squeeze(x: Any, dim: Any) -> Any:
    return torch.squeeze(x, tuple(dim) if isinstance(dim, list) else dim)


def _mean(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return torch.mean(x) if dim is None else torch.mean(x, dim, keepdim)


def _sum(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return torch.sum(x) if dim is None else torch.sum(x, dim, keepdim)


def _softmax(x: Any, dim: int, third: Any = None) -> Any:
    return torch.softmax(x, dim)


def _log_softmax(x: Any, dim: int, third: Any = None) -> Any:
    return torch.log_softmax(x, dim)


def _pad(x: Any, pad: Any, *rest: Any, **named: Any) -> Any:
    return functional.pad(x, tuple(pad), *rest, **named)


def _constant_pad(x: Any, pad: Any, value: Any = 0) -> Any:
    return functional.pad(x, tuple(pad), value=value)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention spelt out: the fused kernels have no second derivative."""
    weights = torch.matmul(q, k.transpose(-2, -1)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        keep = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        weights = weights.masked_fill(~keep, -torch.inf)
    if mask is not None:
        weights = weights.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else weights + mask
    return torch.matmul(torch.softmax(weights, -1), v)


_AS_THEY_ARE = {
    *("aten._upsample_bicubic2d_aa.vec", "aten.upsample_bicubic2d.vec", "aten._upsample_bilinear2d_aa.vec"),
    *("aten.upsample_bilinear2d.vec", "aten.upsample_nearest2d.vec", "aten.native_layer_norm.default"),
    *("aten.native_group_norm.default", "aten.var_mean.correction", "aten.prelu.default"),
}

# Operations with the function that does the same, by name and overload, or by name alone for all overloads.
FUNCTIONS: Mapping[str, Function] = {
    **{"aten.add": _add, "aten.sub": _subtract, "aten.mul": torch.mul, "aten.neg": torch.neg},
    **{"aten.div.Tensor": torch.div, "aten.div.Scalar": torch.div, "aten.abs": torch.abs},
    **{
        "aten.cat": torch.cat,
        "aten.stack": torch.stack,
        "aten.chunk": torch.chunk,
        "aten.split": torch.split,
    },
    **{"aten.split_with_sizes": torch.split, "aten.unbind": torch.unbind, "aten.where.self": torch.where},
    **{"aten.view": torch.reshape, "aten.reshape": torch.reshape, "aten._unsafe_view": torch.reshape},
    **{"aten.reshape_as": _reshape_as, "aten.view_as": _reshape_as, "aten.flatten": _flatten},
    **{"aten.permute": torch.permute, "aten.transpose": torch.transpose, "aten.unsqueeze": torch.unsqueeze},
    **{
        "aten.squeeze.dim": _squeeze,
        "aten.squeeze.dims": _squeeze,
        "aten.t": torch.t,
        "aten.roll": torch.roll,
    },
    **{"aten.expand": _expand, "aten.expand_as": _expand_as, "aten.slice": _slice, "aten.select": _select},
    **{"aten.mean": _mean, "aten.sum": _sum, "aten.amax": torch.amax, "aten.amin": torch.amin},
    **{"aten.clamp": torch.clamp, "aten.clamp_min": torch.clamp, "aten.maximum": torch.maximum},
    **{"aten.minimum": torch.minimum, "aten.matmul": torch.matmul, "aten.mm": torch.matmul},
    **{"aten.bmm": torch.matmul, "aten.addmm": torch.addmm, "aten.einsum": torch.einsum},
    **{"aten.softmax": _softmax, "aten._softmax": _softmax, "aten.exp": torch.exp, "aten.log": torch.log},
    **{
        "aten.log_softmax": _log_softmax,
        "aten._log_softmax": _log_softmax,
        "aten.logsumexp": torch.logsumexp,
    },
    **{
        "aten.sqrt": torch.sqrt,
        "aten.rsqrt": torch.rsqrt,
        "aten.pow": torch.pow,
        "aten.square": torch.square,
    },
    **{
        "aten.reciprocal": torch.reciprocal,
        "aten.sin": torch.sin,
        "aten.cos": torch.cos,
        "aten.erf": torch.erf,
    },
    **{"aten.linear": functional.linear, "aten.conv2d": functional.conv2d, "aten.pad": _pad},
    **{"aten.constant_pad_nd": _constant_pad, "aten.pixel_shuffle": torch.pixel_shuffle},
    **{"aten.pixel_unshuffle": torch.pixel_unshuffle, "aten.channel_shuffle": torch.channel_shuffle},
    **{"aten.scaled_dot_product_attention": _attention, "aten.layer_norm": torch.layer_norm},
    **{"aten.group_norm": torch.group_norm, "aten.instance_norm": torch.instance_norm},
    **{
        "aten.index_select": torch.index_select,
        "aten.gather": torch.gather,
        "aten.var.correction": torch.var,
    },
    **{"aten.unflatten": torch.unflatten, "aten.batch_norm": torch.batch_norm},
    **{"aten.linalg_vector_norm": torch.linalg.vector_norm, "aten.cumsum": torch.cumsum},
    **{"aten.sym_size": _size, "_operator.add": operator.add, "_operator.sub": operator.sub},
    **{"_operator.mul": operator.mul, "_operator.floordiv": operator.floordiv, "_operator.neg": operator.neg},
    **{"_operator.getitem": operator.getitem, "_operator.mod": operator.mod},
}


def function(op: str) -> Function | None:
    """Return the function for an operation, None where it is not one that a program may have.

    Args:
        op: Name with overload, such as ``aten.add.Tensor``.
    """
    name = ".".join(op.split(".")[:2])
    if op in _AS_THEY_ARE:
        _, operation, overload = op.split(".")
        found: Function = getattr(getattr(torch.ops.aten, operation), overload)
        return found
    return FUNCTIONS.get(op) or FUNCTIONS.get(name)
