"""Fuzzed readers of what people write: configurations, labels, names of classes, recorded curves."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import yaml
from fuzz_artifacts import COLUMNS
from fuzz_mutations import (
    JSON_JUNK,
    JUNK,
    PLAIN,
    RARELY,
    TABLE_EDITS,
    TEXTS,
    document_edits,
    edited,
    few,
    of_seeds,
    retold,
    rewritten,
)
from fuzzing import Reader, on_one_line
from hypothesis import strategies as st
from snakemake.common.configfile import load_configfile

from curvelens import models
from curvelens.config import Config, load
from curvelens.datasets._listing import Columns, list_table
from curvelens.errors import ConfigError
from curvelens.sections.plain import check_files
from curvelens.spirometry import SAMPLES, read_curves

_CONFIG = Path(__file__).resolve().parents[1] / "config"
CONFIGS = [
    yaml.safe_load((_CONFIG / name).read_text(encoding="utf-8"))
    for name in ("test.yaml", "test_photographs.yaml", "photographs_with_masks.yaml", "cifar10_small.yaml")
]


def _read_config(case: tuple[dict[str, Any], list[Any]], folder: Path) -> Config:
    return load(rewritten(*case))


def _is_config(value: Config) -> None:
    plain = value.model_dump(mode="json")
    text = json.dumps(plain, allow_nan=False)
    text.encode()
    # What was accepted is accepted again, with every default filled in, as the same.
    assert load(json.loads(text)).model_dump(mode="json") == plain
    for name in (*value.datasets, *value.models, *value.experiments, *value.studies):
        assert name.isascii()
        assert name.replace("_", "a").replace("-", "a").isalnum()
        assert len(name) <= 100


_SMALL_CONFIG = """seed: 1
datasets:
  digits: {source: sklearn_digits, split: {validation: 0.1, test: 0.1}}
models:
  relu: &net
    dataset: digits
    parameters: {hidden: [8]}
  soft:
    <<: *net
    parameters: {hidden: [8], activation: softplus}
experiments:
  first:
    model: relu
    explanations: {images: 4, shards: 1, methods: {gradient: {}, smoothgrad: {sigma: 0.1}}}
report: {title: "A title", experiments: [first]}
"""
_LINES = [
    *("seed: 2", "seed: .nan", "seed: .inf", "seed: 1e400", "seed: 0x1F", "seed: 1_000", "seed: 12:30:00"),
    *(
        "? [1, 2]\n: 3",
        "? {a: b}\n: 3",
        "1: 2",
        "null: 3",
        "a: &a [*a]",
        "b: *missing",
        "<<: *net",
        "<<: [1]",
    ),
    *("x: !!python/object/apply:os.system [ls]", "x: !!binary aGk=", "x: !!set {a, b}", "x: 2020-01-01"),
    *(
        "x: 2020-13-45",
        "\tx: 1",
        "---",
        "...",
        "%YAML 9.9",
        "x: |\n  text\n  more",
        "x: 'open",
        "x: [1, 2",
        "猫: é",
    ),
    *("models:\n  other: {dataset: digits}", "x: " + "[" * 200, "x: " + "9" * 5000, "\ufeff", "x: \x07"),
    "a: &l [x,x,x,x,x,x,x,x,x]\nb: &m [*l,*l,*l,*l,*l,*l,*l,*l]\nc: &n [*m,*m,*m,*m,*m,*m,*m,*m]\n"
    "d: &o [*n,*n,*n,*n,*n,*n,*n,*n]\nseed: [*o,*o,*o,*o,*o,*o,*o,*o]",
]
_LINE_EDITS = few(
    st.one_of(
        st.tuples(st.sampled_from(["drop", "repeat", "indent", "outdent"]), st.integers(0, 30), st.just("")),
        st.tuples(st.just("insert"), st.integers(0, 30), st.sampled_from(_LINES)),
        st.tuples(st.just("value"), st.integers(0, 30), st.sampled_from(TEXTS)),
        st.tuples(st.just("value"), st.integers(0, 30), st.sampled_from(TEXTS + PLAIN).map(json.dumps)),
    )
)


def _relined(text: str, edits: list[tuple[str, int, str]]) -> str:
    lines = text.splitlines()
    for kind, place, given in edits:
        at = place % len(lines)
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        if kind == "insert":
            lines.insert(at, "\n".join(indent + line for line in given.split("\n")))
        elif kind == "repeat":
            lines.insert(at, lines[at])
        elif kind == "value":
            lines[at] = f"{lines[at].partition(':')[0]}: {given}"
        elif kind == "drop" and len(lines) > 1:
            del lines[at]
        else:
            lines[at] = "  " + lines[at] if kind == "indent" else lines[at].removeprefix("  ")
    return "\n".join(lines) + "\n"


def _read_yaml(case: tuple[list[Any], list[Any]], folder: Path) -> Config:
    lines, edits = case
    path = folder / "config.yaml"
    path.write_bytes(edited(_relined(_SMALL_CONFIG, lines).encode("utf-8", "surrogatepass"), edits))
    try:
        raw = load_configfile(path)
    except Exception as error:  # Snakemake reads the file before the workflow's code runs, and says so itself
        raise ConfigError(f"{path}: refused by Snakemake ({type(error).__name__}); correct it") from error
    check_files([path])
    return load(raw)


LABELS = [
    ["path", "label", "source", "licence", "split", "note"],
    ["cat/1.png", "cat", "http://example.org/1", "CC0", "train", "first"],
    ["cat/2.png", "cat", "", "CC0", "test", "second, with a comma"],
    ["dog/1.png", "dog", "http://example.org/3", "", "train", "é"],
    ["dog/2.png", "", "", "", "test", '"quoted"'],
]
_TABLE_COLUMNS = st.sampled_from(
    [
        *({}, {"id": "note"}, {"label": "note"}, {"classes": {"cat": "note", "dog": "split"}}),
        *({"path": "missing"}, {"split": "licence"}),
    ]
)
_ENCODINGS = st.sampled_from([*["utf-8"] * 20, "utf-8-sig", "utf-16", "latin-1"])


def _csv(rows: list[list[str]], quoted: bool, encoding: str, edits: list[Any]) -> bytes:
    cells = ([f'"{c.replace(chr(34), chr(34) * 2)}"' if quoted else c for c in row] for row in rows)
    text = "\n".join(",".join(row) for row in cells)
    return edited(text.encode(encoding, "replace"), edits)


def csv_of(rows: list[list[str]]) -> st.SearchStrategy[bytes]:
    """Return changed copies of a table as CSV: cells, rows, columns, quotes, encoding and bytes."""
    changed = st.builds(retold, st.just(rows), TABLE_EDITS)
    return st.builds(_csv, changed, st.booleans(), _ENCODINGS, RARELY)


def _read_table(case: tuple[bytes, dict[str, Any]], folder: Path) -> Any:
    content, columns = case
    (folder / "labels.csv").write_bytes(content)
    (folder / "cat").mkdir(exist_ok=True)
    (folder / "cat/1.png").touch()
    return list_table(folder, "labels.csv", Columns(**columns))


def _is_listed(value: Any) -> None:
    assert len({one.name for one in value}) == len(value) > 0
    for one in value:
        assert on_one_line(one.name), one.name
        assert one.split in (None, "train", "test")
        assert one.problem or one.path.is_file()
        assert on_one_line(one.problem)


def _read_names(case: tuple[str, bytes], folder: Path) -> list[str]:
    name, content = case
    (folder / name).write_bytes(content)
    given = {"model": "resnet18", "class_names": str(folder / name)}
    return models.REGISTRY.get("torchvision").parse(given).model_dump()["class_names"]


def _are_names(value: list[str]) -> None:
    assert all(isinstance(name, str) and on_one_line(name) for name in value)
    assert len(set(value)) == len(value)


_NAMES = st.one_of(
    st.tuples(st.just("names.txt"), of_seeds([b"cat\ndog\nbird\n", "\ufeffété\r\n猫\r\n".encode()])),
    st.tuples(
        st.just("names.json"),
        st.builds(
            lambda document, edits, text: edited(
                json.dumps(rewritten(document, edits)).encode("utf-8", "surrogatepass"), text
            ),
            st.sampled_from([["cat", "dog"], {"0": "cat", "1": "dog"}]),
            document_edits(JSON_JUNK, 2),
            RARELY,
        ),
    ),
)


def _exhalation(rows: int = 60) -> list[list[str]]:
    times = np.linspace(0, 3, rows)
    volumes = 4 * (1 - np.exp(-times / 0.4))
    table = [["id", "time_s", "volume_l"]]
    for name in ("7", "8"):
        table += [[name, f"{time:.3f}", f"{volume:.4f}"] for time, volume in zip(times, volumes, strict=True)]
    return table


_FLOW = "\n".join(f"{10 * math.exp(-index / 50):.4f}" for index in range(600)).encode()


def _curves_parquet(column: str, values: Any, edits: list[Any]) -> bytes:
    rows = _exhalation()
    frame = {name: [row[at] for row in rows[1:]] for at, name in enumerate(rows[0])}
    table = {
        name: pa.array(cells if name == "id" else list(map(float, cells))) for name, cells in frame.items()
    }
    if values is not None:
        table[column] = pa.array((list(values) * len(rows))[: len(rows) - 1], from_pandas=True)
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(table), stream)
    return edited(stream.getvalue(), edits)


_CURVES = st.one_of(
    st.tuples(st.just("curves.csv"), csv_of(_exhalation())),
    st.tuples(
        st.just("curves.csv"),
        csv_of([[*row[:2], "flow_l_s"] if at == 0 else row for at, row in enumerate(_exhalation())]),
    ),
    st.tuples(
        st.just("curves.parquet"),
        st.builds(
            _curves_parquet,
            st.sampled_from(["id", "time_s", "volume_l", "flow_l_s"]),
            st.one_of(st.none(), st.sampled_from(COLUMNS)),
            RARELY,
        ),
    ),
    st.tuples(st.just("curves.txt"), of_seeds([_FLOW])),
)


def _read_curves(case: tuple[str, bytes], folder: Path) -> Any:
    name, content = case
    (folder / name).write_bytes(content)
    return read_curves(folder / name, 0.005)


def _are_curves(value: Any) -> None:
    assert value.volumes.shape == (len(value.ids), SAMPLES)
    assert len(set(value.ids)) == len(value.ids) == len(value.indices) > 0
    assert np.isfinite(value.volumes).all()
    assert all(math.isfinite(one.fev1) and one.fvc >= 0 for one in value.indices)
    assert all(map(on_one_line, [*value.ids, *value.failures, *value.failures.values()]))


READERS = [
    Reader(
        "configuration",
        st.tuples(st.sampled_from(CONFIGS), document_edits(JUNK)),
        _read_config,
        _is_config,
        ("config: ",),
        share=10,
    ),
    Reader("YAML", st.tuples(_LINE_EDITS, RARELY), _read_yaml, _is_config, ("config",), share=4),
    Reader("class names", _NAMES, _read_names, _are_names, ("class_names",), share=6, ways=1),
    Reader("curves", _CURVES, _read_curves, _are_curves, ("curves.",), share=5),
    Reader("label tables", st.tuples(csv_of(LABELS), _TABLE_COLUMNS), _read_table, _is_listed, share=8),
]
