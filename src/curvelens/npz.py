"""Named arrays on disk (npz): the same content has the same bytes, and nothing that is read can run code.

numpy is imported on first use.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from curvelens.errors import ArgumentError, DataError
from curvelens.writing import atomic

if TYPE_CHECKING:
    import zipfile

    import numpy as np

REMEDY = "delete it and run again"
"""What to do about a file that the workflow can make again."""
_LARGEST_RATIO = 1032  # bytes that deflate can pack into one


def save_npz(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays, compressed, in the order of their names.

    Args:
        path: Name of the file, ending in ``.npz``.
        arrays: Arrays (or tensors on the CPU) by name; object arrays are refused.

    Raises:
        ArgumentError: An array holds Python objects.
    """
    import zipfile

    import numpy as np

    plain = {name: np.asarray(arrays[name]) for name in sorted(arrays)}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise ArgumentError(
                f"{path}: array '{name}' holds Python objects; give numbers or fixed-width text"
            )
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in plain.items():
            # An entry opened by name is dated 1980, so the bytes do not depend on the time of writing.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def load_npz(path: str | Path, names: Sequence[str] = (), rows: slice | None = None) -> dict[str, np.ndarray]:
    """Read every array of an npz file; nothing in it can run code.

    Args:
        path: Name of the file.
        names: Arrays that must be there.
        rows: Consecutive entries along the first axis to keep of every array; None keeps all.

    Returns:
        The arrays by name.

    Raises:
        DataError: The file is missing, damaged, lacks an array, or holds pickled objects.
    """
    with _opened(path) as (archive, members):
        missing = [name for name in names if name not in members]
        if not missing:
            return {name: _read(archive, member, rows) for name, member in members.items()}
    raise DataError(f"{path}: has no array '{missing[0]}' (it has {', '.join(members) or 'none'}); {REMEDY}")


def array_names(path: str | Path) -> list[str]:
    """Return the names of the arrays of an npz file, without reading these.

    Raises:
        DataError: The file is missing or damaged.
    """
    with _opened(path) as (_, members):
        return list(members)


def load_array(path: str | Path, name: str) -> np.ndarray:
    """Read one array of an npz file.

    Raises:
        DataError: The file is missing, damaged, lacks the array, or holds pickled objects.
    """
    with _opened(path) as (archive, members):
        return _read(archive, members[name], None)


def required(path: Path) -> Path:
    """Return the path of a file that has to be there.

    Raises:
        DataError: It is not.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; run the step that makes it, or correct the path")
    return path


def in_short(error: BaseException) -> str:
    """Return the kind of an exception and the first line of its text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open an npz file and give the places of its arrays; whatever is wrong with it becomes a DataError."""
    import zipfile

    path = required(Path(path))
    try:
        with zipfile.ZipFile(path) as archive:
            members: dict[str, zipfile.ZipInfo] = {}
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name == member.filename or name in members:
                    raise ValueError(f"member {member.filename!r} is no array, or comes twice")
                members[name] = member
            yield archive, members
    except Exception as error:  # damage leads decoders to all kinds of exceptions
        raise DataError(f"{path}: damaged npz ({in_short(error)}); {REMEDY}") from error


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, rows: slice | None) -> np.ndarray:
    """Read an array, or consecutive entries of it; the checksum is checked to the end all the same.

    No more memory is taken than the member can hold, whatever its header says.
    """
    import numpy as np

    if member.file_size > _LARGEST_RATIO * member.compress_size:
        raise ValueError(f"member {member.filename!r} cannot unpack to {member.file_size:,} bytes")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read[version](stream)
        size = dtype.itemsize * math.prod(shape[1:])
        stated = size * (shape[0] if shape else 1)
        if dtype.hasobject or min(shape, default=0) < 0 or stream.tell() + stated != member.file_size:
            raise ValueError(f"{member.filename!r} holds objects, or another size than its header states")
        if rows is None or fortran or not shape:
            stream.seek(0)
            whole = np.lib.format.read_array(stream, allow_pickle=False)
            return whole if rows is None else whole[rows]
        start, stop, _ = rows.indices(shape[0])
        _pass_over(stream, start * size)
        kept = bytearray(stream.read(max(0, stop - start) * size))
        _pass_over(stream)
    return np.ndarray((max(0, stop - start), *shape[1:]), dtype, kept)


def _pass_over(stream: IO[bytes], size: float = math.inf) -> None:
    block = 2**20
    while size > 0 and (read := len(stream.read(int(min(size, block))))):
        size -= read
