"""Tables: what each column means, checked whenever a table is written and again when it is read.

A :class:`Table` is a light description (names, types, units, bounds) from which a strict pandera schema is
built on first use, so that modules may declare tables without importing pandas. Tables with a ``status``
column may hold rows of failed images: those need an image id, a status and an error, and may lack all else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.errors import DataError
from curvelens.npz import REMEDY, in_short
from curvelens.writing import atomic

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa
    import pyarrow

OK = "ok"
FAILED = "failed"
_DTYPES = {str: "str", int: "int64", float: "float64", bool: "bool"}
_NULLABLE = {str: "str", int: "Int64", float: "float64", bool: "boolean"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
_SURVIVING = ("image_id", "status", "error")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        dtype: ``str``, ``int``, ``float`` or ``bool``.
        description: Its meaning, one sentence.
        unit: Unit of the values, e.g. ``"s"``; empty for pure numbers and names.
        nullable: Whether a row that did not fail may lack it.
        ge, gt, le, lt: Bounds.
        isin: Permitted values.
        finite: Whether infinite numbers are refused.
    """

    dtype: type
    description: str
    unit: str = ""
    nullable: bool = False
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    isin: tuple[Any, ...] | None = None
    finite: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise TypeError(f"column dtype must be str, int, float or bool, not {self.dtype!r}")
        if not self.description:
            raise TypeError("a column needs a description")

    def range(self) -> str:
        """Return the permitted values in words, e.g. ``"≥ 0, ≤ 1"``."""
        bounds = (("≥", self.ge), (">", self.gt), ("≤", self.le), ("<", self.lt))
        parts = [f"{sign} {bound:g}" for sign, bound in bounds if bound is not None]
        if self.isin is not None:
            parts.append(", ".join(str(value) for value in self.isin))
        return ", ".join(parts)


IMAGE_COLUMNS: dict[str, Column] = {
    "image_id": Column(str, "Name of the image: data set and index in it."),
    "label": Column(int, "True class index; -1 where it is not known.", ge=-1),
    "prediction": Column(int, "Class index with the largest logit.", ge=0),
    "confidence": Column(float, "SoftMax probability of the predicted class.", ge=0, le=1 + 1e-6),
}
"""First columns of every per-image table."""

RUN_COLUMNS: dict[str, Column] = {
    "seconds": Column(float, "Wall time spent on the row.", unit="s", ge=0),
    "calls": Column(int, "Gradient calls made for the row.", ge=0),
    "status": Column(str, "Whether the row was computed.", isin=(OK, FAILED)),
    "error": Column(str, "Why the row failed, one line; empty where it did not."),
}
"""Last columns of every per-image table."""


@dataclass(frozen=True)
class Table:
    """Description of a table; see :func:`schema`."""

    name: str
    description: str
    columns: Mapping[str, Column]
    keys: tuple[str, ...]
    _failures: bool = field(init=False)

    def __post_init__(self) -> None:
        unknown = [key for key in self.keys if key not in self.columns]
        if unknown or not self.columns:
            raise TypeError(f"table {self.name}: its keys {list(self.keys)} are not among its columns")
        object.__setattr__(self, "_failures", "status" in self.columns)

    def _nullable(self, name: str) -> bool:
        return self.columns[name].nullable or (self._failures and name not in _SURVIVING)

    @cached_property
    def pandera(self) -> pa.DataFrameSchema:
        """The strict, coercing pandera schema, built once."""
        import pandera.pandas as pa

        columns = {name: self._pandera_column(name) for name in self.columns}
        return pa.DataFrameSchema(
            columns,
            name=self.name,
            description=self.description,
            strict=True,
            coerce=True,
            ordered=True,
            metadata={"keys": list(self.keys)},
        )

    def _pandera_column(self, name: str) -> pa.Column:
        import numpy as np
        import pandera.pandas as pa

        column, nullable = self.columns[name], self._nullable(name)
        bounds = {"ge": column.ge, "gt": column.gt, "le": column.le, "lt": column.lt}
        checks = [getattr(pa.Check, kind)(bound) for kind, bound in bounds.items() if bound is not None]
        if column.isin is not None:
            checks.append(pa.Check.isin(list(column.isin)))
        if column.dtype is float and column.finite:
            checks.append(pa.Check(lambda values: ~np.isinf(values), error="finite"))
        dtype = (_NULLABLE if nullable else _DTYPES)[column.dtype]
        metadata = {"unit": column.unit}
        return pa.Column(dtype, checks, nullable=nullable, description=column.description, metadata=metadata)

    def validate(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Check a data frame and return it with columns, types and rows in their canonical order.

        Args:
            frame: Columns in any order; the index is ignored.

        Returns:
            A new frame: columns as declared, rows sorted by the key columns, index 0..n-1.

        Raises:
            DataError: A column is missing or unknown, a value has the wrong type or is out of bounds, a row
                that did not fail lacks a value, or two rows have the same keys.
        """
        import pandera.errors

        self._check_names(frame)
        frame = frame[list(self.columns)].reset_index(drop=True)
        try:
            frame = self.pandera.validate(frame, lazy=True)
        except pandera.errors.SchemaErrors as error:
            raise DataError(f"table {self.name}: {_first_failure(error)}") from error
        self._check_missing(frame)
        if self.keys:
            keys = list(self.keys)
            double = frame.duplicated(keys)
            if double.any():
                shown = ", ".join(f"{key}={frame.loc[double.idxmax(), key]}" for key in keys)
                raise DataError(
                    f"table {self.name}: more than one row has {shown}; give each row its own keys"
                )
            frame = frame.sort_values(keys, kind="stable", na_position="last").reset_index(drop=True)
        return frame

    def _check_names(self, frame: pd.DataFrame) -> None:
        missing = [name for name in self.columns if name not in frame.columns]
        unknown = [str(name) for name in frame.columns if name not in self.columns]
        if missing or unknown:
            parts = [f"lacks {', '.join(missing)}"] if missing else []
            parts += [f"has unknown columns {', '.join(unknown)}"] if unknown else []
            raise DataError(f"table {self.name}: {' and '.join(parts)}")

    def _check_missing(self, frame: pd.DataFrame) -> None:
        if not self._failures:
            return
        fine = frame["status"] == OK
        for name, column in self.columns.items():
            empty = frame[name].isna() & fine
            if not column.nullable and empty.any():
                where = f"image {frame.loc[empty.idxmax(), 'image_id']}" if "image_id" in frame else "a row"
                raise DataError(f"table {self.name}: {name} is missing for {where}, which did not fail")


SCHEMAS: dict[str, Table] = {}
"""Every table declared by the modules imported so far, by name."""


def schema(name: str, description: str, columns: Mapping[str, Column], keys: Sequence[str] = ()) -> Table:
    """Declare a table and record it in :data:`SCHEMAS`.

    Args:
        name: Unique name, also that of the file.
        description: What a row is, one sentence.
        columns: Columns by name, in order; see :data:`IMAGE_COLUMNS` and :data:`RUN_COLUMNS`.
        keys: Columns that identify a row; rows are sorted by them.

    Raises:
        TypeError: A key is no column, or another table has this name.
    """
    table = Table(name, description, dict(columns), tuple(keys))
    if name in SCHEMAS and SCHEMAS[name] != table:
        raise TypeError(f"another table is called {name}")
    return SCHEMAS.setdefault(name, table)


def frame(rows: Iterable[Mapping[str, Any]], table: Table) -> pd.DataFrame:
    """Make a checked data frame of rows; values that a failed row lacks become missing values.

    In a table with a status, a row that has NaN or infinity where a finite number belongs becomes a failed
    row: what one image leads to must not cost the others their table.

    Args:
        rows: One mapping a row.
        table: Description of the table.

    Raises:
        DataError: The rows do not fit the table.
    """
    import pandas as pd

    rows = [_spoiled(dict(row), table) for row in rows]
    unknown = sorted({name for row in rows for name in row} - set(table.columns))
    return table.validate(pd.DataFrame(rows, columns=[*table.columns, *unknown], dtype=object))


def _spoiled(row: dict[str, Any], table: Table) -> dict[str, Any]:
    """Return the row, as a failed one if a number that has to be finite is not."""
    if row.get("status") != OK:
        return row
    bad = [name for name, column in table.columns.items() if _is_wild(row.get(name), column)]
    if not bad:
        return row
    told = ", ".join(f"{name} is {float(row[name]):g}" for name in bad)
    kept = {*table.keys, *IMAGE_COLUMNS, *RUN_COLUMNS}.difference(bad)
    known = {name: value for name, value in row.items() if name in kept}
    return known | {"status": FAILED, "error": f"not a finite number: {told}"}


def _is_wild(value: Any, column: Column) -> bool:
    if column.dtype is not float or value is None or isinstance(value, str):
        return False
    return (math.isinf(value) and column.finite) or (math.isnan(value) and not column.nullable)


def write(
    data: pd.DataFrame, table: Table, parquet_path: str | Path, csv_path: str | Path | None = None
) -> pd.DataFrame:
    """Check a table and write it; the same content always gives the same bytes.

    Args:
        data: The rows.
        table: Description of the table.
        parquet_path: Parquet file, which keeps every digit.
        csv_path: CSV for people: 6 significant digits, and an apostrophe before texts that a spreadsheet
            would take for formulas.

    Returns:
        The rows as written.

    Raises:
        DataError: The rows do not fit the table; nothing is written.
    """
    import pyarrow
    import pyarrow.parquet

    data = table.validate(data)
    arrow = pyarrow.Table.from_pandas(data, preserve_index=False)
    arrow = arrow.cast(pyarrow.schema([_arrow_field(item, table) for item in arrow.schema]))
    if csv_path is not None:
        with atomic(csv_path) as temporary:
            _without_formulas(data, table).to_csv(
                temporary, index=False, float_format="%.6g", lineterminator="\n", encoding="utf-8"
            )
    with atomic(parquet_path) as temporary:
        pyarrow.parquet.write_table(arrow, temporary, compression="zstd", version="2.6")
    return data


def _without_formulas(data: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Return the rows with texts such as ``=cmd|' /C calc'!A0`` quoted as spreadsheets do."""
    texts = [name for name, column in table.columns.items() if column.dtype is str]
    quoted = {name: data[name].map(_quoted, na_action="ignore") for name in texts}
    return data.assign(**quoted)


def _quoted(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def read_arrow(path: str | Path, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """Read a parquet file as it is, and look at every value: damage may otherwise show much later.

    Args:
        path: The file.
        columns: Columns to read; None reads all.

    Raises:
        DataError: The file is missing, is not parquet, lacks a column, or holds text that is not UTF-8 or
            values beyond its end.
    """
    import pyarrow.parquet

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such table; run the step that makes it, or correct the path")
    try:
        data = pyarrow.parquet.read_table(path, columns=columns, partitioning=None)
        data.validate(full=True)
    except Exception as error:  # damage leads the reader to all kinds of exceptions
        raise DataError(f"{path}: not readable as parquet ({in_short(error)}); {REMEDY}") from error
    lacking = [name for name in columns or [] if name not in data.column_names]
    if lacking:
        raise DataError(f"{path}: has no column {lacking[0]}; {REMEDY}")
    return data


def read(path: str | Path, table: Table) -> pd.DataFrame:
    """Read a parquet table and check it.

    Raises:
        DataError: The file is missing, damaged or does not fit the table.
    """
    import pandas as pd
    import pyarrow

    nullable = {pyarrow.int64(): pd.Int64Dtype(), pyarrow.bool_(): pd.BooleanDtype()}
    data = read_arrow(path).to_pandas(types_mapper=nullable.get)
    try:
        return table.validate(data)
    except DataError as error:
        raise DataError(f"{path}: {error}; {REMEDY}") from error


def collect(paths: Iterable[str | Path], table: Table) -> pd.DataFrame:
    """Read several parts (shards) of a table as one.

    Raises:
        DataError: A part is missing or damaged, or two parts hold the same row.
    """
    import pandas as pd

    parts = [read(path, table) for path in paths]
    if not parts:
        return frame([], table)
    return table.validate(pd.concat(parts, ignore_index=True))


def describe_markdown(tables: Iterable[Table] | None = None) -> str:
    """Describe tables for people: one section a table, one line a column.

    Args:
        tables: The tables; by default all of :data:`SCHEMAS`, sorted by name.

    Returns:
        Markdown with a level-2 heading for each table.
    """
    chosen = list(tables) if tables is not None else [SCHEMAS[name] for name in sorted(SCHEMAS)]
    return "\n".join(_section(table) for table in chosen)


def _section(table: Table) -> str:
    lines = [f"## `{table.name}`", "", table.description, ""]
    if table.keys:
        lines += [f"One row for each {', '.join(f'`{key}`' for key in table.keys)}.", ""]
    lines += ["| column | type | unit | values | meaning |", "|---|---|---|---|---|"]
    for name, column in table.columns.items():
        values = column.range() + (" or missing" if column.nullable else "")
        cells = (f"`{name}`", column.dtype.__name__, column.unit, values.strip(), column.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _arrow_field(item: pyarrow.Field, table: Table) -> pyarrow.Field:
    import pyarrow

    column = table.columns[item.name]
    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    return pyarrow.field(
        item.name, types[column.dtype], metadata={"description": column.description, "unit": column.unit}
    )


def _first_failure(error: Any) -> str:
    cases = error.failure_cases.to_dict("records")
    case = cases[0]
    where = "" if case["index"] is None or case["index"] != case["index"] else f" in row {int(case['index'])}"
    more = f"; and {len(cases) - 1} more" if len(cases) > 1 else ""
    return f"column {case['column']}{where}: {case['failure_case']!r} is not {case['check']}{more}"
