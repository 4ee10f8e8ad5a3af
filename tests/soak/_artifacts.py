"""What a run left behind, as checksums that two runs of the same configuration share.

Measured time is left out: of tables the column ``seconds`` and rows whose metric it is, whole files
where it is drawn or told.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

TIME = "seconds"
TOLD = {
    "figures/*/judging.*": "seconds per image are an axis",
    "figures/*/convergence.*": "seconds are an axis",
    "report/index.html": "time and memory of jobs, the date, the figures with seconds",
    "report/gallery/*": "seconds of each explanation",
    "manifest.json": "time and memory of jobs, checksums of tables and of the files named here",
    "ro-crate-metadata.json": "the date, the same checksums",
}
"""Files that tell times, and how; of these it is checked that they are complete."""
ASIDE = ("logs/*", "benchmarks/*", "report/notebook/*", "*/checkpoint.pt", "*/.snakemake_timestamp")
"""Files that no rule declares as its output, and Snakemake's own mark in a folder."""


def files(results: Path) -> Iterator[Path]:
    """Yield the artifacts below a folder of results, temporary files included."""
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results).as_posix()
        if path.is_file() and not any(fnmatch(name, pattern) for pattern in ASIDE):
            yield path


def tells_time(name: str) -> bool:
    """Whether the artifact of this name cannot be the same in two runs."""
    return any(fnmatch(name, pattern) for pattern in TOLD)


def checksum(path: Path, name: str) -> str:
    """Return the checksum of an artifact without measured times.

    Raises:
        ValueError: The file is not complete.
    """
    if tells_time(name):
        return _complete(path)
    if path.suffix == ".parquet":
        content = _parquet(path)
    elif path.suffix == ".csv":
        content = _csv(path)
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def _complete(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".json":
        json.loads(content)
    elif path.suffix in (".html", ".svg"):
        end = f"</{path.suffix[1:]}>".encode()
        if not content.rstrip().endswith(end):
            raise ValueError(f"{path} does not end with {end.decode()}")
    else:
        raise ValueError(f"{path}: nothing says when a {path.suffix} is complete")
    return "complete"


def _parquet(path: Path) -> bytes:
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, partitioning=None)
    if "metric" in table.column_names:
        table = table.filter(pyarrow.compute.not_equal(table["metric"].cast("string"), TIME))
    table = table.drop_columns([TIME] if TIME in table.column_names else [])
    stream = io.BytesIO()
    with pyarrow.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return stream.getvalue()


def _csv(path: Path) -> bytes:
    rows = list(csv.reader(io.StringIO(path.read_text("utf-8"))))
    kept = [position for position, name in enumerate(rows[0]) if name != TIME]
    if "metric" in rows[0]:
        metric = rows[0].index("metric")
        rows = [row for row in rows if row[metric] != TIME]
    return json.dumps([[row[position] for position in kept] for row in rows]).encode()
