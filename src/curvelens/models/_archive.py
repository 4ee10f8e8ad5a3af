"""Reading the archive that ``torch.export.save`` writes, without running anything that is in it.

``torch.export.load`` unpickles example inputs, constants and some weights with all that a pickle can do,
hands strings of the file to sympy and to ``exec``, takes any function below ``torch`` for an operation, and
loads compiled libraries. Here the archive is opened as the zip file that it is; its graph is read as JSON,
its weights as plain numbers, and everything else is left alone.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from curvelens.errors import DataError

if TYPE_CHECKING:
    import torch

FORMAT = 8  # major version of torch's schema of exported programs
_DTYPES = {
    **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64"},
    **{6: "float16", 7: "float32", 8: "float64", 12: "bool", 13: "bfloat16"},
}
_AGAIN = "write it with torch.export.save(torch.export.export(model.eval(), (images,)), path)"


class Archive(NamedTuple):
    """What a file holds.

    Attributes:
        graph: The graph and its signature, as in torch's schema: ``GraphModule``.
        tensors: Parameters, buffers and constants by name.
    """

    graph: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def dtype_name(number: int) -> str:
    """Return torch's name of a type of numbers that the schema numbers.

    Raises:
        DataError: It is none of those that networks are made of.
    """
    if number not in _DTYPES:
        raise DataError(f"it has numbers of type {number}, which are not supported")
    return _DTYPES[number]


def read_archive(path: Path) -> Archive:
    """Read an exported program.

    Args:
        path: A file that ``torch.export.save`` wrote.

    Raises:
        DataError: It is something else, is damaged, or needs more than numbers and a graph.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_others(path, {_below(info) for info in archive.infolist()})
            files = _files(path, archive)
            return _read(path, archive, files)
    except DataError:
        raise
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: is not an exported program, or is damaged ({error}); {_AGAIN}") from error
    except Exception as error:  # whatever a damaged or forged file leads to
        text = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: damaged, or not as torch writes it ({type(error).__name__}: {text}); {_AGAIN}"
        ) from error


def _below(info: zipfile.ZipInfo) -> str:
    """Return a file's name below the archive's one folder."""
    return info.filename.partition("/")[2] or info.filename


def _files(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the archive's files by their names below its one folder."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = _below(info)
        if name in found or info.compress_type != zipfile.ZIP_STORED:
            # torch compresses nothing: so that no small file can unpack to more than the memory holds.
            raise DataError(f"{path}: {name} is there twice, or compressed, as torch never does; {_AGAIN}")
        found[name] = info
    return found


def _refuse_others(path: Path, files: Collection[str]) -> None:
    if any(name.startswith("data/aotinductor/") for name in files):
        raise DataError(f"{path}: holds compiled code (AOTInductor), and was refused; {_AGAIN}")
    if any(name.startswith("models/") for name in files):
        return
    if any(name.startswith("code/") for name in files):
        raise DataError(f"{path}: is TorchScript, which brings code of its own, and was refused; {_AGAIN}")
    if "data.pkl" in files:
        raise DataError(
            f"{path}: is a PyTorch file with a pickle, not an exported program; give a state dict with its "
            f"architecture, or {_AGAIN}"
        )
    if "serialized_exported_program.json" in files:
        raise DataError(f"{path}: was written by torch 2.7 or older; with a newer one {_AGAIN}")
    raise DataError(f"{path}: is not an exported program; {_AGAIN}")


def _read(path: Path, archive: zipfile.ZipFile, files: Mapping[str, zipfile.ZipInfo]) -> Archive:
    def content(name: str) -> bytes:
        if name not in files:
            raise DataError(f"{path}: {name} is missing; {_AGAIN}")
        return archive.read(files[name])

    names = [name for name in files if name.startswith("models/") and name.endswith(".json")]
    if len(names) != 1:
        raise DataError(f"{path}: holds {len(names)} programs; store one, with torch.export.save")
    if content("byteorder").strip() != b"little":
        raise DataError(f"{path}: was written on a machine of another byte order; {_AGAIN}")
    program = json.loads(content(names[0]))
    version = program["schema_version"]["major"]
    if version != FORMAT:
        raise DataError(
            f"{path}: has format {version} of exported programs, {FORMAT} is known; {_AGAIN} with another "
            "version of torch"
        )
    model = Path(names[0]).stem
    tensors: dict[str, torch.Tensor] = {}
    for kind in ("weights", "constants"):
        if (whole := f"data/{kind}/{model}.pt") in files:
            tensors |= _tensors_of_state(path, content(whole))
            continue
        described = json.loads(content(f"data/{kind}/{model}_{kind}_config.json"))["config"]
        for name, meta in described.items():
            if meta["use_pickle"] or meta["tensor_meta"] is None:
                raise DataError(
                    f"{path}: {name} is pickled, not stored as numbers, and was refused; leave tensor "
                    "subclasses and custom objects out of the network"
                )
            tensors[name] = _tensor(content(f"data/{kind}/{meta['path_name']}"), meta["tensor_meta"])
    return Archive(program["graph_module"], tensors)


def _tensors_of_state(path: Path, data: bytes) -> dict[str, torch.Tensor]:
    """Read the state dict in which torch 2.8 stores weights, and nothing but tensors."""
    import torch

    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{path}: holds more than tensors, and was refused; {_AGAIN}")
    return dict(state)


def _tensor(data: bytes, meta: Mapping[str, Any]) -> torch.Tensor:
    """Return the tensor that bytes and their description stand for; torch checks that they fit."""
    import torch

    def integer(value: Mapping[str, Any]) -> int:
        return int(value["as_int"])

    dtype = getattr(torch, dtype_name(meta["dtype"]))
    sizes = [integer(size) for size in meta["sizes"]]
    if not math.prod(sizes):
        return torch.zeros(sizes, dtype=dtype)
    flat = torch.frombuffer(bytearray(data), dtype=dtype)
    strides = [integer(stride) for stride in meta["strides"]]
    return flat.as_strided(sizes, strides, integer(meta["storage_offset"])).clone()
