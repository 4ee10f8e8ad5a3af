"""The Jacobian and the Hessian of a function as operators, by the fastest way that the model allows."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import cache
from typing import Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor

from curvelens.chain import ChainHessian, ChainJacobian, identity_rows, layer_chain
from curvelens.chunks import available_bytes, is_out_of_memory
from curvelens.errors import CurvelensError
from curvelens.stages import require_twice
from curvelens.targets import Function, Logits, Scalar

_log = logging.getLogger(__name__)
_Way = TypeVar("_Way")
_Result = TypeVar("_Result")

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

    Chains of layers are swept layer by layer; other functions are differentiated by forward over reverse
    mode; where a model cannot be transformed that way (an operation without a forward derivative, control
    flow on values, an in-place write that cannot be batched), by reverse mode twice.

    Args:
        f: Scalar, ``[b, *shape] -> [b]``, its model in evaluation mode for as long as the operator is used.
        xs: ``[b, *shape]``.
    """
    ways: list[tuple[str, Callable[[], HessianOperator]]] = [
        ("by forward over reverse mode", lambda: _ForwardOverReverse(f, xs)),
        ("by reverse over reverse mode", lambda: _ReverseOverReverse(f, xs)),
    ]
    if isinstance(f, Scalar) and (layers := layer_chain(f.model, f.module)) is not None:
        ways.insert(0, ("layer by layer", lambda: ChainHessian(layers, f, xs)))
    return _FirstHessian(_FirstThatWorks("Hessian", ways))


def pullback(function: Function, x: Tensor) -> Function:
    """Return ``u[m, c] -> u J [m, *shape]`` with J the Jacobian of a vector-valued function at one x.

    Chains of layers are pulled back layer by layer; another function's graph is built once and pulled back
    for all vectors together; where that cannot be batched, each vector gets a copy of x.

    Args:
        function: ``[B, *shape] -> [B, c]``, row by row, its model in evaluation mode.
        x: ``[*shape]``.
    """
    ways: list[tuple[str, Callable[[], Function]]] = [
        ("by batched reverse mode", lambda: _batched_pullback(function, x)),
        ("by reverse mode", lambda: _copying_pullback(function, x)),
    ]
    if isinstance(function, Logits) and (layers := layer_chain(function.model)) is not None:
        ways.insert(0, ("layer by layer", lambda: ChainJacobian(layers, x)))
    first = _FirstThatWorks("Jacobian", ways)
    return lambda u: first.attempt(lambda pull: pull(u))


def pushforward(function: Function) -> Callable[[Tensor, Tensor], Tensor]:
    """Return ``(xs[B, *shape], v[B, *shape]) -> J_i v_i [B, c]`` with J_i the function's Jacobian at row i.

    By forward mode; where an operation has no forward derivative, by reverse mode twice.

    Args:
        function: ``[B, *shape] -> [B, c]``, row by row, its model in evaluation mode.
    """
    ways: list[tuple[str, Callable[[], Callable[[Tensor, Tensor], Tensor]]]] = [
        ("by forward mode", lambda: _forward_push(function)),
        ("by reverse mode twice", lambda: _double_pull(function)),
    ]
    first = _FirstThatWorks("Jacobian-vector product", ways)
    return lambda xs, v: first.attempt(lambda push: push(xs, v))


def select_rows(f: Function, rows: slice | Tensor) -> Function:
    """Return f for some of the rows of x, which matters where it has an index per row."""
    return f.rows(rows) if isinstance(f, Scalar) else f


def graph_bytes(f: Function, x: Tensor) -> int:
    """Measure the memory that reverse mode keeps for each row of x, in bytes.

    Args:
        f: Function, ``[B, *shape] -> [B, ...]``.
        x: ``[B, *shape]`` with ``B >= 1``; f is run on the first row, and on that row twice.

    Returns:
        The difference between the two graphs, which leaves the parameters out; where two rows do not fit, all
        memory that there is.
    """
    rows = torch.zeros(2, dtype=torch.long)
    try:
        saved = [_saved_bytes(select_rows(f, rows[:count]), x[rows[:count]]) for count in (1, 2)]
    except RuntimeError as error:
        if is_out_of_memory(error):
            return available_bytes(x.device)  # two rows are too many; one may do
        return _GUESSED_GRAPH * x[0].nbytes  # f has transforms of its own, which forbid to watch its graph
    return max(x[0].nbytes, saved[1] - saved[0])


def _saved_bytes(f: Function, x: Tensor) -> int:
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # a node that keeps its own output would never be freed

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = f(x.detach().requires_grad_())
    del y
    return sum(saved.values())


class _FirstThatWorks(Generic[_Way]):
    """Tries ways of computing in turn and stays with the first that raises no error."""

    def __init__(self, what: str, ways: list[tuple[str, Callable[[], _Way]]]) -> None:
        self._what = what
        self._ways = ways
        self._chosen: _Way | None = None

    def attempt(self, work: Callable[[_Way], _Result]) -> _Result:
        """Return ``work`` of the first way with which it succeeds; the last way's error is raised."""
        while True:
            try:
                if self._chosen is None:
                    self._chosen = self._ways[0][1]()
                return work(self._chosen)
            except Exception as error:
                if len(self._ways) == 1 or isinstance(error, CurvelensError) or is_out_of_memory(error):
                    raise
                _log.info("%s %s failed (%s); trying another way", self._what, self._ways.pop(0)[0], error)
                self._chosen = None


class _FirstHessian:
    def __init__(self, first: _FirstThatWorks[HessianOperator]) -> None:
        self._first = first

    @property
    def row_bytes(self) -> int:
        return self._first.attempt(lambda operator: operator.row_bytes)

    def products(self, vectors: Tensor) -> Tensor:
        return self._first.attempt(lambda operator: operator.products(vectors))

    def rows(self, start: int, stop: int) -> Tensor:
        return self._first.attempt(lambda operator: operator.rows(start, stop))


class _ForwardOverReverse:
    """``d/dt grad f(x + t v)`` by forward mode, for many v at once."""

    def __init__(self, f: Function, xs: Tensor) -> None:
        self._xs = xs
        self._gradient = torch.func.grad(lambda z: f(z).sum())
        self.row_bytes = _FORWARD_COPIES * len(xs) * graph_bytes(f, xs)
        _load_forward_mode()

    def products(self, vectors: Tensor) -> Tensor:
        def product(v: Tensor) -> Tensor:
            return cast(Tensor, torch.func.jvp(self._gradient, (self._xs,), (v,))[1])

        return torch.func.vmap(product)(vectors)

    def rows(self, start: int, stop: int) -> Tensor:
        return self.products(identity_rows(self._xs, start, stop))


class _ReverseOverReverse:
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
            require_twice(g)
            flat = vectors.reshape(x.shape)
            (product,) = torch.autograd.grad(g, x, flat, allow_unused=True, materialize_grads=True)
        return product.reshape(vectors.shape)

    def rows(self, start: int, stop: int) -> Tensor:
        return self.products(identity_rows(self._xs, start, stop))


def _batched_pullback(function: Function, x: Tensor) -> Function:
    with torch.enable_grad():
        leaf = x.detach()[None].requires_grad_()
        y = function(leaf)

    def pull(u: Tensor) -> Tensor:
        return torch.autograd.grad(y, leaf, u[:, None], retain_graph=True, is_grads_batched=True)[0][:, 0]

    return pull


def _copying_pullback(function: Function, x: Tensor) -> Function:
    def pull(u: Tensor) -> Tensor:
        with torch.enable_grad():
            copies = x.detach().expand(len(u), *x.shape).clone().requires_grad_()
            return torch.autograd.grad(function(copies), copies, u)[0]

    return pull


def _forward_push(function: Function) -> Callable[[Tensor, Tensor], Tensor]:
    _load_forward_mode()

    @torch.no_grad()
    def push(xs: Tensor, v: Tensor) -> Tensor:
        return cast(Tensor, torch.func.jvp(function, (xs,), (v,))[1])

    return push


def _double_pull(function: Function) -> Callable[[Tensor, Tensor], Tensor]:
    def push(xs: Tensor, v: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = xs.detach().requires_grad_()
            y = function(leaf)
            u = torch.zeros_like(y, requires_grad=True)
            (pulled,) = torch.autograd.grad(y, leaf, u, create_graph=True)
            require_twice(pulled)
            return torch.autograd.grad(pulled, u, v)[0]

    return push


@cache
def _load_forward_mode() -> None:
    """Let PyTorch load its forward-mode rules, in the course of which it warns of its own deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.func.jvp(lambda z: z, (torch.zeros(1),), (torch.ones(1),))
