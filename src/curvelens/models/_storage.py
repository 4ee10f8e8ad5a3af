"""Models on disk: ``weights.safetensors`` and ``model.json``. Nothing that is read here can run code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.errors import DataError, ModelError
from curvelens.store import REMEDY, atomic, load_json, save_json
from curvelens.store import sha256 as file_sha256

if TYPE_CHECKING:
    import torch

WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"


def save(
    model: torch.nn.Module,
    folder: str | Path,
    *,
    architecture: str,
    parameters: Mapping[str, Any],
    classes: int,
    image_shape: Sequence[int],
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write a model so that :func:`load` can build it again.

    Args:
        model: A model that ``curvelens.models.build`` made with the same arguments.
        folder: Where ``weights.safetensors`` and ``model.json`` go.
        architecture, parameters, classes, image_shape: What it was built from.
        meta: Further facts for ``model.json``: accuracy, seeds, training parameters, class names.
    """
    save_weights(model, Path(folder) / WEIGHTS)
    save_description(
        model,
        Path(folder) / DESCRIPTION,
        architecture=architecture,
        parameters=parameters,
        classes=classes,
        image_shape=image_shape,
        meta=meta,
    )


def save_weights(model: torch.nn.Module, path: str | Path) -> None:
    """Write a model's weights and buffers as safetensors.

    Args:
        model: Any module.
        path: Name of the file, ending in ``.safetensors``.
    """
    import safetensors.torch

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic(path) as temporary:
        safetensors.torch.save_file(state, temporary)


def save_description(
    model: torch.nn.Module,
    path: str | Path,
    *,
    architecture: str,
    parameters: Mapping[str, Any],
    classes: int,
    image_shape: Sequence[int],
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write ``model.json``: what the model is built from, its size, and further facts.

    Args:
        model: A model that ``curvelens.models.build`` made with the same arguments.
        path: Name of the file.
        architecture, parameters, classes, image_shape, meta: See :func:`save`.
    """
    from importlib.metadata import version

    description = {
        "architecture": architecture,
        "parameters": dict(parameters),
        "classes": classes,
        "image_shape": list(image_shape),
        "weights": sum(parameter.numel() for parameter in model.parameters()),
        "torch": version("torch"),
        **(meta or {}),
    }
    save_json(path, description)


def load(folder: str | Path, device: torch.device | str = "cpu") -> torch.nn.Module:
    """Build the model that ``model.json`` describes and give it the stored weights.

    Args:
        folder: Folder with ``weights.safetensors`` and ``model.json``.
        device: Where the model goes.

    Returns:
        The model in evaluation mode.

    Raises:
        DataError: A file is missing or damaged.
        ModelError: The weights do not fit the architecture; the line says how.
    """
    from curvelens.models import build

    path = Path(folder) / DESCRIPTION
    description = load_json(path)
    try:
        keys = ("architecture", "parameters", "classes", "image_shape")
        architecture, parameters, classes, image_shape = (description[key] for key in keys)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: does not describe a model ({error} is missing); {REMEDY}") from error
    model = build(architecture, parameters, classes, image_shape)
    load_weights(model, Path(folder) / WEIGHTS)
    return model.to(device)


def load_weights(model: torch.nn.Module, path: str | Path, sha256: str | None = None) -> None:
    """Read weights into a model; on any error the model stays as it was.

    Weights that were trained elsewhere may lack what only this library stores: the normalisation of pixels,
    which then stays as the model has it, and the prefix ``network.`` of a model that a normalisation was put
    in front of. They may also lack the counters of batches, which evaluation never reads.

    Args:
        model: The model.
        path: ``.safetensors``, or a PyTorch file that holds a state dict, directly or under ``state_dict``;
            the prefix ``module.`` that data-parallel training adds is removed.
        sha256: Expected checksum of the file, or its first digits, hexadecimal; None checks nothing.

    Raises:
        DataError: The file is missing, damaged, another one than the checksum says, or holds more than
            tensors.
        ModelError: The weights do not fit; the line tells missing weights, unknown weights, other shapes and
            another number of classes apart.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such weights; train the model, or correct the path")
    if sha256 is not None and not (found := file_sha256(path)).startswith(sha256):
        raise DataError(
            f"{path}: SHA-256 is {found}, not {sha256}; fetch the file again, or correct weights_sha256"
        )
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    state = _completed(model, state)
    _check_fit(model, state, path)
    model.load_state_dict(state)


def _completed(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name weights as the model does, and add from the model what other libraries do not store."""
    from curvelens.models._layers import Normalise

    own = model.state_dict()
    inner = {f"network.{name}": tensor for name, tensor in state.items()}
    if len(own.keys() & inner.keys()) > len(own.keys() & state.keys()):
        state = inner
    normalisations = {name for name, part in model.named_modules() if isinstance(part, Normalise)}
    optional = {
        name
        for name in own
        if name.rpartition(".")[0] in normalisations or name.endswith(".num_batches_tracked")
    }
    return {**{name: own[name] for name in own if name in optional}, **state}


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged weights ({error}); {REMEDY}") from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: holds more than tensors, or is damaged, and was refused; "
            "store the weights alone: torch.save(model.state_dict(), path)"
        ) from error
    except Exception as error:  # the restricted unpickler passes on whatever a damaged file leads to
        raise DataError(f"{path}: damaged weights ({type(error).__name__}); fetch the file again") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{path}: holds no state dict; store torch.save(model.state_dict(), path)")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _check_fit(model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    own = model.state_dict()
    shapes = {
        name: (list(state[name].shape), list(tensor.shape))
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    }
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    if missing or unknown:
        parts = [f"lacks {_listed(missing)}"] if missing else []
        parts += [f"has unknown {_listed(unknown)}"] if unknown else []
        raise ModelError(f"{path}: {' and '.join(parts)}; give the weights of this architecture")
    if shapes and _only_classes_differ(own, shapes):
        stored, wanted = next(iter(shapes.values()))
        raise ModelError(
            f"{path}: was trained for {stored[0]} classes, the model has {wanted[0]}; "
            "use the data set it was trained on, or train it again"
        )
    if shapes:
        name, (stored, wanted) = next(iter(shapes.items()))
        more = f", and {len(shapes) - 1} more differ" if len(shapes) > 1 else ""
        raise ModelError(
            f"{path}: {name} is {stored}, the model needs {wanted}{more}; "
            "give the parameters that the weights were trained with"
        )


def _only_classes_differ(
    own: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[list[int], list[int]]]
) -> bool:
    """Whether the only mismatch is the first axis of the last layer."""
    layer = list(own)[-1].rpartition(".")[0]
    of_last_layer = all(name.rpartition(".")[0] == layer for name in shapes)
    return of_last_layer and all(stored[1:] == wanted[1:] for stored, wanted in shapes.values())


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
