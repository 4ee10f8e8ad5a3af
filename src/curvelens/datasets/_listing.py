"""Which pictures a folder holds, and what is known of each: by folders of classes, or by a table (CSV)."""

from __future__ import annotations

import csv
import itertools
import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import Field

from curvelens.errors import DataError, on_one_line
from curvelens.registry import Parameters

SPLITS = ("train", "test")
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NONE = {"", "0", "0.0", "false", "no"}


class Columns(Parameters):
    """Names of a table's columns. Any other column is kept as it stands, under `facts` in dataset.json."""

    path: str | None = Field(
        None, description="Path of the picture in the folder; null: `path` or `file`, the one that is there."
    )
    id: str | None = Field(None, description="Name of the picture, which must not change; null: its path.")
    label: str | None = Field(
        None, description="Class; null: `label`, where there is one. Empty cells are unlabelled."
    )
    classes: dict[str, str] = Field(
        default_factory=dict,
        description="Instead of `label`: for each class the column that says whether, or how often, the "
        "picture shows it. A picture of several classes is unlabelled.",
    )
    source: str | None = Field(
        None, description="Where the picture comes from, e.g. its URL; null: `source`, where there is one."
    )
    licence: str | None = Field(
        None, description="Terms of the picture; null: `licence` or `license`, where there is one."
    )
    split: str | None = Field(
        None, description="`train` or `test`; null: `split`, where there is one. Else there is no such split."
    )


@dataclass(frozen=True)
class Listed:
    """One picture of a folder.

    Attributes:
        path: The file.
        name: Its name in the folder, or the table's id for it.
        label: Name of its class; None where it is not known.
        split: ``train`` or ``test``; None where the folder has no such parts.
        origin: Source and terms, as far as the table has them.
        facts: Further columns of the table.
        problem: Why it cannot be used; empty where it can be tried.
    """

    path: Path
    name: str
    label: str | None = None
    split: str | None = None
    origin: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def list_folder(folder: Path, labelled: bool) -> list[Listed]:
    """List the pictures of a folder: loose ones, ``class/*``, or ``train/class/*`` and ``test/class/*``.

    Args:
        folder: The folder.
        labelled: Whether each folder has to be a class with pictures.

    Returns:
        The pictures sorted by name.

    Raises:
        DataError: There are no pictures, a class is empty or belongs to one part alone, or a folder beside
            ``train`` and ``test`` would be left out.
    """
    parts = {part: folder / part for part in SPLITS if (folder / part).is_dir()}
    beside = [path.name for path in _folders(folder) if path.name not in parts]
    if len(parts) < len(SPLITS):
        found = list(_in_classes(folder, folder, None, labelled))
    elif beside:
        raise DataError(
            f"data_dir {folder}: has '{shown(beside[0])}' beside train and test, which would be left out; "
            "move it elsewhere, or its pictures into train"
        )
    else:
        found = [one for part, inner in parts.items() for one in _in_classes(folder, inner, part, labelled)]
        _check_parts(folder, found, labelled)
    if not found:
        raise DataError(
            f"data_dir {folder}: holds no pictures; put them there, or into one folder a class inside it"
        )
    return _unique(folder, sorted(found, key=lambda one: one.name))


def list_table(folder: Path, table: str, columns: Columns) -> list[Listed]:
    """List the pictures that a table (CSV, UTF-8, commas, a header) in the folder names.

    A file that is missing, or whose path leads out of the folder, is that row's problem.

    Args:
        folder: Paths in the table are relative to it.
        table: Path of the table, relative to the folder too.
        columns: Which column says what.

    Returns:
        The pictures in the order of their names.

    Raises:
        DataError: The table is missing, is no such CSV, lacks a column or rows, names a part other than
            train and test, or gives two pictures the same id.
    """
    file = folder / table
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True, restval="")
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = list(reader)
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such table; correct data_dir or parameters.table") from error
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file}: no CSV in UTF-8 ({error}); store it as one") from error
    used = _used(file, header, columns)
    for number, row in enumerate(rows, 2):
        if None in row:
            raise DataError(f"{file}: row {number} has more cells than the header; put quotes around commas")
    found = [_of_row(folder, file, number, row, used, columns) for number, row in enumerate(rows, 2)]
    if not found:
        raise DataError(f"{file}: lists no pictures; add one row a picture")
    return _unique(folder, sorted(found, key=lambda one: one.name))


def shown(name: str) -> str:
    """Return a name as text that fits on one line and into any file, whatever bytes it is made of.

    Marks that turn the direction of writing are escaped as well: they make a name read as another one.
    """
    return "".join(
        c if on_one_line(c) and c not in _TURNING else c.encode("unicode_escape").decode() for c in name
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    from curvelens.datasets._photographs import suffixes

    known = suffixes()
    return [
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix.lower() in known and not path.name.startswith(".")
    ]


def _in_classes(root: Path, folder: Path, split: str | None, labelled: bool) -> Iterator[Listed]:
    for path in _pictures(folder):
        yield _listed(root, path, None, split)
    for inner in _folders(folder):
        files = _pictures(inner)
        if labelled and not files:
            raise DataError(
                f"data_dir {root}: class folder '{shown(inner.relative_to(root).as_posix())}' holds no "
                "pictures; put some there, or remove it"
            )
        for path in files:
            yield _listed(root, path, class_label(inner.name), split)


def _listed(root: Path, path: Path, label: str | None, split: str | None) -> Listed:
    # The same name has two spellings in Unicode, and systems differ in the one they store: an id has one.
    name = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
    return Listed(path, shown(name), label, split, problem=_problem(name))


def class_label(name: str) -> str:
    """Return the name of a class in one spelling, as every file can hold it."""
    return shown(unicodedata.normalize("NFC", name))


def _problem(name: str) -> str:
    return "" if on_one_line(name) else "has control characters or broken UTF-8 in its name; rename it"


def _check_parts(folder: Path, found: list[Listed], labelled: bool) -> None:
    classes = [{one.label for one in found if one.split == part} for part in SPLITS]
    alone = sorted(str(name) for name in classes[0] ^ classes[1])
    if labelled and alone:
        raise DataError(
            f"data_dir {folder}: class '{shown(alone[0])}' is in one of train and test alone; add pictures "
            "of it to the other, or remove it"
        )


def _unique(folder: Path, found: list[Listed]) -> list[Listed]:
    for one, other in itertools.pairwise(found):
        if one.name == other.name:
            raise DataError(
                f"data_dir {folder}: '{shown(one.path.name)}' and '{shown(other.path.name)}' have "
                f"the same id '{one.name}'; ids tell pictures apart: rename one, or remove it"
            )
    return found


def _used(file: Path, header: list[str], columns: Columns) -> dict[str, str]:
    """Return the column of each meaning that the table has."""
    usual = {
        **{"path": ["path", "file"], "id": [], "label": ["label"], "source": ["source"]},
        **{"licence": ["licence", "license"], "split": ["split"]},
    }
    found = {}
    for meaning, names in usual.items():
        given = getattr(columns, meaning)
        present = [name for name in ([given] if given else names) if name in header]
        if present:
            found[meaning] = present[0]
        elif given or meaning == "path":
            raise _no_column(file, f"columns.{meaning}", given or meaning, header)
    for name in columns.classes.values():
        if name not in header:
            raise _no_column(file, "columns.classes", name, header)
    return found


def _no_column(file: Path, key: str, name: str, header: list[str]) -> DataError:
    return DataError(
        f"{file}: has no column '{name}' (it has {', '.join(header) or 'none'}); correct parameters.{key}"
    )


def _of_row(
    folder: Path, file: Path, number: int, row: Mapping[str, str], used: Mapping[str, str], columns: Columns
) -> Listed:
    cells = {meaning: row[name].strip() for meaning, name in used.items()}
    path = PurePosixPath(cells["path"])
    split = cells.get("split") or None
    if split not in (None, *SPLITS):
        raise DataError(f"{file}: row {number} belongs to '{shown(split)}'; write train or test")
    label: str | None = cells.get("label") or None
    if columns.classes:
        present = [name for name, key in columns.classes.items() if row[key].strip().casefold() not in _NONE]
        label = present[0] if len(present) == 1 else None
    name = unicodedata.normalize("NFC", cells.get("id") or path.as_posix())
    problem = _problem(name) or _unusable(folder, path)
    known = {*used.values()}
    return Listed(
        folder / path,
        shown(name),
        class_label(label) if label else None,
        split,
        shown("; ".join(filter(None, (cells.get("source"), cells.get("licence"))))),
        {shown(key): shown(value) for key, value in row.items() if key not in known},
        problem,
    )


def _unusable(folder: Path, path: PurePosixPath) -> str:
    if path.is_absolute() or ".." in path.parts:
        return "leads out of the folder; give paths inside it"
    # Unlike Path.is_file this is False, not an error, for names that no file can have.
    if not path.parts or not os.path.isfile(folder / path):
        return "is not there; correct the table, or add the file"
    return ""
