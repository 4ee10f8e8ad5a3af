"""Time and memory of the jobs of a run, from the benchmark files that Snakemake wrote."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """What was measured of one job; None stands for what could not be, as of jobs of a fraction of a second.

    Attributes:
        name: Rule and wildcards, ``"train_model/mnist_relu"``.
        seconds: Wall time.
        cpu_seconds: Time of all its processors.
        peak_mib: Largest resident memory, MiB.
    """

    name: str
    seconds: float | None
    cpu_seconds: float | None
    peak_mib: float | None

    @property
    def rule(self) -> str:
        """The rule, the first part of the name."""
        return self.name.partition("/")[0]


def read(paths: Iterable[str | Path]) -> list[Job]:
    """Read benchmark files.

    Args:
        paths: Files ``…/benchmarks/{rule}/{wildcards}.tsv``, in any other folder ``{rule}.tsv``; those that
            do not exist are left out.

    Returns:
        One job for each line of a file, in the order of the paths.
    """
    found = []
    for path in map(Path, paths):
        if not path.is_file():
            continue
        with path.open(newline="", encoding="utf-8") as stream:
            found += [
                Job(
                    _name(path),
                    _number(row.get("s")),
                    _number(row.get("cpu_time")),
                    _number(row.get("max_rss")),
                )
                for row in csv.DictReader(stream, delimiter="\t")
            ]
    return found


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    folders = [place for place, part in enumerate(parts[:-1]) if part == "benchmarks"]
    return "/".join(parts[folders[-1] + 1 :]) if folders else parts[-1]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:  # Snakemake writes "-" or "NA" for what it could not measure
        return None
    return value if math.isfinite(value) else None
