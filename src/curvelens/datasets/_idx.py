"""The idx format of MNIST and of the data sets that copy its layout (LeCun, Cortes and Burges 1998)."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curvelens.datasets import Download, RawDataset
from curvelens.datasets._download import fetch
from curvelens.errors import DataError

if TYPE_CHECKING:
    import numpy as np

_LARGEST = 2**27  # bytes unpacked; MNIST's largest file has 47 million
_MOST_AXES = 8
_LAYOUTS = ("", "raw", "MNIST/raw", "FashionMNIST/raw")


@dataclass(frozen=True)
class IdxFile:
    """A published idx file.

    Attributes:
        name: Its name without ``.gz``.
        packed: SHA-256 of the ``.gz`` file.
        content: SHA-256 of what is inside.
        size: Bytes of the ``.gz`` file.
    """

    name: str
    packed: str
    content: str
    size: int


def downloads(files: Mapping[str, IdxFile], mirrors: Sequence[str]) -> tuple[Download, ...]:
    """Return where the packed files are published.

    Args:
        files: As for :func:`load_idx_dataset`.
        mirrors: Addresses that the file names are appended to.
    """
    return tuple(
        Download(
            f"{file.name}.gz", tuple(f"{mirror}{file.name}.gz" for mirror in mirrors), file.packed, file.size
        )
        for file in files.values()
    )


def load_idx_dataset(
    name: str,
    files: Mapping[str, IdxFile],
    mirrors: Sequence[str],
    class_names: Sequence[str],
    source: str,
    licence: str,
    data_dir: Path | None,
    cache_dir: Path,
) -> RawDataset:
    """Load a data set of four idx files.

    Args:
        name: Prefix of the ids and folder in ``cache_dir``.
        files: Under ``train_images``, ``train_labels``, ``test_images``, ``test_labels``.
        mirrors: Addresses that the file names are appended to.
        class_names: Name of each class.
        source, licence: See :class:`~curvelens.datasets.RawDataset`.
        data_dir: Folder with the files, packed or not, directly or as torchvision lays them out.
        cache_dir: Folder that keeps downloads.

    Returns:
        Training images first, then the official test images; ids count from the first to the last.

    Raises:
        DataError: A file is missing, damaged or not the published one, or cannot be downloaded.
    """
    import numpy as np

    arrays: dict[str, np.ndarray] = {}
    for part, file in files.items():
        if data_dir is not None:
            path = _find(file, data_dir)
        else:
            (wanted,) = downloads({part: file}, mirrors)
            path = fetch(wanted.urls, cache_dir / name / wanted.name, wanted.sha256, most=wanted.most)
        arrays[part] = parse_idx(_content(path, file.content), path)
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])[:, None]
    labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]]).astype(np.int64)
    return RawDataset(
        images=images,
        labels=labels,
        ids=[f"{name}/{index:05d}" for index in range(len(images))],
        class_names=list(class_names),
        source=source,
        licence=licence,
        sha256={file.name: file.content for file in files.values()},
        test=np.arange(len(arrays["train_images"]), len(images)),
    )


def parse_idx(content: bytes, path: Path) -> np.ndarray:
    """Decode the bytes of an idx file of unsigned bytes.

    The header is two zero bytes, the type code 8, the number of axes, and each length as big-endian uint32.

    Args:
        content: The unpacked file.
        path: Its name, for messages.

    Returns:
        uint8 array with the shape that the header states.

    Raises:
        DataError: The header or the length is wrong.
    """
    import numpy as np

    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise DataError(f"{path}: no idx file of unsigned bytes; delete it and fetch it again")
    axes = content[3]
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes)
    # Lengths of 32 bits may multiply to more than 64, and numpy counts even those of empty arrays.
    if axes > _MOST_AXES or values.size != math.prod(shape) or max(shape, default=1) > len(content):
        raise DataError(
            f"{path}: holds {values.size} bytes where its header states {shape}; delete it and fetch it again"
        )
    return values.reshape(shape)


def _find(file: IdxFile, data_dir: Path) -> Path:
    for layout in _LAYOUTS:
        for suffix in (".gz", ""):
            path = data_dir / layout / f"{file.name}{suffix}"
            if path.is_file():
                return path
    raise DataError(
        f"data_dir {data_dir}: has neither {file.name}.gz nor {file.name}, directly or in raw/; "
        "put the four idx files there, or leave data_dir out to download them"
    )


def _content(path: Path, expected: str) -> bytes:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            content = stream.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: damaged gzip file ({type(error).__name__}); delete it and fetch it again"
        ) from error
    if len(content) > _LARGEST:
        raise DataError(
            f"{path}: holds more than {_LARGEST:,} bytes, more than any published file; delete it and "
            "fetch it again"
        )
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(
            f"{path}: is not the published file (SHA-256 of its content {found[:12]}…, expected "
            f"{expected[:12]}…); delete it and fetch it again"
        )
    return content
