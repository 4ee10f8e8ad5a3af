"""Pictures in folders and archives: what is read, and what is refused."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curvelens import datasets
from curvelens.datasets import _cifar, _pictures
from curvelens.errors import DataError

SHARED = Path(os.environ.get("CURVELENS_DATA", Path(__file__).parents[2] / "shared" / "data"))
JPEGS = SHARED / "cifar10_from_jpeg"


def pixels(seed, size=4):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def members(classes=("cat", "dog")):
    """Lossless files, so that pixels can be compared exactly; by name."""
    names = [f"{split}/{name}/{i}.png" for split in ("train", "test") for name in classes for i in range(2)]
    return {name: png(pixels(seed)) for seed, name in enumerate(names)}


def folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def archive(path, files, prefix=""):
    with tarfile.open(path, "w:xz") as tar:
        top = tarfile.TarInfo("./")
        top.type = tarfile.DIRTYPE
        tar.addfile(top)
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def check(found):
    assert found.training == 4
    assert found.names[:3] == ["train/cat/0", "train/cat/1", "train/dog/0"]
    assert found.classes == ["cat", "cat", "dog", "dog"] * 2
    for seed, image in enumerate(found.images):
        np.testing.assert_array_equal(image.transpose(1, 2, 0), pixels(seed))


def test_a_folder_and_its_archive_hold_the_same(tmp_path):
    check(_pictures.read_pictures(folder(tmp_path / "plain", members())))
    packed = archive(tmp_path / "pictures.tar.xz", members(), "./around/")
    check(_pictures.read_pictures(packed))
    (tmp_path / "one").mkdir()
    packed.rename(tmp_path / "one" / packed.name)
    (tmp_path / "one" / "notes.txt").write_text("beside it")
    check(_pictures.read_pictures(tmp_path / "one"))


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"../train/cat/9.png": b""}, r"'\.\./train/cat/9\.png' leads out of the archive"),
        ({"train/cat/../../../x.png": b""}, "leads out of the archive"),
        ({"/train/cat/9.png": b""}, "leads out of the archive"),
        ({"c:\\train\\cat\\9.png": b""}, "leads out of the archive"),
        ({"train/cat/9.png": b"\x89PNG"}, r"train/cat/9\.png is no readable picture"),
        ({"train/cat/9.png": png(pixels(9, 5))}, r"9\.png is 5 x 5, the others are 4 x 4"),
        ({"again/train/cat/0.png": png(pixels(0))}, r"holds train/cat/0\.png twice"),
        ({"train/cat/9.png": bytes(2**20 + 1)}, "has 1,048,577 bytes; pictures here are small"),
    ],
)
def test_what_an_archive_must_not_hold(tmp_path, edit, told):
    with pytest.raises(DataError, match=told) as caught:
        _pictures.read_pictures(archive(tmp_path / "p.tar.xz", members() | edit))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["p.tar.xz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    path = tmp_path / "p.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("train/cat/0.png")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(DataError, match="is a link or a device"):
        _pictures.read_pictures(path)


def test_a_cut_archive_and_a_missing_split_are_named(tmp_path):
    path = archive(tmp_path / "p.tar.xz", members())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"p\.tar\.xz: damaged archive"):
        _pictures.read_pictures(path)
    lacking = {name: content for name, content in members().items() if name.startswith("train")}
    with pytest.raises(DataError, match="no pictures in test/<class>/"):
        _pictures.read_pictures(archive(path, lacking))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nor one archive of them"):
        _pictures.read_pictures(tmp_path / "empty")


def test_cifar10_jpeg_knows_its_classes_and_keeps_the_test_split(tmp_path):
    source = datasets.load(
        "cifar10_jpeg", data_dir=archive(tmp_path / "p.tar.xz", members(_cifar.CLASSES), "cifar/")
    )
    assert source.labels.tolist() == sorted([*range(10), *range(10)]) * 2
    assert source.test.tolist() == list(range(20, 40))
    assert source.ids[20] == "cifar10_jpeg/test/airplane/0"
    assert "JPEG copies compressed with loss" in source.source
    with pytest.raises(DataError, match=r"not those of CIFAR-10 \(unlike: airplane"):
        datasets.load("cifar10_jpeg", data_dir=folder(tmp_path / "two", members()))
    with pytest.raises(DataError, match="set data_dir to the folder with train/ and test/"):
        datasets.load("cifar10_jpeg")
    with pytest.raises(DataError, match="no such folder"):
        datasets.load("mnist", data_dir=tmp_path / "p.tar.xz")


@pytest.mark.slow
@pytest.mark.skipif(not JPEGS.is_dir(), reason="needs the JPEG copies of CIFAR-10 (CURVELENS_DATA)")
def test_the_copies_are_all_there():
    source = datasets.load("cifar10_jpeg", data_dir=JPEGS)
    assert source.images.shape == (60000, 3, 32, 32)
    assert np.bincount(source.labels).tolist() == [6000] * 10
    assert np.bincount(source.labels[source.test]).tolist() == [1000] * 10
