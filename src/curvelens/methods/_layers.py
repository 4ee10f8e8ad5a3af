"""Feature maps of a convolutional network: which layer has them, and how they become maps of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from curvelens.errors import ArgumentError, ConfigError
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from torch import Tensor, nn

    from curvelens.targets import Scalar

_REMEDY = "remove it from the methods of this experiment, or explain a network that has"


class FeatureMaps(Parameters):
    """Which feature maps are weighed."""

    layer: str | None = Field(
        None,
        min_length=1,
        description="Name of the submodule whose output is taken; null takes what comes out of the last "
        "convolution, with its normalisation and activation, before pooling.",
    )


@dataclass(frozen=True)
class Call:
    """A submodule at work.

    Attributes:
        name: Its name, from ``named_modules()``.
        module: The submodule.
        inputs: What it was given.
        output: What it returned.
    """

    name: str
    module: nn.Module
    inputs: tuple[object, ...]
    output: Tensor


def calls(method: str, f: Scalar, x: Tensor) -> tuple[list[Call], Tensor]:
    """Run the network once at ``x`` and return what its submodules did, in the order in which they finished.

    Args:
        method: Name of the method that asks, for messages.
        f: Scalar of the network's output.
        x: ``[C, H, W]``.

    Returns:
        The calls of submodules that return a tensor, without a graph, and the output ``[1, c]``.

    Raises:
        ArgumentError: ``f`` is not a scalar of a network's output.
    """
    import threading

    import torch

    from curvelens import targets

    if not isinstance(f, targets.Scalar) or f.module is not None:
        raise ArgumentError(f"{method}: needs a scalar of a network's output; give one of curvelens.targets")
    found: list[Call] = []
    thread = threading.get_ident()

    def record(name: str, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if threading.get_ident() == thread and isinstance(output, torch.Tensor):
            found.append(Call(name, module, inputs, output))

    handles = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name: record(name, module, inputs, output)
        )
        for name, module in f.model.named_modules()
        if name
    ]
    try:
        with torch.no_grad(), targets.evaluation_mode(f.model):
            output = f.model(x[None])
    finally:
        for handle in handles:
            handle.remove()
    return found, output


def feature_call(method: str, made: list[Call], layer: str | None) -> Call:
    """Return the call whose output are the feature maps.

    Args:
        method: Name of the method that asks, for messages.
        made: What :func:`calls` returned.
        layer: Name of a submodule; None takes the last convolution with what follows it at its resolution,
            pooling apart: its normalisation, activation, and the sum with a shortcut.

    Raises:
        ConfigError: There are no feature maps, no such submodule, or it does not run exactly once.
    """
    once = {call.name for call in made if sum(other.name == call.name for other in made) == 1}
    if layer is not None:
        named = next((call for call in made if call.name == layer), None)
        if named is None or layer not in once or not _has_positions(named.output):
            usable = ", ".join(
                call.name for call in made if call.name in once and _has_positions(call.output)
            )
            raise ConfigError(
                f"{method}: layer {layer!r} does not yield feature maps exactly once; name one of: "
                f"{usable or 'none, this network has no such layer'}"
            )
        return named
    last = _last_convolution(method, made)
    size = made[last].output.shape[-2:]
    after = [call for call in made[last:] if _has_positions(call.output) and not _is_pooling(call.module)]
    maps = [call.output for call in after if call.output.shape[-2:] == size][-1]
    # A container returns the very tensor of its last part, which may run elsewhere too; the container not.
    for call in reversed(after):
        if call.output is maps and call.name in once:
            return call
    raise ConfigError(
        f"{method}: what comes out of the last convolution, {made[last].name!r}, is made by a submodule that "
        "runs several times; name a layer that runs once (key layer)"
    )


def averaged_features(f: Scalar, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the feature maps of a network whose logits are linear in their means over positions.

    Args:
        f: Scalar of the network's output.
        x: ``[C, H, W]``.

    Returns:
        The maps ``[K, h, w]``, the weights ``[c, K]`` of the linear layer, and the logits ``[1, c]``.

    Raises:
        ConfigError: The network is not of this kind; whether it is is checked on the numbers.
    """
    import torch

    made, logits = calls("cam", f, x)
    features = feature_call("cam", made, None).output
    linear = [call for call in made if isinstance(call.module, torch.nn.Linear)]
    means = features.mean((2, 3))
    fits = bool(linear) and _equal(linear[-1].inputs[0], means) and _equal(linear[-1].output, logits)
    if not fits:
        raise ConfigError(
            "cam: the network's logits are not one linear layer of the means of its last feature maps "
            f"(global average pooling); take gradcam, or {_REMEDY}"
        )
    weights = linear[-1].module.weight
    assert isinstance(weights, torch.Tensor)
    return features[0], weights.detach(), logits


def at_input_size(coarse: Tensor, x: Tensor) -> Tensor:
    """Enlarge a map to the size of the image, bilinearly, and spread it over the channels.

    Args:
        coarse: ``[h, w]``.
        x: The image, ``[C, H, W]``.

    Returns:
        ``[C, H, W]``, see :func:`spread`.
    """
    from torch.nn.functional import interpolate

    fine = interpolate(coarse[None, None], size=x.shape[1:], mode="bilinear", align_corners=False)
    return spread(fine[0, 0], x)


def spread(values: Tensor, x: Tensor) -> Tensor:
    """Spread a map without channels evenly over the channels, so that their sum is the map.

    Args:
        values: ``[H, W]``.
        x: The image, ``[C, H, W]``.

    Returns:
        ``[C, H, W]``, in the dtype of ``x``.
    """
    return (values.to(x) / len(x)).expand(x.shape).contiguous()


def _last_convolution(method: str, made: list[Call]) -> int:
    import torch

    found = [
        place
        for place, call in enumerate(made)
        if isinstance(call.module, torch.nn.Conv2d) and _has_positions(call.output)
    ]
    if not found:
        raise ConfigError(f"{method}: the network has no convolution over an image; {_REMEDY}")
    return found[-1]


def _has_positions(output: Tensor) -> bool:
    return output.ndim == 4 and output.shape[-2] * output.shape[-1] > 1


def _is_pooling(module: nn.Module) -> bool:
    return type(module).__module__ == "torch.nn.modules.pooling"


def _equal(given: object, expected: Tensor) -> bool:
    """Whether two tensors agree to half of the digits: sums may be taken in another order."""
    import torch

    if not isinstance(given, torch.Tensor) or given.shape != expected.shape:
        return False
    error = (given - expected).norm() / expected.norm().clamp_min(torch.finfo(expected.dtype).tiny)
    return bool(error <= torch.finfo(expected.dtype).eps ** 0.5)
