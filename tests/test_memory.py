"""Every stage of the workflow where memory is short: the same results from smaller chunks, or one line."""

import copy
import gc
from functools import cache

import pytest
import stages_world
import torch
from stages_world import HIDDEN, STAGES, TOLERANCE, differences, images, network
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from curvelens import chunks, tables
from curvelens.experiments import distances

WEIGHTS = {tuple(weight.shape) for weight in network().parameters() if weight.ndim > 1}
# Studies of small functions of their own, which have no hidden layer to run out of memory in.
SMALL = {"theorems", "complexity"}


class ShortMemory(TorchDispatchMode):
    """Memory for so many rows of a hidden layer: an operation that makes more of them at once runs out of it.

    It sees every operation below autograd, vmap and forward mode. Matrices as large as the weights are let
    through, as they do not grow with the rows.
    """

    def __init__(self, rows):
        super().__init__()
        self.rows, self.raised = rows, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if not function.is_view:
            for tensor in tree_leaves(made):
                if isinstance(tensor, torch.Tensor):
                    self._check(tensor)
        return made

    def _check(self, tensor):
        shape = tuple(size for size in tensor.shape if size > 1)
        width = next((width for width in HIDDEN if width in shape), None)
        if width and not {shape, shape[::-1]} & WEIGHTS and tensor.numel() > self.rows * width:
            self.raised += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """No size found by another test is remembered."""
    monkeypatch.setattr(chunks, "_fitting", {})


@pytest.fixture(autouse=True, scope="module")
def frozen():
    """What was imported is not looked through for garbage after each of hundreds of failed tries."""
    gc.freeze()
    yield
    gc.unfreeze()


@cache
def undisturbed(stage):
    return stages_world.run(stage)


@pytest.mark.parametrize("stage", sorted(set(STAGES) - SMALL))
def test_a_stage_gives_the_same_results_where_memory_is_short(stage):
    expected = undisturbed(stage)
    with ShortMemory(rows=4) as memory:
        found = stages_world.run(stage)
    assert memory.raised > 0
    apart = differences(expected, found)
    assert max(apart.values()) <= TOLERANCE, apart


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_the_tolerance_covers_rounding(stage):
    """Weights moved by one rounding stand for a device that adds in another order."""
    nudged, random = copy.deepcopy(network()), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in nudged.parameters():
            weight.mul_(
                1 + torch.finfo(weight.dtype).eps * (2 * torch.rand(weight.shape, generator=random) - 1)
            )
    apart = differences(undisturbed(stage), stages_world.run(stage, nudged))
    assert max(apart.values()) <= TOLERANCE / 10, apart


def test_an_image_that_does_not_fit_is_one_line_in_its_row():
    with ShortMemory(rows=0.5):
        table = distances.distances(network(), images())
    assert (table["status"] == tables.FAILED).all()
    told = table["error"].tolist()
    assert all(
        "logits: a single row (3 x 8 x 8, float32) does not fit in the memory of cpu" in one for one in told
    )
    assert not any("\n" in one for one in told)


def test_a_size_is_found_once_a_job():
    with ShortMemory(rows=4) as memory:
        stages_world.run("competing")
        first = memory.raised
        stages_world.run("competing")
    assert memory.raised == first
