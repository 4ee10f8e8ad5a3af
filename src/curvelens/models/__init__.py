"""Networks. An architecture is added by one new file in this folder that registers itself.

An architecture is a function ``(parameters, classes, image_shape) -> torch.nn.Module``. The module takes
pixels in [0, 1], ``x[B, C, H, W]``, normalises them itself, and gives logits ``[B, classes]``. One that is
registered with ``regression=True`` also takes inputs of other shapes, and ``classes`` may be 1: it then
predicts a number. Modules of this package whose name begins with an underscore are helpers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curvelens import seeds
from curvelens.errors import ModelError
from curvelens.models._storage import load, load_weights, restore, save, save_description, save_weights
from curvelens.npz import in_short
from curvelens.registry import Registry

if TYPE_CHECKING:
    import torch

__all__ = [
    "REGISTRY",
    "build",
    "described",
    "load",
    "load_weights",
    "needs_training",
    "probe",
    "restore",
    "save",
    "save_description",
    "save_weights",
]

REGISTRY = Registry("architecture", "curvelens.models")


def build(
    architecture: str,
    parameters: Mapping[str, Any] | None,
    classes: int,
    image_shape: Sequence[int],
    *,
    seed: int = 0,
    name: str = "",
) -> torch.nn.Module:
    """Build an untrained network whose weights depend only on the arguments.

    Args:
        architecture: A name in :data:`REGISTRY`, e.g. ``"mlp"``.
        parameters: Values for the architecture's parameters.
        classes: Number of classes, at least 2; or of numbers that a regression predicts, at least 1.
        image_shape: (C, H, W); of a regression the shape of one input.
        seed: Seed of the initial weights.
        name: Name of the model, so that models of one run start from different weights.

    Returns:
        The model on the CPU in evaluation mode; torch's global random state is as before.

    Raises:
        ConfigError: Unknown architecture or parameter.
        ModelError: The architecture cannot take such images or classes.
    """
    import torch

    entry = REGISTRY.get(architecture)
    values = entry.parse(parameters)
    fits = classes >= 1 and len(image_shape) >= 1 and min(image_shape) >= 1
    if not fits or not (entry.traits.get("regression") or (classes >= 2 and len(image_shape) == 3)):
        raise ModelError(
            f"{architecture} cannot be built for {classes} classes of images {list(image_shape)}; "
            "give at least 2 classes and a shape (C, H, W)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seeds.derive(seed, "weights", name))
        try:
            model: torch.nn.Module = entry.function(values, classes, tuple(image_shape))
        except (RuntimeError, MemoryError, OverflowError, TypeError) as error:  # numbers beyond torch's
            raise ModelError(
                f"{architecture} cannot be built for {classes} classes of images {list(image_shape)} "
                f"({in_short(error)}); choose smaller numbers"
            ) from error
    return model.eval()


def needs_training(architecture: str, parameters: Mapping[str, Any] | None) -> bool:
    """Return whether a network has weights that only training gives it, so that it cannot be used as built.

    Args:
        architecture: A name in :data:`REGISTRY`.
        parameters: Values for its parameters; ``finetune`` says what is trained of weights that come with it.

    Raises:
        ConfigError: Unknown architecture or parameter.
    """
    entry = REGISTRY.get(architecture)
    values = entry.parse(parameters)
    pretrained = entry.traits.get("pretrained")
    comes_trained = pretrained(values) if callable(pretrained) else pretrained
    return not comes_trained or getattr(values, "finetune", "none") != "none"


def probe(model: torch.nn.Module, **architecture: Any) -> dict[str, Any]:
    """Run a network on two random images, and say in one line what is wrong with it.

    Args:
        model: What :func:`build` or :func:`restore` made.
        architecture: What :func:`described` returned.

    Returns:
        ``piecewise_linear``: whether that is known of it; ``second_derivatives``: whether a Hessian-vector
        product of its loss can be had. What follows for the stages is logged.

    Raises:
        ModelError: It does not take such images, gives no row of logits for each, gives another number of
            them, mixes the images of a batch, or has no gradient.
    """
    from curvelens.models import _probe

    return _probe.probe(model, **architecture)


def described(settings: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`build` and :func:`save` need to know of a network.

    Args:
        settings: ``architecture`` and ``parameters``, as in the configuration.
        dataset: ``class_names`` and ``image_shape``, as in ``dataset.json``.

    Returns:
        ``architecture``, ``parameters``, ``classes``, ``image_shape``.

    Raises:
        ModelError: The parameters name classes, and the data set has others.
    """
    # An architecture whose parameters name classes is registered with what fits them to a data set's.
    fitted = REGISTRY.get(settings["architecture"]).traits.get("fitted", lambda parameters, _: parameters)
    return {
        "architecture": settings["architecture"],
        "parameters": fitted(settings["parameters"], dataset["class_names"]),
        "classes": len(dataset["class_names"]),
        "image_shape": dataset["image_shape"],
    }
