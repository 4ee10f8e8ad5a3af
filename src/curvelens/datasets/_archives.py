"""Archives of pictures: plain files alone, unpacked into a temporary folder, up to a limit."""

from __future__ import annotations

import contextlib
import errno
import lzma
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Self

from curvelens.errors import DataError

LARGEST_FILE = 2**28  # bytes; a photograph has a tenth of this at most
MOST_MEMBERS = 2_000_000  # ImageNet has 1.4 million
_LONGEST_HEADER = 2**20  # bytes; such headers hold names, and are read as a whole
_EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_BLOCK = 2**20
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, OSError, RuntimeError, NotImplementedError, ValueError),
)


@contextlib.contextmanager
def unpacked(file: Path, limit: float) -> Iterator[Path]:
    """Unpack a zip or tar archive, packed in any way, and remove what was unpacked afterwards.

    What a header says of sizes is not trusted: bytes are counted as they come. Archives inside the archive
    stay packed.

    Args:
        file: The archive.
        limit: Bytes that it may unpack to.

    Yields:
        The folder that holds its files; a folder around all of them, as archives often have, is left out.

    Raises:
        DataError: The archive is damaged or encrypted, a member has an absolute path, leads out of the
            archive, is a link or a device or comes twice, or it unpacks to more than the limit, or to more
            than :data:`MOST_MEMBERS` files.
    """
    with tempfile.TemporaryDirectory(prefix="curvelens-") as name:
        folder = Path(name)
        try:
            _unpack(file, folder, limit)
        except DataError:  # a ValueError, as damage may be
            raise
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DataError(
                    f"{file}: no room to unpack it in {tempfile.gettempdir()}; make room, or set TMPDIR to a "
                    "folder on another disk"
                ) from error
            raise DataError(
                f"{file}: cannot be unpacked ({type(error).__name__}: {error}); fetch it again, "
                "without a password"
            ) from error
        yield _inside(folder)


def _unpack(file: Path, folder: Path, left: float) -> None:
    for number, (member, is_file, opened) in enumerate(_members(file), 1):
        if number > MOST_MEMBERS:
            raise DataError(
                f"{file}: has more than {MOST_MEMBERS:,} members; use another archive, or unpack it yourself"
            )
        path = _checked(file, member)
        target = folder / path
        if path.parts[:1] == ("__MACOSX",):  # what the Finder adds to every zip file
            target = Path(os.devnull)
        elif not is_file:
            target.mkdir(parents=True, exist_ok=True)
        elif target.exists():
            raise DataError(f"{file}: holds {member!r} twice; keep one of the two")
        if is_file:
            target.parent.mkdir(parents=True, exist_ok=True)
            left -= _copied(file, member, opened, target, left)


class CheckedHeader(tarfile.TarInfo):
    """A tar header that is damaged, or announces a name of megabytes, ends the reading.

    tarfile takes a damaged header behind the first for the archive's end, and what it holds for all there is;
    and it reads names into memory, however long they are.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header; see :meth:`tarfile.TarInfo.frombuf`.

        Raises:
            tarfile.ReadError: It is damaged, or announces an extended header of more than a megabyte.
        """
        try:
            header = super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"damaged header: {error}") from error
        if header.type in _EXTENDED and header.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a name of {header.size:,} bytes")
        return header


def _members(file: Path) -> Iterator[tuple[str, bool, Callable[[], IO[bytes] | None]]]:
    """Yield the name of each member, whether it is a file (or a folder), and what opens it."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                # The upper half holds the Unix mode where a Unix program packed it: 0o12 is a link.
                kind = info.external_attr >> 28
                if kind not in (0, 0o4, 0o10):
                    raise _no_plain_file(file, info.filename)
                yield info.filename, not info.is_dir(), lambda info=info: archive.open(info)  # type: ignore[misc]
        return
    with tarfile.open(file, "r|*", tarinfo=CheckedHeader) as packed:
        for member in packed:
            if not (member.isfile() or member.isdir()):
                raise _no_plain_file(file, member.name)
            yield (
                member.name,
                member.isfile(),
                lambda member=member: packed.extractfile(member),  # type: ignore[misc]
            )


def _no_plain_file(file: Path, member: str) -> DataError:
    return DataError(f"{file}: member {member!r} is a link or a device; pack plain files alone")


def _checked(file: Path, member: str) -> PurePosixPath:
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]) or "\0" in member:
        raise DataError(f"{file}: member {member!r} leads out of the archive; do not use this file")
    return path


def _copied(
    file: Path, member: str, opened: Callable[[], IO[bytes] | None], target: Path, left: float
) -> int:
    """Write one file and return its size."""
    written = 0
    source = opened()
    if source is None:
        raise _no_plain_file(file, member)
    with source, target.open("wb") as stream:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > min(left, LARGEST_FILE):
                raise DataError(
                    f"{file}: unpacks to more than is allowed (at {member!r}); use another archive, or raise "
                    "parameters.unpacked_gib"
                )
            stream.write(block)
    return written


def _inside(folder: Path) -> Path:
    """Leave out folders that hold nothing but one folder, unless that one holds pictures alone."""
    while True:
        entries = list(folder.iterdir())
        if len(entries) != 1 or not entries[0].is_dir():
            return folder
        if not any(path.is_dir() or path.suffix.lower() == ".csv" for path in entries[0].iterdir()):
            return folder
        folder = entries[0]
