"""The chunk helpers: every row once, and smaller blocks when memory runs out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curvelens.chunks import (
    available_bytes,
    chunk_rows,
    chunks,
    even_rows,
    is_out_of_memory,
    memory_limit,
    run_in_chunks,
)
from curvelens.errors import ArgumentError


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

    run_in_chunks(total, rows, work)
    assert done == list(range(total))


def test_other_errors_and_a_row_that_does_not_fit_come_through():
    def broken(start: int, stop: int) -> None:
        raise ValueError("broken")

    def too_large(start: int, stop: int) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    with pytest.raises(ValueError, match="broken"):
        run_in_chunks(5, 2, broken)
    with pytest.raises(RuntimeError, match="allocate"):
        run_in_chunks(5, 2, too_large)


def test_what_counts_as_running_out_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
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
        run_in_chunks(5, 0, lambda start, stop: None)


def test_memory_of_this_machine():
    assert 0 < memory_limit("cpu") <= available_bytes("cpu") < 2**50
