"""Reading weights from files that others wrote, without running what may be in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.errors import DataError
from curvelens.models._preprocessing import listed
from curvelens.store import REMEDY

if TYPE_CHECKING:
    import torch

# Where checkpoints of training keep the weights, beside the optimiser's state and the like.
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "params")
# What wrappers put before each name: data-parallel training, torch.compile, Lightning and the like.
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
_PICKLE = "store the weights alone: torch.save(model.state_dict(), path), or safetensors"


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the weights in a safetensors file, or in a PyTorch file with a state dict.

    What a file is called does not matter, what is in it does: nothing is ever unpickled but tensors and plain
    numbers.

    Args:
        path: A file; in a PyTorch file the state dict may stand under ``state_dict`` or another of the usual
            names.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        DataError: The file is damaged, or holds more than tensors.
    """
    with path.open("rb") as stream:
        start = stream.read(9)
    if start[8:] == b"{" and not start.startswith(b"PK"):
        return _read_safetensors(path)
    if path.suffix != ".safetensors":
        return _read_torch(path)
    if start.startswith((b"PK", b"\x80")):
        raise DataError(f"{path}: is a pickle under the name of safetensors, and was refused; {_PICKLE}")
    return _read_safetensors(path)


def without_prefixes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights without the prefixes that wrappers put before every name."""
    names = list(state)
    found = True
    while found:
        found = False
        for prefix in _PREFIXES:
            if names and all(name.startswith(prefix) for name in names):
                names = [name.removeprefix(prefix) for name in names]
                found = True
    return dict(zip(names, state.values(), strict=True))


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged weights ({error}); {REMEDY}, or give it anew") from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: holds more than tensors, or is damaged, and was refused; {_PICKLE}"
        ) from error
    except Exception as error:  # the restricted unpickler passes on whatever a damaged file leads to
        raise DataError(f"{path}: damaged weights ({type(error).__name__}); fetch the file again") from error
    state = _state_in(content)
    if state is None:
        kept = f"it holds {listed(list(content))}" if isinstance(content, dict) and content else "it is empty"
        raise DataError(f"{path}: holds no state dict ({kept}); {_PICKLE}")
    return state


def _state_in(content: Any) -> dict[str, torch.Tensor] | None:
    """Return the state dict that a file holds directly, or under one of the usual names."""
    import torch

    if not isinstance(content, dict) or not content:
        return None
    if all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()):
        return dict(content)
    for key in _NESTED:
        if isinstance(content.get(key), dict) and (state := _state_in(content[key])) is not None:
            return state
    return None
