"""Values, gradients, Hessian-vector products and full Hessians of a scalar, in chunks that bound the memory.

A scalar is any function ``x[B, *shape] -> y[B]`` whose row ``i`` depends on row ``i`` of x only; those of
:mod:`curvelens.targets` know more about themselves and are handled faster.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from curvelens.chunks import chunk_rows, chunks, memory_limit
from curvelens.targets import Scalar

Function = Callable[[Tensor], Tensor]


class ZeroHessianWarning(UserWarning):
    """The Hessian is zero because the function is piecewise linear, not because it is flat on a larger scale."""


def value(f: Function, x: Tensor, chunk: int | None = None) -> Tensor:
    """Evaluate f in chunks, without a graph.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        x: ``[B, *shape]``.
        chunk: Rows at once; ``None`` chooses by memory.

    Returns:
        ``[B]``, detached.
    """
    with torch.no_grad():
        parts = [_rows(f, a, b)(x[a:b]) for a, b in chunks(len(x), chunk or _chunk(x))]
    return torch.cat(parts)


def gradient(f: Function, x: Tensor, chunk: int | None = None) -> Tensor:
    """Return the gradient of f at each row of x.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        x: ``[B, *shape]``.
        chunk: Rows at once; ``None`` chooses by memory.

    Returns:
        ``[B, *shape]``, detached.
    """
    parts = []
    for a, b in chunks(len(x), chunk or _chunk(x)):
        with torch.enable_grad():
            block = x[a:b].detach().requires_grad_()
            parts.append(torch.autograd.grad(_rows(f, a, b)(block).sum(), block)[0])
    return torch.cat(parts)


def hvp(f: Function, x: Tensor, v: Tensor, chunk: int | None = None) -> Tensor:
    """Return Hessian-vector products at one x.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        x: ``[*shape]``.
        v: ``[m, *shape]``.
        chunk: Vectors at once; ``None`` chooses by memory.

    Returns:
        ``[m, *shape]``, detached.
    """
    if getattr(f, "piecewise_linear", False):
        _warn(f)
        return torch.zeros_like(v)
    out = torch.empty_like(v)
    for a, b in chunks(len(v), chunk or _chunk(v)):
        out[a:b] = _products(f, x[None], v[a:b, None])[:, 0]
    return out


def hessian(f: Function, x: Tensor, chunk: int | None = None) -> Tensor:
    """Return the full Hessian at one x.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        x: ``[*shape]``, d entries.
        chunk: Rows of the Hessian at once; ``None`` chooses by memory.

    Returns:
        Symmetric ``[d, d]``, detached.
    """
    return hessians(f, x[None], chunk)[0]


def hessians(f: Function, xs: Tensor, chunk: int | None = None) -> Tensor:
    """Return the full Hessian at each row of xs.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        xs: ``[B, *shape]``.
        chunk: Rows of the Hessians at once; ``None`` chooses by memory.

    Returns:
        Symmetric ``[B, d, d]``, detached.
    """
    d = xs[0].numel()
    H = xs.new_zeros(len(xs), d, d)
    if getattr(f, "piecewise_linear", False):
        _warn(f)
        return H
    for i in range(len(xs)):
        for a, b in chunks(d, chunk or _chunk(xs)):
            basis = torch.zeros(b - a, d, dtype=xs.dtype, device=xs.device)
            basis[torch.arange(b - a), torch.arange(a, b)] = 1
            rows = _products(_rows(f, i, i + 1), xs[i : i + 1], basis.view(b - a, 1, *xs.shape[1:]))
            H[i, a:b] = rows.flatten(1)
        H[i] = (H[i] + H[i].mT) / 2
    return H


def _products(f: Function, xs: Tensor, vectors: Tensor) -> Tensor:
    """Return ``H_i v_ji`` for ``xs[b, *shape]`` and ``vectors[m, b, *shape]`` by forward over reverse mode."""
    grad = torch.func.grad(lambda z: f(z).sum())
    with torch.no_grad():
        return torch.func.vmap(lambda v: torch.func.jvp(grad, (xs,), (v,))[1])(vectors)


def _rows(f: Function, start: int, stop: int) -> Function:
    return f.rows(slice(start, stop)) if isinstance(f, Scalar) else f


def _chunk(x: Tensor) -> int:
    return chunk_rows(40 * x[0].numel() * x.element_size(), memory_limit(x.device))


def _warn(f: Function) -> None:
    warnings.warn(
        f"the Hessian of {getattr(f, 'name', f)} is zero almost everywhere, because the network is piecewise linear; "
        "explain the loss or a probability instead of a logit, use softplus_surrogate, or smooth_quadratic",
        ZeroHessianWarning,
        stacklevel=3,
    )
