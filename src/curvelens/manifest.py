"""The manifest of a run: what was made from what, with checksums, so that copies can be checked and compared.

Files are described with the property names of RO-Crate's ``File`` (``@id``, ``encodingFormat``,
``contentSize``, ``sha256``), so that a crate's metadata is one step away. Tables have a second checksum, of
their content without times and rounded.

``python -m curvelens.manifest results/manifest.json`` computes every checksum again and says what differs;
with a second manifest it compares the tables of two runs.
"""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from curvelens import jobtimes
from curvelens.errors import CurvelensError, DataError, on_one_line, printable
from curvelens.store import load_json, save_json, sha256
from curvelens.tables import read_arrow

DIGITS = 5
"""Significant digits of the floating-point numbers that count in a table's content checksum."""
_TIMES = {"s"}  # units of columns that no two runs share
_TIME_METRICS = ["seconds"]  # what rows of tables of many measures hold, where that is a time
_FORMATS = {
    ".parquet": "application/vnd.apache.parquet",
    ".npz": "application/x-npz",
    ".json": "application/json",
    ".safetensors": "application/x-safetensors",
    ".html": "text/html",
    ".csv": "text/csv",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".mp4": "video/mp4",
}


def content_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a parquet table's content, the same for runs that differ in rounding and time.

    Columns whose unit is a time are left out, and rows whose ``metric`` is one; floating-point numbers are
    rounded to :data:`DIGITS` significant digits, half to even. Rounding alone makes no two runs equal, since
    there is a border between any two rounded numbers: on one kind of machine the numbers themselves are the
    same, whatever the number of cores and shards.

    Args:
        path: A parquet file whose columns say their unit, as :func:`curvelens.tables.write` writes them.

    Raises:
        DataError: The file is no parquet table.
    """
    digest = hashlib.sha256()
    for name, values in _columns(path).items():
        rounded = [
            float(f"{value:.{DIGITS}g}") + 0.0 if isinstance(value, float) else value for value in values
        ]
        digest.update(f"{name}\n{rounded!r}\n".encode())
    return digest.hexdigest()


def _columns(path: str | Path) -> dict[str, list[Any]]:
    """Read what two runs may share of a table: its columns, by name, without times."""
    from pyarrow import array, compute

    table = read_arrow(path)
    if "metric" in table.column_names:
        table = table.filter(compute.invert(compute.is_in(table["metric"], array(_TIME_METRICS))))
    return {
        column.name: table.column(column.name).to_pylist()
        for column in table.schema
        if (column.metadata or {}).get(b"unit", b"").decode(errors="replace") not in _TIMES
    }


def describe(paths: Iterable[str | Path], root: str | Path) -> list[dict[str, Any]]:
    """Describe files: path below ``root``, format, size in bytes, checksum, of tables that of their content.

    Args:
        paths: The files; named twice, described once.
        root: Folder that the paths in the result start from.

    Returns:
        One mapping a file, sorted by path.
    """
    described = []
    for path in sorted({Path(path) for path in paths}):
        entry: dict[str, Any] = {
            "@id": path.relative_to(root).as_posix(),
            "@type": "File",
            "encodingFormat": _FORMATS.get(path.suffix, "application/octet-stream"),
            "contentSize": path.stat().st_size,
            "sha256": sha256(path),
        }
        if path.suffix == ".parquet":
            entry["content_sha256"] = content_sha256(path)
        described.append(entry)
    return described


def jobs(folder: str | Path) -> list[dict[str, Any]]:
    """Return time and memory of every job, from the benchmark files that Snakemake wrote.

    Args:
        folder: Where the benchmark files are, one folder for each rule.

    Returns:
        For each job its ``name`` (rule and wildcards), ``seconds`` of wall time, ``cpu_seconds`` and
        ``peak_mib``; None for what could not be measured, as of jobs shorter than a fraction of a second.
    """
    return [asdict(job) for job in jobtimes.read(sorted(Path(folder).rglob("*.tsv")))]


def git_state(folder: str | Path) -> dict[str, Any]:
    """Return the commit of the project in ``folder`` and whether tracked files differ; None if unknown."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if changed is None else bool(changed)}


def verify(path: str | Path) -> list[str]:
    """Compute the checksum of every file of a manifest again and say which differ, a line each.

    Args:
        path: A ``manifest.json``; its files are looked for below its folder.

    Raises:
        DataError: The manifest is missing or damaged.
    """
    told = []
    for entry in _files(path):
        file = Path(path).parent / entry["@id"]
        if not os.path.isfile(file):  # unlike Path.is_file also for names that no file can have
            told.append(f"{file}: missing; run the workflow again")
        elif sha256(file) != entry["sha256"]:
            told.append(f"{file}: is not the file that the manifest describes; delete it and run again")
    return list(map(printable, told))


def compare(first: str | Path, second: str | Path) -> list[str]:
    """Say which tables of two runs differ in content, a line each; see :func:`content_sha256`.

    Where both tables lie beside their manifests, the line says in which columns and by how much: in the fifth
    digit on another kind of processor, in the first after another choice.

    Raises:
        DataError: A manifest is missing or damaged.
    """
    one, two = (
        {entry["@id"]: entry["content_sha256"] for entry in _files(path) if "content_sha256" in entry}
        for path in (first, second)
    )
    told = [f"{name}: only in {first if name in one else second}" for name in sorted(set(one) ^ set(two))]
    for name in sorted(set(one) & set(two)):
        if one[name] != two[name]:
            files = [Path(path).parent / name for path in (first, second)]
            there = all(map(os.path.isfile, files))
            told.append(f"{name}: differs" + (f" {_difference(*map(_columns, files))}" if there else ""))
    return list(map(printable, told))


def _difference(one: Mapping[str, Sequence[Any]], two: Mapping[str, Sequence[Any]]) -> str:
    """Say in which columns two tables differ, and by how much at most."""
    if list(one) != list(two):
        return f"in its columns: {', '.join(sorted(set(one) ^ set(two))) or 'their order'}"
    rows = [len(next(iter(table.values()), ())) for table in (one, two)]
    if rows[0] != rows[1]:
        return f"in its rows: {rows[0]} and {rows[1]}"
    told = []
    for name in one:
        apart = [_apart(*pair) for pair in zip(one[name], two[name], strict=True)]
        count = sum(value > 0 for value in apart)
        if count:
            told.append(f"{name} in {count} of {rows[0]} rows, by {100 * max(apart):.2g}% at most")
    return "in " + "; ".join(told)


def _apart(one: Any, two: Any) -> float:
    """Return how far two values are apart, as a share of the larger; 1 for what is no number."""
    if one == two or (one != one and two != two):
        return 0.0
    if isinstance(one, float) and isinstance(two, float) and math.isfinite(one) and math.isfinite(two):
        return abs(one - two) / max(abs(one), abs(two))
    return 1.0


def write(path: str | Path, contents: Mapping[str, Any], files: Iterable[str | Path]) -> dict[str, Any]:
    """Write a manifest and return what it says.

    Args:
        path: The file; what it describes lies below its folder.
        contents: What to say beside the files: configuration, versions and the like.
        files: What the run made.
    """
    written = {**contents, "files": describe(files, Path(path).parent)}
    save_json(path, written)
    return written


def _files(path: str | Path) -> list[dict[str, Any]]:
    contents = load_json(path)
    files = contents.get("files") if isinstance(contents, dict) else None
    if not isinstance(files, list) or not all(map(_describes, files)):
        raise DataError(f"{path}: is no manifest of a run; name results/manifest.json")
    return files


def _describes(entry: Any) -> bool:
    """Whether an entry names a file below the manifest's folder, with checksums."""
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("@id", "sha256")):
        return False
    name = PurePosixPath(entry["@id"])
    inside = bool(name.parts) and not name.is_absolute() and ".." not in name.parts
    return inside and on_one_line(entry["@id"])


def main(arguments: Sequence[str]) -> int:
    """Verify one manifest or compare the tables of two; return the exit code."""
    if len(arguments) not in (1, 2):
        print("give one manifest to verify its files, or two to compare their tables", file=sys.stderr)
        return 2
    try:
        told = verify(arguments[0]) if len(arguments) == 1 else compare(*arguments)
        count = len(_files(arguments[0]))
    except CurvelensError as error:
        print(f"curvelens: error: {error}", file=sys.stderr)
        return 1
    for line in told:
        print(line)
    done = (
        f"{count} files compared with {arguments[0]}"
        if len(arguments) == 1
        else "tables of two runs compared"
    )
    print(f"{done}: {len(told) or 'nothing'} differs")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
