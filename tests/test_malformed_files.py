"""What fuzzing found, one small case each: files that once led to another exception, to a hang or too far."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import EpsImagePlugin, Image

from curvelens import manifest, models, store, tables
from curvelens.config import load
from curvelens.datasets import _cifar, _idx, _pictures
from curvelens.datasets._listing import Columns, list_table
from curvelens.datasets._masks import find_mask, read_mask
from curvelens.datasets._photographs import read_picture
from curvelens.errors import ConfigError, DataError, ModelError
from curvelens.figures import inputs
from curvelens.registry import Parameters, Registry
from curvelens.spirometry import read_curves
from curvelens.summaries import failures

TINY = {"architecture": "mlp", "parameters": {"hidden": [3]}, "classes": 2, "image_shape": [1, 2, 2]}
LONG = "x" * 300  # longer than any file may be called


def npy(header, content=b""):
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def header(dtype, shape):
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"


def image_set(path, **members):
    """An image set of two images with some members replaced: by an array, or by bytes as they stand."""
    arrays = {"images": np.zeros((2, 1, 3, 3), np.uint8), "labels": np.arange(2), "ids": np.array(["a", "b"])}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in {**arrays, **members}.items():
            stream = io.BytesIO()
            if isinstance(array, bytes):
                stream.write(array)
            else:
                np.lib.format.write_array(stream, array)
            archive.writestr(f"{name}.npy", stream.getvalue())
    return path


@pytest.mark.parametrize(("member", "told"), [
    (npy(header("<f8", "(99999999999,)"), bytes(8)), "another size than its header"),
    (npy(header("<f8", "(4294967296, 4294967296)"), bytes(8)), "another size than its header"),
    (npy(header("|u1", "(-2,)"), b""), "damaged npz"),
    (npy(header("|u1", "(2,"), bytes(2)), "damaged npz"),  # the tokenizer's own exception
    (npy(header("|O", "(2,)"), pickle.dumps([1, 2])), "holds objects"),
    (b"no array at all", "damaged npz"),
    (npy("[" * 300 + "]" * 300), "damaged npz"),
    (np.uint8(3), "images must be uint8"),
])  # fmt: skip
def test_an_array_takes_no_more_memory_than_its_file_can_fill(tmp_path, member, told):
    path = image_set(tmp_path / "a.npz", images=member)
    with pytest.raises(DataError, match=rf"a\.npz: .*{told}.*; delete it and run again") as error:
        store.load_image_set(path)
    assert str(error.value).isprintable()


def test_an_array_that_could_not_have_been_packed_so_small_is_refused(tmp_path):
    path = image_set(tmp_path / "a.npz", images=npy(header("|u1", "(1,)"), b"\0"))
    with zipfile.ZipFile(path) as archive:
        packed = archive.getinfo("images.npy").compress_size
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"images.npy"))
    content[at + 24 : at + 28] = struct.pack("<I", 1032 * packed + 1)  # its size in the directory
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images\.npy' cannot unpack to"):
        store.load_image_set(path)


@pytest.mark.parametrize("ids", [
    *(np.array([1, 2]), np.array([b"a", b"b"]), np.array("a"), np.array(["a", "b\n"])),
    *(np.array(["a", "\x1b[31m"]), np.array([97, 2**31 - 1], dtype=np.uint32).view("<U1")),
])  # fmt: skip
def test_ids_are_names_of_one_line(tmp_path, ids):
    path = image_set(tmp_path / "a.npz", ids=ids)
    for read in (store.load_image_set, store.load_explanations):
        with pytest.raises(DataError, match=r"a\.npz: ids are no names"):
            read(path)


def test_an_array_given_twice_is_refused(tmp_path):
    path = image_set(tmp_path / "a.npz")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("ids.npy", b"")
    with pytest.raises(DataError, match="comes twice"):
        store.load_image_set(path)


def test_a_regression_set_without_axes_is_refused(tmp_path):
    names = np.array(["a"])
    store.save_npz(tmp_path / "a.npz", {"inputs": np.float32(1), "targets": np.ones(1, "f4"), "ids": names})
    with pytest.raises(DataError, match=r"inputs must be float32 \[N"):
        store.load_regression_set(tmp_path / "a.npz")


@pytest.mark.parametrize(("text", "told"), [
    ('{"a": NaN}', "NaN is no number"), ("[" * 10**5, "RecursionError"), ("9" * 5000, "not readable"),
])  # fmt: skip
def test_json_is_only_what_it_may_be(tmp_path, text, told):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=told):
        store.load_json(tmp_path / "a.json")


@pytest.mark.parametrize("shape", [
    [2**16] * 4,  # their product is 0 in 64 bits
    [0, 2**32 - 1, 2**32 - 1],  # numpy counts even the bytes of empty arrays
    [1] * 70,  # more axes than numpy knows
])  # fmt: skip
def test_idx_lengths_are_not_believed(tmp_path, shape):
    values = b"x" if shape[-1] == 1 else b""
    content = bytes([0, 0, 8, len(shape)]) + b"".join(struct.pack(">I", n) for n in shape) + values
    with pytest.raises(DataError, match=r"images: holds . bytes where its header states"):
        _idx.parse_idx(content, tmp_path / "images")


def nested(levels):
    value = [1]
    for _ in range(levels):
        value = [value] * 9
    return value


@pytest.mark.parametrize("content", [
    b"c_codecs\nencode\n(I1\nI2\ntR.",  # AttributeError
    b"cnumpy\nndarray\n((I99999999999\nttR.",  # MemoryError
    pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 2**70]}),  # OverflowError
    pickle.dumps({b"data": nested(40), b"labels": [0]}),  # numpy looks at each of 9 ** 40 values
    pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": nested(40)}),
    pickle.dumps({b"data": np.array([None, 1], dtype=object), b"labels": [0]}),
    pickle.dumps({b"data": np.zeros((2, 3072), "f4"), b"labels": [0, 1]}),
    pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [0]}).replace(b"M\0\x0c", b"M\0\x7c"),
])  # fmt: skip
def test_a_damaged_batch_is_refused_whatever_it_leads_to(content):
    with pytest.raises(DataError, match="data_batch_1: no CIFAR-10 batch"):
        _cifar.parse_batch(content, "data_batch_1")


def test_postscript_is_not_run_under_another_name(tmp_path, monkeypatch):
    def interpreter(*arguments, **options):
        raise AssertionError("PostScript was handed to an interpreter")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", interpreter)
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "cat.jpg").write_bytes(page)
    with Image.open(tmp_path / "cat.jpg") as opened, pytest.raises(AssertionError, match="handed"):
        opened.load()  # what Pillow alone would do
    with pytest.raises(DataError, match="is not a picture"):
        read_picture(tmp_path / "cat.jpg", 8)


def test_small_pictures_are_small_and_whole(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    good, wide = io.BytesIO(), io.BytesIO()
    noise.save(good, "PNG")
    Image.new("RGB", (1025, 1)).save(wide, "PNG")
    at = good.getvalue().index(b"IDAT") - 4
    short = good.getvalue()[:at] + bytes(4) + good.getvalue()[at + 4 :]  # its pixels are taken for a chunk
    for part in ("train", "test"):
        (tmp_path / part / "cat").mkdir(parents=True)
        (tmp_path / part / "cat/1.png").write_bytes(good.getvalue())
    assert len(_pictures.read_pictures(tmp_path).images) == 2
    for content in (short, wide.getvalue()):
        (tmp_path / "test/cat/1.png").write_bytes(content)
        with pytest.raises(DataError, match=r"test/cat/1\.png is no readable picture"):
            _pictures.read_pictures(tmp_path)


def test_a_mask_of_a_damaged_picture_is_refused(tmp_path):
    Image.new("L", (9, 7)).save(tmp_path / "mask.png")
    for content in (b"", b"RIFF\xa2\0\0\0WEBPVP8 ", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
        (tmp_path / "picture.png").write_bytes(content)
        with pytest.raises(DataError, match=r"is not a picture|cannot be decoded"):
            read_mask(tmp_path / "mask.png", tmp_path / "picture.png", 8)


def test_names_that_no_file_can_have_are_missing_files(tmp_path):
    (tmp_path / "labels.csv").write_text(f"path\n{LONG}.png\n")
    (one,) = list_table(tmp_path, "labels.csv", Columns())
    assert "is not there" in one.problem
    assert find_mask(tmp_path, tmp_path / f"{LONG}.png") is None
    with pytest.raises(ConfigError, match="there is no file x"):
        models.REGISTRY.get("torchvision").parse({"model": "resnet18", "class_names": LONG})


def test_class_names_of_a_file_are_one_line_each(tmp_path):
    (tmp_path / "names.json").write_text(json.dumps(["cat", "dog\n"]))
    with pytest.raises(ConfigError, match="no list of names, one line each"):
        models.REGISTRY.get("torchvision").parse(
            {"model": "resnet18", "class_names": str(tmp_path / "names.json")}
        )


@pytest.mark.parametrize(("change", "told"), [
    ({"architecture": None}, r"model\.json: unknown architecture 'None'"),
    ({"architecture": {}}, r"model\.json: unknown architecture"),
    ({"parameters": "mlp"}, r"model\.json: parameters: is 'mlp', not keys with values"),
    ({"parameters": {"hiden": [3]}}, r"model\.json: .*hiden"),
    ({"classes": {}}, r"model\.json: classes or image_shape are no whole numbers"),
    ({"image_shape": ["1", 2, 2]}, r"model\.json: classes or image_shape are no whole numbers"),
    ({"classes": 2**60}, r"model\.json: mlp cannot be built for 1152921504606846976 classes"),
    ({"image_shape": [1, 2**62, 2**62]}, r"model\.json: mlp cannot be built for .*; choose smaller numbers"),
])  # fmt: skip
def test_a_description_that_fits_no_network_is_named(tmp_path, change, told):
    network = models.build(**TINY)
    models.save(network, tmp_path, **TINY)
    described = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**described, **change}))
    with pytest.raises((DataError, ModelError), match=told):
        models.load(tmp_path)


def test_weights_whose_names_are_numbers_are_no_state_dict(tmp_path):
    torch.save({1: torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(DataError, match="holds no state dict"):
        models.load_weights(models.build(**TINY), tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "", 7, "a\x1b[31m"])
def test_a_manifest_names_files_below_its_folder(tmp_path, name):
    (tmp_path / "manifest.json").write_text(json.dumps({"files": [{"@id": name, "sha256": "0" * 64}]}))
    with pytest.raises(DataError, match="is no manifest of a run"):
        manifest.verify(tmp_path / "manifest.json")


def test_a_manifest_may_name_what_no_file_can_be_called(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"files": [{"@id": LONG, "sha256": "0" * 64}]}))
    (line,) = manifest.verify(tmp_path / "manifest.json")
    assert "missing" in line


def test_names_in_a_manifest_do_not_reverse_what_is_told(tmp_path):
    for name, told in (("a.json", "\u202etxt"), ("b.json", "plain.txt")):
        (tmp_path / name).write_text(json.dumps({"files": [{"@id": told, "sha256": "0" * 64}]}))
    lines = manifest.verify(tmp_path / "a.json") + manifest.compare(tmp_path / "a.json", tmp_path / "b.json")
    assert all(line.isprintable() for line in lines), lines
    assert r"\u202etxt: missing" in lines[0]


@pytest.mark.parametrize(("name", "column", "values", "told"), [
    ("id", "id", [b"a", b"\xff", b""], "id holds object values; give each curve a name"),
    ("id", "id", [[1], [2], []], "id holds object values; give each curve a name"),
    ("id", "time_s", [[1], [2], []], "sample 1 has no number in time_s"),
    ("time_s", "id", [0.0, 1.0, 2.0], "has two columns of one name|not readable"),
])  # fmt: skip
def test_columns_of_curves_hold_what_their_names_say(tmp_path, name, column, values, told):
    columns = {"id": ["a"] * 3, "time_s": [0.0, 0.5, 1.0], "volume_l": [0.0, 1.0, 2.0]}
    arrays = {**columns, column: values}
    names = [name if key == column else key for key in arrays] if name != "id" else list(arrays)
    table = pa.table([pa.array(one) for one in arrays.values()], names=names)
    pyarrow.parquet.write_table(table, tmp_path / "curves.parquet")
    with pytest.raises(DataError, match=told):
        read_curves(tmp_path / "curves.parquet")


@pytest.mark.parametrize(("name", "values"), [
    ("image_id", [[1], [2]]), ("status", [["ok"], []]), ("status", [None, "ok"]), ("error", [0.5, None]),
])  # fmt: skip
def test_failures_are_counted_in_columns_of_text(tmp_path, name, values):
    columns = {"image_id": ["a", "b"], "status": ["ok", "failed"], "error": ["", "broken"], name: values}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=rf"rows\.parquet: {name} is not text in every row"):
        failures.count({("experiment", "stage"): tmp_path / "rows.parquet"})


def test_text_that_is_none_is_found_when_a_table_is_read(tmp_path):
    path = tmp_path / "rows.parquet"
    table = pa.table({"image_id": ["plain text"], "status": ["ok"], "error": [""]})
    # Without compression and dictionaries the text stands in the file as it is.
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
    path.write_bytes(path.read_bytes().replace(b"plain text", b"pl\xffin text"))
    assert pyarrow.parquet.read_table(path).num_rows == 1  # Arrow alone does not look
    reads = (
        lambda: failures.count({("experiment", "stage"): path}),
        lambda: inputs.read_table(path),
        lambda: tables.read(path, failures.FAILURES),
        lambda: manifest.content_sha256(path),
    )
    for read in reads:
        with pytest.raises(DataError, match=r"rows\.parquet: not readable as parquet \(ArrowInvalid: .*UTF"):
            read()


def test_a_curve_called_like_a_terminal_escape_is_its_own_failure(tmp_path):
    rows = [f"{name},{t / 20},{min(4.0, t / 5)}" for name in ("good", "\x1b[31m") for t in range(60)]
    (tmp_path / "curves.csv").write_text("\n".join(["id,time_s,volume_l", *rows]))
    curves = read_curves(tmp_path / "curves.csv")
    assert curves.ids == ["good"]
    ((name, reason),) = curves.failures.items()
    assert name == r"\x1b[31m"
    assert reason == r"curve \x1b[31m: it has control characters in its name; rename it"


def test_a_name_that_is_also_a_key_does_not_lead_astray():
    raw = {
        "datasets": {"d": {"source": "sklearn_digits"}},
        "models": {"parameters": {"dataset": "d", "extra": 1}},
        "experiments": {"e": {"model": "parameters"}},
    }
    with pytest.raises(ConfigError, match=r"unknown key 'models\.parameters\.extra'; known here: dataset"):
        load(raw)


def test_parameters_are_keys_with_finite_values():
    class Some(Parameters):
        width: float = 1.0

    registry = Registry("thing", "curvelens.datasets")
    registry.register("thing", parameters=Some)(lambda: None)
    entry = registry._entries["thing"]
    for values, told in (([1], "not keys with values"), ({"width": float("inf")}, "finite number")):
        with pytest.raises(ConfigError, match=told):
            entry.parse(values)
