"""The chunk helpers: every row once, and smaller blocks when memory runs out."""

import re
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curvelens import chunks as chunks_module
from curvelens.chunks import (
    available_bytes,
    chunk_rows,
    chunks,
    even_rows,
    in_chunks,
    is_out_of_memory,
    largest_that_fits,
    memory_limit,
    run_in_chunks,
)
from curvelens.errors import ArgumentError, MemoryShortageError

ROW = torch.empty(1, 3, 8)
SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: not enough memory: you tried"),
]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """No size found by another test is remembered."""
    monkeypatch.setattr(chunks_module, "_fitting", {})


@given(total=st.integers(0, 500), rows=st.integers(1, 600))
def test_every_row_belongs_to_one_chunk(total, rows):
    pairs = list(chunks(total, rows))
    assert [row for start, stop in pairs for row in range(start, stop)] == list(range(total))
    assert all(stop - start <= rows for start, stop in pairs)


@given(total=st.integers(1, 500), rows=st.integers(1, 600))
def test_even_chunks_are_as_few_and_differ_little(total, rows):
    sizes = [stop - start for start, stop in chunks(total, even_rows(total, rows))]
    assert len(sizes) == -(-total // rows)
    assert max(sizes) <= rows
    assert min(sizes[:-1], default=max(sizes)) == max(sizes)


@given(total=st.integers(0, 200), rows=st.integers(1, 200), fits=st.integers(1, 50))
def test_blocks_shrink_until_they_fit_and_cover_every_row_once(total, rows, fits):
    done: list[int] = []

    def work(start: int, stop: int) -> None:
        if stop - start > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done.extend(range(start, stop))

    run_in_chunks(total, rows, work, "test", torch.empty(0, 3))
    assert done == list(range(total))


def test_other_errors_and_a_row_that_does_not_fit_come_through():
    def broken(start: int, stop: int) -> None:
        raise ValueError("broken")

    def too_large(start: int, stop: int) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    with pytest.raises(ValueError, match="broken"):
        run_in_chunks(5, 2, broken, "test", ROW)
    with pytest.raises(MemoryShortageError) as caught:
        run_in_chunks(5, 2, too_large, "gradient", ROW)
    told = str(caught.value)
    assert re.fullmatch(
        r"gradient: a single row \(3 x 8, float32\) does not fit in the memory of cpu, of which \d+\.\d GiB "
        "are free; take smaller images, a smaller network, or a machine with more memory",
        told,
    )
    assert is_out_of_memory(caught.value)  # for the caller that works on several images at once


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_the_size_found_is_remembered_for_rows_of_the_same_kind(shortage):
    tried: list[int] = []

    def work(start: int, stop: int) -> None:
        tried.append(stop - start)
        if stop - start > 3:
            raise shortage

    run_in_chunks(20, 16, work, "gradient", ROW)
    assert tried == [16, 8, 4, 2] + [2] * 9
    tried.clear()
    run_in_chunks(4, 16, work, "gradient", ROW)
    assert tried == [2, 2]
    for what, like in (("values", ROW), ("gradient", ROW.double()), ("gradient", torch.empty(1, 3, 7))):
        tried.clear()
        run_in_chunks(4, 16, work, what, like)
        assert tried == [4, 2, 2]


def test_what_a_failed_try_held_is_gone_before_the_next():
    """Tensors in its frames, in a cycle, and in the error itself."""
    held: list[weakref.ref] = []

    class Node:
        pass

    def work(rows: int) -> int:
        assert not any(ref() is not None for ref in held)
        tensor, inner, node = torch.empty(rows), torch.empty(rows), Node()
        node.tensor, node.myself = torch.empty(rows), node
        held.extend(map(weakref.ref, (tensor, inner, node.tensor)))
        if rows > 2:
            error = torch.OutOfMemoryError("CUDA out of memory")
            error.culprit = inner
            raise error
        return rows

    assert largest_that_fits(16, work, "test", ROW) == 2
    assert len(held) == 4 * 3


@given(total=st.integers(0, 40), fits=st.integers(1, 50), rows=st.none() | st.integers(1, 50))
def test_a_function_of_rows_is_evaluated_once_a_row(total, fits, rows):
    x = torch.arange(total * 6, dtype=torch.float64).reshape(total, 2, 3)

    def function(block):
        if len(block) > fits:
            raise MemoryError
        return block.sum(2)

    assert torch.equal(in_chunks(function, x, "test", rows), x.sum(2))


def test_what_counts_as_running_out_of_memory():
    assert all(map(is_out_of_memory, SHORTAGES))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_rows_follow_from_memory():
    assert chunk_rows(100, limit_bytes=1000) == 10
    assert chunk_rows(10_000, limit_bytes=1000) == 1
    assert chunk_rows(0.001, limit_bytes=10**12, max_rows=77) == 77
    with pytest.raises(ArgumentError):
        list(chunks(5, 0))
    with pytest.raises(ArgumentError):
        run_in_chunks(5, 0, lambda start, stop: None, "test", ROW)


def test_memory_of_this_machine():
    assert 0 < memory_limit("cpu") <= available_bytes("cpu") < 2**50
