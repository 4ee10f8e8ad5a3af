"""Snakemake's own share of a run: wall time less the time in which at least one job was running.

    python benchmarks/workflow_overhead.py --out docs/benchmarks [--configfile config/test.yaml]

Runs the whole workflow once in an empty folder. A job's interval is taken from its benchmark file: it ends
when that file was written and lasted as long as the file says, the job's imports included.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def intervals(folder: Path) -> list[tuple[float, float]]:
    """Start and end of every job, in seconds since the epoch, by start."""
    found = []
    for path in folder.rglob("*.tsv"):
        with path.open(newline="", encoding="utf-8") as stream:
            seconds = float(next(csv.DictReader(stream, delimiter="\t"))["s"])
        end = path.stat().st_mtime
        found.append((end - seconds, end))
    return sorted(found)


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def measure(configfile: Path, cores: int, directory: Path | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(directory or temporary)
        Path(folder).mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--directory", folder]
        command += ["--cores", str(cores), "--configfile", str(configfile), "--quiet", "all"]
        start = time.time()
        subprocess.run(command, check=True, cwd=folder)
        wall = time.time() - start
        spans = intervals(Path(folder) / "results/benchmarks")
    busy = covered(spans)
    return {
        "jobs": len(spans),
        "wall_seconds": wall,
        "job_seconds": sum(end - start for start, end in spans),
        "busy_seconds": busy,
        "overhead_seconds": wall - busy,
        "overhead_share": (wall - busy) / wall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks")
    parser.add_argument("--configfile", type=Path, default=ROOT / "config/config.yaml")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--directory", type=Path, help="an empty folder that keeps the results")
    arguments = parser.parse_args()
    row = {"config": arguments.configfile.name, "cores": arguments.cores}
    measured = measure(arguments.configfile.resolve(), arguments.cores, arguments.directory)
    row |= {key: round(value, 3) for key, value in measured.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "workflow_overhead.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, row, lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)
    print(" ".join(f"{key}={value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
