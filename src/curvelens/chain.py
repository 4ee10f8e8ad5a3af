"""Models that apply one layer after the other: their Jacobians and Hessians, layer by layer.

For ``f = head(L_n(... L_1(x)))`` the product ``H v`` is a forward sweep that carries the tangent ``t_l`` of
every layer's input and a backward sweep that carries the tangent ``s_l`` of its gradient (Pearlmutter 1994):

    t_{l+1} = J_l t_l,        s_l = J_l^T s_{l+1} + d(J_l^T g_{l+1})[t_l]

with ``J_l`` the Jacobian of layer l and ``g`` the ordinary gradient, both the same for all v and computed
once. For a network of linear layers and activations this leaves the matrix products of the linear layers and
three passes over the tangents per activation. Rows of a full Hessian save the first of these products too:
the tangents behind the first linear layer are the columns of its weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from curvelens.chunks import in_chunks, run_in_chunks
from curvelens.stages import Stage, make_stage
from curvelens.targets import Scalar

_NOTHING = {nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout}
_TEMPORARIES = 6  # copies of the widest layer's tangents that a stage may need while it works
_PULLED_ROWS = 256


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


class ChainJacobian:
    """The Jacobian of a chain of layers at one x, from the left.

    Args:
        layers: From :func:`layer_chain`; in evaluation mode now and whenever the object is called.
        x: ``[*shape]``.
    """

    def __init__(self, layers: Sequence[nn.Module], x: Tensor) -> None:
        self._stages = _at(layers, x[None])

    def __call__(self, u: Tensor) -> Tensor:
        """Return ``u[m, c] J``, ``[m, *shape]``."""
        return _pulled(self._stages, u[:, None].clone())[:, 0]


class ChainHessian:
    """The Hessians of a scalar of a chain of layers at some inputs, as linear operators.

    Args:
        layers: From :func:`layer_chain` for the model of f; in evaluation mode whenever a method is called.
        f: The scalar.
        xs: ``[b, *shape]``.

    Attributes:
        row_bytes: Estimated memory that one product with the Hessians of all b inputs needs, in bytes.
    """

    def __init__(self, layers: Sequence[nn.Module], f: Scalar, xs: Tensor) -> None:
        self._f, self._xs = f, xs
        self._stages = _at(layers, xs)
        self._output = self._stages[-1].output if self._stages else xs
        g = self._head_gradient(self._output)
        for stage in reversed(self._stages):
            g = stage.cotangent(g)
        curved = [i for i, stage in enumerate(self._stages) if stage.curved]
        self._straight = not curved
        self._depth = (curved[-1] + 1 if curved else 0) if f.linear_head else len(self._stages)
        inputs = [xs, *(stage.output for stage in self._stages)]
        held = xs.numel() + sum(inputs[i].numel() for i in curved)
        widest = max(z.numel() for z in inputs)
        self.row_bytes = (held + _TEMPORARIES * widest) * xs.element_size()
        self._columns: Tensor | None = None
        self._outer: tuple[Tensor, Tensor] | None = None

    def products(self, vectors: Tensor) -> Tensor:
        """Return ``H_i v_ji`` for ``vectors[m, b, *shape]``, ``[m, b, *shape]``."""
        return self._sweep(vectors, 0)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows ``start:stop`` of each Hessian, ``[stop - start, b, *shape]``."""
        if self._straight:
            return self._outer_rows(start, stop)
        first = self._first_linear()
        if first is None:
            return self._sweep(identity_rows(self._xs, start, stop), 0)
        if self._columns is None:
            self._columns = self._jacobian_columns(first)
        t = self._columns[start:stop]
        return self._sweep(t.expand(-1, len(self._xs), *t.shape[2:]), first + 1)

    def _sweep(self, t: Tensor, first: int) -> Tensor:
        """Carry tangents from the input of layer ``first`` to the end and back to x."""
        m = len(t)
        kept: dict[int, Tensor] = {}
        for i in range(first, self._depth):
            if self._stages[i].curved:
                kept[i] = t
            if i + 1 < self._depth or not self._f.linear_head:
                t = self._stages[i].push(t)
        s = None if self._f.linear_head else self._head_products(t)
        for i in reversed(range(self._depth)):
            s = self._stages[i].pull(s, kept.pop(i, None))
        return self._xs.new_zeros(m, *self._xs.shape) if s is None else s

    def _outer_rows(self, start: int, stop: int) -> Tensor:
        """Return rows of ``J^T A J``, where A is the head's Hessian and all layers are straight at x."""
        if self._f.linear_head:
            return self._xs.new_zeros(stop - start, *self._xs.shape)
        if self._outer is None:
            unit = identity_rows(self._output, 0, self._output[0].numel())
            A = self._head_products(unit).flatten(2).transpose(0, 1)
            right = in_chunks(lambda s: _pulled(self._stages, s.clone()), unit, "Jacobian").flatten(2)
            right = right.transpose(0, 1)
            self._outer = right.mT @ A, right
        left, right = self._outer
        return (left[:, start:stop] @ right).transpose(0, 1).reshape(stop - start, *self._xs.shape)

    def _first_linear(self) -> int | None:
        """Return the first linear layer, if all before it is straight and is cheaper to pull than to push."""
        for i, stage in enumerate(self._stages[: self._depth]):
            if stage.weight is not None:
                return i if i == 0 or len(stage.weight) <= self._xs[0].numel() else None
            if stage.curved:
                return None
        return None

    def _jacobian_columns(self, first: int) -> Tensor:
        """Return the tangents behind the first linear layer for the identity, ``[d, b or 1, outputs]``."""
        weight = self._stages[first].weight
        assert weight is not None
        if all(stage.reshapes for stage in self._stages[:first]):
            return weight.mT.contiguous()[:, None]
        columns = self._xs.new_empty(self._xs[0].numel(), len(self._xs), len(weight))

        def work(a: int, b: int) -> None:
            s = _pulled(self._stages[:first], weight[a:b, None].repeat(1, len(self._xs), 1))
            columns[:, :, a:b] = s.flatten(2).permute(2, 1, 0)

        run_in_chunks(len(weight), _PULLED_ROWS, work, "Jacobian of the first layers", self._xs)
        return columns

    def _head_gradient(self, y: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = y.detach().requires_grad_()
            return torch.autograd.grad(self._f.apply_head(leaf).sum(), leaf)[0]

    def _head_products(self, t: Tensor) -> Tensor:
        """Return the head's Hessian times each of ``t[m, b, *n]``."""
        rows = torch.arange(len(self._xs)).repeat(len(t))
        f = self._f.rows(rows)
        with torch.enable_grad():
            y = self._output.repeat(len(t), *[1] * (self._output.ndim - 1)).requires_grad_()
            (g,) = torch.autograd.grad(f.apply_head(y).sum(), y, create_graph=True)
            if not g.requires_grad:
                return torch.zeros_like(t)
            total = torch.dot(g.reshape(-1), t.reshape(-1))
            return torch.autograd.grad(total, y)[0].unflatten(0, t.shape[:2])


def _pulled(stages: Sequence[Stage], s: Tensor) -> Tensor:
    """Carry cotangents ``s[m, b, *n]``, which are overwritten, from behind straight stages to before them."""
    pulled: Tensor | None = s
    for stage in reversed(stages):
        pulled = stage.pull(pulled, None)
    assert pulled is not None
    return pulled


def _at(layers: Sequence[nn.Module], z: Tensor) -> list[Stage]:
    """Return the stages of a chain of layers at ``z[b, *shape]``."""
    stages: list[Stage] = []
    for layer in layers:
        stages.append(make_stage(layer, z))
        z = stages[-1].output
    return stages
