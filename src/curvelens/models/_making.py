"""From a recipe to a network: layers become modules of ``torch.nn``, the rest functions that are known."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from curvelens.errors import ModelError
from curvelens.models import _operations
from curvelens.models._program import Program, Step
from curvelens.models._recipe import references

_TUPLES = {"aten.max_pool2d_with_indices", "aten._native_batch_norm_legit_no_training"}


def made(recipe: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Make the network of a recipe.

    A program that is one layer after the other becomes a ``nn.Sequential``, whose Hessians are cheapest.

    Args:
        recipe: From :func:`curvelens.models._recipe.recipe`.
        tensors: Its parameters, buffers and constants by name.

    Returns:
        The network in evaluation mode.

    Raises:
        ModelError: It has an operation that is not known, or lacks a tensor or a value.
    """
    try:
        network = _Making(recipe, tensors).network()
    except ModelError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise ModelError(
            f"the program cannot be understood ({type(error).__name__}: {text}); export the network again"
        ) from error
    return network.eval()


class _Making:
    """Turns steps into modules and functions, one after the other."""

    def __init__(self, recipe: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.recipe = recipe
        self.tensors = {name: tensors[fqn] for name, fqn in recipe["tensors"].items() if fqn in tensors}
        self.owners = recipe["tensors"]
        self.uses = Counter(
            name for step in recipe["steps"] for name in references([step["args"], step["kwargs"]])
        )
        self.same: dict[str, str] = {}  # values that are another one
        self.transposed: dict[str, str] = {}  # values that are the transpose of a matrix of weights
        self.dependent = {recipe["input"]}  # values that change with the images
        self.layers: OrderedDict[str, nn.Module] = OrderedDict()
        self.steps: list[Step] = []

    def network(self) -> nn.Module:
        for step in self.recipe["steps"]:
            self._add(step)
        end = self._now(self.recipe["output"])
        chain = self._chain(end)
        if chain is not None:
            return nn.Sequential(chain)
        needed = {name for step in self.steps for name in references([step.args, step.kwargs])}
        parameters = set(self.recipe["parameters"])
        values = {
            name: nn.Parameter(tensor) if name in parameters and tensor.is_floating_point() else tensor
            for name, tensor in self.tensors.items()
            if name in needed
        }
        made_here = {name for step in self.steps for name in step.out}
        if unknown := needed - made_here - values.keys() - {self.recipe["input"]}:
            raise ModelError(f"the program uses a value that nothing makes, {min(unknown)}; export it again")
        return Program(self.layers, values, self.steps, self.recipe["input"], end)

    def _chain(self, end: str) -> OrderedDict[str, nn.Module] | None:
        """Return the layers, if each takes what the one before it gives and nothing else."""
        at = self.recipe["input"]
        chain: OrderedDict[str, nn.Module] = OrderedDict()
        for step in self.steps:
            alone = isinstance(step.target, str) and step.args == [{"$": at}] and not step.kwargs
            if not alone or len(step.out) != 1 or str(step.target) in chain:
                return None
            chain[str(step.target)] = self.layers[str(step.target)]
            at = str(step.out[0])
        return chain if at == end else None

    def _now(self, name: str) -> str:
        return self.same.get(name, name)

    def _add(self, step: Mapping[str, Any]) -> None:
        op, out = step["op"], list(step["out"])
        args, kwargs = self._current(step["args"]), self._current(step["kwargs"])
        name = ".".join(op.split(".")[:2])
        if self.dependent & set(references([args, kwargs])):
            self.dependent |= {one for one in out if one}
        if name in _operations.SAME and self._is_same(name, args, kwargs):
            self.same[out[0]] = args[0]["$"]
            return
        turned = op in ("aten.permute.default", "aten.t.default") and args[1:] in ([], [[1, 0]])
        if turned and args[0]["$"] in self.tensors:
            self.transposed[out[0]] = args[0]["$"]
        if self._layer(name, args, kwargs, out):
            return
        function = _operations.function(op)
        if function is None:
            raise ModelError(
                f"the program has the operation {op}, which is not one that files may name; give the network "
                "as code instead (architecture: function)"
            )
        args = self._positive_axis(name, args)
        kwargs = {key: value for key, value in kwargs.items() if value is not None and key != "dtype"}
        self.steps.append(Step(function, args, kwargs, out))

    def _current(self, value: Any) -> Any:
        if isinstance(value, dict):
            if "$" in value:
                return {"$": self._now(value["$"])}
            return {key: self._current(one) for key, one in value.items()}
        return [self._current(one) for one in value] if isinstance(value, list) else value

    def _is_same(self, name: str, args: list[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether an operation does nothing in evaluation, for floating-point numbers of one type.

        Raises:
            ModelError: It is one of training, or makes integers.
        """
        place = _operations.IN_TRAINING.get(name)
        if place is not None and (args[place] if len(args) > place else kwargs.get("train")):
            raise ModelError(
                f"the program has the operation {name} of training; call model.eval() before "
                "torch.export.export"
            )
        wanted = [
            one["dtype"] for one in [*args[1:], *kwargs.values()] if isinstance(one, dict) and "dtype" in one
        ]
        if any("float" not in one for one in wanted):
            raise ModelError(
                f"the program turns values into {wanted[0]}, which is not supported; keep them real"
            )
        return True

    def _positive_axis(self, name: str, args: list[Any]) -> list[Any]:
        """Count the axis that is sliced from the front: what is after it is taken whole."""
        if name in ("aten.slice", "aten.select") and len(args) > 1 and args[1] < 0:
            return [args[0], args[1] + self.recipe["ranks"][args[0]["$"]], *args[2:]]
        return args

    def _layer(self, name: str, args: list[Any], kwargs: Mapping[str, Any], out: list[str | None]) -> bool:
        """Add the module that an operation is, if it is one; return whether it was."""
        used = args[:1]
        owner: str | None = None
        if name in ("aten.linear", "aten.conv2d", "aten.convolution"):
            layer, owner = self._weighted(name, args)
        elif name in ("aten.mm", "aten.addmm"):
            layer, owner, used = self._product(name, args, kwargs)
        elif name in ("aten.batch_norm", "aten._native_batch_norm_legit_no_training"):
            layer, owner = self._batch_norm(name, args)
        elif name in _operations.POOLINGS:
            layer = self._pooling(name, args, kwargs)
        elif name == "aten.flatten" and len(args) > 1:
            layer = nn.Flatten(*args[1:])
        else:
            layer = (
                None
                if kwargs and name != "aten.gelu"
                else _operations.activation(name, tuple(args[1:]) + tuple(kwargs.values()))
            )
        if layer is None or not isinstance(used[0], dict):
            return False
        if name in _TUPLES:
            if any(self.uses[one] for one in out[1:] if one):
                return False
            out = out[:1]
        key = self._key(owner or str(out[0]))
        self.layers[key] = layer
        self.steps.append(Step(key, used, {}, out))
        return True

    def _key(self, name: str) -> str:
        """Return a name for a layer: what torch allows as one, and not yet taken."""
        plain = re.sub(r"\W", "_", name) or "layer"
        while plain in self.layers or hasattr(nn.ModuleDict, plain):
            plain += "_"
        return plain

    def _own(self, argument: Any) -> Tensor | None:
        """Return the parameter or buffer that an argument names, if nothing else uses it."""
        name = str(argument.get("$")) if isinstance(argument, dict) else ""
        return self.tensors[name] if name in self.tensors and self.uses[name] == 1 else None

    def _owner(self, argument: Mapping[str, str]) -> str:
        return str(self.owners[argument["$"]].rpartition(".")[0])

    def _weighted(self, name: str, args: list[Any]) -> tuple[nn.Module | None, str]:
        weight, bias = self._own(args[1]), self._own(args[2]) if len(args) > 2 else None
        has_bias = len(args) > 2 and args[2] is not None
        if weight is None or (has_bias and bias is None):
            return None, ""
        options = list(args[3:])
        if name == "aten.convolution":
            if options[3]:  # transposed
                return None, ""
            options = [*options[:3], options[5]]
        layer: nn.Module
        if name == "aten.linear":
            layer = nn.Linear(weight.shape[1], weight.shape[0], has_bias)
        elif weight.ndim != 4:
            return None, ""
        else:
            options += [[1, 1], [0, 0], [1, 1], 1][len(options) :]
            stride, padding, dilation, groups = map(_as_torch_wants, options)
            size, channels = (weight.shape[2], weight.shape[3]), weight.shape[1] * groups
            layer = nn.Conv2d(channels, len(weight), size, stride, padding, dilation, groups, bias=has_bias)
        return _with(layer, weight=weight, bias=bias), self._owner(args[1])

    def _product(
        self, name: str, args: list[Any], kwargs: Mapping[str, Any]
    ) -> tuple[nn.Module | None, str, list[Any]]:
        """Return the linear layer that ``x @ w.T`` or ``b + x @ w.T`` is."""
        images, matrix = args[-2:]
        source = self.transposed.get(matrix["$"])
        if source is None or kwargs or self.uses[matrix["$"]] != 1:
            return None, "", args[:1]
        weight = self._own({"$": source})
        bias = self._own(args[0]) if name == "aten.addmm" else None
        if weight is None or (name == "aten.addmm" and (bias is None or bias.ndim != 1)):
            return None, "", args[:1]
        self.steps = [step for step in self.steps if matrix["$"] not in step.out]
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
        return _with(layer, weight=weight, bias=bias), self._owner({"$": source}), [images]

    def _batch_norm(self, name: str, args: list[Any]) -> tuple[nn.Module | None, str]:
        if name == "aten.batch_norm" and args[5]:
            if args[0]["$"] in self.dependent:
                raise ModelError(
                    "the program normalises by the batch's own statistics, as in training; call model.eval() "
                    "before torch.export.export"
                )
            return None, ""  # of weights
        momentum, eps = args[6:8] if name == "aten.batch_norm" else args[5:7]
        weight, bias, mean, var = (self._own(one) for one in args[1:5])
        if mean is None or var is None or (weight is None) != (bias is None):
            return None, ""
        if any(
            given is not None and own is None for given, own in zip(args[1:3], (weight, bias), strict=True)
        ):
            return None, ""
        kind = nn.BatchNorm2d if self.recipe["ranks"].get(args[0]["$"], 4) == 4 else nn.BatchNorm1d
        layer = kind(len(mean), eps, momentum, affine=weight is not None)
        return _with(layer, weight=weight, bias=bias, running_mean=mean, running_var=var), self._owner(
            args[3]
        )

    def _pooling(self, name: str, args: list[Any], kwargs: Mapping[str, Any]) -> nn.Module | None:
        if kwargs:
            return None
        options = [_as_torch_wants(one) for one in args[1:]]
        if name.endswith(("max_pool2d", "max_pool2d_with_indices", "avg_pool2d")) and "adaptive" not in name:
            options[1:2] = [options[1] or options[0]] if len(options) > 1 else []
        if name.startswith("aten.max_pool2d"):
            keys = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
            return nn.MaxPool2d(**dict(zip(keys, options, strict=False)))
        return _operations.POOLINGS[name](*options)


def _as_torch_wants(option: Any) -> Any:
    """Return sizes as a tuple, as layers keep them."""
    return tuple(option) if isinstance(option, list) else option


def _with(layer: nn.Module, **tensors: Tensor | None) -> nn.Module:
    """Give a layer its tensors."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if name in layer._parameters:
            layer._parameters[name] = nn.Parameter(tensor)
        else:
            layer._buffers[name] = tensor
    return layer
