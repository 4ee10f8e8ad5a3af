"""How many rows fit in memory at once: the one place that decides chunk sizes.

Chunk sizes never change a result beyond floating-point noise; they bound the memory, and keep the matrix
products large enough to run at full rate.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from curvelens.errors import ArgumentError, MemoryShortageError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
logger = logging.getLogger(__name__)

CPU_LIMIT = 512 * 2**20
MAX_ROWS = 4096

# What processors, the CUDA driver and CUDA's libraries (CUBLAS_STATUS_ALLOC_FAILED) say.
_SHORTAGES = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")
_fitting: dict[tuple[object, ...], int] = {}  # rows that fitted, by kind of work and row, in this process


def chunk_rows(bytes_per_row: float, limit_bytes: int = CPU_LIMIT, max_rows: int = MAX_ROWS) -> int:
    """Return how many rows to process at once.

    Args:
        bytes_per_row: Memory that one row needs while it is processed, in bytes.
        limit_bytes: Memory that a chunk may take, in bytes, > 0.
        max_rows: Upper bound, >= 1; beyond a few thousand rows nothing gets faster on a CPU.

    Returns:
        At least 1, at most ``max_rows``.
    """
    return max(1, min(max_rows, int(limit_bytes // max(1.0, bytes_per_row))))


def even_rows(total: int, rows: int) -> int:
    """Return the rows of a chunk when ``total`` rows are cut evenly into as few chunks as ``rows`` allows.

    Args:
        total: Number of rows, >= 0.
        rows: The most rows in a chunk, >= 1.
    """
    count = max(1, -(-total // rows))
    return max(1, -(-total // count))


def chunks(total: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` pairs that cover ``range(total)`` in blocks of at most ``rows``.

    Args:
        total: Number of rows, >= 0.
        rows: Rows in a block, >= 1.

    Raises:
        ArgumentError: ``rows`` is less than 1.
    """
    require_positive(rows)
    for start in range(0, total, rows):
        yield start, min(start + rows, total)


def run_in_chunks(
    total: int, rows: int, work: Callable[[int, int], None], what: str, like: torch.Tensor
) -> None:
    """Call ``work(start, stop)`` for blocks of rows, and use smaller blocks where memory does not suffice.

    Args:
        total: Number of rows, >= 0.
        rows: Rows in a block to begin with, >= 1; halved whenever ``work`` runs out of memory.
        work: Processes rows ``start:stop``; may be called again for rows on which it ran out of memory.
        what: Name of the work, e.g. ``"gradient"``: for the message, and to remember the size by.
        like: ``[B, *shape]``, tells shape, precision and device of a row.

    Raises:
        ArgumentError: ``rows`` is less than 1.
        MemoryShortageError: A single row does not fit.
    """
    require_positive(rows)
    start = 0

    def block(count: int) -> int:
        work(start, start + count)
        return start + count

    while start < total:
        start = largest_that_fits(min(rows, total - start), block, what, like)


def largest_that_fits(rows: int, work: Callable[[int], T], what: str, like: torch.Tensor) -> T:
    """Return ``work(rows)``, with half as many rows, and half of these, where memory does not suffice.

    The number found is remembered: later calls for the same work on rows of the same kind begin with it.

    Args:
        rows: Rows to begin with, >= 1.
        work: Works with so many rows at once; called again where it ran out of memory.
        what: Name of the work, see :func:`run_in_chunks`.
        like: ``[B, *shape]``, tells shape, precision and device of a row.

    Raises:
        MemoryShortageError: A single row does not fit.
    """
    kind = what, like.shape[1:], like.dtype, like.device
    rows = min(rows, _fitting.get(kind, rows))
    while True:
        try:
            return work(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if rows == 1:
                raise MemoryShortageError(_too_large(what, like)) from error
        # Outside of the handler, where the error and all that its frames held are gone.
        release_memory()
        rows = _fitting[kind] = rows // 2
        logger.info("%s: memory is short; going on with %d rows at once", what, rows)


def in_chunks(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, what: str, rows: int | None = None
) -> torch.Tensor:
    """Return ``function(x)`` of a function that works row by row, in as many blocks as memory asks for.

    Args:
        function: ``[B, *shape] -> [B, ...]``, without a graph.
        x: ``[B, *shape]``.
        what: Name of the work, see :func:`run_in_chunks`.
        rows: Rows in a block to begin with, >= 1; None begins with all of them.

    Raises:
        ArgumentError: ``rows`` is less than 1.
        MemoryShortageError: A single row does not fit.
    """
    import torch

    if not len(x):
        return function(x)
    parts: list[torch.Tensor] = []
    run_in_chunks(
        len(x),
        len(x) if rows is None else rows,
        lambda start, stop: parts.append(function(x[start:stop])),
        what,
        x,
    )
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory did not suffice, on whichever device."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or any(part in str(error) for part in _SHORTAGES)


def release_memory() -> None:
    """Give back what a failed try left: objects in cycles, and blocks that PyTorch keeps on GPUs."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _too_large(what: str, like: torch.Tensor) -> str:
    row = " x ".join(map(str, like.shape[1:])) or "a number"
    kind, free = str(like.dtype).removeprefix("torch."), available_bytes(like.device) / 2**30
    return (
        f"{what}: a single row ({row}, {kind}) does not fit in the memory of {like.device}, of which "
        f"{free:.1f} GiB are free; take smaller images, a smaller network, or a machine with more memory"
    )


def memory_limit(device: torch.device | str = "cpu") -> int:
    """Return the memory in bytes that one chunk may take on a device.

    A quarter of what is free now, on a CPU at most 512 MiB, so that several jobs fit side by side.
    """
    quarter = available_bytes(device) // 4
    return quarter if str(device).startswith("cuda") else min(CPU_LIMIT, quarter)


def available_bytes(device: torch.device | str = "cpu") -> int:
    """Return the memory in bytes that can still be allocated on a device.

    Args:
        device: ``cpu`` or a CUDA device.

    Returns:
        On CUDA what the driver reports as free plus what PyTorch has cached; on a CPU the smaller of what the
        operating system calls available and what the control group leaves.
    """
    if str(device).startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_available_in_system(), _available_in_control_group())


def require_positive(rows: int) -> None:
    """Raise :class:`ArgumentError` if a chunk of so many rows is impossible."""
    if rows < 1:
        raise ArgumentError(f"chunk: {rows} rows at a time is impossible; give a positive number or None")


def _available_in_system() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _available_in_control_group() -> int:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = (folder / "memory.max").read_text(), (folder / "memory.current").read_text()
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return 2**63 - 1  # no control group, or one without a limit
