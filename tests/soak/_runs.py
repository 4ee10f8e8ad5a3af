"""Snakemake as a process that can be watched and killed with everything that it started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.02
_STARTED = re.compile(r"^Job (\d+): (.+)$")
_FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: (\w+)\)$")
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies; without it some could not be found again."""
    if ctypes.CDLL(None, use_errno=True).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def command(folder: Path, config: Path, *arguments: str) -> list[str]:
    """Return the command line of a user who runs the workflow in ``folder``."""
    given = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    return [sys.executable, "-m", "snakemake", *given, *arguments, "--configfile", str(config)]


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a run.

    Caches lie in ``folder``, since a killed run leaves them, and this machine is asked without a proxy.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
    local = dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1")
    return {**kept, **local, "XDG_CACHE_HOME": str(folder), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}


class Run:
    """One call of Snakemake, in a session of its own.

    Attributes:
        started: Message of each job that was started, by job id; no two jobs have the same message.
        finished: Rule of each job that was reported finished, by job id.
        times: When each job was seen to start, and to finish, by its message.
        failed: Whether a job failed.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, log: Path, caches: Path) -> None:
        caches.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                arguments,
                cwd=folder,
                env=environment(caches),
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.log, self._read = log, 0
        self.began = time.monotonic()
        self.started: dict[int, str] = {}
        self.finished: dict[int, str] = {}
        self.times: dict[str, tuple[float, float]] = {}
        self.failed = False

    def look(self) -> list[str]:
        """Read what was logged since the last time; return the messages of the jobs started since."""
        with self.log.open("rb") as stream:
            stream.seek(self._read)
            text = stream.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._read += len(complete)
        now, new = time.monotonic(), []
        for line in complete.decode("utf-8", "replace").splitlines():
            if found := _STARTED.match(line):
                self.started[int(found[1])] = found[2]
                self.times[found[2]] = (now, now)
                new.append(found[2])
            elif (found := _FINISHED.match(line)) and int(found[1]) in self.started:
                self.finished[int(found[1])] = found[2]
                message = self.started[int(found[1])]
                self.times[message] = (self.times[message][0], now)
            elif line.startswith("Error in rule "):
                self.failed = True
        return new

    @property
    def running(self) -> set[str]:
        """Messages of the jobs that were started and not reported finished."""
        return {message for job, message in self.started.items() if job not in self.finished}

    @property
    def done(self) -> set[str]:
        """Messages of the jobs that were reported finished."""
        return {self.started[job] for job in self.finished}

    def watch(self, deadline: Callable[[list[str]], float]) -> bool:
        """Wait until the run ends, or kill it.

        Args:
            deadline: Given the messages of the jobs started since the last look, returns when to kill, a
                value of ``time.monotonic``.

        Returns:
            Whether the run was killed.
        """
        while self.process.poll() is None:
            if time.monotonic() >= deadline(self.look()):
                self.kill()
                self.look()
                return True
            time.sleep(POLL_SECONDS)
        self.look()
        return False

    def complaint(self) -> str:
        """Return what the run said of the first job that failed, or the end of its log."""
        text = self.log.read_text("utf-8", "replace")
        start = text.find("Error in rule ")
        return text[start : start + 3000] if start >= 0 else text[-2000:]

    def kill(self) -> None:
        """Kill Snakemake, its process group, and whatever it started in other groups and sessions."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        while left := _descendants():
            for process in left:
                os.kill(process, signal.SIGKILL)
            for process in left:
                with contextlib.suppress(ChildProcessError):  # its parent has not died yet
                    os.waitpid(process, 0)


def _descendants() -> set[int]:
    """Return the processes below this one."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # pid (name) state parent ...: a name may hold spaces and brackets.
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = set(), {os.getpid()}
    while new:
        new = {process for process, parent in parents.items() if parent in new}
        found |= new
    return found


def never(_: list[str]) -> float:
    """A deadline that does not come."""
    return float("inf")
