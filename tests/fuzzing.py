"""Running hypothesis against a reader: what a case may do, and what became of it.

A case ends with a right value or with one of curvelens' own errors, in time and within memory; nothing that
is read may run. Anything else is a bug of the library.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.strategies import SearchStrategy

from curvelens.errors import LONGEST, CurvelensError

CPU_SECONDS = 5.0  # a case takes milliseconds
SECONDS = 300.0  # of wall time, for a case that waits for something; the machine may be busy
MEMORY = 2**31  # bytes that a case may add to the address space of the process
_STARTS = {
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("subprocess.Popen", "os.kill", "ctypes.dlopen", "webbrowser.open"),
    *("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request"),
}
_CHANGES = {
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_allowed: list[str] = []  # the folder of the case that runs; none while nothing is watched
_done: list[str] = []  # what it did beyond reading


class OvertimeError(BaseException):
    """A case did not end in time; no ``except Exception`` of the library catches it."""


class MisbehavedError(AssertionError):
    """A case did what no input may lead to."""


@dataclass(frozen=True)
class Reader:
    """What is fuzzed.

    Attributes:
        name: Its name.
        cases: Strategy of the cases.
        read: Writes a case into a folder, reads it there and returns what was read.
        right: Raises AssertionError where what was read is not what the reader promises.
        names: File names of which an error has to name one; empty where errors leave out the path.
        share: Share of a long run that it gets.
        ways: Ways in which it can refuse, at least.
    """

    name: str
    cases: SearchStrategy[Any]
    read: Callable[[Any, Path], Any]
    right: Callable[[Any], None]
    names: tuple[str, ...] = ()
    share: float = 1.0
    ways: int = 3


@dataclass
class Tally:
    """What became of the cases of one reader."""

    cases: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0

    def refuse(self, error: CurvelensError) -> None:
        """Count an error of curvelens by the line that raised it."""
        place = _place(error)
        self.refused[place] += 1
        self.examples.setdefault(place, str(error))


def canary(*arguments: Any) -> str:
    """Be called by nobody: pickles in the cases name this function."""
    _done.append(f"canary{arguments!r}")
    return "alive"


class Payload:
    """Pickled, it is a call of :func:`canary`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return canary, ("unpickled",)


def on_one_line(text: str) -> bool:
    """Return whether a text has no line breaks, control characters or halves of surrogate pairs."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def run(reader: Reader, folder: Path, cases: int, seed: int, tally: Tally) -> None:
    """Try ``cases`` cases.

    Raises:
        Exception: A case that misbehaves, made as small as hypothesis can, with its traceback.
    """

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @hypothesis.given(reader.cases)
    def try_one(case: Any) -> None:
        attempt(reader, folder, case, tally)

    try_one()


def attempt(reader: Reader, folder: Path, case: Any, tally: Tally) -> None:
    """Try one case.

    Raises:
        Exception: The case misbehaves.
    """
    tally.cases += 1
    _done.clear()
    started = time.process_time()
    try:
        with _watched(folder):
            value = reader.read(case, folder)
    except CurvelensError as error:
        _check_message(str(error), reader.names)
        tally.refuse(error)
    except OvertimeError as error:
        raise MisbehavedError(
            f"{reader.name}: a case took more than {CPU_SECONDS:g} s of CPU, or waited for {SECONDS:g} s"
        ) from error
    else:
        reader.right(value)
        tally.accepted += 1
    finally:
        tally.slowest = max(tally.slowest, time.process_time() - started)
    if _done:
        raise MisbehavedError(f"{reader.name}: a case ran {_done[:3]}")


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Let allocations of more than :data:`MEMORY` on top of what is in use fail."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """Watch what a case does: temporary files go to its folder, all else may only be read."""
    _install()
    temporary, tempfile.tempdir = tempfile.tempdir, str(folder)
    limits = (
        (signal.SIGPROF, signal.ITIMER_PROF, CPU_SECONDS),
        (signal.SIGALRM, signal.ITIMER_REAL, SECONDS),
    )
    handlers = [signal.signal(number, _overtime) for number, _, _ in limits]
    for _, timer, seconds in limits:
        signal.setitimer(timer, seconds)
    _allowed.append(str(folder))
    try:
        yield
    finally:
        _allowed.pop()
        for (number, timer, _), handler in zip(limits, handlers, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
        tempfile.tempdir = temporary


def _overtime(number: int, frame: FrameType | None) -> None:
    raise OvertimeError


def _install() -> None:
    # A hook cannot be removed again; this one does nothing between cases.
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)


_installed: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _allowed:
        return
    if event in _STARTS:
        _done.append(f"{event} {str(arguments)[:200]}")
    elif event == "open" or event in _CHANGES:
        path, mode, flags = (*arguments, None, None)[:3]
        if event in _CHANGES and arguments[-1] not in (-1, None) and not os.path.isabs(os.fsdecode(path)):
            return  # relative to a folder that is open, as when a tree is removed
        writes = event in _CHANGES or (
            any(sign in mode for sign in "wax+")
            if isinstance(mode, str)
            else bool(flags and flags & _WRITING)
        )
        if writes and isinstance(path, (str, bytes, os.PathLike)):
            where = os.path.abspath(os.fsdecode(path))
            if not where.startswith(_allowed[-1]) and "__pycache__" not in where and where != os.devnull:
                _done.append(f"{event} {where}")


def _check_message(message: str, names: tuple[str, ...]) -> None:
    if not message.isprintable() or not 10 <= len(message) <= LONGEST:
        raise MisbehavedError(f"no printable line: {message!r}")
    if not re.search(r"[;,] \w+", message):
        raise MisbehavedError(f"says not what to do: {message!r}")
    if names and not any(name in message for name in names):
        raise MisbehavedError(f"does not name the file: {message!r}")


def _place(error: CurvelensError) -> str:
    """Return the innermost line of the library that the error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/src/curvelens/" in frame.filename]
    if not own:
        return type(error).__name__
    last, cause = own[-1], error.__cause__
    module = last.filename.rpartition("/src/curvelens/")[2]
    because = f" ({type(cause).__name__})" if cause is not None else ""
    return f"{module}:{last.name}:{last.lineno}{because}"
