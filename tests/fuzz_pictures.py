"""Fuzzed readers of pictures and of the archives and folders that they come in."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutations import BYTE_EDITS, JUNK, RARELY, TEXTS, edited, few, made, of_seeds
from fuzz_texts import LABELS, csv_of
from fuzzing import Payload, Reader, canary, on_one_line
from hypothesis import strategies as st
from PIL import Image

from curvelens import datasets
from curvelens.datasets import _archives, _cifar, _idx, _pictures
from curvelens.datasets._masks import read_mask
from curvelens.datasets._photographs import imagenet_classes, imagenet_synsets, read_picture

SIZE = 8
_NAMES_KNOWN = imagenet_classes(), imagenet_synsets()  # loads libraries: not in the middle of a case
_RNG = np.random.default_rng(0)


def _saved(mode: str, form: str, size: tuple[int, int] = (9, 7), **options: Any) -> bytes:
    pixels = Image.fromarray(_RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    if mode == "I;16":
        picture = Image.fromarray(_RNG.integers(0, 2**16, size[::-1], dtype=np.uint16))
    elif mode == "F":
        picture = Image.fromarray(_RNG.random(size[::-1], dtype=np.float32))
    else:
        picture = pixels.convert(mode)
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _frames() -> dict[str, Any]:
    return {"save_all": True, "append_images": [Image.new("RGB", (9, 7), "red")], "duration": 100}


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run showpage\n%%EOF\n"
PNGS = [
    *(_saved(mode, "PNG") for mode in ("RGB", "RGBA", "L", "LA", "1", "P", "I;16")),
    _saved("P", "PNG", transparency=3),
    _saved("RGB", "PNG", **_frames()),
    _saved("RGB", "PNG", exif=_turned()),
    _saved("RGB", "PNG", (1, 1)),
]
PICTURES = [
    *PNGS,
    *(_saved(mode, "JPEG") for mode in ("RGB", "L", "CMYK")),
    _saved("RGB", "JPEG", progressive=True, exif=_turned()),
    *(_saved("RGB", form) for form in ("GIF", "BMP", "WEBP", "PPM", "TGA", "ICO", "PCX", "SGI", "DIB", "IM")),
    _saved("RGB", "GIF", **_frames()),
    *(_saved(mode, "TIFF") for mode in ("RGB", "CMYK", "L", "1", "P", "I;16", "F", "RGBA")),
    *(_saved("RGB", "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
    _saved("RGBA", "WEBP", lossless=True),
    _saved("RGB", "JPEG2000"),
    POSTSCRIPT,
]
MASKS = [_saved(mode, form) for mode in ("L", "P", "1", "RGB") for form in ("PNG", "BMP", "TIFF")]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KINDS = [
    b"IHDR",
    b"IDAT",
    b"PLTE",
    b"tRNS",
    b"IEND",
    b"zTXt",
    b"iCCP",
    b"eXIf",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"pHYs",
]


def _chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], len(_SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _png(seed: bytes, edits: list[tuple[Any, ...]]) -> bytes:
    """A PNG whose chunks are changed and whose checksums are right, so that decoders look inside."""
    chunks = _chunks(seed)
    for kind, place, given in edits:
        at = place % len(chunks)
        name, body = chunks[at]
        if kind == "header":
            field, number = given
            form = ">IIBBBBB"
            numbers = list(struct.unpack(form, chunks[0][1][:13].ljust(13, b"\0")))
            numbers[field] = number if field < 2 else number % 256
            chunks[0] = (chunks[0][0], struct.pack(form, *numbers))
        elif kind == "body":
            chunks[at] = (name, edited(body, given))
        elif kind == "packed":
            chunks[at] = (name, zlib.compress(edited(_unpacked(body), given)))
        elif kind == "kind":
            chunks[at] = (given, body)
        elif kind == "copy":
            chunks.insert(at, chunks[given % len(chunks)])
        elif len(chunks) > 1:
            del chunks[at]
    stored = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return _SIGNATURE + b"".join(stored)


def _unpacked(body: bytes) -> bytes:
    try:
        return zlib.decompress(body)
    except zlib.error:
        return body


_PLACE = st.integers(0, 15)
_SIDES = st.sampled_from([0, 1, 2, 7, 8, 64, 5000, 13_377, 30_000, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
_PNG_EDITS = few(
    st.one_of(
        st.tuples(st.just("header"), _PLACE, st.tuples(st.integers(0, 1), _SIDES)),
        st.tuples(st.just("header"), _PLACE, st.tuples(st.integers(2, 6), st.integers(0, 17))),
        st.tuples(st.just("body"), _PLACE, BYTE_EDITS),
        st.tuples(st.just("packed"), _PLACE, BYTE_EDITS),
        st.tuples(st.just("kind"), _PLACE, st.sampled_from(_KINDS)),
        st.tuples(st.just("copy"), _PLACE, _PLACE),
        st.tuples(st.just("drop"), _PLACE, st.none()),
    )
)
_CONTENTS = st.one_of(of_seeds(PICTURES), st.builds(_png, st.sampled_from(PNGS), _PNG_EDITS))


def _read_picture(case: bytes, folder: Path) -> np.ndarray:
    (folder / "picture.png").write_bytes(case)
    return read_picture(folder / "picture.png", SIZE)


def _is_picture(value: np.ndarray) -> None:
    assert value.dtype == np.uint8
    assert value.shape == (3, SIZE, SIZE)


def _read_mask(case: tuple[bytes, bytes], folder: Path) -> np.ndarray:
    picture, mask = folder / "picture.png", folder / "mask.png"
    for file, content in zip((picture, mask), case, strict=True):
        file.write_bytes(content)
    return read_mask(mask, picture, SIZE)


def _is_mask(value: np.ndarray) -> None:
    assert value.dtype == np.uint8
    assert value.shape == (SIZE, SIZE)


_MASK_CASES = st.one_of(
    st.tuples(st.sampled_from(PICTURES), of_seeds(MASKS)),
    st.tuples(of_seeds(PICTURES), st.sampled_from(MASKS)),
    st.tuples(
        st.builds(_png, st.sampled_from(PNGS), _PNG_EDITS), st.builds(_png, st.sampled_from(PNGS), _PNG_EDITS)
    ),
)


def _idx_file(kind: int, shape: list[int], values: int, edits: list[Any]) -> bytes:
    header = bytes([0, 0, kind, len(shape) % 256]) + b"".join(struct.pack(">I", n) for n in shape)
    return edited(header + bytes(values), edits)


_LENGTHS = st.sampled_from([0, 1, 2, 3, 4, 28, 2**16, 2**24, 2**31, 2**32 - 1])
_EXACT = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(
    lambda shape: _idx_file(8, shape, int(np.prod(shape)), [])
)
_IDX = st.one_of(
    st.builds(edited, _EXACT, BYTE_EDITS),
    st.builds(_idx_file, st.just(8), st.lists(_LENGTHS, max_size=70), st.integers(0, 3), st.just([])),
    st.builds(_idx_file, st.integers(0, 14), st.lists(_LENGTHS, max_size=4), st.integers(0, 64), BYTE_EDITS),
)


def _read_idx(case: tuple[bytes, bool, list[Any]], folder: Path) -> np.ndarray:
    content, packed, edits = case
    path = folder / ("images.gz" if packed else "images")
    path.write_bytes(edited(gzip.compress(content, 1, mtime=0), edits) if packed else content)
    # The checksum is that of the content: it guards a download and would hide all else from the cases.
    return _idx.parse_idx(_idx._content(path, hashlib.sha256(content).hexdigest()), path)


def _is_bytes_array(value: np.ndarray) -> None:
    assert value.dtype == np.uint8


def _batch(values: list[tuple[Any, Any]], protocol: int, edits: list[Any]) -> bytes:
    batch: dict[Any, Any] = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1], b"batch_label": b"x"}
    for key, value in values:
        try:
            batch[key] = made(value)
            pickle.dumps(batch, protocol)
        except (TypeError, RecursionError, ValueError):
            batch.pop(key, None)
    return edited(pickle.dumps(batch, protocol), edits)


_ARRAYS = st.sampled_from(
    [
        *(np.zeros(shape, np.uint8) for shape in [(2, 3072), (1, 3072), (2, 1024), (6144,), (0, 3072), ()]),
        *(np.zeros((2, 3072), dtype) for dtype in (np.int64, np.float32, bool, "U1", "M8[s]")),
        *(
            np.array([None, 1], dtype=object),
            np.array([0, 1]),
            np.array(["0", "1"]),
            Payload(),
            canary,
            print,
        ),
        *([0, 1], [0.5, 1], ["0", "x"], [0, 2**70], [[0], [1]], [0], {0, 1}, b"01", "01", 3, None, [-5, 255]),
    ]
)
_OPERATIONS = [
    b"cos\nsystem\n(S'touch x'\ntR.",
    b"cfuzzing\ncanary\n(S'x'\ntR.",
    b"cnumpy\nndarray\n((I99999999999\nttR.",
    b"c_codecs\nencode\n(I1\nI2\ntR.",
    b"c_codecs\nencode\n(S'x'\nS'no such'\ntR.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI63\ntb.",
    b"(" * 5000 + b"t" * 5000 + b".",
    b"]" + b"]" * 100 + b"a" * 100 + b".",
]
_CHANGED = st.builds(
    _batch,
    st.lists(
        st.tuples(st.sampled_from([b"data", b"labels", "data", b"x"]), st.one_of(_ARRAYS, JUNK)), max_size=2
    ),
    st.integers(0, 5),
    RARELY,
)
_BATCHES = st.one_of(_CHANGED, _CHANGED, of_seeds(_OPERATIONS))


def _read_batch(case: bytes, folder: Path) -> Any:
    return _cifar.parse_batch(case, "data_batch_1")


def _is_batch(value: Any) -> None:
    images, labels = value
    assert images.dtype == np.uint8
    assert images.shape == (len(labels), 3, 32, 32)
    assert labels.dtype == np.int64


_SMALL = [PNGS[0], PNGS[1], PNGS[2], PNGS[5]]
_MEMBERS = [f"{part}/{name}/1.png" for part in ("train", "test") for name in ("cat", "dog")]
_NAMES = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(_MEMBERS),
    st.builds("{}/{}/{}.png".format, st.sampled_from(["train", "test", "x"]), st.sampled_from(TEXTS), _PLACE),
)
_TYPES = st.sampled_from(["file", "file", "file", "folder", "link", "hard link", "device", "pipe"])
_ADDED = st.tuples(_NAMES, _TYPES, st.one_of(of_seeds(_SMALL), st.just(bytes(2**21))))
_PACKING = st.sampled_from(["tar", "tar.gz", "tar.xz", "tar.bz2", "zip"])
_FOLDER_CASES = st.fixed_dictionaries(
    {
        "left out": st.sets(st.sampled_from(_MEMBERS), max_size=2),
        "added": st.lists(_ADDED, max_size=2),
        "packing": _PACKING,
        "edits": RARELY,
    }
)
_TAR_TYPES = {
    **{"file": tarfile.REGTYPE, "folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE},
    **{"hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "pipe": tarfile.FIFOTYPE},
}
_ZIP_MODES = {"file": 0o100644, "folder": 0o040755, "link": 0o120777, "device": 0o020666, "pipe": 0o010666}


def _packed(case: dict[str, Any]) -> bytes:
    members = [(name, "file", _SMALL[0]) for name in _MEMBERS if name not in case["left out"]] + case["added"]
    stream = io.BytesIO()
    if case["packing"] == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, kind, content in members:
                info = zipfile.ZipInfo(_encodable(name) or "x")
                info.external_attr = _ZIP_MODES.get(kind, 0o100644) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, content)
    else:
        mode = case["packing"].removeprefix("tar").removeprefix(".")
        with tarfile.open(fileobj=stream, mode=f"w:{mode}") as archive:
            for name, kind, content in members:
                info = tarfile.TarInfo(_encodable(name))
                info.type, info.size = _TAR_TYPES[kind], len(content) if kind == "file" else 0
                info.linkname = "../../etc/passwd" if "link" in kind else ""
                archive.addfile(info, io.BytesIO(content))
    return edited(stream.getvalue(), case["edits"])


def _encodable(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:200].replace("\0", "0")


def _read_small(case: dict[str, Any], folder: Path) -> Any:
    packing = "tar" if case["packing"] == "zip" else case["packing"]
    path = folder / f"small.{packing}"
    path.write_bytes(_packed({**case, "packing": packing}))
    return _pictures.read_pictures(path)


def _is_small(value: Any) -> None:
    assert value.images.dtype == np.uint8
    assert len(value.images) == len(value.names) == len(value.classes) > value.training > 0


def _read_archive(case: dict[str, Any], folder: Path) -> list[str]:
    path = folder / f"pictures.{case['packing']}"
    path.write_bytes(_packed(case))
    with _archives.unpacked(path, 2**20) as inside:
        files = [file for file in inside.rglob("*") if file.is_file()]
        assert all(file.resolve().is_relative_to(folder.resolve()) for file in files)
        assert not any(file.is_symlink() for file in inside.rglob("*"))
        assert sum(file.stat().st_size for file in files) <= 2**20
        names = [str(file.relative_to(inside)) for file in files]
    assert not inside.exists()
    return names


def _is_listing(value: list[str]) -> None:
    assert len(set(value)) == len(value)


_PARAMETERS = st.fixed_dictionaries(
    {
        "classes": st.sampled_from(["folders", "folders", "imagenet"]),
        "pictures": st.sampled_from(["pictures", "pictures", "pictures", "pictures", ".", "missing"]),
    },
    optional={
        "table": st.just("labels.csv"),
        "masks": st.sampled_from(["masks", "masks", "missing"]),
        "mask_values": st.just({1: "cat", 2: "dog"}),
        "class_names": st.sampled_from([["cat", "dog"], ["cat", "bird"]]),
        "most": st.integers(1, 3),
        "trainable": st.booleans(),
    },
)
_IMAGE_FOLDERS = st.fixed_dictionaries(
    {
        "files": st.dictionaries(
            st.one_of(
                st.sampled_from(
                    ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", "3.jpg", "n01440764_1.png"]
                ),
                st.builds("{}/1.png".format, st.sampled_from(TEXTS)),
                st.builds("cat/{}.png".format, st.sampled_from(TEXTS)),
                st.builds("../masks/{}".format, st.sampled_from(["cat/1.png", "1.png", "dog/1.png"])),
            ),
            st.one_of(st.sampled_from(PICTURES), _CONTENTS, st.sampled_from(MASKS)),
            max_size=3,
        ),
        "labels": csv_of(LABELS),
        "parameters": _PARAMETERS,
        "whole": st.sampled_from([True, True, True, False]),
    }
)


def _read_image_folder(case: dict[str, Any], folder: Path) -> Any:
    root = folder / "data"
    shutil.rmtree(root, ignore_errors=True)
    (root / "pictures").mkdir(parents=True)
    files = dict(case["files"])
    if case["whole"]:
        files = dict.fromkeys(("cat/1.png", "dog/1.png", "cat/2.png"), _SMALL[0]) | files
        files["../masks/cat/1.png"] = MASKS[0]
    for name, content in {**files, "labels.csv": case["labels"]}.items():
        file = Path(os.path.normpath(root / "pictures" / name.lstrip("/")))
        if not file.is_relative_to(root):
            continue
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        except (OSError, ValueError):  # no such name can be given to a file here
            continue
    return datasets.load("image_folder", {"size": SIZE, **case["parameters"]}, root)


def _is_dataset(value: Any) -> None:
    count = len(value.ids)
    assert value.images.dtype == np.uint8
    assert value.images.shape == (count, 3, SIZE, SIZE)
    assert value.labels.shape == (count,) == (len(set(value.ids)),)
    assert value.labels.min() >= -1
    assert value.labels.max() < len(value.class_names)
    assert value.masks is None or value.masks.shape == (count, SIZE, SIZE)
    assert all(map(on_one_line, [*value.ids, *value.failed, *value.failed.values()]))


READERS = [
    Reader("pictures", _CONTENTS, _read_picture, _is_picture, share=12),
    Reader("masks", _MASK_CASES, _read_mask, _is_mask, share=6),
    Reader("small pictures", _FOLDER_CASES, _read_small, _is_small, ("small.tar",), share=5),
    Reader(
        "idx",
        st.tuples(_IDX, st.booleans(), RARELY),
        _read_idx,
        _is_bytes_array,
        ("images",),
        share=8,
    ),
    Reader("CIFAR batches", _BATCHES, _read_batch, _is_batch, ("data_batch_1",), share=10),
    Reader("archives", _FOLDER_CASES, _read_archive, _is_listing, ("pictures.",), share=6),
    Reader("image folders", _IMAGE_FOLDERS, _read_image_folder, _is_dataset, share=5),
]
