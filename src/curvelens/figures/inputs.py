"""Reading what figures are drawn from: tables (parquet), artifacts (npz) and records (JSON)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.errors import DataError
from curvelens.store import array_names, load_array, load_json
from curvelens.tables import read_arrow

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame


_HELD = 2**28  # bytes of arrays held in memory at a time


class Arrays(Mapping[str, Any]):
    """The arrays of an npz file, each read when it is asked for: a figure shows few of a run's images.

    Args:
        path: The file; ``["folder"]`` is the name of the folder that it lies in: the method, of explanations.
        held: Arrays of this and other files, the last used last; the oldest make room for new ones.
    """

    def __init__(self, path: Path, held: OrderedDict[tuple[Path, str], np.ndarray]) -> None:
        self._path, self._held = path, held
        self._names = array_names(path)

    def __getitem__(self, name: str) -> Any:
        if name == "folder":
            return self._path.parent.name
        if name not in self._names:
            raise KeyError(name)
        key = self._path, name
        if key not in self._held:
            self._held[key] = load_array(*key)
        self._held.move_to_end(key)
        while len(self._held) > 1 and sum(array.nbytes for array in self._held.values()) > _HELD:
            self._held.popitem(last=False)
        return self._held[key]

    def __iter__(self) -> Iterator[str]:
        yield "folder"
        yield from self._names

    def __len__(self) -> int:
        return 1 + len(self._names)


def read_table(paths: Path | Sequence[Path]) -> DataFrame:
    """Read one table from one or several parquet files.

    Args:
        paths: File or files; several are put below each other. Where they have no column ``model``, it is
            added with the name of the file's folder (``models/relu/history.parquet`` -> ``relu``).

    Returns:
        The table, with a fresh index.

    Raises:
        DataError: A file is missing or is not parquet.
    """
    import pandas as pd

    files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    frames = []
    for file in files:
        frame = read_arrow(file).to_pandas()
        frames.append(frame if "model" in frame else frame.assign(model=file.parent.name))
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    return pd.concat(filled, ignore_index=True)


def load(inputs: Mapping[str, Path | Sequence[Path]]) -> dict[str, Any]:
    """Read every input by what its suffix says.

    Returns:
        A DataFrame for parquet, a list of parsed values for JSON, a list of :class:`Arrays` for npz.

    Raises:
        DataError: A file is missing or damaged, or its suffix is unknown.
    """
    loaded: dict[str, Any] = {}
    held: OrderedDict[tuple[Path, str], np.ndarray] = OrderedDict()
    for name, paths in inputs.items():
        files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
        suffix = files[0].suffix if files else ""
        if suffix == ".parquet":
            loaded[name] = read_table(files)
        elif suffix == ".json":
            loaded[name] = [load_json(file) for file in files]
        elif suffix == ".npz":
            loaded[name] = [Arrays(file, held) for file in files]
        else:
            raise DataError(
                f"figure input {name!r}: {files or 'no file'} is not parquet, JSON or npz; correct the path"
            )
    return loaded


def succeeded(frame: DataFrame) -> DataFrame:
    """Return the rows that did not fail."""
    return frame[frame["status"] == "ok"] if "status" in frame else frame


def entry(shards: Sequence[Mapping[str, Any]], image_id: str) -> dict[str, np.ndarray]:
    """Return an image's entry of every array, as :func:`load` reads npz files with an array ``ids``.

    Raises:
        DataError: No file has the image.
    """
    import numpy as np

    for shard in shards:
        place = np.flatnonzero(shard["ids"] == image_id)
        if place.size:
            return {
                name: array[place[0]]
                for name, array in shard.items()
                if isinstance(array, np.ndarray) and name != "ids"
            }
    raise DataError(f"image {image_id!r} is in the table but not among the arrays; give every shard")
