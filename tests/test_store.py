import hashlib
import io
import pickle
import time
import zipfile

import numpy as np
import pytest
import torch

from curvelens import store
from curvelens.errors import ArgumentError, DataError


def image_set(count=6, shape=(1, 4, 5)):
    rng = np.random.default_rng(0)
    return store.ImageSet(
        rng.integers(0, 256, (count, *shape), dtype=np.uint8),
        np.arange(count) % 3,
        [f"set/{index:05d}" for index in range(count)],
    )


def test_pixels_lie_between_zero_and_one():
    images = store.ImageSet(np.array([[[[0, 51, 255]]]], dtype=np.uint8), np.array([0]), ["a"])
    # 51/255 = 1/5: one rounding to float32.
    assert torch.equal(images.tensor(0), torch.tensor([[[0.0, 0.2, 1.0]]]))
    assert images.tensor().dtype == torch.float32


def test_positions_select_images():
    images = image_set()
    assert images.shape == (1, 4, 5)
    assert images.tensor(2).shape == (1, 4, 5)
    assert images.tensor(slice(1, 4)).shape == (3, 1, 4, 5)
    assert torch.equal(images.tensor([4, 0])[0], images.tensor(4))
    part = images.subset([4, 0])
    assert part.ids == ["set/00004", "set/00000"]
    assert part.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(part.images[1], images.images[0])


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7])
def test_shards_are_a_partition_of_nearly_equal_parts(count):
    images = image_set(7)
    parts = [images.shard(index, count) for index in range(count)]
    assert [name for part in parts for name in part.ids] == images.ids
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("index", "count"), [(0, 8), (3, 3), (-1, 2)])
def test_shards_that_do_not_exist_are_refused(index, count):
    with pytest.raises(ArgumentError, match="cannot be taken from 7 images"):
        image_set(7).shard(index, count)


@pytest.mark.parametrize(
    ("images", "labels", "ids", "message"),
    [
        (np.zeros((2, 3, 3), np.uint8), np.zeros(2, np.int64), ["a", "b"], r"uint8 \[N, C, H, W\]"),
        (np.zeros((2, 1, 3, 3), np.float32), np.zeros(2, np.int64), ["a", "b"], "not float32"),
        (np.zeros((2, 1, 3, 3), np.uint8), np.zeros(3, np.int64), ["a", "b"], r"labels must be int64 \[2\]"),
        (np.zeros((2, 1, 3, 3), np.uint8), np.zeros(2, np.int32), ["a", "b"], "int32"),
        (np.zeros((2, 1, 3, 3), np.uint8), np.zeros(2, np.int64), ["a", "a"], "2 different names"),
    ],
)
def test_inconsistent_image_sets_are_refused(images, labels, ids, message):
    with pytest.raises(DataError, match=message):
        store.ImageSet(images, labels, ids)


def test_image_sets_survive_a_round_trip(tmp_path):
    images = image_set()
    store.save_image_set(tmp_path / "deep" / "set.npz", images)
    back = store.load_image_set(tmp_path / "deep" / "set.npz")
    np.testing.assert_array_equal(back.images, images.images)
    np.testing.assert_array_equal(back.labels, images.labels)
    assert back.ids == images.ids
    # numpy itself reads the file, without pickles.
    with np.load(tmp_path / "deep" / "set.npz", allow_pickle=False) as archive:
        assert sorted(archive.files) == ["ids", "images", "labels"]
        assert archive["images"].dtype == np.uint8


def test_the_same_arrays_give_the_same_bytes_at_any_time(tmp_path, monkeypatch):
    arrays = {"b": np.arange(5.0), "a": np.eye(3, dtype=np.float32)}
    store.save_npz(tmp_path / "one.npz", arrays)
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    store.save_npz(tmp_path / "two.npz", dict(reversed(arrays.items())))
    one, two = (tmp_path / "one.npz").read_bytes(), (tmp_path / "two.npz").read_bytes()
    assert one == two
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert store.sha256(tmp_path / "one.npz") == hashlib.sha256(one).hexdigest()


def damaged(kind, good):
    if kind == "empty":
        return b""
    if kind == "truncated":
        return good[: len(good) // 2]
    if kind == "flipped":
        middle = len(good) // 2
        return good[:middle] + bytes(byte ^ 0xFF for byte in good[middle : middle + 8]) + good[middle + 8 :]
    return b"this is no zip archive"


@pytest.mark.parametrize("kind", ["empty", "truncated", "flipped", "text"])
def test_a_damaged_npz_is_named_with_its_remedy(tmp_path, kind):
    path = tmp_path / "set.npz"
    rng = np.random.default_rng(1)
    store.save_npz(path, {"noise": rng.integers(0, 256, 20_000, dtype=np.uint8)})
    path.write_bytes(damaged(kind, path.read_bytes()))
    with pytest.raises(DataError, match=r"set\.npz: damaged npz .*; delete it and run again") as caught:
        store.load_npz(path)
    assert "\n" not in str(caught.value)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_an_npz_cannot_run_code(tmp_path):
    trace = tmp_path / "trace"
    path = tmp_path / "evil.npz"
    np.savez(path, images=np.array([Bomb(str(trace))], dtype=object))
    with pytest.raises(DataError, match="damaged npz"):
        store.load_npz(path)
    assert not trace.exists()
    # The file does what it claims to do where pickles are let in, so the refusal above means something.
    np.load(path, allow_pickle=True)["images"]
    assert trace.exists()
    with pytest.raises(ArgumentError, match="Python objects"):
        store.save_npz(tmp_path / "x.npz", {"a": np.array([{}], dtype=object)})


def test_missing_files_and_arrays_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz: no such file; run the step that makes it"):
        store.load_npz(tmp_path / "none.npz")
    store.save_npz(tmp_path / "a.npz", {"a": np.zeros(1)})
    with pytest.raises(DataError, match=r"has no array 'images' \(it has a\)"):
        store.load_image_set(tmp_path / "a.npz")


def test_json_round_trip_and_refusals(tmp_path):
    value = {"ε": [0.25, 1e-3], "n": None, "deep": {"a": True}}
    store.save_json(tmp_path / "a.json", value)
    assert store.load_json(tmp_path / "a.json") == value
    with pytest.raises(ArgumentError, match="cannot be written as JSON"):
        store.save_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()
    (tmp_path / "c.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"c\.json: not readable as JSON"):
        store.load_json(tmp_path / "c.json")


def test_explanations_are_single_precision_and_keep_their_ids(tmp_path):
    path = tmp_path / "shard.npz"
    maps = torch.arange(12, dtype=torch.float64).reshape(2, 1, 2, 3)
    store.save_explanations(path, {"attribution": maps, "rank": np.array([3, 4])}, ["x/1", "x/2"])
    arrays, ids = store.load_explanations(path)
    assert ids == ["x/1", "x/2"]
    assert arrays["attribution"].dtype == np.float32
    assert arrays["rank"].dtype.kind == "i"
    np.testing.assert_array_equal(arrays["attribution"], maps.numpy())
    with pytest.raises(ArgumentError, match="does not belong to 3 images"):
        store.save_explanations(path, {"attribution": maps}, ["a", "b", "c"])


def test_a_foreign_pickle_under_an_npz_name_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    path.write_bytes(pickle.dumps({"images": 1}))
    with pytest.raises(DataError, match="damaged npz"):
        store.load_npz(path)
