"""Small pictures in folders ``train/<class>/`` and ``test/<class>/``, or in an archive of such folders.

Archives are read, never unpacked: nothing is written, whatever their members are called. Members whose names
lead out of the archive, links and devices are refused all the same, because a file that holds them is not
what it says.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from curvelens.datasets._archives import CheckedHeader
from curvelens.errors import DataError
from curvelens.store import sha256

SPLITS = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png")
LARGEST_FILE = 2**20  # bytes; the pictures meant here have about one thousand
LARGEST_SIDE = 1024  # pixels
LARGEST_SUM = 2**30  # bytes; a million of them
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


class Pictures(NamedTuple):
    """Decoded pictures, training ones first, each split sorted by class and name.

    Attributes:
        images: uint8 ``[N, 3, H, W]``.
        classes: N names of folders.
        names: N names such as ``train/cat/0007``.
        training: Number of pictures that belong to ``train``.
        sha256: Checksum of the archive, or of the pictures' bytes in this order, by name.
    """

    images: np.ndarray
    classes: list[str]
    names: list[str]
    training: int
    sha256: dict[str, str]


def read_pictures(path: Path) -> Pictures:
    """Read all pictures of both splits.

    Args:
        path: An archive, or a folder that holds ``train`` and ``test``, or one archive.

    Returns:
        The pictures; all have the same size.

    Raises:
        DataError: There are no such folders, an archive is damaged or unsafe, or a picture is unreadable or
            of another size; the line names it.
    """
    source = _source(path)
    found: dict[str, bytes] = {}
    for name, content in _folder(source) if source.is_dir() else _archive(source):
        if name in found:
            raise DataError(f"{source}: holds {name} twice; keep one of the two")
        found[name] = content
    order = sorted(found, key=lambda name: (SPLITS.index(name.partition("/")[0]), name))
    counts = {split: sum(name.startswith(f"{split}/") for name in order) for split in SPLITS}
    for split, count in counts.items():
        if not count:
            raise DataError(f"{source}: no pictures in {split}/<class>/; data_dir must hold train and test")
    images = _decoded(source, order, found)
    if source.is_dir():
        digest = hashlib.sha256()
        for name in order:
            digest.update(found[name])
        checksum = {"files": digest.hexdigest()}
    else:
        checksum = {source.name: sha256(source)}
    classes = [name.split("/")[1] for name in order]
    names = [name.rpartition(".")[0] for name in order]
    return Pictures(images, classes, names, counts["train"], checksum)


def _source(path: Path) -> Path:
    if path.is_file() or all((path / split).is_dir() for split in SPLITS):
        return path
    archives = [file for file in sorted(path.iterdir()) if file.name.lower().endswith(_ARCHIVES)]
    if len(archives) != 1:
        raise DataError(
            f"data_dir {path}: has neither train/ and test/ nor one archive of them ({len(archives)} found); "
            "name the folder that holds train and test, or the archive"
        )
    return archives[0]


def _folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for split in SPLITS:
        for file in sorted((folder / split).glob("*/*")):
            if file.suffix.lower() in SUFFIXES:
                yield file.relative_to(folder).as_posix(), file.read_bytes()


def _archive(file: Path) -> Iterator[tuple[str, bytes]]:
    try:
        left = LARGEST_SUM
        with tarfile.open(file, "r|*", tarinfo=CheckedHeader) as archive:
            for member in archive:
                name = _checked_name(file, member)
                left -= member.size
                if left < 0:
                    raise DataError(
                        f"{file}: unpacks to more than {LARGEST_SUM:,} bytes; use another archive"
                    )
                stream = archive.extractfile(member) if name else None
                if name and stream is not None:
                    yield name, stream.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise DataError(
            f"{file}: damaged archive ({type(error).__name__}: {error}); fetch it again"
        ) from error


def _checked_name(file: Path, member: tarfile.TarInfo) -> str:
    """Return ``split/class/name`` of a picture, and nothing for any other member that is harmless."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
        raise DataError(f"{file}: member {member.name!r} leads out of the archive; do not use this file")
    if not (member.isfile() or member.isdir()):
        raise DataError(f"{file}: member {member.name!r} is a link or a device; pack plain files alone")
    if not member.isfile() or path.suffix.lower() not in SUFFIXES:
        return ""
    # A folder around train and test, as archives often have, is left out.
    parts = path.parts[-3:]
    if len(parts) < 3 or parts[0] not in SPLITS:
        return ""
    if member.size > LARGEST_FILE:
        raise DataError(f"{file}: {member.name} has {member.size:,} bytes; pictures here are small")
    return "/".join(parts)


def _decoded(source: Path, order: list[str], found: dict[str, bytes]) -> np.ndarray:
    images: np.ndarray | None = None
    for index, name in enumerate(order):
        try:
            with Image.open(io.BytesIO(found[name]), formats=("JPEG", "PNG")) as picture:
                if max(picture.size) > LARGEST_SIDE:
                    raise ValueError(f"{picture.size} pixels")
                pixels = np.asarray(picture.convert("RGB"))
        except Exception as error:  # decoders raise whatever damage leads them to
            raise DataError(f"{source}: {name} is no readable picture; replace it or remove it") from error
        if images is None:
            images = np.empty((len(order), 3, *pixels.shape[:2]), dtype=np.uint8)
        if pixels.shape[:2] != images.shape[2:]:
            raise DataError(
                f"{source}: {name} is {pixels.shape[0]} x {pixels.shape[1]}, the others are "
                f"{images.shape[2]} x {images.shape[3]}; pictures here have one size"
            )
        images[index] = pixels.transpose(2, 0, 1)
    assert images is not None
    return images
