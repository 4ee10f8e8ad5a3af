"""Fuzzed readers of what a run stores: arrays, tables, weights, descriptions of networks, manifests."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import safetensors.torch
import torch
from fuzz_mutations import (
    BYTE_EDITS,
    JSON_JUNK,
    RARELY,
    TEXTS,
    document_edits,
    edited,
    few,
    of_seeds,
    rewritten,
)
from fuzzing import MisbehavedError, Payload, Reader, on_one_line
from hypothesis import strategies as st

from curvelens import manifest, models, store, tables
from curvelens.errors import CurvelensError
from curvelens.figures import inputs
from curvelens.summaries import failures
from curvelens.tables import IMAGE_COLUMNS, RUN_COLUMNS, Column, Table

_IMAGES = store.ImageSet(
    np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4),
    np.array([0, 1, -1]),
    ["set/0", "set/1", "set/é"],
    np.zeros((3, 4, 4), np.uint8),
)
_ARRAYS: dict[str, dict[str, Any]] = {
    "images": {
        "images": _IMAGES.images,
        "labels": _IMAGES.labels,
        "ids": np.array(_IMAGES.ids),
        "masks": _IMAGES.masks,
    },
    "regression": {
        "inputs": np.ones((3, 5), np.float32),
        "targets": np.ones(3, np.float32),
        "ids": np.array(["a", "b", "c"]),
    },
    "explanations": {
        "attribution": np.ones((3, 1, 4, 4), np.float32),
        "ids": np.array(["a", "b", "c"]),
        "kinds": np.array([1, 2, 3]),
    },
}
_NPZ_READERS = {
    "images": store.load_image_set,
    "regression": store.load_regression_set,
    "explanations": store.load_explanations,
}
_OTHER_ARRAYS = [
    *(np.zeros(shape, np.uint8) for shape in [(), (0,), (3,), (2, 1, 4, 4), (3, 4, 4), (0, 1, 4, 4)]),
    *(np.zeros((3, 1, 4, 4), dtype) for dtype in (np.float32, np.int64, bool, np.complex64)),
    *(
        np.array(["a", "a", "b"]),
        np.array([1, 2, 3]),
        np.array([b"a", b"b", b"c"]),
        np.array(["a", "", "x" * 999]),
    ),
    *(np.array([np.nan, 1, 2], np.float32), np.array([[1, 2]]), np.zeros(3, "M8[s]"), np.zeros(3, "i4,f4")),
    *(
        np.array(["a", "\ud800", "\x1b[31m"]),
        np.zeros((1,) * 32),
        np.asfortranarray(np.ones((3, 5), np.float32)),
    ),
]
_HEADERS = [
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<U999999999', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '|V0', 'fortran_order': True, 'shape': (3,), }",
    "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f8', 'fortran_order': 1, 'shape': 3, }",
    "{'descr': None, 'fortran_order': False, 'shape': (3,)}",
    "[" * 300 + "]" * 300,
    "__import__('os').system('ls')",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1" + ",1" * 80 + "), }",
    "\x00" * 10,
]


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def _with_header(header: str, content: bytes) -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n" + content


_NPY = st.one_of(
    st.sampled_from([_npy(array) for array in _OTHER_ARRAYS]),
    st.just(_npy(np.array([Payload(), None, {}], dtype=object))),
    st.builds(_with_header, st.sampled_from(_HEADERS), st.just(bytes(24))),
)
_ARRAY_EDITS = few(
    st.one_of(
        st.tuples(st.just("replace"), st.integers(0, 3), _NPY),
        st.tuples(st.just("bytes"), st.integers(0, 3), BYTE_EDITS),
        st.tuples(st.just("drop"), st.integers(0, 3), st.none()),
        st.tuples(
            st.just("add"), st.integers(0, 3), st.sampled_from(["extra.npy", "ids.npy", "a/../b", "text", ""])
        ),
    ),
    2,
)
_NPZ = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(list(_ARRAYS)),
        "arrays": _ARRAY_EDITS,
        "edits": RARELY,
        "deflated": st.booleans(),
    }
)


def _npz(case: dict[str, Any]) -> bytes:
    members = [(f"{name}.npy", _npy(array)) for name, array in sorted(_ARRAYS[case["kind"]].items())]
    for kind, place, given in case["arrays"]:
        at = place % len(members)
        name, content = members[at]
        if kind == "replace":
            members[at] = (name, given)
        elif kind == "bytes":
            members[at] = (name, edited(content, given))
        elif kind == "add":
            members.append((given, content))
        elif len(members) > 1:
            del members[at]
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # names given twice are meant
        for name, content in members:
            kind = zipfile.ZIP_DEFLATED if case["deflated"] else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=kind)
    return edited(stream.getvalue(), case["edits"])


def _read_npz(case: dict[str, Any], folder: Path) -> Any:
    path = folder / "arrays.npz"
    path.write_bytes(_npz(case))
    return _NPZ_READERS[case["kind"]](path)


def _is_set(value: Any) -> None:
    if isinstance(value, tuple):
        arrays, ids = value
        assert all(len(array) == len(ids) and not array.dtype.hasobject for array in arrays.values())
    else:
        ids = value.ids
        assert len(value) == len(set(ids))
    assert all(isinstance(name, str) and on_one_line(name) for name in ids)


TABLE = Table(
    "fuzzed",
    "An image.",
    {**IMAGE_COLUMNS, "method": Column(str, "A name."), "x": Column(float, "A number.", ge=0), **RUN_COLUMNS},
    ("image_id", "method"),
)
_ROWS: dict[str, list[Any]] = {
    "image_id": ["a", "b", "c"],
    "label": [0, 1, None],
    "prediction": [0, 1, None],
    "confidence": [0.5, 1.0, None],
    "method": ["m", "m", "m"],
    "x": [0.0, 1.5, None],
    "seconds": [0.1, 0.2, None],
    "calls": [1, 2, None],
    "status": ["ok", "ok", "failed"],
    "error": ["", "", "broken"],
}
COLUMNS = [
    *([1, 2, 3], [0.5, 1.5, 2.5], ["a", "b", "c"], ["a", "a", "a"], [None] * 3, [True, False, None]),
    *([b"a", b"\xff", b""], [[1], [2], []], [{"a": 1}, None, {"a": 2}], [float("nan"), float("inf"), -1.0]),
    *(
        [2**62, -(2**62), 0],
        ["\x1b[31m", "a\nb", "\0"],
        ["ok", "ok", "ok"],
        ["1", "2", "x"],
        np.array([2**63, 1, 2], np.uint64),
    ),
    *(pd.to_datetime(["2020-01-01"] * 3), pd.Categorical(["a", "b", None]), [0, 1, 1e300], [0.5, 1.0, 7.0]),
]
_TABLE_CASES = st.fixed_dictionaries(
    {
        "columns": st.lists(
            st.tuples(
                st.sampled_from(["replace", "drop", "rename", "twice"]),
                st.sampled_from(list(_ROWS)),
                st.sampled_from(COLUMNS),
                st.sampled_from(TEXTS),
            ),
            max_size=2,
        ),
        "rows": st.sampled_from([3, 3, 3, 2, 0]),
        "edits": RARELY,
        "reader": st.sampled_from(["tables", "figures", "failures", "manifest"]),
    }
)


def _parquet(case: dict[str, Any]) -> bytes:
    names, values = list(_ROWS), [pa.array(column) for column in _ROWS.values()]
    for kind, name, column, text in case["columns"]:
        if name not in names:
            continue
        at = names.index(name)
        if kind == "replace":
            values[at] = pa.array(column)
        elif kind == "drop":
            del names[at], values[at]
        elif kind == "twice":
            names.append(name)
            values.append(pa.array(column))
        else:
            names[at] = text.encode("utf-8", "replace").decode()
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(values, names=names).slice(0, case["rows"]), stream)
    return edited(stream.getvalue(), case["edits"])


def _read_parquet(case: dict[str, Any], folder: Path) -> Any:
    path = folder / "rows.parquet"
    path.write_bytes(_parquet(case))
    if case["reader"] == "tables":
        return tables.read(path, TABLE)
    if case["reader"] == "figures":
        return inputs.read_table(path)
    if case["reader"] == "failures":
        return failures.count({("experiment", "stage"): path})
    return manifest.content_sha256(path)


def _is_table(value: Any) -> None:
    if isinstance(value, str):
        assert len(value) == 64
        return
    assert isinstance(value, pd.DataFrame)
    if list(value.columns) == list(TABLE.columns):
        assert value["status"].isin(["ok", "failed"]).all()


_NETWORK = {"architecture": "mlp", "parameters": {"hidden": [3]}, "classes": 2, "image_shape": [1, 2, 2]}
_MODEL = models.build(**_NETWORK)  # type: ignore[arg-type]
_STATE = {name: tensor.clone() for name, tensor in _MODEL.state_dict().items()}
_SAFE = safetensors.torch.save(_STATE)
_SAFE_HEADER = json.loads(_SAFE[8 : 8 + struct.unpack("<Q", _SAFE[:8])[0]])
_SAFE_BODY = _SAFE[8 + struct.unpack("<Q", _SAFE[:8])[0] :]


def _safetensors(edits: list[Any], body: list[Any], text: list[Any]) -> bytes:
    header = edited(json.dumps(rewritten(_SAFE_HEADER, edits)).encode("utf-8", "surrogatepass"), text)
    return struct.pack("<Q", len(header)) + header + edited(_SAFE_BODY, body)


def _torch_file(state: Any, legacy: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def _inside_zip(content: bytes, member: str, edits: list[Any]) -> bytes:
    """A PyTorch file with a changed member and right checksums."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            new.writestr(name, edited(old.read(name), edits) if name.endswith(member) else old.read(name))
    return stream.getvalue()


_TORCH_FILES = [
    _torch_file(state, legacy)
    for legacy in (False, True)
    for state in (
        _STATE,
        {"state_dict": _STATE, "epoch": 3},
        {f"module.{name}": tensor for name, tensor in _STATE.items()},
        {**_STATE, "x": Payload()},
        {name: tensor.double() for name, tensor in _STATE.items()},
        {name: tensor[..., :1] for name, tensor in _STATE.items()},
        {1: torch.ones(1)},
        [1, 2],
        {"a": {"b": torch.ones(1)}},
        dict.fromkeys(_STATE, torch.empty(2, 2, dtype=torch.complex64)),
    )
]
_WEIGHTS = st.one_of(
    st.tuples(
        st.just("w.safetensors"),
        st.builds(
            _safetensors,
            document_edits(JSON_JUNK, 2),
            RARELY,
            RARELY,
        ),
    ),
    st.tuples(st.just("w.safetensors"), of_seeds([_SAFE])),
    st.tuples(st.just("w.pt"), of_seeds(_TORCH_FILES)),
    st.tuples(
        st.just("w.pt"),
        st.builds(
            _inside_zip,
            st.sampled_from(_TORCH_FILES[: len(_TORCH_FILES) // 2]),
            st.sampled_from(["data.pkl", "data.pkl", "data/0", "version", "byteorder"]),
            BYTE_EDITS,
        ),
    ),
)


def _read_weights(case: tuple[str, bytes], folder: Path) -> dict[str, torch.Tensor]:
    name, content = case
    path = folder / name
    path.write_bytes(content)
    model = _MODEL
    model.load_state_dict(_STATE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            models.load_weights(model, path)
    except CurvelensError:
        if any(not torch.equal(tensor, _STATE[key]) for key, tensor in model.state_dict().items()):
            raise MisbehavedError("weights that were refused have changed the model") from None
        raise
    return model.state_dict()


def _is_state(value: dict[str, torch.Tensor]) -> None:
    assert {name: tensor.shape for name, tensor in value.items()} == {n: t.shape for n, t in _STATE.items()}
    assert all(tensor.dtype == torch.float32 for tensor in value.values())


_DESCRIPTION = {**_NETWORK, "weights": 23, "torch": "2.11", "class_names": ["a", "b"], "seed": 0}


def _read_model(case: tuple[list[Any], list[Any]], folder: Path) -> torch.nn.Module:
    edits, text = case
    (folder / "weights.safetensors").write_bytes(_SAFE)
    described = json.dumps(rewritten(_DESCRIPTION, edits)).encode("utf-8", "surrogatepass")
    (folder / "model.json").write_bytes(edited(described, text))
    return models.load(folder)


def _is_model(value: torch.nn.Module) -> None:
    assert value(torch.zeros(1, 1, 2, 2)).shape == (1, 2)
    assert not value.training


_ENTRY = {
    "@id": "rows.parquet",
    "@type": "File",
    "contentSize": 3,
    "sha256": "0" * 64,
    "content_sha256": "1" * 64,
}
_MANIFEST = {"created": "2026", "seed": 0, "files": [_ENTRY, {**_ENTRY, "@id": "figures/a.svg"}]}


def _read_manifest(case: tuple[list[Any], list[Any]], folder: Path) -> Any:
    edits, text = case
    good, path = folder / "good.json", folder / "manifest.json"
    (folder / "rows.parquet").write_bytes(b"abc")
    good.write_text(json.dumps(_MANIFEST), encoding="utf-8")
    described = json.dumps(rewritten(_MANIFEST, edits)).encode("utf-8", "surrogatepass")
    path.write_bytes(edited(described, text))
    return manifest.verify(path) + manifest.compare(good, path)


def _is_lines(value: list[str]) -> None:
    assert all(line.isprintable() for line in value), value


READERS = [
    Reader("arrays", _NPZ, _read_npz, _is_set, ("arrays.npz",), share=10),
    Reader("tables", _TABLE_CASES, _read_parquet, _is_table, ("rows.parquet",), share=6),
    Reader("weights", _WEIGHTS, _read_weights, _is_state, ("w.safetensors", "w.pt"), share=8),
    Reader(
        "models",
        st.tuples(document_edits(JSON_JUNK, 2), RARELY),
        _read_model,
        _is_model,
        ("model.json", "weights.safetensors"),
        share=5,
    ),
    Reader(
        "manifests",
        st.tuples(document_edits(JSON_JUNK, 2), RARELY),
        _read_manifest,
        _is_lines,
        ("manifest.json", "rows.parquet"),
        share=6,
    ),
]
