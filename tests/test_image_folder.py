"""Folders, tables and archives of pictures as data sets, and what is wrong with some."""

import hashlib
import io
import os
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curvelens import datasets
from curvelens.config import load as load_config
from curvelens.datasets import _download
from curvelens.datasets._archives import unpacked
from curvelens.datasets._masks import read_mask
from curvelens.errors import ConfigError, DataError
from curvelens.store import ImageSet, load_image_set, load_json

SHARED = Path(os.environ.get("CURVELENS_DATA", Path(__file__).parents[2] / "shared" / "data"))
ODD = """<img src=x onerror=alert(1)> it's "5 < 6" & größer 猫 $x$.png"""
OWN = {"classes": "folders", "size": 16}


def draw(path, seed=0, size=(16, 16)):
    """Write a picture of noise and return its pixels, [3, H, W]."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels.transpose(2, 0, 1)


def test_class_folders_are_read_as_torchvision_reads_them(tmp_path):
    from torchvision.datasets import ImageFolder

    names = ("dog/b.png", "cat/z.png", "cat/a.png", "Ant/1.png", f"dog/{ODD}")
    for seed, name in enumerate(names):
        draw(tmp_path / name, seed)
    ours, theirs = datasets.load("image_folder", OWN, tmp_path), ImageFolder(str(tmp_path))
    assert ours.class_names == theirs.classes
    by_id = dict(zip(ours.ids, zip(ours.images, ours.labels, strict=True), strict=True))
    assert len(by_id) == len(names)
    for (path, label), (picture, _) in zip(theirs.samples, theirs, strict=True):
        pixels, own = by_id[f"image_folder/{Path(path).relative_to(tmp_path).as_posix()}"]
        assert own == label
        np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.asarray(picture))


def test_train_and_test_are_kept_apart(tmp_path):
    for part in ("train", "test"):
        for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
            draw(tmp_path / part / name)
    raw = datasets.load("image_folder", {**OWN, "trainable": True}, tmp_path)
    parts = datasets.split(raw, validation=2)
    assert {name.split("/")[1] for name in parts["test"].ids} == {"test"}
    assert {name.split("/")[1] for name in [*parts["train"].ids, *parts["validation"].ids]} == {"train"}
    assert [len(part) for part in parts.values()] == [2, 2, 4]
    draw(tmp_path / "test" / "cow" / "1.png")
    with pytest.raises(DataError, match="class 'cow' is in one of train and test alone"):
        datasets.load("image_folder", OWN, tmp_path)
    (tmp_path / "extra").mkdir()
    with pytest.raises(DataError, match="'extra' beside train and test"):
        datasets.load("image_folder", OWN, tmp_path)


def test_an_empty_class_folder_is_named(tmp_path):
    draw(tmp_path / "cat" / "1.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("later")
    with pytest.raises(DataError, match="class folder 'dog' holds no pictures; put some there, or remove it"):
        datasets.load("image_folder", OWN, tmp_path)
    (tmp_path / "dog" / "1.png").write_text("no picture")
    with pytest.raises(DataError, match="no picture of class 'dog' can be read"):
        datasets.load("image_folder", OWN, tmp_path)


def test_given_classes_fix_the_order_and_leave_others_unlabelled(tmp_path):
    for name in ("dog/1.png", "loose.png"):
        draw(tmp_path / name)
    chosen = {**OWN, "class_names": ["wolf", "dog"]}
    raw = datasets.load("image_folder", chosen, tmp_path)
    assert (raw.class_names, raw.labels.tolist()) == (["wolf", "dog"], [1, -1])
    with pytest.raises(DataError, match=r"'dog' is none of parameters\.class_names"):
        datasets.load("image_folder", {**chosen, "class_names": ["wolf", "cat"]}, tmp_path)
    with pytest.raises(DataError, match=r"no folder photos; correct parameters\.pictures"):
        datasets.load("image_folder", {**chosen, "pictures": "photos"}, tmp_path)


# ---------------------------------------------------------------- tables


def table(folder, text, name="list.csv"):
    (folder / name).write_text(text, encoding="utf-8-sig")
    return {**OWN, "table": name}


def test_a_table_gives_labels_sources_terms_and_further_columns(tmp_path):
    pixels = [draw(tmp_path / name, seed) for seed, name in enumerate(("a.png", "deep/b, c.png", "d.png"))]
    chosen = table(
        tmp_path,
        "path,label,source,licence,split,year\n"
        "d.png,dog,https://x.org/d?a=1&b=<2>,CC0,test,1999\n"
        '"deep/b, c.png",cat,,CC BY 4.0,train,\n'
        "a.png,dog,https://x.org/a,,train,2001\n",
    )
    raw = datasets.load("image_folder", chosen, tmp_path)
    assert raw.ids == ["image_folder/a.png", "image_folder/d.png", "image_folder/deep/b, c.png"]
    np.testing.assert_array_equal(raw.images, [pixels[0], pixels[2], pixels[1]])
    assert (raw.class_names, raw.labels.tolist(), raw.test.tolist()) == (["cat", "dog"], [1, 1, 0], [1])
    assert raw.origins == {
        "image_folder/a.png": "https://x.org/a",
        "image_folder/d.png": "https://x.org/d?a=1&b=<2>; CC0",
        "image_folder/deep/b, c.png": "CC BY 4.0",
    }
    assert [facts["year"] for facts in raw.facts.values()] == ["2001", "1999", ""]


def test_columns_can_be_named_and_counted(tmp_path):
    for name in "abcd":
        draw(tmp_path / f"{name}.png")
    chosen = table(
        tmp_path,
        "name,picture,n_cats,n_dogs\n1,a.png,0,2\n2,b.png,3plus,0\n3,c.png,1,1\n4,d.png,0,\n",
    )
    columns = {"path": "picture", "id": "name", "classes": {"cat": "n_cats", "dog": "n_dogs"}}
    chosen |= {"columns": columns, "class_names": ["cat", "dog"]}
    raw = datasets.load("image_folder", chosen, tmp_path)
    assert raw.ids == [f"image_folder/{i}" for i in range(1, 5)]
    assert raw.labels.tolist() == [1, 0, -1, -1]
    assert raw.facts["image_folder/2"] == {"n_cats": "3plus", "n_dogs": "0"}
    with pytest.raises(
        DataError, match=r"no column 'dogs' \(it has name, picture, n_cats, n_dogs\); .*classes"
    ):
        datasets.load(
            "image_folder", {**chosen, "columns": {**columns, "classes": {"dog": "dogs"}}}, tmp_path
        )
    with pytest.raises(DataError, match=r"no column 'path'.*parameters\.columns\.path"):
        datasets.load("image_folder", {**chosen, "columns": {}}, tmp_path)


def test_a_missing_file_of_a_table_is_left_out_and_recorded(tmp_path, caplog):
    draw(tmp_path / "a.png")
    draw(tmp_path.parent / "outside.png")
    draw(tmp_path / "b.png", 1)
    chosen = table(tmp_path, "path,label\na.png,x\ngone.png,x\n../outside.png,y\nb.png,y\n")
    raw = datasets.load("image_folder", chosen, tmp_path)
    assert raw.ids == ["image_folder/a.png", "image_folder/b.png"]
    assert raw.failed["gone.png"] == "is not there; correct the table, or add the file"
    assert "leads out of the folder" in raw.failed["../outside.png"]
    assert "gone.png" in caplog.text
    chosen = table(tmp_path, "path,label\ngone.png,x\nlost.png,y\n")
    with pytest.raises(DataError, match=r"none of 2 pictures can be read; gone\.png is not there"):
        datasets.load("image_folder", chosen, tmp_path)


def test_two_pictures_with_one_id_are_refused(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", 1)
    chosen = table(tmp_path, "path,label,id\na.png,x,1\nb.png,y,1\n") | {"columns": {"id": "id"}}
    with pytest.raises(DataError, match=r"'a\.png' and 'b\.png' have the same id '1'") as caught:
        datasets.load("image_folder", chosen, tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"the same id 'a\.png'"):
        datasets.load("image_folder", table(tmp_path, "path,label\na.png,x\na.png,y\n"), tmp_path)


def test_two_spellings_of_one_name_are_one_id(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    draw(tmp_path / "cat" / decomposed)
    draw(tmp_path / "dog" / "1.png")
    assert datasets.load("image_folder", OWN, tmp_path).ids[0] == f"image_folder/cat/{composed}"
    draw(tmp_path / "cat" / composed)
    if len(list((tmp_path / "cat").iterdir())) == 2:  # on a file system that tells them apart
        with pytest.raises(DataError, match="have the same id 'cat/é"):
            datasets.load("image_folder", OWN, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'path' .it has none"),
        ("path,label\n", "lists no pictures"),
        ("path,label\na.png,x,y\n", "row 2 has more cells than the header"),
        ("path,label,split\na.png,x,dev\n", "row 2 belongs to 'dev'; write train or test"),
        ('path,label\n"a.png,x\n', "no CSV in UTF-8"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path, text, message):
    draw(tmp_path / "a.png")
    with pytest.raises(DataError, match=message):
        datasets.load("image_folder", table(tmp_path, text), tmp_path)
    with pytest.raises(DataError, match="no such table"):
        datasets.load("image_folder", {**OWN, "table": "other.csv"}, tmp_path)
    (tmp_path / "list.csv").write_bytes(b"path\n\xff\xfe.png")
    with pytest.raises(DataError, match="no CSV in UTF-8"):
        datasets.load("image_folder", {**OWN, "table": "list.csv"}, tmp_path)


# ---------------------------------------------------------------- names


def test_odd_names_are_ids_that_survive_every_file(tmp_path):
    """Spaces, quotes, other scripts and HTML; the last two cannot be an id and are left out."""
    draw(tmp_path / "in" / "cat" / ODD)
    draw(tmp_path / "in" / "dog" / "1.png")
    draw(tmp_path / "in" / "dog" / "two\nlines.png")
    with open(os.path.join(os.fsencode(tmp_path / "in" / "dog"), b"\xff.png"), "wb") as stream:
        stream.write((tmp_path / "in" / "dog" / "1.png").read_bytes())
    splits = datasets.prepare(
        "image_folder", tmp_path / "out", parameters=OWN, validation=0.2, data_dir=tmp_path / "in"
    )
    assert f"image_folder/cat/{ODD}" in splits["test"].ids
    back = load_image_set(tmp_path / "out" / "test.npz")
    assert back.ids == splits["test"].ids
    failed = load_json(tmp_path / "out" / "dataset.json")["failed"]
    assert failed.keys() == {"dog/two\\nlines.png", "dog/\\udcff.png"}
    assert all("rename it" in reason for reason in failed.values())


# ---------------------------------------------------------------- masks


def test_masks_are_cut_like_their_pictures(tmp_path):
    """Every pixel of a mask scaled by the nearest pixel is the mask's at the centre of the new pixel."""
    draw(tmp_path / "photos" / "a.jpg", size=(40, 20))
    mask = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (20, 40))
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    draw(tmp_path / "photos" / "b.jpg", size=(20, 20))
    chosen = {**OWN, "size": 10, "pictures": "photos", "masks": "masks", "class_names": ["cat", "dog"]}
    raw = datasets.load("image_folder", chosen, tmp_path)
    square = mask[:, 10:30]
    centre = ((np.arange(10) + 0.5) * 2).astype(int)
    np.testing.assert_array_equal(raw.masks[0], square[np.ix_(centre, centre)])
    assert (raw.masks[1] == 255).all()
    assert raw.failed == {"mask of b.jpg": "is not there; draw one, or do without"}
    assert raw.image_set().subset([1]).masks.shape == (1, 10, 10)


def test_a_mask_is_turned_with_its_picture(tmp_path):
    picture, mask = Image.new("RGB", (6, 4)), np.arange(24, dtype=np.uint8).reshape(4, 6)
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    picture.save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(mask).save(tmp_path / "a.png")
    turned = np.rot90(mask, -1)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", tmp_path / "a.jpg", 4), turned[1:5])
    Image.fromarray(turned.copy()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", tmp_path / "a.jpg", 4), turned[1:5])
    Image.fromarray(mask[:, :3].copy()).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="is 3 x 4 pixels, its picture 4 x 6"):
        read_mask(tmp_path / "a.png", tmp_path / "a.jpg", 4)
    picture.save(tmp_path / "a.png")
    with pytest.raises(DataError, match="of mode RGB, not of whole numbers"):
        read_mask(tmp_path / "a.png", tmp_path / "a.jpg", 4)


def test_a_palette_mask_counts_by_its_indices_and_gives_the_class(tmp_path):
    draw(tmp_path / "p" / "a.png")
    draw(tmp_path / "p" / "b.png", 1)
    for name, values in (("a", [0, 2, 255, 2]), ("b", [0, 1, 2, 255])):
        picture = Image.fromarray(np.resize(np.array(values, np.uint8), (16, 16)))
        picture.putpalette([255, 0, 0] * 256)
        (tmp_path / "m").mkdir(exist_ok=True)
        picture.save(tmp_path / "m" / f"{name}.png")
    chosen = {**OWN, "pictures": "p", "masks": "m", "class_names": ["cat", "dog"]}
    raw = datasets.load("image_folder", chosen | {"mask_values": {1: "cat", 2: "dog"}}, tmp_path)
    assert set(np.unique(raw.masks[0])) == {0, 2, 255}
    assert raw.labels.tolist() == [1, -1]
    datasets.prepare(
        "image_folder", tmp_path / "out", parameters=chosen | {"mask_values": {"2": "dog"}}, data_dir=tmp_path
    )
    np.testing.assert_array_equal(
        np.sort(load_image_set(tmp_path / "out" / "test.npz").masks, axis=0), np.sort(raw.masks, axis=0)
    )
    assert load_json(tmp_path / "out" / "dataset.json")["mask_values"] == {"2": "dog"}
    with pytest.raises(DataError, match=r"masks must be uint8 \[2, 16, 16\]"):
        ImageSet(raw.images, raw.labels, raw.ids, raw.masks[:, :8])


@pytest.mark.skipif(not (SHARED / "oxford_pets_26").is_dir(), reason="needs photographs with masks")
def test_pets_take_their_class_from_their_masks():
    chosen = {**OWN, "size": 32, "pictures": "images", "masks": "trimaps", "class_names": ["cat", "dog"]}
    raw = datasets.load(
        "image_folder", chosen | {"mask_values": {1: "cat", 2: "dog"}}, SHARED / "oxford_pets_26"
    )
    # The Oxford pets' names of cats begin with a capital letter, those of dogs do not.
    assert raw.labels.tolist() == [int(name.split("/")[1][0].islower()) for name in raw.ids]
    assert not raw.failed


# ---------------------------------------------------------------- archives


def pack(path, files, kind="zip", **extra):
    """Write an archive of (name, bytes); extra: members that are no plain files."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files:
                archive.writestr(name, content)
            for name, mode in extra.items():
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                archive.writestr(info, "target")
        return path
    with tarfile.open(path, f"w:{kind}") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, type_ in extra.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = type_, "/etc/passwd"
            archive.addfile(info)
    return path


def packed_pictures(tmp_path):
    """Names and bytes of three pictures, in a folder that surrounds them."""
    found = []
    for seed, name in enumerate(("cat/1.png", f"cat/{ODD}", "dog/1.png")):
        draw(tmp_path / "plain" / name, seed)
        found.append((f"pets-main/{name}", (tmp_path / "plain" / name).read_bytes()))
    return found


@pytest.mark.parametrize("kind", ["zip", "gz", "xz", ""])
def test_an_archive_is_its_folder(tmp_path, kind):
    files = packed_pictures(tmp_path)
    path = pack(tmp_path / "pets", [*files, ("__MACOSX/pets-main/._1.png", b"junk")], kind)
    packed, plain = (datasets.load("image_folder", OWN, place) for place in (path, tmp_path / "plain"))
    assert (packed.ids, packed.sha256, packed.class_names) == (plain.ids, plain.sha256, plain.class_names)


@pytest.mark.parametrize(
    ("name", "kind", "extra"),
    [
        ("/etc/x.png", "zip", {}),
        ("a/../../x.png", "zip", {}),
        ("a\\..\\..\\x.png", "zip", {}),
        ("C:/x.png", "gz", {}),
        ("../x.png", "gz", {}),
        ("ok.png", "gz", {"x.png": tarfile.SYMTYPE}),
        ("ok.png", "gz", {"x.png": tarfile.LNKTYPE}),
        ("ok.png", "gz", {"x.png": tarfile.FIFOTYPE}),
        ("ok.png", "zip", {"x.png": 0o120777}),
    ],
)
def test_unsafe_archives_are_refused(tmp_path, name, kind, extra):
    path = pack(tmp_path / "evil", [(name, b"x")], kind, **extra)
    before = sorted(tmp_path.parent.rglob("x.png"))
    message = "is a link or a device" if extra else "leads out of the archive"
    with pytest.raises(DataError, match=message), unpacked(path, 1e9):
        pass
    assert sorted(tmp_path.parent.rglob("x.png")) == before


def test_an_archive_may_not_unpack_to_more_than_is_allowed(tmp_path):
    path = pack(tmp_path / "bomb", [("a/1.png", bytes(60_000)), ("b/1.png", bytes(60_000))])
    with unpacked(path, 120_000) as folder:
        assert (folder / "b" / "1.png").stat().st_size == 60_000
    assert not folder.exists()
    with pytest.raises(DataError, match=r"more than is allowed \(at 'b/1\.png'\).*unpacked_gib"):
        datasets.load("image_folder", OWN | {"unpacked_gib": 1e-4}, path)
    with (
        pytest.raises(DataError, match="holds 'a' twice"),
        unpacked(pack(tmp_path / "twice", [("a", b"1"), ("a", b"2")], "gz"), 1e9),
    ):
        pass
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be unpacked"):
        datasets.load("image_folder", OWN, path)


def test_an_archive_is_downloaded_checked_and_kept(tmp_path, server, monkeypatch):
    content = pack(tmp_path / "pets.zip", packed_pictures(tmp_path)).read_bytes()
    server.answers["/pets"] = [content]
    chosen = OWN | {"url": server.url("/pets"), "sha256": hashlib.sha256(content).hexdigest()}
    for _ in range(2):
        raw = datasets.load("image_folder", chosen, cache_dir=tmp_path / "cache")
    assert server.asked == ["/pets"]
    assert (len(raw.images), raw.source) == (3, chosen["url"])
    # As the workflow fetches it, beside other files of that source; and replaced by a folder of one's own.
    name = f"{chosen['sha256'][:16]}.archive"
    assert datasets.load("image_folder", chosen, tmp_path / "cache" / "image_folder").ids == raw.ids
    assert (tmp_path / "cache" / "image_folder" / name).is_file()
    assert datasets.load("image_folder", chosen, tmp_path / "plain").ids == raw.ids
    monkeypatch.setattr(_download.time, "sleep", lambda seconds: None)
    with pytest.raises(DataError, match=f"SHA-256 is {chosen['sha256']}, not 0000"):
        datasets.load("image_folder", chosen | {"sha256": "0" * 64}, cache_dir=tmp_path / "other")
    server.answers["/pets"] = [503]
    with pytest.raises(DataError, match=r"could not be downloaded: http://127.*503.*set data_dir"):
        datasets.load("image_folder", chosen, cache_dir=tmp_path / "other")


def test_the_configuration_is_checked(tmp_path):
    raw = {
        "datasets": {"own": {"source": "image_folder"}},
        "models": {"m": {"dataset": "own"}},
        "experiments": {"e": {"model": "m"}},
    }
    for wrong, message in (
        ({"url": "https://x.org/a.zip"}, "url is given without sha256"),
        ({"url": "ftp://x.org/a.zip"}, r"parameters\.url"),
        ({"masks": "../masks"}, "masks = '../masks' leads out of data_dir"),
        ({"class_names": ["a", "b"]}, "set classes to folders"),
        ({"mask_values": {255: "cat"}}, "mask_values"),
    ):
        raw["datasets"]["own"]["parameters"] = wrong
        with pytest.raises(ConfigError, match=message):
            load_config(raw)
    raw["datasets"]["own"]["parameters"] = {"masks": "m", "mask_values": {1: "cat"}}
    dumped = load_config(raw).datasets["own"].parameters
    assert load_config({**raw, "datasets": {"own": {"source": "image_folder", "parameters": dumped}}})
