"""Values, gradients, Hessian-vector products and full Hessians of a scalar, in chunks that bound the memory.

A scalar is any function ``x[B, *shape] -> y[B]`` whose row ``i`` depends on row ``i`` of x only. Those of
:mod:`curvelens.targets` know more about themselves: their Hessians are computed layer by layer where the
model is a chain of layers, and a piecewise-linear one is recognised. A model's parameters, their ``.grad``,
its buffers and its training flags stay as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from curvelens.chunks import (
    MAX_ROWS,
    available_bytes,
    chunk_rows,
    even_rows,
    memory_limit,
    require_positive,
    run_in_chunks,
)
from curvelens.errors import ArgumentError
from curvelens.forward import read_outputs
from curvelens.products import HessianOperator, graph_bytes, hessian_operator, pullback, select_rows
from curvelens.targets import Function, Logits, Scalar, evaluation_mode

_UNMEASURED_ROWS = 32
_UNMEASURED_BYTES = 2 * 2**20
_GRADIENT_ROWS = {"cpu": 1024, "cuda": 65536}
_HESSIAN_ROWS = {"cpu": 512, "cuda": 16384}
_GRAPH_IN_CACHE = 24 * 2**20  # bytes of a graph, and of tangents, beyond which a CPU waits for its memory
_TANGENTS_IN_CACHE = 48 * 2**20
_FEWEST_ROWS = 32  # below that the matrix products themselves get slower
_ROWS_PER_IMAGE = 128  # of several images at once, so that what is done once per image counts for less
_TILE = 256


class ZeroHessianWarning(UserWarning):
    """A Hessian is zero because the function is piecewise linear, not because it is flat further away."""


def value(f: Function, x: Tensor, chunk: int | None = None) -> Tensor:
    """Evaluate f in chunks, without a graph.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        x: ``[B, *shape]``, floating point.
        chunk: Rows at once, >= 1; ``None`` chooses by memory.

    Returns:
        ``[B]``, detached.

    Raises:
        ArgumentError: x is not floating point, f does not return one number per row, or ``chunk < 1``.
    """

    def work(start: int, stop: int) -> None:
        y[start:stop] = _evaluate(f, x[start:stop], start, stop)

    with _without_graph(f):
        x = _checked(x, f, len(x))
        y = x.new_empty(len(x))
        run_in_chunks(len(x), _gradient_rows(f, x) if chunk is None else chunk, work, "values", x)
    return y


def values(functions: Sequence[Function], x: Tensor, chunk: int | None = None) -> Tensor:
    """Evaluate several scalars at the same points; those of one model share its forward passes.

    Args:
        functions: Scalars, ``[B, *shape] -> [B]`` each, at least one.
        x: ``[B, *shape]``, floating point.
        chunk: Rows at once, >= 1; ``None`` chooses by memory.

    Returns:
        ``[len(functions), B]``, detached.

    Raises:
        ArgumentError: As for :func:`value`.
    """
    scalars = [f for f in functions if isinstance(f, Scalar)]
    shared = len(scalars) == len(functions) > 1 and len({id(f.model) for f in scalars}) == 1
    if not shared:
        return torch.stack([value(f, x, chunk) for f in functions])

    def work(start: int, stop: int) -> None:
        rows = [f.rows(slice(start, stop)) for f in scalars]
        readers = [(f.module, f.apply_head) for f in rows]
        for line, found in zip(y, read_outputs(scalars[0].model, readers, x[start:stop]), strict=True):
            line[start:stop] = found

    with _without_graph(scalars[0]):
        for f in scalars:
            x = _checked(x, f, len(x))
        y = x.new_empty(len(scalars), len(x))
        rows = _gradient_rows(scalars[0], x) if chunk is None else chunk
        run_in_chunks(len(x), rows, work, "values", x)
    return y


def gradient(f: Function, x: Tensor, chunk: int | None = None) -> Tensor:
    """Return the gradient of f at each row of x.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        x: ``[B, *shape]``, floating point.
        chunk: Rows at once, >= 1; ``None`` chooses by memory.

    Returns:
        ``[B, *shape]``, detached.

    Raises:
        ArgumentError: x is not floating point, f does not return one number per row that depends on x by
            differentiable operations, or ``chunk < 1``.
    """

    def work(start: int, stop: int) -> None:
        with torch.enable_grad():
            block = x[start:stop].detach().requires_grad_()
            y = _evaluate(f, block, start, stop)
            (g,) = torch.autograd.grad(y.sum(), block, allow_unused=True) if y.requires_grad else (None,)
        if g is None:
            raise ArgumentError(
                f"gradient of {_name(f)}: it does not depend on x by differentiable operations"
            )
        out[start:stop] = g

    with _without_graph(f):
        x = _checked(x, f, len(x))
        out = torch.empty_like(x)
        run_in_chunks(len(x), _gradient_rows(f, x) if chunk is None else chunk, work, "gradient", x)
    return out


def vjp(function: Function, x: Tensor, u: Tensor, chunk: int | None = None) -> Tensor:
    """Return vectors times the Jacobian of a vector-valued function at one x, by reverse mode.

    Args:
        function: ``[B, *shape] -> [B, c]``, row by row, e.g. :func:`curvelens.targets.logits`.
        x: ``[*shape]``, floating point.
        u: ``[m, c]``; the rows of the identity give the Jacobian itself.
        chunk: Vectors at once, >= 1; ``None`` chooses by memory.

    Returns:
        ``[m, *shape]``, detached.

    Raises:
        ArgumentError: ``u`` does not fit the function's output, x is not floating point, or ``chunk < 1``.
    """
    with _without_graph(function):
        x, u = _checked(x, function, 1), _plain(u).to(x)
        out = x.new_empty(len(u), *x.shape)
        shape = function(x[None]).shape
        if shape != (1, *u.shape[1:]):
            raise ArgumentError(
                f"vjp: {_name(function)} returns {list(shape)} for one row, so u must be [m, {shape[-1]}]"
            )
        pull = pullback(function, x)

        def work(start: int, stop: int) -> None:
            out[start:stop] = pull(u[start:stop])

        if chunk is None:
            row = 2 * graph_bytes(function, x[None])
            chunk = chunk_rows(row, memory_limit(x.device), _HESSIAN_ROWS.get(x.device.type, 512))
        run_in_chunks(len(u), chunk, work, "Jacobian", x[None])
    return out


def hvp(f: Function, x: Tensor, v: Tensor, chunk: int | None = None) -> Tensor:
    """Return the Hessian at one x times each of many vectors.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        x: ``[*shape]``, floating point.
        v: ``[m, *shape]``.
        chunk: Vectors at once, >= 1; ``None`` chooses by memory.

    Returns:
        ``[m, *shape]``, detached; zeros, with a :class:`ZeroHessianWarning`, if f is piecewise linear.

    Raises:
        ArgumentError: ``v`` has another shape than x, x is not floating point, or ``chunk < 1``.
    """
    if v.shape[1:] != x.shape:
        raise ArgumentError(f"hvp: v must be [m, {_sizes(x)}] to go with x, not [{_sizes(v)}]")
    if getattr(f, "piecewise_linear", False):
        _warn_of_zeros(f)
        return torch.zeros_like(v)
    with _without_graph(f):
        xs, v = _checked(x[None], f, 1), _plain(v)
        out = torch.zeros_like(v)
        operator = hessian_operator(f, xs)

        def work(start: int, stop: int) -> None:
            out[start:stop] = operator.products(v[start:stop, None])[:, 0]

        rows = even_rows(len(v), _hessian_rows(operator, xs)) if chunk is None else chunk
        run_in_chunks(len(v), rows, work, "Hessian-vector products", xs)
    if v.any() and not out.any():
        _warn_of_zeros(f)
    return out


def hessian(f: Function, x: Tensor, chunk: int | None = None) -> Tensor:
    """Return the full Hessian at one x.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        x: ``[*shape]`` with d entries, floating point.
        chunk: Rows of the Hessian at once, >= 1; ``None`` chooses by memory.

    Returns:
        Symmetric ``[d, d]``, detached; zeros, with a :class:`ZeroHessianWarning`, if f is piecewise linear.

    Raises:
        ArgumentError: The matrix does not fit in memory, x is not floating point, or ``chunk < 1``.
    """
    return _hessians(f, x[None], chunk)[0]


def hessians(f: Function, xs: Tensor, chunk: int | None = None) -> Tensor:
    """Return the full Hessian at each row of xs.

    Where one Hessian has fewer rows than fit a chunk, several images are differentiated at once.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        xs: ``[B, *shape]`` with d entries in a row, floating point.
        chunk: Rows of the Hessians at once, >= 1; ``None`` chooses by memory.

    Returns:
        Symmetric ``[B, d, d]``, detached; zeros, with :class:`ZeroHessianWarning`, if f is piecewise linear.

    Raises:
        ArgumentError: The matrices do not fit in memory, xs is not floating point, or ``chunk < 1``.
    """
    return _hessians(f, xs, chunk)


def _hessians(f: Function, xs: Tensor, chunk: int | None) -> Tensor:
    d = xs[0].numel() if len(xs) else xs[:0].flatten(1).shape[1]
    _require_memory(len(xs) * d * d * xs.element_size(), d, xs.device)
    if getattr(f, "piecewise_linear", False):
        _warn_of_zeros(f, stacklevel=4)
        return xs.new_zeros(len(xs), d, d)
    if chunk is not None:
        require_positive(chunk)
    with _without_graph(f):
        xs = _checked(xs, f, len(xs))
        H = xs.new_empty(len(xs), d, d)
        first = hessian_operator(select_rows(f, slice(0, 1)), xs[:1]) if len(xs) else None
        rows = _hessian_rows(first, xs) if chunk is None and first else chunk or 1

        def work(start: int, stop: int) -> None:
            if first and stop == 1:
                _fill(H[:1], first, rows)
            else:
                _fill(
                    H[start:stop], hessian_operator(select_rows(f, slice(start, stop)), xs[start:stop]), rows
                )

        run_in_chunks(len(xs), max(1, rows // d, rows // _ROWS_PER_IMAGE), work, "Hessians", xs)
    if len(xs) and not H[0, 0].any() and not H.any():
        _warn_of_zeros(f, stacklevel=4)
    return H


def _fill(H: Tensor, operator: HessianOperator, rows: int) -> None:
    """Write the operator's b Hessians into ``H[b, d, d]``, so many rows at once."""
    d = H.shape[1]

    def work(start: int, stop: int) -> None:
        H[:, start:stop] = operator.rows(start, stop).flatten(2).transpose(0, 1)

    run_in_chunks(d, even_rows(d, max(1, rows // len(H))), work, "rows of Hessians", H.transpose(0, 1))
    for a in range(0, d, _TILE):
        for b in range(a, d, _TILE):
            upper, lower = H[:, a : a + _TILE, b : b + _TILE], H[:, b : b + _TILE, a : a + _TILE]
            mean = (upper + lower.mT).mul_(0.5)
            upper.copy_(mean)
            if a < b:
                lower.copy_(mean.mT)


def _evaluate(f: Function, block: Tensor, start: int, stop: int) -> Tensor:
    """Return f at rows ``start:stop``, given as ``block``, and check its shape."""
    y = select_rows(f, slice(start, stop))(block)
    if y.shape != block.shape[:1]:
        raise ArgumentError(f"{_name(f)}: a scalar must return one number per row, not [{_sizes(y)}]")
    return y


@contextmanager
def _without_graph(f: Function) -> Iterator[None]:
    """Keep the model in evaluation mode and record no graph, inside and outside of inference mode alike."""
    mode = evaluation_mode(f.model) if isinstance(f, (Scalar, Logits)) else nullcontext()
    with torch.inference_mode(False), torch.no_grad(), mode:
        yield


def _plain(x: Tensor) -> Tensor:
    """Return a tensor without history that may enter a graph, even if it was made in inference mode."""
    return x.clone() if x.is_inference() else x.detach()


def _checked(x: Tensor, f: Function, rows: int) -> Tensor:
    """Return x without history, after checking that it can be differentiated and fits the indices of f."""
    if not x.is_floating_point():
        raise ArgumentError(
            f"{_name(f)}: x must be floating point, not {x.dtype}; convert it, e.g. with x.float()"
        )
    if isinstance(f, Scalar):
        f.require_rows(rows)
    return _plain(x)


def _gradient_rows(f: Function, x: Tensor) -> int:
    if len(x) <= 1 or (len(x) <= _UNMEASURED_ROWS and x.nbytes <= _UNMEASURED_BYTES):
        return max(1, len(x))
    graph = graph_bytes(f, x)
    rows = chunk_rows(2 * graph, memory_limit(x.device), _GRADIENT_ROWS.get(x.device.type, MAX_ROWS))
    if x.device.type == "cpu":
        rows = min(rows, max(_FEWEST_ROWS, _GRAPH_IN_CACHE // graph))
    return even_rows(len(x), rows)


def _hessian_rows(operator: HessianOperator, xs: Tensor) -> int:
    limit = memory_limit(xs.device)
    if xs.device.type == "cpu":
        limit = min(limit, _TANGENTS_IN_CACHE)
    return chunk_rows(operator.row_bytes, limit, _HESSIAN_ROWS.get(xs.device.type, 512))


def _require_memory(needed: int, d: int, device: torch.device) -> None:
    free = available_bytes(device)
    if needed > free:
        raise ArgumentError(
            f"hessian: {d} x {d} entries need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; "
            "use hvp, or smooth_quadratic, which need no full matrix"
        )


def _name(f: Function) -> str:
    return str(getattr(f, "name", None) or getattr(f, "__name__", None) or type(f).__name__)


def _sizes(x: Tensor) -> str:
    return ", ".join(str(size) for size in x.shape)


def _warn_of_zeros(f: Function, stacklevel: int = 3) -> None:
    warnings.warn(
        f"the Hessian of {_name(f)} is zero, as that of a piecewise-linear network is almost everywhere; "
        "explain the loss or a probability instead of a logit, a softplus_surrogate, or use smooth_quadratic",
        ZeroHessianWarning,
        stacklevel=stacklevel,
    )
