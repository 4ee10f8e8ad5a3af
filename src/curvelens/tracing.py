"""Piecewise-linear networks traced along straight lines: every unit's value, rate and linear piece.

A network of affine layers and ReLU-type units is affine on each of finitely many polyhedra, its *linear
regions*. :class:`TracedNetwork` works on a float64 copy of a model, whose ReLU-type modules it replaces by
units that report how far each pre-activation is from its breakpoints and how fast it moves along a given
direction. Affine layers get every point twice, once moved by the direction, and the difference of the two is
the exact rate; the units pass it on by the one-sided rule ``d relu(z; v) = max(v, 0)`` at ``z = 0``, so a
point on a border is treated as belonging to the region that the direction leads into.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from curvelens.errors import ModelError

# A pre-activation this close to its breakpoint, relative to the largest in its layer, counts as lying on it:
# far above the rounding of a float64 inner product, far below any distance that matters.
_RELATIVE_TOLERANCE = 1024 * torch.finfo(torch.float64).eps

# Names, without outer underscores, of functions that are affine in their tensors together, ...
# fmt: off
_LINEAR = frozenset({
    "add", "radd", "iadd", "sub", "rsub", "isub", "neg", "mean", "sum", "cumsum", "cat", "stack", "clone",
    "detach", "contiguous", "copy", "to", "type", "double", "float", "view", "view_as", "reshape", "flatten",
    "unflatten", "expand", "expand_as", "permute", "transpose", "swapaxes", "movedim", "t", "unsqueeze",
    "squeeze", "repeat", "chunk", "split", "unbind", "narrow", "getitem", "setitem", "index_select", "select",
    "gather", "roll", "flip", "unfold", "pad", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "interpolate", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "zeros_like", "ones_like", "empty_like", "new_zeros", "new_ones",
    "new_empty", "get", "size", "dim", "ndimension", "numel", "len", "stride", "is_contiguous",
    "is_floating_point", "requires_grad",
})
# ... of those that are affine in one tensor while the others are constant, ...
_LINEAR_IN_ONE = frozenset({
    "mul", "rmul", "imul", "matmul", "rmatmul", "mm", "bmm", "mv", "dot", "addmm", "baddbmm", "einsum",
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
})
# ... in the first one only, and unless the model is being trained.
_LINEAR_IN_FIRST = frozenset({"div", "truediv", "itruediv", "true_divide"})
_LINEAR_UNLESS_TRAINING = frozenset({"batch_norm", "dropout", "dropout1d", "dropout2d", "dropout3d"})
# fmt: on


class UnitRecord(NamedTuple):
    """What one ReLU-type module did in one call.

    Attributes:
        module: The module's name in the model.
        offsets: Signed distances of its pre-activations from their breakpoints, in units of the
            pre-activation ``[n, breakpoints, *units]``. For max pooling ``[n, 1, C, entries, windows]``: the
            lead of the largest entry of each window over its entries.
        rates: Change of ``offsets`` per unit of the direction ``[B, breakpoints, *units]``; or empty.
        pieces: The linear piece each unit enters along the direction ``[B, *]``, int16; or empty.
        tolerance: Offsets, and rates, within this of zero count as zero ``[n]``.
    """

    module: str
    offsets: Tensor
    rates: Tensor
    pieces: Tensor
    tolerance: Tensor


class _Recorder:
    """State that the units of one network share: the records of the current pass."""

    def __init__(self) -> None:
        self.records: list[UnitRecord] = []
        self.points = 0  # how many rows of a traced batch come before the moved ones
        self.inside_unit = False
        self.where = ""


class _Unit(nn.Module):
    """Stands in for a ReLU-type module: same values, and a record of each call."""

    def __init__(self, original: nn.Module, name: str, recorder: _Recorder) -> None:
        super().__init__()
        self.original = original
        self.name = name
        self.recorder = recorder

    def forward(self, z: Tensor) -> Tensor:
        """Apply the module to ``z``: points ``[n, *]``, followed by moved ones ``[B, *]`` when tracing."""
        self.recorder.inside_unit = True
        try:
            if not self.recorder.points:
                self._add(self._offsets(z), z.new_empty(0), z.new_empty(0), _tolerance(z))
                return self.original(z.clone())
            value, moved = z[: self.recorder.points], z[self.recorder.points :]
            tangent = self._record(value, moved - value)
            output = self.original(value.clone())
            return torch.cat([output, output + tangent])
        finally:
            self.recorder.inside_unit = False

    def _offsets(self, value: Tensor) -> Tensor:
        raise NotImplementedError

    def _record(self, value: Tensor, rate: Tensor) -> Tensor:
        """Record units at ``value[n, *]`` that move at ``rate[B, *]``; return the rate of their output."""
        raise NotImplementedError

    def _add(self, offsets: Tensor, rates: Tensor, pieces: Tensor, tolerance: Tensor) -> None:
        self.recorder.records.append(UnitRecord(self.name, offsets, rates, pieces, tolerance.flatten()))


class _Elementwise(_Unit):
    """A unit with fixed breakpoints and a slope on each piece between them."""

    def __init__(self, original: nn.Module, name: str, recorder: _Recorder) -> None:
        super().__init__(original, name, recorder)
        self.breakpoints, self.slopes = linear_pieces(original)

    def _offsets(self, value: Tensor) -> Tensor:
        return torch.stack([value - point for point in self.breakpoints], dim=1)

    def _record(self, value: Tensor, rate: Tensor) -> Tensor:
        offsets, tolerance = self._offsets(value), _tolerance(value)
        bound = tolerance.unsqueeze(1)
        rates = rate.unsqueeze(1).expand(-1, offsets.shape[1], *rate.shape[1:])
        beyond = (offsets > bound) | ((offsets.abs() <= bound) & (rates > bound))
        slope = _per_channel(self.slopes[0], value)
        for index in range(len(self.breakpoints)):
            slope = torch.where(beyond[:, index], _per_channel(self.slopes[index + 1], value), slope)
        self._add(offsets, rates, beyond.to(torch.int16), tolerance)
        return slope * rate


class _MaxPool(_Unit):
    """Max pooling: within a window, borders lie where the largest entry is overtaken."""

    original: nn.MaxPool2d

    def _offsets(self, value: Tensor) -> Tensor:
        windows = self._windows(value, -torch.inf)
        return (windows.gather(2, windows.argmax(2, keepdim=True)) - windows).unsqueeze(1)

    def _record(self, value: Tensor, rate: Tensor) -> Tensor:
        offsets, tolerance = self._offsets(value), _tolerance(value)
        bound = tolerance.view(-1, 1, 1, 1)
        rates = self._windows(rate, 0.0)
        leading = torch.where(offsets.squeeze(1) <= bound, rates, -torch.inf)
        tangent = leading.amax(2, keepdim=True)
        active = (leading >= tangent - bound).to(torch.uint8).argmax(2)  # the first of equals
        self._add(offsets, (tangent - rates).unsqueeze(1), active.to(torch.int16), tolerance)
        return tangent.squeeze(2).view(*rate.shape[:2], *self._output_size(value))

    def _output_size(self, value: Tensor) -> torch.Size:
        return self.original(value[:1, :1]).shape[-2:]

    def _windows(self, image: Tensor, outside: float) -> Tensor:
        """Cut ``image`` ``[B, C, h, w]`` into pooling windows ``[B, C, entries, windows]``."""
        pool = self.original
        kernel, stride, padding, dilation = map(
            _pair, (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        padded = functional.pad(image, (padding[1], padding[1], padding[0], padding[0]), value=outside)
        columns = functional.unfold(
            padded.flatten(0, 1).unsqueeze(1), kernel, dilation=dilation, stride=stride
        )
        return columns.view(*image.shape[:2], kernel[0] * kernel[1], -1)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _tolerance(value: Tensor) -> Tensor:
    """Tolerance of each sample of a layer ``[B, 1, ...]``."""
    largest = value.detach().flatten(1).abs().amax(1)
    return (_RELATIVE_TOLERANCE * largest).view(-1, *[1] * (value.ndim - 1))


def _per_channel(slope: Tensor, value: Tensor) -> Tensor:
    """Shape a slope ``[1]`` or ``[channels]`` to broadcast over ``value`` ``[B, channels, *]``."""
    return slope.to(value).view(1, -1, *[1] * (value.ndim - 2))


def linear_pieces(module: nn.Module) -> tuple[list[float], list[Tensor]]:
    """Return the breakpoints of a ReLU-type module and its slopes, one more than breakpoints."""

    def constant(*slopes: float) -> list[Tensor]:
        return [torch.tensor([slope], dtype=torch.float64) for slope in slopes]

    if isinstance(module, nn.Hardtanh):  # nn.ReLU6 is one
        return [float(module.min_val), float(module.max_val)], constant(0.0, 1.0, 0.0)
    if isinstance(module, nn.LeakyReLU):
        return [0.0], constant(module.negative_slope, 1.0)
    if isinstance(module, nn.RReLU):
        return [0.0], constant((module.lower + module.upper) / 2, 1.0)
    if isinstance(module, nn.PReLU):
        return [0.0], [module.weight.detach(), *constant(1.0)]
    return [0.0], constant(0.0, 1.0)


def _stand_in(module: nn.Module, name: str, recorder: _Recorder) -> _Unit | None:
    """Return the unit that replaces ``module``, or None for a module that is left alone."""
    if isinstance(module, nn.ReLU | nn.Hardtanh | nn.LeakyReLU | nn.RReLU | nn.PReLU):
        return _Elementwise(module, name, recorder)
    if isinstance(module, nn.MaxPool2d) and not module.ceil_mode and not module.return_indices:
        return _MaxPool(module, name, recorder)
    return None


class _AffineCheck(TorchFunctionMode):
    """Refuses every function of the input, outside the units, that is not affine."""

    def __init__(self, recorder: _Recorder, x: Tensor) -> None:
        super().__init__()
        self.recorder = recorder
        self.dependent: dict[int, Tensor] = {id(x): x}  # kept alive, so that no id is used twice

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if id(leaf) in self.dependent]
        if inputs:
            name = func.__name__.strip("_")
            if not self.recorder.inside_unit and not self._affine(func, name, args, kwargs, len(inputs)):
                raise ModelError(
                    f"{name!r} in or after module {self.recorder.where!r} is not piecewise linear, or is "
                    "called as a function: linear regions need affine layers and the modules nn.ReLU, ReLU6, "
                    "Hardtanh, LeakyReLU, PReLU, RReLU or MaxPool2d without ceil_mode"
                )
            written = args[:1] if name in ("setitem", "copy") else ()
            changed = [leaf for leaf in tree_leaves((result, written)) if isinstance(leaf, Tensor)]
            self.dependent |= {id(leaf): leaf for leaf in changed}
        return result

    def _affine(self, func: Any, name: str, args: Any, kwargs: dict[str, Any], dependent: int) -> bool:
        if name in _LINEAR:
            return True
        if name in _LINEAR_IN_ONE:
            return dependent == 1
        if name in _LINEAR_IN_FIRST:
            return dependent == 1 and id(args[0]) in self.dependent
        if name in _LINEAR_UNLESS_TRAINING:
            return not inspect.signature(func).bind(*args, **kwargs).arguments.get("training", True)
        return False


class TracedNetwork:
    """A float64 copy of a piecewise-linear network, ready to be traced.

    Args:
        model: A network of affine layers, ``nn.ReLU``, ``nn.ReLU6``, ``nn.Hardtanh``, ``nn.LeakyReLU``,
            ``nn.PReLU``, ``nn.RReLU`` and ``nn.MaxPool2d`` modules. It is copied, not touched.
        x: One input ``[*shape]``, with which the model is checked to be piecewise linear.

    Attributes:
        units: Number of offsets, breakpoints of all units together.

    Raises:
        ModelError: If some operation is not affine and not one of these modules.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self._recorder = _Recorder()
        # A container around the copy, so that a model that is itself one unit can be replaced too.
        self._holder = nn.Sequential(copy.deepcopy(model)).eval().requires_grad_(False).double()
        self._replace(self._holder, "")
        self.units = self._check(x.detach().double().unsqueeze(0))

    def _replace(self, parent: nn.Module, prefix: str) -> None:
        for key, child in list(parent._modules.items()):  # a module that is used twice appears twice
            if child is None:
                continue
            name = f"{prefix}.{key}" if prefix else key
            shown = name.partition(".")[2]
            unit = _stand_in(child, shown, self._recorder)
            if unit is None:
                child.register_forward_pre_hook(self._note(shown))
                self._replace(child, name)
            else:
                setattr(parent, key, unit)

    def _note(self, name: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            self._recorder.where = name

        return note

    def _run(self, x: Tensor, points: int = 0) -> list[UnitRecord]:
        self._recorder.records, self._recorder.points = [], points
        try:
            self._holder(x)
            return self._recorder.records
        finally:
            self._recorder.records, self._recorder.points = [], 0

    def _check(self, batch: Tensor) -> int:
        """Refuse a network that is not piecewise linear; return how many offsets it has."""
        with torch.no_grad(), _AffineCheck(self._recorder, batch):
            records = self._run(batch)
        return sum(record.offsets.numel() for record in records)

    def offsets(self, x: Tensor) -> list[UnitRecord]:
        """Return the units' offsets at ``x``, differentiable in ``x`` and without rates.

        Args:
            x: Points ``[n, *shape]``, float64.

        Returns:
            One record for each call of a ReLU-type module, in the order of evaluation.
        """
        return self._run(x)

    def trace(self, x: Tensor, direction: Tensor) -> list[UnitRecord]:
        """Return what every unit does at ``x`` and along ``direction``.

        Args:
            x: Points ``[n, *shape]``, float64; n = B, or 1 for the same point with every direction.
            direction: Directions ``[B, *shape]``, float64, of length about 1 (rounding is relative to that).

        Returns:
            One record for each call of a ReLU-type module, in the order of evaluation.
        """
        with torch.no_grad():
            return self._run(torch.cat([x, x + direction]), len(x))
