"""A job reads the images of its shard and no others, whatever the size of the split."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from curvelens import store
from curvelens.errors import ArgumentError, ConfigError, DataError
from curvelens.experiments import selection


def split(folder: Path, images: int, side: int = 5, masks: bool = True) -> Path:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, 3, side, side), dtype=np.uint8)
    made = store.ImageSet(
        pixels,
        np.arange(images, dtype=np.int64) % 3,
        [f"{'é' * (i % 4)}{i}" for i in range(images)],
        pixels[:, 0] if masks else None,
    )
    store.save_image_set(folder / "test.npz", made)
    return folder / "test.npz"


@pytest.mark.parametrize("masks", [False, True])
def test_a_shard_is_that_part_of_the_chosen_images(tmp_path, masks):
    path = split(tmp_path, 23, masks=masks)
    whole = store.load_image_set(path)
    for count, shards in ((23, 4), (20, 3), (1, 1)):
        for index in range(shards):
            expected = selection.take(whole, count).shard(index, shards)
            found = selection.shard(path, count, index, shards)
            assert found.ids == expected.ids
            np.testing.assert_array_equal(found.images, expected.images)
            np.testing.assert_array_equal(found.labels, expected.labels)
            assert (found.masks is None) is not masks
            if masks:
                np.testing.assert_array_equal(found.masks, expected.masks)


def test_memory_holds_the_shard_and_not_the_split(tmp_path):
    path = split(tmp_path, 400, side=100)  # 12 MB of pixels, 4 MB of masks
    tracemalloc.start()
    found = selection.shard(path, 400, 39, 40)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 10
    # Ten images with masks are 0.4 MB; blocks of 1 MiB are passed over, packed and unpacked.
    assert peak < 4e6


def test_damage_beyond_the_shard_is_noticed(tmp_path):
    path = split(tmp_path, 50, side=40)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"test\.npz: damaged npz .* delete it and run again"):
        selection.shard(path, 50, 0, 10)


def test_what_is_not_there_is_named(tmp_path):
    path = split(tmp_path, 7)
    message = "9 images were asked for, but the split has 7 images; ask for fewer"
    with pytest.raises(ConfigError, match=message):
        selection.shard(path, 9, 1, 2)
    with pytest.raises(ConfigError, match=message):
        selection.take(store.load_image_set(path), 9)
    with pytest.raises(ArgumentError, match="shard 0 of 8 cannot be taken from 7 images"):
        selection.shard(path, 7, 0, 8)


def test_arrays_without_rows_are_refused_where_rows_are_wanted(tmp_path):
    store.save_npz(tmp_path / "a.npz", {"a": np.float32(1)})
    with pytest.raises(DataError, match=r"a\.npz: damaged npz"):
        store.load_npz(tmp_path / "a.npz", rows=slice(1))
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["a"] == 1
    np.savez(tmp_path / "b.npz", b=np.asfortranarray(np.ones((3, 4))))
    np.testing.assert_array_equal(store.load_npz(tmp_path / "b.npz", rows=slice(1))["b"], np.ones((1, 4)))
