"""Files that appear complete or not at all, whatever happens to the process, the disk or the clock.

Everything is written under a temporary name beside its place, synchronised and renamed. A process that is
killed leaves a temporary file behind at worst; :func:`tidy` removes it when the next run starts.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from curvelens.errors import CurvelensError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_PROBE_BYTES = 1 << 13
# .{stem}.{host}-{process}-{random}{suffix}
_TEMPORARY = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<process>[0-9]+)-[0-9a-f]{8}(?:\.[^.]+)?")


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it to ``path`` on success, remove it on failure.

    Args:
        path: Final name; missing parent folders are made.

    Yields:
        The temporary name, to be written by the caller. It keeps the suffix of ``path``.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except CurvelensError:
        raise
    except Exception as error:
        told = refused(_cause(error, path.parent), path)
        if told is None:
            raise
        raise StorageError(told) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def refused(error: BaseException | None, path: str | Path | None = None) -> str | None:
    """Return a line for an error that means a full disk or a folder that cannot be written, None for others.

    Args:
        error: What was raised.
        path: The file that was to be written; None takes the one that the error names.
    """
    if not isinstance(error, OSError) or error.errno not in _FULL | _CLOSED:
        return None
    place = path if path is not None else error.filename
    where = f"{place}: " if place is not None else ""
    if error.errno in _FULL:
        remedy = "free space on that disk and run again; what is finished is kept"
    else:
        remedy = "make its folder writable, or name another one with --directory"
    return f"{where}cannot be written ({os.strerror(error.errno)}); {remedy}"


class Tidied(NamedTuple):
    """What :func:`tidy` did: temporary files removed, and files that were dated in the future."""

    removed: int
    dated: int


def tidy(folder: str | Path) -> Tidied:
    """Put right what a killed run or a wrong clock left in a folder; to be called before work starts.

    Temporary files of processes of this machine that live no longer are removed. Files dated in the future,
    by a clock that was wrong, are dated now: anything made from them would count as older than they are.
    Which file is older than which stays.

    Args:
        folder: What is below it is looked at; it is made where it is missing.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    folder = Path(folder)
    if (told := refused(_probe(folder), folder)) is not None:
        raise StorageError(told)
    removed = dated = 0
    now = time.time()
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with contextlib.suppress(FileNotFoundError):  # another run may be working below the same folder
                if _is_leftover(name):
                    os.unlink(path)
                    removed += 1
                elif os.lstat(path).st_mtime > now:
                    os.utime(path, (now, now), follow_symlinks=False)
                    dated += 1
    return Tidied(removed, dated)


def _is_leftover(name: str) -> bool:
    found = _TEMPORARY.fullmatch(name)
    if found is None or found["host"] != _host():
        return False
    try:
        os.kill(int(found["process"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's process; no process at all
        return False
    return False


def _host() -> str:
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()


def _cause(error: Exception, folder: Path) -> OSError | None:
    """Return why a file could not be written, where that is the disk's or the folder's fault."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return error
    # Libraries in Rust and C++ raise errors of their own. Some say the number; otherwise the folder is asked.
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), "") if number else _probe(folder)


def _probe(folder: Path) -> OSError | None:
    """Return the error that writing a small file into a folder gives, if it gives one."""
    trial = folder / f".probe.{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with trial.open("wb") as stream:
            stream.write(bytes(_PROBE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error
    finally:
        with contextlib.suppress(OSError):
            trial.unlink(missing_ok=True)
    return None
