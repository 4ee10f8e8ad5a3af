"""The Hessian of a scalar as a linear operator, by the fastest of three ways that the model allows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from curvelens.chunks import is_out_of_memory
from curvelens.errors import ArgumentError, CurvelensError
from curvelens.stages import ChainHessian, identity_rows, layer_chain
from curvelens.targets import Function, Scalar

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_GUESSED_GRAPH = 64  # graph of a row over the row itself, where it cannot be measured
_FORWARD_COPIES = 4  # tangents of the graph and of its gradient, and what vmap copies
_REVERSE_COPIES = 6


class HessianOperator(Protocol):
    """The Hessians of a scalar at ``xs[b, *shape]``."""

    @property
    def row_bytes(self) -> int:
        """Estimated memory that one product with the Hessians of all b inputs needs, in bytes."""

    def products(self, vectors: Tensor) -> Tensor:
        """Return ``H_i v_ji`` for ``vectors[m, b, *shape]``, ``[m, b, *shape]``."""

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows ``start:stop`` of each Hessian, ``[stop - start, b, *shape]``."""


def hessian_operator(f: Function, xs: Tensor) -> HessianOperator:
    """Return the Hessians of f at some inputs as an operator.

    Chains of standard layers are swept layer by layer; other functions are differentiated by forward over
    reverse mode; where a model cannot be transformed that way (an operation without a forward derivative,
    control flow on values, an in-place write that cannot be batched), by reverse mode twice.

    Args:
        f: Scalar, ``[b, *shape] -> [b]``, its model in evaluation mode for as long as the operator is used.
        xs: ``[b, *shape]``.
    """
    ways: list[Callable[[], HessianOperator]] = [
        lambda: _ForwardOverReverse(f, xs),
        lambda: _ReverseOverReverse(f, xs),
    ]
    layers = layer_chain(f.model, f.module) if isinstance(f, Scalar) else None
    if isinstance(f, Scalar) and layers is not None:
        ways.insert(0, lambda: ChainHessian(layers, f.apply_head, xs, f.linear_head))
    return _FirstThatWorks(ways)


def graph_bytes(f: Function, x: Tensor) -> int:
    """Measure the memory that reverse mode keeps for each row of x, in bytes.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``.
        x: ``[B, *shape]`` with ``B >= 1``; f is run on the first row, and on that row twice.

    Returns:
        The difference between the two graphs, which leaves the parameters out.
    """
    rows = torch.zeros(2, dtype=torch.long)
    try:
        saved = [_saved_bytes(select_rows(f, rows[:count]), x[rows[:count]]) for count in (1, 2)]
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return _GUESSED_GRAPH * x[0].nbytes  # f has transforms of its own, which forbid to watch its graph
    return max(x[0].nbytes, saved[1] - saved[0])


def select_rows(f: Function, rows: slice | Tensor) -> Function:
    """Return f for some of the rows of x, which matters where it has an index per row."""
    return f.rows(rows) if isinstance(f, Scalar) else f


def _saved_bytes(f: Function, x: Tensor) -> int:
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = f(x.detach().requires_grad_())
    del y
    return sum(saved.values())


def pullback(function: Function, x: Tensor, size: int) -> Function:
    """Return ``u[m, c] -> u J [m, *shape]`` with J the Jacobian of a vector-valued function at one x.

    The graph is built once and pulled back for all vectors together; where that cannot be batched, each
    vector gets a copy of x.

    Args:
        function: ``[B, *shape] -> [B, c]``, row by row.
        x: ``[*shape]``.
        size: c, as the caller supposes it.

    Raises:
        ArgumentError: The function's output is not ``[B, c]`` with this c.
    """
    with torch.enable_grad():
        leaf = x.detach()[None].requires_grad_()
        y = function(leaf)
    if y.shape != (1, size):
        raise ArgumentError(f"vjp: the function returns {list(y.shape)} for one row of x, not [1, {size}]")

    def pull(u: Tensor) -> Tensor:
        try:
            (rows,) = torch.autograd.grad(y, leaf, u[:, None], retain_graph=True, is_grads_batched=True)
            return rows[:, 0]
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            _log.info("batched reverse mode failed (%s); copying x", error)
        with torch.enable_grad():
            copies = x.detach().expand(len(u), *x.shape).clone().requires_grad_()
            return torch.autograd.grad(function(copies), copies, u)[0]

    return pull


class _FirstThatWorks:
    """Tries ways of computing in turn and stays with the first that raises no error."""

    def __init__(self, ways: list[Callable[[], HessianOperator]]) -> None:
        self._ways = ways
        self._operator: HessianOperator | None = None

    @property
    def row_bytes(self) -> int:
        return self._attempt(lambda operator: operator.row_bytes)

    def products(self, vectors: Tensor) -> Tensor:
        return self._attempt(lambda operator: operator.products(vectors))

    def rows(self, start: int, stop: int) -> Tensor:
        return self._attempt(lambda operator: operator.rows(start, stop))

    def _attempt(self, work: Callable[[HessianOperator], _T]) -> _T:
        while True:
            try:
                if self._operator is None:
                    self._operator = self._ways[0]()
                return work(self._operator)
            except Exception as error:
                if len(self._ways) == 1 or isinstance(error, CurvelensError) or is_out_of_memory(error):
                    raise
                _log.info("%s failed (%s); trying another way", self._ways.pop(0), error)
                self._operator = None


class _Basis:
    """Rows of the Hessian as products with unit vectors."""

    _xs: Tensor

    def rows(self, start: int, stop: int) -> Tensor:
        return self.products(identity_rows(self._xs, start, stop))

    def products(self, vectors: Tensor) -> Tensor:
        raise NotImplementedError


class _ForwardOverReverse(_Basis):
    """``d/dt grad f(x + t v)`` by forward mode, for many v at once."""

    def __init__(self, f: Function, xs: Tensor) -> None:
        self._xs = xs
        self._gradient = torch.func.grad(lambda z: f(z).sum())
        self.row_bytes = _FORWARD_COPIES * len(xs) * graph_bytes(f, xs)

    def products(self, vectors: Tensor) -> Tensor:
        def directional(v: Tensor) -> Tensor:
            return torch.func.jvp(self._gradient, (self._xs,), (v,))[1]

        return torch.func.vmap(directional)(vectors)


class _ReverseOverReverse(_Basis):
    """``grad (v . grad f)``, with one copy of x for each v: asks nothing of the model but two derivatives."""

    def __init__(self, f: Function, xs: Tensor) -> None:
        self._f, self._xs = f, xs
        self.row_bytes = _REVERSE_COPIES * len(xs) * graph_bytes(f, xs)

    def products(self, vectors: Tensor) -> Tensor:
        rows = torch.arange(len(self._xs)).repeat(len(vectors))
        f = select_rows(self._f, rows)
        with torch.enable_grad():
            x = self._xs[rows.to(self._xs.device)].requires_grad_()
            (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
            if not g.requires_grad:
                return torch.zeros_like(vectors)
            flat = vectors.reshape(x.shape)
            (product,) = torch.autograd.grad(g, x, flat, allow_unused=True, materialize_grads=True)
        return product.reshape(vectors.shape)
