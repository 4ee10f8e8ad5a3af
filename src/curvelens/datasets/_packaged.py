"""Data sets that ship inside an installed package as one compressed table of numbers."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

from curvelens.datasets import RawDataset, content_sha256
from curvelens.errors import DataError
from curvelens.store import packaged

if TYPE_CHECKING:
    import numpy as np


def read_table(package: str, path: str) -> np.ndarray:
    """Read a gzipped CSV file of whole numbers that ships inside an installed package.

    Args:
        package: Name of the package, which is located but not imported.
        path: Path of the file inside it.

    Returns:
        int64 ``[rows, columns]``.

    Raises:
        DataError: The package or the file is missing or damaged.
    """
    import numpy as np

    file = packaged(package, path)
    if file is None:
        raise DataError(f"package {package} does not hold {path}; install it again: pip install {package}")
    try:
        lines = gzip.decompress(file.read_bytes()).decode("ascii").splitlines()
        return np.loadtxt(lines, delimiter=",", dtype=np.float64).astype(np.int64)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"{file}: damaged ({type(error).__name__}); install {package} again: pip install {package}"
        ) from error


def packaged_dataset(
    name: str, images: np.ndarray, labels: np.ndarray, sha256: str, source: str, licence: str
) -> RawDataset:
    """Check decoded digits against their recorded checksum and wrap them.

    Args:
        name: Prefix of the ids.
        images: uint8 ``[N, 1, H, W]``.
        labels: int64 ``[N]``, digits 0 to 9.
        sha256: Expected :func:`~curvelens.datasets.content_sha256`.
        source, licence: See :class:`~curvelens.datasets.RawDataset`.

    Raises:
        DataError: The content differs from the recorded one.
    """
    found = content_sha256(images, labels)
    if found != sha256:
        raise DataError(
            f"{name}: the installed package holds other images than the recorded ones "
            f"(SHA-256 {found[:12]}…, expected {sha256[:12]}…); install the pinned version"
        )
    return RawDataset(
        images=images,
        labels=labels,
        ids=[f"{name}/{index:05d}" for index in range(len(images))],
        class_names=[str(digit) for digit in range(10)],
        source=source,
        licence=licence,
        sha256={"images and labels": found},
    )
