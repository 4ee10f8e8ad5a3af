"""What figures are drawn from is read when it is looked at: a run may hold more maps than memory does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curvelens import store
from curvelens.errors import DataError
from curvelens.figures import inputs, pixels


@pytest.fixture
def maps(tmp_path) -> list[Path]:
    """Two methods, three shards of four images each, 8 KiB a shard."""
    random = np.random.default_rng(0)
    paths = []
    for method in ("gradient", "smoothgrad"):
        for shard in range(3):
            paths.append(tmp_path / method / f"{shard}.npz")
            found = {"attribution": random.normal(size=(4, 2, 16, 16)), "sigma": np.arange(4.0)}
            store.save_explanations(paths[-1], found, [f"{shard}/{i}" for i in range(4)])
    return paths


@pytest.fixture
def read(monkeypatch) -> list[tuple[str, str]]:
    """The arrays that were read from a file, as they are."""
    seen = []

    def load_array(path: Path, name: str) -> np.ndarray:
        seen.append((path.parent.name, name))
        return store.load_array(path, name)

    monkeypatch.setattr(inputs, "load_array", load_array)
    return seen


def test_arrays_are_those_of_the_file(maps):
    (loaded,) = inputs.load({"maps": maps[4]})["maps"]
    assert dict(loaded).keys() == {"folder", "ids", "attribution", "sigma"}
    assert loaded["folder"] == "smoothgrad"
    for name, array in store.load_npz(maps[4]).items():
        np.testing.assert_array_equal(loaded[name], array)
    assert "other" not in loaded
    with pytest.raises(KeyError):
        loaded["other"]


def test_a_map_costs_the_names_and_its_own_shard(maps, read):
    tables = inputs.load({"maps": maps})
    assert read == []
    found = pixels.attribution(tables, "1/2", "smoothgrad")
    np.testing.assert_array_equal(found, store.load_array(maps[4], "attribution")[2])
    assert read == [("smoothgrad", "ids")] * 2 + [("smoothgrad", "attribution")]
    pixels.attribution(tables, "1/3", "smoothgrad")
    assert len(read) == 3


def test_the_oldest_arrays_make_room(maps, read, monkeypatch):
    monkeypatch.setattr(inputs, "_HELD", 3 * 8192)  # three maps of a shard
    first, *others = inputs.load({"maps": maps})["maps"]
    for shard in (first, *others, first):
        assert shard["attribution"].shape == (4, 2, 16, 16)
    held = first._held
    assert sum(array.nbytes for array in held.values()) <= 3 * 8192
    assert len(read) == 7  # the first was read again


def test_damage_is_named(maps):
    maps[0].write_bytes(maps[0].read_bytes()[:-40])
    with pytest.raises(DataError, match=r"gradient/0\.npz: damaged npz"):
        inputs.load({"maps": maps})
