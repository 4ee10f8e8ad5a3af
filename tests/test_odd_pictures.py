"""Pictures as people have them: each kind is read as what it shows, or recorded as its own failure."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from curvelens import datasets
from curvelens.errors import DataError
from curvelens.experiments import distances
from curvelens.reporting import run
from curvelens.store import load_image_set, load_json
from curvelens.summaries import failures

SIDE = 8


def picture():
    """A red half beside a blue one: what turns, swaps or drops channels shows."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, : SIDE // 2, 0] = pixels[:, SIDE // 2 :, 2] = 255
    return Image.fromarray(pixels)


def shown(image):
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def png_of(width, height):
    """A PNG that says it is this large, with the pixels of its first row alone."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + width))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def animated(path, **options):
    first, second = picture(), picture().rotate(180)
    first.save(path, save_all=True, append_images=[second], duration=100, **options)
    return shown(first)


def cmyk_jpeg(path):
    cyan = Image.new("CMYK", (SIDE, SIDE), (255, 0, 0, 0))
    cyan.save(path, quality=100)
    return np.broadcast_to(np.array([0, 255, 255], np.uint8)[:, None, None], (3, SIDE, SIDE))


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture().rotate(180).save(path, exif=exif)
    return shown(picture())


def grey_of_16_bits(path):
    values = np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE).round().astype(np.uint16)
    Image.fromarray(values * 257).save(path)
    return np.broadcast_to(values.astype(np.uint8), (3, SIDE, SIDE))


def see_through(path):
    layer = picture().convert("RGBA")
    layer.putalpha(0)
    layer.save(path)
    return np.full((3, SIDE, SIDE), 255, np.uint8)


def grey(path):
    values = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
    Image.fromarray(values).save(path)
    return np.broadcast_to(values, (3, SIDE, SIDE))


def single_pixel(path):
    Image.new("RGB", (1, 1), (10, 200, 30)).save(path)
    return np.broadcast_to(np.array([10, 200, 30], np.uint8)[:, None, None], (3, SIDE, SIDE))


def long_strip(path):
    strip = Image.new("RGB", (3000, SIDE), "white")
    strip.paste(picture(), ((3000 - SIDE) // 2, 0))
    strip.save(path)
    return shown(picture())


READ = {
    "grey.png": grey,
    "cmyk.jpg": cmyk_jpeg,
    "16 bits.png": grey_of_16_bits,
    "alpha.png": see_through,
    "animated.gif": animated,
    "animated.png": animated,
    "animated.webp": lambda path: animated(path, lossless=True),
    "turned.png": turned,
    "1x1.png": single_pixel,
    "strip.png": long_strip,
}
RNG = np.random.default_rng(0)


def broken():
    """Files that are no picture, or not all of one, with what has to be said of each."""
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    jpeg, png = io.BytesIO(), io.BytesIO()
    noise.save(jpeg, "jpeg")
    noise.save(png, "png")
    return {
        "bomb.png": (png_of(30_000, 30_000), "decompression bomb"),
        "half.png": (png.getvalue()[: len(png.getvalue()) // 2], "truncated"),
        "half.jpg": (jpeg.getvalue()[: len(jpeg.getvalue()) // 2], "truncated"),
        "header.jpg": (jpeg.getvalue()[:20], "is not a picture|cannot be decoded"),
        "text.png": (b"no picture at all", "is not a picture"),
        "empty.jpg": (b"", "is not a picture"),
        "page.tif": (b"%PDF-1.4", "is not a picture"),
    }


@pytest.mark.parametrize("name", READ)
def test_it_is_read_as_what_it_shows(tmp_path, name):
    expected = READ[name](tmp_path / name)
    raw = datasets.load("image_folder", {"size": SIDE}, tmp_path)
    assert raw.failed == {}
    # JPEG and colour conversion may round a value by a few steps.
    slack = 3 if name.endswith(".jpg") else 0
    assert np.abs(raw.images[0].astype(int) - expected).max() <= slack


@pytest.mark.parametrize("name", broken())
def test_it_is_told_what_is_wrong(tmp_path, name):
    content, told = broken()[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"none of 1 pictures can be read; {name} .*({told})") as error:
        datasets.load("image_folder", {"size": SIDE}, tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture
def folder(tmp_path):
    """Every picture above in one folder, prepared as the workflow does."""
    source = tmp_path / "pictures"
    source.mkdir()
    for name, write in READ.items():
        write(source / name)
    for name, (content, _) in broken().items():
        (source / name).write_bytes(content)
    datasets.prepare(
        "image_folder", tmp_path / "data", parameters={"size": SIDE}, validation=0, data_dir=source
    )
    return tmp_path / "data"


def test_what_can_be_read_is_explained(folder):
    images = load_image_set(folder / "test.npz")
    assert sorted(images.ids) == sorted(f"image_folder/{name}" for name in READ)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    table = distances.distances(model, images, dtype=torch.float64)
    assert table["status"].tolist() == ["ok"] * len(READ), table["error"].tolist()


def test_what_cannot_is_counted_as_failed(folder):
    described = load_json(folder / "dataset.json")
    assert described["failed"].keys() == broken().keys()
    row = failures.count({}, {"pets": folder / "dataset.json"}).iloc[0]
    assert (row["experiment"], row["stage"]) == ("pets", "pictures")
    assert (row["images"], row["failed"]) == (len(READ) + len(broken()), len(broken()))
    assert row["share"] == pytest.approx(row["failed"] / row["images"])
    first, reason = next(iter(described["failed"].items()))
    assert row["first_error"] == f"{first}: {reason}"
    shown = str(
        run.failures({}, {"pets": described | {"failed": described["failed"] | {"<b>.png": "is odd"}}})
    )
    assert "pets: pictures" in shown
    assert "bomb.png: cannot be decoded" in shown
    assert "<b>.png" not in shown
    assert "and 3 others" in shown
    with pytest.raises(DataError, match=r"pets/pictures: 7 of 17 images failed"):
        failures.check(failures.count({}, {"pets": folder / "dataset.json"}), 0.1)
