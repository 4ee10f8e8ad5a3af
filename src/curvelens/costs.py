"""What an explanation costs beyond gradient calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def tensor_memory(work: Callable[[], Any], device: torch.device | str = "cpu") -> tuple[Any, int]:
    """Run something and return what it gives, and the most memory that its tensors took at once.

    Args:
        work: Called once.
        device: Where it computes; on a CPU every allocation of a tensor is recorded, which slows it down.

    Returns:
        The result, and bytes beyond those that were taken before.
    """
    if str(device).startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        torch.cuda.synchronize(device)
        return result, torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # else the profiler complains of absent GPUs
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = work()
    assert recorded.profiler is not None
    events = recorded.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return result, int(max(np.cumsum([0, *(change for _, change in changes)])))
