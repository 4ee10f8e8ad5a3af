"""Recorded exhalations from files: a folder of flow waveforms, or CSV and parquet tables in long format.

One bad curve spoils one curve: it is named with its reason among the failures, and the others are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from curvelens.errors import DataError, on_one_line, printable
from curvelens.spirometry.indices import SAMPLES, Indices, measure, on_grid
from curvelens.tables import read_arrow

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FLOW_INTERVAL = 0.002
"""Seconds between two numbers of a waveform file; 2 ms is that of the standard test waveforms."""

LARGEST_VOLUME = 15.0  # L; the largest lungs hold about 10
SMALLEST_VOLUME = 0.05  # L
LARGEST_FLOW = 25.0  # L/s; the strongest efforts reach about 16
_MOST_GAP = 0.1  # s; a coarser curve does not show its steepest part
_SHORTEST = 1.0  # s
_TABLES = {".csv", ".parquet"}


@dataclass(frozen=True, eq=False)
class Curves:
    """Recorded curves.

    Attributes:
        ids: N names.
        volumes: float32 [N, 300], L, 50 ms apart from time zero; the last volume is held.
        indices: What each curve measures, at its own resolution.
        failures: Why other curves could not be used, by name, one line each.
    """

    ids: list[str]
    volumes: np.ndarray
    indices: list[Indices]
    failures: dict[str, str]


def read_curves(path: str | Path, interval: float = FLOW_INTERVAL) -> Curves:
    """Read every curve of a file or a folder.

    Args:
        path: A CSV or parquet file in long format (one row a sample; columns ``id``, ``time_s`` and
            ``volume_l`` or ``flow_l_s``), or a folder with such files and with waveforms: text files of one
            flow a line, L/s, named like the curve.
        interval: Seconds between two lines of a waveform.

    Returns:
        The curves, sorted by name, numbers by value (2 before 10).

    Raises:
        DataError: The path does not exist, holds no such file, a table cannot be read or lacks a column, two
            curves have the same name, or no curve can be used.
    """
    import numpy as np

    path = Path(path)
    found: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {}
    for name, load in _sources(path, interval):
        if name in found:
            raise DataError(f"{path}: two curves are called '{name}'; rename one")
        found[name] = load
    good: dict[str, tuple[np.ndarray, Indices]] = {}
    failures: dict[str, str] = {}
    for name in sorted(
        found, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    ):
        try:
            if not on_one_line(name):
                raise DataError("it has control characters in its name; rename it")
            time, volume = found[name]()
            indices = measure(time, volume)
            good[name] = on_grid(time, volume, indices.time_zero), indices
        except DataError as error:
            failures[printable(name)] = printable(f"curve {name}: {error}")
    if not good:
        reason = next(iter(failures.values()), "there is none")
        raise DataError(f"{path}: no curve can be used; {reason}")
    volumes = np.stack([volume for volume, _ in good.values()]).reshape(-1, SAMPLES)
    return Curves(list(good), volumes, [indices for _, indices in good.values()], failures)


def _sources(
    path: Path, interval: float
) -> Iterator[tuple[str, Callable[[], tuple[np.ndarray, np.ndarray]]]]:
    """Yield the name of every curve, and how to get its time and volume."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder of curves; correct data_dir")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    known = [file for file in files if file.suffix in _TABLES | {".txt"}]
    if not known:
        raise DataError(f"{path}: holds no curves; give CSV, parquet or text files (config/README.md)")
    for file in known:
        if file.suffix == ".txt":
            yield file.stem, partial(_waveform, file, interval)
        else:
            yield from _long_format(file)


def _waveform(file: Path, interval: float) -> tuple[np.ndarray, np.ndarray]:
    """Read a text file of flows, one a line, and integrate it."""
    import numpy as np

    try:
        flow = np.array([float(word) for word in file.read_text(encoding="utf-8").split()])
    except (ValueError, OSError) as error:
        raise DataError(f"{file.name} is not a list of numbers ({' '.join(str(error).split())})") from error
    time = interval * np.arange(len(flow))
    return time, _integrated(time, flow)


def _long_format(file: Path) -> Iterator[tuple[str, Callable[[], tuple[np.ndarray, np.ndarray]]]]:
    import pandas as pd

    try:
        table = (
            pd.read_csv(file, dtype={"id": str}) if file.suffix == ".csv" else read_arrow(file).to_pandas()
        )
    except DataError:
        raise
    except Exception as error:  # damage leads the readers to all kinds of exceptions
        raise DataError(f"{file}: not readable ({type(error).__name__}); save it again") from error
    columns = set(table.columns)
    missing = [name for name in ("id", "time_s") if name not in columns]
    missing += [] if columns & {"volume_l", "flow_l_s"} else ["volume_l or flow_l_s"]
    if missing:
        raise DataError(
            f"{file}: has no column {missing[0]} (it has {', '.join(map(str, table.columns))}); "
            "give id, time_s and volume_l or flow_l_s, one row a sample"
        )
    if not table.columns.is_unique:
        raise DataError(f"{file}: has two columns of one name; remove one")
    if table["id"].isna().any():
        raise DataError(f"{file}: row {int(table['id'].isna().argmax()) + 1} has no id; name its curve")
    if not all(isinstance(name, (str, int)) for name in table["id"].tolist()):
        raise DataError(f"{file}: id holds {table['id'].dtype} values; give each curve a name or a number")
    for name, rows in table.groupby(table["id"].astype(str), sort=False):
        yield str(name), partial(_from_rows, rows)


def _from_rows(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np
    import pandas as pd

    quantity = "volume_l" if "volume_l" in rows else "flow_l_s"
    time, values = (
        pd.to_numeric(rows[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        for name in ("time_s", quantity)
    )
    for name, column in (("time_s", time), (quantity, values)):
        if not np.isfinite(column).all():
            at = int((~np.isfinite(column)).argmax()) + 1
            raise DataError(f"sample {at} has no number in {name}; fill it in or leave the sample out")
    _long_enough(time)
    steps = np.diff(time)
    if (steps <= 0).any():
        at = int((steps <= 0).argmax())
        raise DataError(
            f"time_s does not increase from {time[at]:g} to {time[at + 1]:g} s; sort the samples, one a time"
        )
    if steps.max() > _MOST_GAP:
        raise DataError(
            f"{steps.max():g} s between two samples; give at least 10 a second, time_s in seconds"
        )
    if quantity == "flow_l_s":
        return time, _integrated(time, values)
    return time, _plausible(values - values[0])


def _integrated(time: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Return the volume, L, by the trapezoidal rule."""
    import numpy as np

    _long_enough(time)
    if not np.isfinite(flow).all():
        at = int((~np.isfinite(flow)).argmax()) + 1
        raise DataError(f"sample {at} has no number; fill it in or leave the curve out")
    if np.abs(flow).max() > LARGEST_FLOW:
        raise DataError(
            f"the flow reaches {np.abs(flow).max():g}, implausible in L/s; divide L/min by 60, mL/s by 1000"
        )
    steps = (flow[1:] + flow[:-1]) / 2 * np.diff(time)
    return _plausible(np.concatenate([[0.0], np.cumsum(steps)]))


def _long_enough(time: np.ndarray) -> None:
    lasts = float(abs(time[-1] - time[0])) if len(time) else 0.0
    if not lasts >= _SHORTEST:
        raise DataError(f"it lasts {lasts:.2f} s, too short for FEV1; give the whole exhalation")


def _plausible(volume: np.ndarray) -> np.ndarray:
    if not SMALLEST_VOLUME <= volume.max() <= LARGEST_VOLUME:
        raise DataError(
            f"the largest volume is {volume.max():g}, implausible in L; divide mL by 1000, check the sign"
        )
    return volume
