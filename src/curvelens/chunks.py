"""How many rows fit in memory at once: the one place that decides chunk sizes.

Chunk sizes never change a result beyond floating-point noise; they only bound memory and keep the matrix products
large enough to run at full rate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
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


def chunks(total: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` pairs that cover ``range(total)`` in blocks of at most ``rows``.

    Args:
        total: Number of rows, >= 0.
        rows: Rows in a block, >= 1.

    Raises:
        ArgumentError: ``rows`` is less than 1.
    """
    if rows < 1:
        raise ArgumentError(f"chunk: {rows} rows at a time is impossible; give a positive number or None")
    for start in range(0, total, rows):
        yield start, min(start + rows, total)


def memory_limit(device: torch.device | str = "cpu") -> int:
    """Return the memory in bytes that one chunk may take on a device.

    A quarter of what is free now, on a CPU at most 512 MiB, so that several jobs fit side by side.
    """
    free = available_bytes(device) // 4
    return free if str(device).startswith("cuda") else min(CPU_LIMIT, free)


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


def _available_in_system() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _available_in_control_group() -> int:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = (folder / "memory.max").read_text(), (folder / "memory.current").read_text()
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return 2**63 - 1
