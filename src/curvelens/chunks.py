"""How many rows fit in memory at once: the one place that decides chunk sizes.

Chunk sizes never change a result beyond floating-point noise; they bound the memory, and keep the matrix
products large enough to run at full rate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from curvelens.errors import ArgumentError

if TYPE_CHECKING:
    import torch

CPU_LIMIT = 512 * 2**20
MAX_ROWS = 4096


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


def run_in_chunks(total: int, rows: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(start, stop)`` for blocks of rows, and use smaller blocks where memory does not suffice.

    Args:
        total: Number of rows, >= 0.
        rows: Rows in a block to begin with, >= 1; halved whenever ``work`` runs out of memory.
        work: Processes rows ``start:stop``; may be called again for rows on which it ran out of memory.

    Raises:
        ArgumentError: ``rows`` is less than 1.
        torch.OutOfMemoryError: A single row does not fit.
    """
    require_positive(rows)
    start = 0
    while start < total:
        stop = min(start + rows, total)
        try:
            work(start, stop)
        except (RuntimeError, MemoryError) as error:
            if stop - start == 1 or not is_out_of_memory(error):
                raise
            rows = (stop - start) // 2
        else:
            start = stop


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory did not suffice, on whichever device."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "not enough memory" in text
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
