"""Hessian-vector products of a chain of layers, one layer at a time.

For ``f = head(L_n(... L_1(x)))`` the product ``H v`` is a forward sweep that carries the tangent ``t_l`` of
every layer's input and a backward sweep that carries the tangent ``s_l`` of its gradient (Pearlmutter 1994):

    t_{l+1} = J_l t_l,        s_l = J_l^T s_{l+1} + d(J_l^T g_{l+1})[t_l]

with ``J_l`` the Jacobian of layer l and ``g`` the ordinary gradient, both the same for all v. Only curved
layers have the second term; for an elementwise layer ``a`` it is ``a''(z) g * t``, with factors computed once
per image. That leaves the matrix products of the linear layers and three passes over the tangents per
activation. Rows of a full Hessian save the first of these products too: the tangents behind the first linear
layer are the columns of its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vjp, vmap

from curvelens.chunks import chunks
from curvelens.linearity import is_piecewise_linear

_CURVED_ELEMENTWISE = {
    *(nn.Softplus, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, nn.ELU, nn.CELU, nn.SELU, nn.Mish),
    *(nn.LogSigmoid, nn.Softsign, nn.Tanhshrink, nn.Hardswish),
}
_STRAIGHT_ELEMENTWISE = {nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Hardsigmoid}
_NOTHING = {nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout}


def layer_chain(model: nn.Module, module: str | None = None) -> list[nn.Module] | None:
    """Return the layers that a model applies one after the other in evaluation mode, if it is such a chain.

    Args:
        model: Any module.
        module: Name of the submodule to stop after; ``None`` goes to the model's output.

    Returns:
        The layers, without those that do nothing in evaluation mode; ``None`` when the model is not made of
        ``nn.Sequential``, has hooks, or never gets to ``module`` as a link of the chain.
    """
    hooked = any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in model.modules()
    )
    if hooked or type(model) is not nn.Sequential:
        return None
    layers: list[nn.Module] = []
    reached = _collect(model, "", module, layers)
    return layers if reached or module is None else None


def _collect(part: nn.Module, name: str, last: str | None, layers: list[nn.Module]) -> bool:
    """Append the layers of a part in order, until ``last``; return whether that was reached."""
    if type(part) is nn.Sequential:
        for key, child in part._modules.items():  # named_children would leave out a layer's second use
            if child is not None and _collect(child, f"{name}.{key}" if name else key, last, layers):
                return True
    elif type(part) not in _NOTHING:
        layers.append(part)
    return name == last


def identity_rows(xs: Tensor, start: int, stop: int) -> Tensor:
    """Return rows ``start:stop`` of the identity for each of ``xs[b, *shape]``, ``[m, b, *shape]``."""
    basis = xs.new_zeros(stop - start, 1, xs[0].numel())
    basis[torch.arange(stop - start), 0, torch.arange(start, stop)] = 1
    return basis.expand(-1, len(xs), -1).reshape(stop - start, *xs.shape)


class ChainHessian:
    """The Hessians of a scalar of a chain of layers at some inputs, as linear operators.

    Args:
        layers: From :func:`layer_chain`; they must be in evaluation mode now and whenever a method is called.
        head: Maps the last layer's output ``[b, ...]`` to ``[b]``.
        xs: Inputs ``[b, *shape]``.
        linear_head: Whether ``head`` is piecewise linear.

    Attributes:
        row_bytes: Memory that one product with the Hessians of all b inputs needs, in bytes.
    """

    def __init__(
        self, layers: Sequence[nn.Module], head: Callable[[Tensor], Tensor], xs: Tensor, linear_head: bool
    ) -> None:
        self._xs = xs
        self._stages: list[_Stage] = []
        z = xs
        held = widest = xs.numel()
        for layer in layers:
            stage = _stage(layer, z)
            self._stages.append(stage)
            held += z.numel() if stage.curved else 0
            z = stage.output
            widest = max(widest, z.numel())
        self._head = None if linear_head else grad(lambda y: head(y).sum())
        self._output = z
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            (g,) = torch.autograd.grad(head(leaf).sum(), leaf)
        for stage in reversed(self._stages):
            g = stage.cotangent(g)
        curved = [i for i, stage in enumerate(self._stages) if stage.curved]
        self._depth = len(layers) if self._head else (curved[-1] + 1 if curved else 0)
        self.row_bytes = (held + 4 * widest) * xs.element_size()
        self._columns: Tensor | None = None
        self._outer: tuple[Tensor, Tensor] | None = None

    def products(self, vectors: Tensor) -> Tensor:
        """Return ``H_i v_ji`` for ``vectors[m, b, *shape]``, ``[m, b, *shape]``."""
        return self._sweep(vectors, 0)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows ``start:stop`` of each Hessian, ``[stop - start, b, *shape]``."""
        if not any(stage.curved for stage in self._stages):
            return self._outer_rows(start, stop)
        first = self._first_linear()
        if first is not None:
            if self._columns is None:
                self._columns = self._jacobian_columns(first)
            t = self._columns[start:stop]
            return self._sweep(t.expand(-1, len(self._xs), *t.shape[2:]), first + 1)
        return self._sweep(identity_rows(self._xs, start, stop), 0)

    def _outer_rows(self, start: int, stop: int) -> Tensor:
        """Return rows of ``J^T A J``, where A is the head's Hessian and all layers are straight at x."""
        if self._head is None:
            return self._xs.new_zeros(stop - start, *self._xs.shape)
        if self._outer is None:
            unit = identity_rows(self._output, 0, self._output[0].numel())
            J: Tensor | None = unit.clone()
            for stage in reversed(self._stages):
                J = stage.pull(J, None)
            assert J is not None
            A = _second(self._head, self._output, unit)
            right = J.flatten(2).transpose(0, 1)
            self._outer = right.mT @ A.flatten(2).transpose(0, 1), right
        left, right = self._outer
        return (left[:, start:stop] @ right).transpose(0, 1).reshape(stop - start, *self._xs.shape)

    def _sweep(self, t: Tensor, first: int) -> Tensor:
        """Carry tangents from the input of layer ``first`` to the end and back to x."""
        kept: dict[int, Tensor] = {}
        m = len(t)
        for i in range(first, self._depth):
            if self._stages[i].curved:
                kept[i] = t
            if i + 1 < self._depth or self._head:
                t = self._stages[i].push(t)
        s = None if self._head is None else _second(self._head, self._output, t)
        for i in reversed(range(self._depth)):
            s = self._stages[i].pull(s, kept.pop(i, None))
        return self._xs.new_zeros(m, *self._xs.shape) if s is None else s

    def _first_linear(self) -> int | None:
        """Return the first linear layer, if all before it is straight and is cheaper to pull than to push."""
        for i, stage in enumerate(self._stages[: self._depth]):
            if isinstance(stage, _Linear):
                return i if i == 0 or len(stage.weight) <= self._xs[0].numel() else None
            if stage.curved:
                return None
        return None

    def _jacobian_columns(self, first: int) -> Tensor:
        """Return the tangents behind the first linear layer for the identity, ``[d, b or 1, outputs]``."""
        linear = self._stages[first]
        assert isinstance(linear, _Linear)
        weight = linear.weight
        if all(isinstance(stage, _Flatten) for stage in self._stages[:first]):
            return weight.mT.contiguous()[:, None]
        columns = self._xs.new_empty(self._xs[0].numel(), len(self._xs), len(weight))
        for a, b in chunks(len(weight), 256):
            s: Tensor | None = weight[a:b, None].repeat(1, len(self._xs), 1)
            for stage in reversed(self._stages[:first]):
                s = stage.pull(s, None)
            assert s is not None
            columns[:, :, a:b] = s.flatten(2).permute(2, 1, 0)
        return columns


class _Stage(Protocol):
    """One layer at one input ``z[b, *n]``: ``push`` is J; ``pull`` is J^T and, where curved, its derivative.

    ``pull`` may overwrite ``s`` and must not overwrite ``t``.
    """

    curved: bool
    output: Tensor

    def cotangent(self, g: Tensor) -> Tensor: ...

    def push(self, t: Tensor) -> Tensor: ...

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None: ...


def _stage(layer: nn.Module, z: Tensor) -> _Stage:
    kind = type(layer)
    if kind is nn.Linear:
        return _Linear(layer, z)
    if kind is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
        return _Flatten(layer, z)
    if kind in _CURVED_ELEMENTWISE or kind in _STRAIGHT_ELEMENTWISE or getattr(layer, "elementwise", False):
        return _Elementwise(layer, z, kind not in _STRAIGHT_ELEMENTWISE)
    return _Straight(layer, z) if is_piecewise_linear(layer) else _Curved(layer, z)


class _Linear:
    curved = False

    def __init__(self, layer: nn.Module, z: Tensor) -> None:
        self.weight = cast(Tensor, layer.weight).detach()
        self.output: Tensor = layer(z)

    def cotangent(self, g: Tensor) -> Tensor:
        return g @ self.weight

    def push(self, t: Tensor) -> Tensor:
        return t @ self.weight.mT

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        return None if s is None else s @ self.weight


class _Flatten:
    curved = False

    def __init__(self, layer: nn.Module, z: Tensor) -> None:
        self.shape = z.shape
        self.output = z.flatten(1)

    def cotangent(self, g: Tensor) -> Tensor:
        return g.reshape(self.shape)

    def push(self, t: Tensor) -> Tensor:
        return t.flatten(2)

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        return None if s is None else s.reshape(len(s), *self.shape)


class _Elementwise:
    def __init__(self, layer: nn.Module, z: Tensor, curved: bool) -> None:
        self.curved = curved
        self.slope: Tensor
        self.bend: Tensor | None = None
        if type(layer) is nn.Softplus:
            self.output = layer(z)
            self.slope, self.bend = _softplus_derivatives(layer, z)
            return
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            y = layer(leaf.clone())  # a copy, because the layer may work in place
            (slope,) = torch.autograd.grad(y.sum(), leaf, create_graph=curved)
            if curved:
                (self.bend,) = torch.autograd.grad(slope.sum(), leaf)
        self.output = y.detach()
        self.slope = slope.detach()

    def cotangent(self, g: Tensor) -> Tensor:
        if self.bend is not None:
            self.bend = self.bend * g
        return g * self.slope

    def push(self, t: Tensor) -> Tensor:
        return t * self.slope

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        if self.bend is None or t is None:
            return None if s is None else s.mul_(self.slope)
        return t * self.bend if s is None else s.mul_(self.slope).addcmul_(t, self.bend)


class _Straight:
    """Any piecewise-linear layer: convolution, pooling, normalisation by stored statistics, padding."""

    curved = False

    def __init__(self, layer: nn.Module, z: Tensor) -> None:
        self._layer = layer
        with torch.enable_grad():
            self._z = z.detach().requires_grad_()
            self._y = layer(self._z.clone())
        self.output = self._y.detach()

    def cotangent(self, g: Tensor) -> Tensor:
        return torch.autograd.grad(self._y, self._z, g, retain_graph=True)[0]

    def push(self, t: Tensor) -> Tensor:
        return vmap(lambda t: jvp(self._layer, (self._z.detach(),), (t,))[1])(t)

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        if s is None:
            return None
        return torch.autograd.grad(self._y, self._z, s, retain_graph=True, is_grads_batched=True)[0]


class _Curved:
    """Any other layer: forward over reverse mode on this layer alone."""

    curved = True

    def __init__(self, layer: nn.Module, z: Tensor) -> None:
        self._layer, self._z = layer, z
        self.output, self._transposed = _linearised(layer, z)
        self._g = z

    def cotangent(self, g: Tensor) -> Tensor:
        self._g = g
        return self._transposed(g)[0]

    def push(self, t: Tensor) -> Tensor:
        return vmap(lambda t: jvp(self._layer, (self._z,), (t,))[1])(t)

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        assert t is not None
        if s is None:
            s = self._g.new_zeros(len(t), *self._g.shape)

        def backward(z: Tensor, g: Tensor) -> Tensor:
            return _linearised(self._layer, z)[1](g)[0]

        return vmap(lambda t, s: jvp(backward, (self._z, self._g), (t, s))[1])(t, s)


def _softplus_derivatives(layer: nn.Softplus, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives ``s(u)`` and ``beta s(u) s(-u)``; ``1 - s(u)`` would lose digits at large u."""
    u = z * layer.beta
    linear = u > layer.threshold
    slope = u.sigmoid()
    bend = (slope * (-u).sigmoid()).mul_(layer.beta)
    return slope.masked_fill_(linear, 1.0), bend.masked_fill_(linear, 0.0)


def _linearised(layer: nn.Module, z: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor]]]:
    """Return a layer's output at z and the transpose of its Jacobian there."""
    return cast("tuple[Tensor, Callable[[Tensor], tuple[Tensor]]]", vjp(layer, z))


def _second(gradient: Callable[[Tensor], Tensor], y: Tensor, t: Tensor) -> Tensor:
    """Return the head's Hessian times each of ``t[m, b, n]``."""
    return vmap(lambda t: jvp(gradient, (y,), (t,))[1])(t)
