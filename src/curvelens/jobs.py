"""What a job of the workflow sets up: logging, threads, errors on one line.

Knows nothing of Snakemake: any script may call :func:`start` first.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from curvelens.chunks import is_out_of_memory
from curvelens.errors import ConfigError, CurvelensError, printable
from curvelens.writing import refused

T = TypeVar("T")
PROGRESS_SECONDS = 10.0
progress_logger = logging.getLogger("curvelens.progress")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def start(log_path: str | Path | None = None, threads: int | None = None) -> logging.Logger:
    """Set up a job: log file, threads, and one line on stderr for an error.

    Messages from INFO upwards, Python warnings and full tracebacks go to the log file; the same messages go
    to stderr, where an error ends the job with one line. Meant to be called once, first thing.

    Args:
        log_path: Log file, overwritten; None means stderr alone.
        threads: CPU threads the job may use; None leaves them alone.

    Returns:
        The logger ``curvelens``.
    """
    if threads is not None:
        set_threads(threads)
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(_Printable("%(message)s"))
    terminal.addFilter(_for_terminal)
    root.addHandler(terminal)
    _install_hook(None)  # the log file itself may be what cannot be written
    if log_path is not None:
        Path(log_path).parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(log_path, mode="w", encoding="utf-8")
        file.setFormatter(_Printable("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(file)
    root.setLevel(logging.WARNING)
    logger = logging.getLogger("curvelens")
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    # A log that fits on the disk no longer is given up silently: the artifact's error says why, once.
    logging.raiseExceptions = False
    _install_hook(Path(log_path) if log_path is not None else None)
    return logger


def set_threads(threads: int) -> None:
    """Limit numerical libraries to ``threads`` CPU threads, whether torch is loaded already or later.

    Raises:
        ConfigError: ``threads`` is less than 1.
    """
    if threads < 1:
        raise ConfigError(f"threads: {threads} is not a number of threads; give 1 or more")
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


class Progress:
    """Reports how far long work is: rate and remaining time, for terminals and for log files.

    In a terminal a bar is drawn on stderr; in any case a line goes to the logger ``curvelens.progress`` every
    10 s and at the end.

    Args:
        total: Amount of work; None where it is unknown.
        description: What is being done, e.g. ``"spectra"``.
        unit: Name of one piece of work.
    """

    def __init__(self, total: int | None, description: str, unit: str = "it") -> None:
        from tqdm import tqdm

        self.total, self.description, self.unit, self.done = total, description, unit, 0
        self._start = self._last = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=description, unit=unit, file=sys.stderr, disable=not terminal)

    def update(self, amount: int = 1) -> None:
        """Count ``amount`` more pieces of work as done."""
        self.done += amount
        self._bar.update(amount)
        now = time.monotonic()
        if now - self._last >= PROGRESS_SECONDS or self.done == self.total:
            self._last = now
            progress_logger.info("%s", self._line(now - self._start))

    def close(self) -> None:
        """Remove the bar from the terminal's last line."""
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _line(self, elapsed: float) -> str:
        from tqdm import tqdm

        line = tqdm.format_meter(
            self.done, self.total, elapsed, ncols=0, prefix=self.description, unit=self.unit
        )
        return str(line)


def progress(items: Sequence[T], description: str, unit: str = "it") -> Iterator[T]:
    """Iterate over ``items`` and report progress; see :class:`Progress`."""
    with Progress(len(items), description, unit) as report:
        for item in items:
            yield item
            report.update()


class _Printable(logging.Formatter):
    """Keeps a message to its line: names of files may hold line breaks and commands for the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name is logging's)
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(printable, super().formatException(ei).splitlines()))


def _for_terminal(record: logging.LogRecord) -> bool:
    drawn_as_bar = record.name == "curvelens.progress" and sys.stderr.isatty()
    return not (drawn_as_bar or getattr(record, "log_only", False))


def _install_hook(log_path: Path | None) -> None:
    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        told = str(error) if issubclass(kind, CurvelensError) else refused(error)
        text = printable(" ".join((told or str(error)).split()))
        if told is not None:
            line = f"curvelens: error: {text}"
        else:
            where = f"; the traceback is in {log_path}" if log_path is not None else ""
            line = f"curvelens: error: unexpected {kind.__name__}: {text}{where}"
            if is_out_of_memory(error):
                line = (
                    f"curvelens: error: memory does not suffice ({text}); give the job more of it, or take a "
                    f"smaller network, smaller images or a smaller training.batch_size{where}"
                )
        print(line, file=sys.stderr, flush=True)
        if log_path is not None:
            logging.getLogger("curvelens").critical(
                line, exc_info=(kind, error, trace), extra={"log_only": True}
            )
        elif told is None:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook
