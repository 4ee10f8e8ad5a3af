"""Smooth surrogates of ReLU networks: copies whose ReLUs are replaced by SoftPlus or Swish after training.

Torop et al. 2023 (Sec. 3, "SoftPlus", and App. E.2) compare SmoothHess with derivatives of such surrogates.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from curvelens.errors import ArgumentError

_LARGEST_THRESHOLD = 80.0  # exp(80) is still finite in single precision
_RELU_FUNCTIONS = {
    functional.relu,
    functional.relu6,
    torch.relu,
    torch.relu_,
    functional.relu_,
    "relu",
    "relu_",
}


class Swish(nn.Module):
    """``x * sigmoid(beta * x)``, which tends to ReLU as beta grows (Ramachandran et al. 2017).

    Args:
        beta: Sharpness, > 0.
    """

    elementwise = True

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x[*]``."""
        return x * torch.sigmoid(self.beta * x)

    def extra_repr(self) -> str:
        """Return the parameters for ``repr``."""
        return f"beta={self.beta}"


class Clipped(nn.Module):
    """``a(x) - a(x - 6)``, the smooth form of ReLU6, which is ``relu(x) - relu(x - 6)``.

    Args:
        activation: The smooth form of ReLU.
    """

    elementwise = True

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x[*]``."""
        return self.activation(x) - self.activation(x - 6.0)


def softplus_surrogate(model: nn.Module, beta: float, threshold: float = 20.0) -> nn.Module:
    """Return a copy of a model with SoftPlus in place of every ReLU.

    ``softplus(x) = log(1 + exp(beta x)) / beta`` (Torop et al. 2023, Sec. 3), and x itself where
    ``beta x > threshold``; without that, ``exp`` overflows. At the default they differ by at most
    2.1e-9 / beta there.

    Args:
        model: A model whose activations are ``nn.ReLU`` or ``nn.ReLU6`` modules; it is not changed.
        beta: Sharpness, > 0, in units of 1 / pre-activation; SoftPlus tends to ReLU as it grows.
        threshold: Where SoftPlus becomes linear, in units of ``beta x``, in (0, 80].

    Returns:
        The copy, on the same device, in the same modes.

    Raises:
        ArgumentError: ``beta`` or ``threshold`` is out of range, the model has no ReLU module, or it calls a
            ReLU as a function, which a copy cannot replace.
    """
    if not 0 < threshold <= _LARGEST_THRESHOLD:
        raise ArgumentError(
            f"softplus_surrogate: threshold {threshold} must be in (0, {_LARGEST_THRESHOLD:g}]"
        )
    return _replaced("softplus_surrogate", model, beta, lambda: nn.Softplus(beta, threshold))


def swish_surrogate(model: nn.Module, beta: float) -> nn.Module:
    """Return a copy of a model with Swish, ``x * sigmoid(beta x)``, in place of every ReLU.

    Args:
        model: A model whose activations are ``nn.ReLU`` or ``nn.ReLU6`` modules; it is not changed.
        beta: Sharpness, > 0, in units of 1 / pre-activation; Swish tends to ReLU as it grows.

    Returns:
        The copy, on the same device, in the same modes.

    Raises:
        ArgumentError: ``beta`` is not positive, the model has no ReLU module, or it calls a ReLU as a
            function, which a copy cannot replace.
    """
    return _replaced("swish_surrogate", model, beta, lambda: Swish(beta))


def set_sharpness(surrogate: nn.Module, beta: float) -> None:
    """Change β of a surrogate in place: much cheaper than another copy of the model.

    Args:
        surrogate: From :func:`softplus_surrogate` or :func:`swish_surrogate`.
        beta: Sharpness, > 0.

    Raises:
        ArgumentError: ``beta`` is not positive.
    """
    _require_positive("set_sharpness", beta)
    for part in surrogate.modules():
        if isinstance(part, (nn.Softplus, Swish)):
            part.beta = beta


def _require_positive(name: str, beta: float) -> None:
    if not (beta > 0 and math.isfinite(beta)):
        raise ArgumentError(f"{name}: beta {beta} must be a positive number")


def _replaced(name: str, model: nn.Module, beta: float, activation: Callable[[], nn.Module]) -> nn.Module:
    _require_positive(name, beta)
    _refuse_relu_functions(name, model)
    surrogate = copy.deepcopy(model)
    if isinstance(surrogate, (nn.ReLU, nn.ReLU6)):
        return _smooth(surrogate, activation)
    new: dict[nn.Module, nn.Module] = {}
    for parent in list(surrogate.modules()):
        for key, child in parent._modules.items():
            if isinstance(child, (nn.ReLU, nn.ReLU6)):
                parent._modules[key] = new.setdefault(child, _smooth(child, activation))
    if not new:
        raise ArgumentError(
            f"{name}: the model has no nn.ReLU or nn.ReLU6 module to replace; use modules for its "
            "activations, or leave surrogates out (betas: [])"
        )
    return surrogate


def _smooth(relu: nn.Module, activation: Callable[[], nn.Module]) -> nn.Module:
    smooth = Clipped(activation()) if isinstance(relu, nn.ReLU6) else activation()
    return smooth.train(relu.training)


def _refuse_relu_functions(name: str, model: nn.Module) -> None:
    """Raise if the model's symbolic trace, where there is one, calls a ReLU that is no module."""
    if all(type(part).__module__.startswith("torch.nn.") for part in model.modules()):
        return
    try:
        nodes = list(fx.Tracer().trace(model).nodes)
    except Exception:  # control flow that depends on data cannot be traced, whatever it raises
        return
    for node in nodes:
        if node.op in ("call_function", "call_method") and node.target in _RELU_FUNCTIONS:
            raise ArgumentError(
                f"{name}: the model calls {node.name} as a function; make it an nn.ReLU module"
            )
