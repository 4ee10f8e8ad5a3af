"""Scalars to explain: functions ``x[B, *shape] -> y[B]`` made from a model.

Every scalar runs the model in evaluation mode and leaves it as it was found. Row ``i`` of the result depends
on row ``i`` of ``x`` only, which lets the derivatives be taken in chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import index as to_integer

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from curvelens.chunks import in_chunks
from curvelens.errors import ArgumentError
from curvelens.forward import evaluation_mode, penultimate_layer, submodule_output
from curvelens.linearity import is_piecewise_linear

__all__ = [
    "Function",
    "Index",
    "Logits",
    "Scalar",
    "evaluation_mode",
    "inner_neuron",
    "log_probability",
    "logit",
    "logits",
    "loss",
    "margin",
    "max_logit",
    "neuron",
    "probability",
    "regression",
]

Index = int | Tensor
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Scalar:
    """A scalar of a model's output: callable, ``x[B, *shape] -> y[B]``.

    Attributes:
        name: What it is, e.g. ``logit[3]``.
        model: The model it is taken from.
        head: Maps the output ``[B, n]`` and the indices to ``[B]``.
        indices: Classes or units that ``head`` selects; each an int or one per row, ``LongTensor[B]``.
        module: Name of the submodule whose output is read; ``None`` reads the model's output.
        linear_head: Whether ``head`` is piecewise linear.
    """

    name: str
    model: nn.Module
    head: Callable[..., Tensor]
    indices: tuple[Index, ...] = ()
    module: str | None = None
    linear_head: bool = False

    @property
    def piecewise_linear(self) -> bool:
        """Whether the scalar is known to be piecewise linear in x: its Hessian is zero almost everywhere."""
        return self.linear_head and is_piecewise_linear(self.model, self.module)

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate the scalar.

        Args:
            x: ``[B, *shape]``.

        Returns:
            ``[B]``.

        Raises:
            ArgumentError: An index is out of range, or given per row for another number of rows.
        """
        self.require_rows(len(x))
        with evaluation_mode(self.model):
            output = self.model(x) if self.module is None else submodule_output(self.model, self.module, x)
        return self.apply_head(output)

    def apply_head(self, output: Tensor) -> Tensor:
        """Return the scalar ``[B]`` from the output ``[B, n]`` of the model or the named submodule."""
        return self.head(output, *self.indices)

    def require_rows(self, count: int) -> None:
        """Raise :class:`ArgumentError` if an index is given per row for another number of rows."""
        for index in self.indices:
            if isinstance(index, Tensor) and len(index) != count:
                raise ArgumentError(
                    f"targets.{self.name}: {len(index)} indices for {count} rows of x; give 1 or {count}"
                )

    def rows(self, selected: slice | Tensor) -> Scalar:
        """Return the scalar for some of the rows, which matters where an index is given per row.

        Args:
            selected: A slice or ``LongTensor`` of row numbers.
        """
        if not any(isinstance(index, Tensor) for index in self.indices):
            return self
        picked = tuple(
            index[selected.to(index.device) if isinstance(selected, Tensor) else selected]
            if isinstance(index, Tensor)
            else index
            for index in self.indices
        )
        return replace(self, indices=picked)


@dataclass(frozen=True, eq=False)
class Logits:
    """All logits of a model: callable, ``x[B, *shape] -> [B, c]``, in evaluation mode."""

    model: nn.Module
    name: str = "logits"

    @property
    def piecewise_linear(self) -> bool:
        """Whether every logit is known to be piecewise linear in x."""
        return is_piecewise_linear(self.model)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits ``[B, c]`` of ``x[B, *shape]``."""
        with evaluation_mode(self.model):
            return _classes(self.name, self.model(x))


def logits(model: nn.Module) -> Logits:
    """Return all logits as one function.

    Args:
        model: Classifier, ``[B, *shape] -> [B, c]``.

    Returns:
        Callable ``x[B, *shape] -> [B, c]``.
    """
    return Logits(model)


def logit(model: nn.Module, k: Index) -> Scalar:
    """The logit of class k, the network's output before the softmax.

    Args:
        model: Classifier, ``[B, *shape] -> [B, c]``.
        k: Class, ``0 <= k < c``; an int, or ``LongTensor[B]`` with one class per row of x.

    Returns:
        A :class:`Scalar`.

    Raises:
        ArgumentError: ``k`` is not a class.
    """
    name, k = _named("logit", k)
    return Scalar(name, model, lambda y, k: _pick(name, _classes(name, y), k), (k,), linear_head=True)


def probability(model: nn.Module, k: Index) -> Scalar:
    """The softmax probability of class k, in [0, 1].

    Args:
        model: Classifier, ``[B, *shape] -> [B, c]`` with ``c >= 2``; its outputs are logits.
        k: Class, an int or ``LongTensor[B]``.

    Returns:
        A :class:`Scalar`.

    Raises:
        ArgumentError: ``k`` is not a class.
    """
    name, k = _named("probability", k)
    return Scalar(name, model, lambda y, k: _surprise(name, y, k).neg().exp(), (k,))


def log_probability(model: nn.Module, k: Index) -> Scalar:
    """The logarithm of the softmax probability of class k, <= 0.

    Args:
        model: Classifier, ``[B, *shape] -> [B, c]`` with ``c >= 2``; its outputs are logits.
        k: Class, an int or ``LongTensor[B]``.

    Returns:
        A :class:`Scalar`.

    Raises:
        ArgumentError: ``k`` is not a class.
    """
    name, k = _named("log_probability", k)
    return Scalar(name, model, lambda y, k: -_surprise(name, y, k), (k,))


def loss(model: nn.Module, k: Index) -> Scalar:
    """The cross-entropy at label k, ``-log p_k >= 0`` (the loss of Singla et al. 2019, eq. 1).

    Args:
        model: Classifier, ``[B, *shape] -> [B, c]`` with ``c >= 2``; its outputs are logits.
        k: Label, an int or ``LongTensor[B]``.

    Returns:
        A :class:`Scalar`.

    Raises:
        ArgumentError: ``k`` is not a class.
    """
    name, k = _named("loss", k)
    return Scalar(name, model, lambda y, k: _surprise(name, y, k), (k,))


def margin(model: nn.Module, k: Index, other: Index | None = None) -> Scalar:
    """The logit of class k less that of another class; negative where the other class wins.

    Args:
        model: Classifier, ``[B, *shape] -> [B, c]`` with ``c >= 2``.
        k: Class, an int or ``LongTensor[B]``.
        other: The class to compare with; ``None`` takes the strongest class other than k at each x.

    Returns:
        A :class:`Scalar`.

    Raises:
        ArgumentError: ``k`` or ``other`` is not a class, or both are the same.
    """
    name, k = _named("margin", k)
    if other is None:
        return Scalar(name, model, lambda y, k: _lead(name, _classes(name, y, 2), k), (k,), linear_head=True)
    rival, other = _named("", other)
    name = f"{name[:-1]}-{rival[1:]}"
    if torch.any(torch.as_tensor(k) == torch.as_tensor(other)):
        raise ArgumentError(
            f"targets.{name}: a class has no margin over itself; choose another class or other=None"
        )

    def head(y: Tensor, k: Index, other: Index) -> Tensor:
        y = _classes(name, y, 2)
        return _pick(name, y, k) - _pick(name, y, other)

    return Scalar(name, model, head, (k, other), linear_head=True)


def max_logit(model: nn.Module) -> Scalar:
    """The largest logit at each x, whichever class it belongs to.

    Args:
        model: Classifier, ``[B, *shape] -> [B, c]``.

    Returns:
        A :class:`Scalar`; where two logits tie, its derivative is that of one of them.
    """
    return Scalar("max_logit", model, lambda y: _classes("max_logit", y).max(dim=1).values, linear_head=True)


def neuron(model: nn.Module, module_name: str, index: Index) -> Scalar:
    """An inner neuron: one entry of the output of a named submodule.

    For a pre-activation (Torop et al. 2023, Sec. 5: "penultimate neuron") name the linear or normalisation
    layer, not the activation after it. The model is run only as far as that submodule; where it is called
    several times, its first output counts.

    Args:
        model: Any model, ``[B, *shape] -> anything``.
        module_name: A name from ``model.named_modules()``.
        index: Position in the submodule's output, flattened per row; an int or ``LongTensor[B]``.

    Returns:
        A :class:`Scalar`.

    Raises:
        ArgumentError: There is no such submodule, or its output has no such entry.
    """
    names = dict(model.named_modules())
    if module_name not in names:
        known = ", ".join(name for name in names if name)
        raise ArgumentError(f"targets.neuron: the model has no submodule {module_name!r}; it has {known}")
    name, index = _named(f"neuron[{module_name}]", index)
    return Scalar(
        name, model, lambda y, i: _pick(name, y.flatten(1), i), (index,), module=module_name, linear_head=True
    )


def regression(model: nn.Module, index: Index = 0) -> Scalar:
    """One output of a regression model.

    Args:
        model: ``[B, *shape] -> [B]`` or ``[B, n]``.
        index: Which output, an int or ``LongTensor[B]``.

    Returns:
        A :class:`Scalar`.

    Raises:
        ArgumentError: There is no such output.
    """
    name, index = _named("regression", index)

    def head(y: Tensor, index: Index) -> Tensor:
        return _pick(name, y[:, None] if y.ndim == 1 else _classes(name, y), index)

    return Scalar(name, model, head, (index,), linear_head=True)


def inner_neuron(model: nn.Module, class_index: int, images: Tensor, chunk: int = 256) -> tuple[str, int]:
    """The penultimate neuron that a class activates most (Torop et al. 2023, Sec. 5 and Table 1).

    The layer is the last one with weights (linear, convolution, normalisation) that runs before the output
    layer; its output is the pre-activation of the last hidden layer. The neuron is the one with the largest
    mean pre-activation over those of the images that the model assigns to the class.

    Args:
        model: Classifier, ``[B, *shape] -> [B, c]``.
        class_index: The class.
        images: ``[N, *shape]``, of this class or of all.
        chunk: Images run at once.

    Returns:
        The submodule's name and the flattened index, the arguments of :func:`neuron`.

    Raises:
        ArgumentError: The model has no hidden layer with weights, or assigns no image to the class.
    """
    name = penultimate_layer(model, images[:1])
    total: Tensor | None = None
    scores = logits(model)
    with torch.no_grad():
        for block in images.split(chunk):
            y = in_chunks(scores, block, "logits")
            _check_range("inner_neuron", class_index, y.shape[1])
            block = block[y.argmax(1) == class_index]
            if len(block):
                with evaluation_mode(model):
                    part = in_chunks(lambda rows: submodule_output(model, name, rows), block, "inner neurons")
                    part = part.flatten(1).sum(0, dtype=torch.float64)
                total = part if total is None else total + part
    if total is None:
        raise ArgumentError(
            f"targets.inner_neuron: the model assigns none of {len(images)} images to class {class_index}; "
            "give images of that class"
        )
    return name, int(total.argmax())


def _named(name: str, k: Index) -> tuple[str, Index]:
    """Check an index as far as is possible without the output, and make the scalar's name."""
    if isinstance(k, Tensor) and k.ndim > 0:
        if k.ndim > 1 or k.dtype.is_floating_point or k.dtype.is_complex or k.dtype == torch.bool:
            raise ArgumentError(
                f"targets.{name}: indices per row must be a vector of integers, not {k.dtype} {list(k.shape)}"
            )
        return f"{name}[per row]", k.long()
    try:
        k = to_integer(k)
    except (TypeError, RuntimeError) as error:
        raise ArgumentError(
            f"targets.{name}: {k!r} is not an index; give an int or a LongTensor[B]"
        ) from error
    return f"{name}[{k}]", k


def _classes(name: str, y: Tensor, least: int = 1) -> Tensor:
    """Return y if it is ``[B, c]`` with at least so many columns."""
    if not isinstance(y, Tensor) or y.ndim != 2:
        shape = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ArgumentError(f"targets.{name}: the model must return [batch, outputs], not {shape}; wrap it")
    if y.shape[1] < least:
        raise ArgumentError(
            f"targets.{name}: needs at least {least} classes, the model has one; use regression"
        )
    return y


def _check_range(name: str, k: Index, count: int) -> None:
    low, high = (int(k.min()), int(k.max())) if isinstance(k, Tensor) else (k, k)
    if low < 0 or high >= count:
        raise ArgumentError(
            f"targets.{name}: {low if low < 0 else high} is out of range; the outputs are 0 to {count - 1}"
        )


def _pick(name: str, y: Tensor, k: Index) -> Tensor:
    """Return entry k of each row of ``y[B, n]``."""
    _check_range(name, k, y.shape[1])
    if isinstance(k, int):
        return y[:, k]
    return y.gather(1, k.to(y.device)[:, None])[:, 0]


def _surprise(name: str, y: Tensor, k: Index) -> Tensor:
    """Return ``-log softmax(y)_k`` for each row of ``y[B, c]``, as ``log(1 + Σ_{j≠k} exp(y_j - y_k))``.

    A softmax that rounds to 1 loses the term of class k when differentiated, because ``1 - p_k`` cancels: in
    float32 the gradient of a confidence above 1 - 1e-8 then points the wrong way. Here nothing cancels.
    """
    y = _classes(name, y, 2)
    own = _pick(name, y, k)
    others = y.masked_fill(_is_class(y, k), -torch.inf).logsumexp(1)
    return softplus(others - own, threshold=80.0)  # exp(80) is finite in float32


def _is_class(y: Tensor, k: Index) -> Tensor:
    """Return where the columns of ``y[B, c]`` are class k: bool ``[1 or B, c]``."""
    columns = torch.arange(y.shape[1], device=y.device)
    return columns[None] == (k.to(y.device)[:, None] if isinstance(k, Tensor) else k)


def _lead(name: str, y: Tensor, k: Index) -> Tensor:
    """Return ``y_k - max_{j != k} y_j`` for each row of ``y[B, c]``."""
    return _pick(name, y, k) - y.masked_fill(_is_class(y, k), -torch.inf).max(dim=1).values
