"""Layers differentiated at a given input: tangents pushed forward, cotangents pulled back, many at once.

A stage holds one layer at inputs ``z[b, *n]`` and the gradient ``g`` of a scalar with respect to its output.
``push`` maps tangents ``t[m, b, *n]`` to ``J t``; ``pull`` maps tangents s of the gradient to

    J^T s + d(J^T g)[t]

whose second term is zero unless the layer is curved (Pearlmutter 1994). Only reverse mode is used, or no
automatic differentiation where the layer's own formula is known: every layer that can be differentiated twice
will do, and PyTorch need not load its function transforms, which takes seconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from curvelens.errors import ArgumentError
from curvelens.linearity import is_elementwise_straight, is_piecewise_linear

_CURVED_ELEMENTWISE = {
    *(nn.Softplus, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, nn.ELU, nn.CELU, nn.SELU, nn.Mish),
    *(nn.LogSigmoid, nn.Softsign, nn.Tanhshrink, nn.Hardswish),
}
_CONVOLUTIONS = {nn.Conv1d, nn.Conv2d, nn.Conv3d}
_HOMOGENEOUS = {
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.ZeroPad2d, nn.Upsample),
}


class Stage(ABC):
    """One layer at ``z[b, *n]``.

    Attributes:
        output: The layer's output at z.
        curved: Whether ``pull`` needs the tangents ``t`` of the layer's input.
        reshapes: Whether the layer only changes shapes.
        weight: The layer's matrix ``[outputs, inputs]``, if it has one that acts on the last axis.
    """

    output: Tensor
    curved: bool = False
    reshapes: ClassVar[bool] = False
    weight: Tensor | None = None

    @abstractmethod
    def cotangent(self, g: Tensor) -> Tensor:
        """Take the gradient with respect to the output, and return that with respect to the input."""

    @abstractmethod
    def push(self, t: Tensor) -> Tensor:
        """Return ``J t`` for ``t[m, b, *n]``."""

    @abstractmethod
    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        """Return ``J^T s + d(J^T g)[t]``; None stands for zero, s may be overwritten, t may not."""


def make_stage(layer: nn.Module, z: Tensor) -> Stage:
    """Return the stage of a layer in evaluation mode at inputs ``z[b, *n]``."""
    kind = type(layer)
    if kind is nn.Linear:
        return _Linear(layer, z)
    if kind is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
        return _Flatten(layer, z)
    if kind in _CURVED_ELEMENTWISE or getattr(layer, "elementwise", False):
        return _Elementwise(layer, z, curved=True)
    if is_elementwise_straight(layer):
        return _Elementwise(layer, z, curved=False)
    if kind in _CONVOLUTIONS and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return _Convolution(layer, z)
    if kind in _HOMOGENEOUS:
        return _Homogeneous(layer, z)
    return _Straight(layer, z) if is_piecewise_linear(layer) else _Curved(layer, z)


class _Linear(Stage):
    def __init__(self, layer: nn.Module, z: Tensor) -> None:
        self.weight: Tensor = cast(Tensor, layer.weight).detach()
        self.output = layer(z)

    def cotangent(self, g: Tensor) -> Tensor:
        return g @ self.weight

    def push(self, t: Tensor) -> Tensor:
        return t @ self.weight.mT

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        return None if s is None else s @ self.weight


class _Flatten(Stage):
    reshapes = True

    def __init__(self, layer: nn.Module, z: Tensor) -> None:
        self.shape = z.shape
        self.output = z.flatten(1)

    def cotangent(self, g: Tensor) -> Tensor:
        return g.reshape(self.shape)

    def push(self, t: Tensor) -> Tensor:
        return t.flatten(2)

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        return None if s is None else s.reshape(len(s), *self.shape)


class _Elementwise(Stage):
    """A layer whose Jacobian is diagonal: ``a'(z) t``, and ``a'(z) s + a''(z) g t`` on the way back."""

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


class _Convolution(Stage):
    def __init__(self, layer: nn.Module, z: Tensor) -> None:
        self._layer: Any = layer
        self._weight = cast(Tensor, layer.weight).detach()
        self._shape = z.shape
        self.output = layer(z)

    def cotangent(self, g: Tensor) -> Tensor:
        return self._transposed(g)

    def push(self, t: Tensor) -> Tensor:
        return self._layer._conv_forward(t.flatten(0, 1), self._weight, None).unflatten(0, t.shape[:2])

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        return None if s is None else self._transposed(s.flatten(0, 1)).unflatten(0, s.shape[:2])

    def _transposed(self, s: Tensor) -> Tensor:
        layer = self._layer
        dimensions = s.ndim - 2
        z = s.new_empty(1).expand(len(s), *self._shape[1:])  # only its shape is read
        return torch.ops.aten.convolution_backward(
            s, z, self._weight, None, layer.stride, layer.padding, layer.dilation,
            False, [0] * dimensions, layer.groups, [True, False, False],
        )[0]  # fmt: skip


class _Homogeneous(Stage):
    """A layer that is linear without a constant, so that it is its own derivative."""

    def __init__(self, layer: nn.Module, z: Tensor) -> None:
        self._layer = layer
        self._shape = z.shape
        self.output = layer(z)

    def cotangent(self, g: Tensor) -> Tensor:
        return self._transposed(g)

    def push(self, t: Tensor) -> Tensor:
        return self._layer(t.flatten(0, 1)).unflatten(0, t.shape[:2])

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        return None if s is None else self._transposed(s.flatten(0, 1)).unflatten(0, s.shape[:2])

    def _transposed(self, s: Tensor) -> Tensor:
        with torch.enable_grad():
            z = s.new_zeros(1).expand(len(s), *self._shape[1:]).requires_grad_()
            return _pulled(self._layer(z), z, s)


class _General(Stage):
    """A layer of which only its derivatives by reverse mode are known; each tangent gets a copy of z."""

    def __init__(self, layer: nn.Module, z: Tensor) -> None:
        self._layer, self._z = layer, z
        self._g: Tensor | None = None
        self.output = layer(z.clone())

    def cotangent(self, g: Tensor) -> Tensor:
        self._g = g
        with torch.enable_grad():
            z, y = self._copies(1)
            return _pulled(y, z, g)

    def push(self, t: Tensor) -> Tensor:
        with torch.enable_grad():
            z, y = self._copies(len(t))
            u = torch.zeros_like(y, requires_grad=True)
            transposed = _pulled(y, z, u, create_graph=True)  # J^T u, linear in u with the derivative J^T
            return _pulled(transposed, u, t.flatten(0, 1)).unflatten(0, t.shape[:2])

    def _copies(self, count: int) -> tuple[Tensor, Tensor]:
        """Return copies of z as a leaf of the graph, and the layer's outputs."""
        z = self._z.repeat(count, *[1] * (self._z.ndim - 1)).requires_grad_()
        return z, self._layer(z.clone())


class _Straight(_General):
    """Any other piecewise-linear layer."""

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        if s is None:
            return None
        with torch.enable_grad():
            z, y = self._copies(len(s))
            return _pulled(y, z, s.flatten(0, 1)).unflatten(0, s.shape[:2])


class _Curved(_General):
    """Any other layer."""

    curved = True

    def pull(self, s: Tensor | None, t: Tensor | None) -> Tensor | None:
        assert t is not None
        assert self._g is not None
        with torch.enable_grad():
            z, y = self._copies(len(t))
            g = self._g.repeat(len(t), *[1] * (self._g.ndim - 1))
            gradient = _pulled(y, z, g, create_graph=True)
            total = _dot(gradient, t.flatten(0, 1))  # the derivative of J^T g is symmetric
            if s is not None:
                total = total + _dot(y, s.flatten(0, 1))
            return _gradient(total, z).unflatten(0, t.shape[:2])


def _pulled(y: Tensor, z: Tensor, u: Tensor, create_graph: bool = False) -> Tensor:
    """Return ``J^T u`` for the graph that leads from z to y.

    It is the gradient of an inner product; given u as ``grad_outputs``, PyTorch would import sympy first,
    which takes seconds.
    """
    return _gradient(_dot(y, u), z, create_graph)


def _gradient(total: Tensor, z: Tensor, create_graph: bool = False) -> Tensor:
    if not total.requires_grad:
        return torch.zeros_like(z)
    (found,) = torch.autograd.grad(
        total, z, create_graph=create_graph, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    if create_graph:
        require_twice(found)
    return found


def require_twice(g: Tensor) -> None:
    """Raise where what can be differentiated only once had a part in a gradient.

    PyTorch takes its derivative for zero, since nothing leads from there to x.

    Args:
        g: A gradient with its graph.

    Raises:
        ArgumentError: Its derivative would leave something out.
    """
    pending, seen = [g.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        # What torch.autograd.function.once_differentiable, or a missing formula, leaves behind.
        if node.name().rpartition("::")[2] in ("Error", "NotImplemented"):
            raise ArgumentError(
                "the network has an operation that can be differentiated only once, so it has no Hessian; "
                "use methods of first order, or SmoothHess"
            )
        seen.add(node)
        pending.extend(following for following, _ in node.next_functions)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.reshape(-1), b.reshape(-1))


def _softplus_derivatives(layer: nn.Softplus, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives ``s(u)`` and ``beta s(u) s(-u)``; ``1 - s(u)`` would lose digits at large u."""
    u = z * layer.beta
    linear = u > layer.threshold
    slope = u.sigmoid()
    bend = (slope * (-u).sigmoid()).mul_(layer.beta)
    return slope.masked_fill_(linear, 1.0), bend.masked_fill_(linear, 0.0)
