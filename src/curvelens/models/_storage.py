"""Models on disk: ``weights.safetensors`` and ``model.json``. Nothing that is read here can run code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.errors import ConfigError, DataError, ModelError
from curvelens.finite import not_finite
from curvelens.models._preprocessing import listed
from curvelens.models._state import read_state, without_prefixes
from curvelens.store import REMEDY, load_json, save_json
from curvelens.store import sha256 as file_sha256
from curvelens.writing import atomic

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
    seen: set[int] = set()
    for name, tensor in state.items():
        # A tensor that two layers share is stored twice: the format has no names for one and the same.
        if tensor.numel() and (place := tensor.untyped_storage().data_ptr()) in seen:
            state[name] = tensor.clone()
        elif tensor.numel():
            seen.add(place)
    # A network that came as a program has no architecture to be built from; it is kept beside its weights.
    program = getattr(model, "program", None)
    with atomic(path) as temporary:
        safetensors.torch.save_file(
            state, temporary, metadata={"program": program} if isinstance(program, str) else None
        )


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
    path = Path(folder) / DESCRIPTION
    description = load_json(path)
    try:
        keys = ("architecture", "parameters", "classes", "image_shape")
        architecture, parameters, classes, image_shape = (description[key] for key in keys)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: does not describe a model ({error} is missing); {REMEDY}") from error
    weights = Path(folder) / WEIGHTS
    if type(classes) is not int or not isinstance(image_shape, list) or {*map(type, image_shape)} - {int}:
        raise DataError(f"{path}: classes or image_shape are no whole numbers; {REMEDY}")
    described = {"architecture": architecture, "parameters": parameters}
    try:
        model = restore(weights, **described, classes=classes, image_shape=image_shape)
    except (ConfigError, ModelError) as error:
        if str(weights) in str(error):
            raise
        raise ModelError(f"{path}: {error}") from error
    return model.to(device)


def restore(
    path: str | Path,
    sha256: str | None = None,
    *,
    architecture: str,
    parameters: Mapping[str, Any],
    classes: int,
    image_shape: Sequence[int],
) -> torch.nn.Module:
    """Build a network and give it the weights of a file; or read both from the file, where it holds both.

    Args:
        path: See :func:`load_weights`.
        sha256: Expected checksum, or its first digits.
        architecture, parameters, classes, image_shape: As for ``curvelens.models.build``.

    Returns:
        The model on the CPU in evaluation mode.

    Raises:
        ConfigError, DataError, ModelError: As ``build`` and :func:`load_weights`.
    """
    from curvelens.models import REGISTRY, build

    entry = REGISTRY.get(architecture)
    if (read := entry.traits.get("read")) is None:
        model = build(architecture, parameters, classes, image_shape)
        load_weights(model, path, sha256)
        return model
    _require_file(Path(path), sha256)
    read_model: torch.nn.Module = read(entry.parse(parameters), classes, tuple(image_shape), Path(path))
    _require_finite(read_model.state_dict(), Path(path))
    return read_model.eval()


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
            another number of classes apart. Or some are NaN or infinite, and the line names them.
    """
    path = Path(path)
    _require_file(path, sha256)
    state = _completed(model, read_state(path))
    _check_fit(model, state, path)
    _require_finite(state, path)
    model.load_state_dict(state)


def _require_finite(state: Mapping[str, torch.Tensor], path: Path) -> None:
    if told := not_finite(state):
        raise ModelError(f"{path}: {told}; the training diverged, or the file is damaged: take other weights")


def _require_file(path: Path, sha256: str | None) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such weights; train the model, or correct the path")
    if sha256 is not None and not (found := file_sha256(path)).startswith(sha256):
        raise DataError(
            f"{path}: SHA-256 is {found}, not {sha256}; fetch the file again, or correct weights_sha256"
        )


def _completed(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name weights as the model does, and add from the model what other libraries do not store."""
    from curvelens.models._layers import Normalise

    own = model.state_dict()
    bare = without_prefixes(state)
    named = [
        state,
        *({f"{prefix}{name}": tensor for name, tensor in bare.items()} for prefix in ("", "network.")),
    ]
    state = max(named, key=lambda candidate: len(own.keys() & candidate.keys()))  # the first of equals
    normalisations = {name for name, part in model.named_modules() if isinstance(part, Normalise)}
    # Another normalisation is a matter of the configuration, but not one for other channels.
    state = {
        name: tensor
        for name, tensor in state.items()
        if name not in own or name.rpartition(".")[0] not in normalisations or tensor.shape == own[name].shape
    }
    optional = {
        name
        for name in own
        if name.rpartition(".")[0] in normalisations or name.endswith(".num_batches_tracked")
    }
    return {**{name: own[name] for name in own if name in optional}, **state}


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
        parts = [f"lacks {listed(missing)}"] if missing else []
        parts += [f"has unknown {listed(unknown)}"] if unknown else []
        raise ModelError(f"{path}: {' and '.join(parts)}; give the weights of this architecture")
    if shapes and (channels := _only_channels_differ(own, shapes)):
        raise ModelError(
            f"{path}: was trained on images of {channels[0]} channels, the model takes {channels[1]}; give "
            f"parameters.channels: {channels[0]}, or the data set that it was trained on"
        )
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
            "give the parameters and the image size that the weights were trained with"
        )


def _only_channels_differ(
    own: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[list[int], list[int]]]
) -> tuple[int, int] | None:
    """Return the stored and the wanted channels, if only the first convolution differs, and in them."""
    first = next((name for name, tensor in own.items() if tensor.ndim == 4 and name.endswith("weight")), None)
    if first is None or list(shapes) != [first]:
        return None
    stored, wanted = shapes[first]
    same = len(stored) == 4 and (stored[0], *stored[2:]) == (wanted[0], *wanted[2:])
    return (stored[1], wanted[1]) if same and {stored[1], wanted[1]} == {1, 3} else None


def _only_classes_differ(
    own: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[list[int], list[int]]]
) -> bool:
    """Whether the only mismatch is the first axis of the last layer."""
    layer = list(own)[-1].rpartition(".")[0]
    of_last_layer = all(name.rpartition(".")[0] == layer for name in shapes)
    return of_last_layer and all(stored[1:] == wanted[1:] for stored, wanted in shapes.values())
