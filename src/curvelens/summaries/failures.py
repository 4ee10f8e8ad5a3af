"""How many images failed in each stage: one bad image spoils one row, many bad images spoil the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.errors import DataError
from curvelens.experiments.rows import failed_share
from curvelens.store import load_json
from curvelens.tables import FAILED, Column, frame, read_arrow, schema

if TYPE_CHECKING:
    import pandas as pd

FAILURES = schema(
    "failures",
    "Failed images of every per-image table.",
    {
        "experiment": Column(str, "Name of the experiment, study or data set."),
        "stage": Column(str, "Name of the table; `pictures` for files of a data set that cannot be read."),
        "images": Column(int, "Images in the table.", ge=0),
        "failed": Column(int, "Images with at least one failed row.", ge=0),
        "share": Column(float, "failed / images.", ge=0, le=1),
        "first_error": Column(str, "Error of the first failed row; empty where none failed."),
    },
    keys=("experiment", "stage"),
)


def count(tables: Mapping[tuple[str, str], Path], datasets: Mapping[str, Path] | None = None) -> pd.DataFrame:
    """Count failed images.

    Args:
        tables: Parquet files with columns ``image_id``, ``status`` and ``error``, by (experiment, stage).
        datasets: ``dataset.json`` of data sets by name; those whose files could all be read add no row.

    Returns:
        The table :data:`FAILURES`.

    Raises:
        DataError: If a table is missing or damaged.
    """
    rows = []
    for (experiment, stage), path in tables.items():
        table = read_arrow(path, ["image_id", "status", "error"]).to_pandas()
        for name in ("image_id", "status", "error"):
            if not all(isinstance(value, str) for value in table[name]):
                raise DataError(f"{path}: {name} is not text in every row; delete it and run again")
        failed = table[table["status"] == FAILED]
        rows.append(
            {
                "experiment": experiment,
                "stage": stage,
                "images": table["image_id"].nunique(),
                "failed": failed["image_id"].nunique(),
                "share": failed_share(table),
                "first_error": "" if failed.empty else failed["error"].iloc[0],
            }
        )
    rows += [row for name, path in (datasets or {}).items() for row in _unreadable(name, load_json(path))]
    return frame(rows, FAILURES)


def _unreadable(name: str, described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for the pictures of a data set that could not be read, if there are any."""
    failed = unreadable(described)
    if not failed:
        return []
    images = sum(described["sizes"].values()) + len(failed)
    first, reason = next(iter(failed.items()))
    return [
        {
            "experiment": name,
            "stage": "pictures",
            "images": images,
            "failed": len(failed),
            "share": len(failed) / images,
            "first_error": f"{first}: {reason}",
        }
    ]


def unreadable(described: Mapping[str, Any]) -> dict[str, str]:
    """Return why pictures of a data set could not be read, by name.

    Args:
        described: Its ``dataset.json``; masks that could not be read are left out.
    """
    failed = described.get("failed", {})
    return {name: reason for name, reason in failed.items() if not name.startswith("mask of ")}


def check(failures: pd.DataFrame, threshold: float) -> None:
    """Refuse a run in which too many images failed.

    Args:
        failures: The table :data:`FAILURES`.
        threshold: Largest acceptable share, in [0, 1].

    Raises:
        DataError: If a stage exceeds the threshold; the line names the worst stage and its first error.
    """
    worst = failures.sort_values("share").tail(1)
    if len(worst) and float(worst["share"].iloc[0]) > threshold:
        row = worst.iloc[0]
        raise DataError(
            f"{row['experiment']}/{row['stage']}: {row['failed']} of {row['images']} images failed, more "
            f"than failure_threshold = {threshold:g} allows; the first: {row['first_error']}"
        )
