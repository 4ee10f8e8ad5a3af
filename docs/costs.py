"""Write what runs cost into docs/clusters.md and config/README.md, from the benchmark files of finished runs.

    python docs/costs.py --run test=… --run default=… --run "MNIST at the papers' size"=… --pictures …

Each ``--run`` names a folder of results, the last one of a kind first where several measured the same stage;
``--pictures`` the results of config/imagenet_size.yaml. Measure on an idle machine: the times are wall times.
What stands between the markers ``begin`` and ``end`` of the two pages is rewritten.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from pictures import fill  # noqa: E402

from curvelens import datasets, workload  # noqa: E402
from curvelens.figures.wording import count, duration  # noqa: E402
from curvelens.manifest import jobs  # noqa: E402
from curvelens.workload import Measured, Stage  # noqa: E402

PICTURES = 50_000
MINUTES = 10.0
GPU = 100.0
"""How many times faster than one core a GPU is assumed to be; none has been measured."""


@dataclass(frozen=True)
class Run:
    """A finished run: what it is called, its folder, what its jobs cost."""

    label: str
    folder: Path
    measured: Measured


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (head, ["---"] * len(head), *rows))


def hours(seconds: float) -> str:
    """Return seconds as hours."""
    return "< 0.01" if seconds < 36 else two_digits(seconds / 3600)


def two_digits(value: float) -> str:
    """Return a number with two digits that count, without an exponent above a thousandth."""
    return f"{value:.2g}" if value < 100 else f"{float(f'{value:.2g}'):,.0f}"


def size(number: float) -> str:
    """Return bytes in the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.2g} {unit}" if number < 10 else f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.2g} TB"


# ---------------------------------------------------------------- what was measured


def totals(run: Run) -> list[object]:
    """Return a run's row: jobs, core hours, longest job, peak memory, disk."""
    found = jobs(run.folder / "benchmarks")
    seconds = [job["seconds"] for job in found if job["seconds"] is not None]
    peak = max(job["peak_mib"] for job in found if job["peak_mib"] is not None)
    disk = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
    return [
        run.label,
        len(found),
        hours(sum(seconds)),
        duration(max(seconds)),
        f"{peak:,.0f} MiB",
        size(disk),
    ]


def machines(runs: Sequence[Run]) -> str:
    """Say where and when the runs were made."""
    told = {}
    for run in runs:
        path = run.folder / "report/run.json"
        hardware = json.loads(path.read_text(encoding="utf-8"))["hardware"]
        day = datetime.datetime.fromtimestamp(path.stat().st_mtime, tz=datetime.UTC).date().isoformat()
        told[f"{hardware['processor']}, {hardware['memory']} of memory, {day}"] = None
    return f"Measured on {'; '.join(told)}."


# ---------------------------------------------------------------- the papers' size


def gradient_seconds(
    architecture: str, parameters: Mapping[str, Any], shape: Sequence[int], classes: int
) -> float:
    """Time a gradient of a network with random weights, an image: the fastest of five with eight images."""
    import torch

    from curvelens import models

    torch.set_num_threads(1)  # as in jobs
    model = models.build(architecture, dict(parameters), classes, tuple(shape), seed=0)
    x = torch.rand(8, *shape, requires_grad=True)
    took = []
    for _ in range(6):
        start = time.perf_counter()
        torch.autograd.grad(model(x).max(1).values.sum(), x)
        took.append(time.perf_counter() - start)
    return min(took[1:]) / len(x)


def _network(config: Mapping[str, Any], experiment: str) -> tuple[str, str, tuple[int, ...], int]:
    """Return architecture, parameters as JSON, shape of an image and number of classes."""
    model = config["models"][config["experiments"][experiment]["model"]]
    dataset = config["datasets"][model["dataset"]]
    traits = datasets.REGISTRY.get(dataset["source"]).traits
    side = dataset["parameters"].get("size")
    shape = traits["image_shape"] if side is None else (3, side, side)
    parameters = json.dumps(model["parameters"], sort_keys=True)
    return model["architecture"], parameters, tuple(shape), traits.get("classes") or 1000


class Speeds:
    """Gradient times of networks, each measured once."""

    def __init__(self, timed: Callable[..., float] = gradient_seconds):
        self._timed, self._known = timed, dict[tuple[Any, ...], float]()

    def of(self, network: tuple[str, str, tuple[int, ...], int]) -> float:
        if network not in self._known:
            architecture, parameters, shape, classes = network
            self._known[network] = self._timed(architecture, json.loads(parameters), shape, classes)
        return self._known[network]


@dataclass(frozen=True)
class Estimate:
    """Seconds of all jobs of a stage, and how they are known."""

    stage: Stage
    seconds: float
    basis: str


def estimate(config: Mapping[str, Any], runs: Sequence[Run], speeds: Speeds) -> list[Estimate]:
    """Return what each stage of a configuration costs, from the run that measured the most alike one."""
    features = {name: math.prod(_network(config, name)[2]) for name in config["experiments"]}
    found = []
    for stage in workload.stages(config, features):
        network = _network(config, stage.experiment)
        best: tuple[tuple[float, ...], float] | None = None
        for run in runs:
            for name, rate in run.measured.rates.items():
                if _kind(name) != _kind(stage.name):
                    continue
                other = _network(run.measured.config, name.split("/")[1])
                scale = stage.work / rate.work
                speed = 1.0 if network == other else speeds.of(network) / speeds.of(other)
                unlike = (network != other, abs(scale - 1) > 0.01, abs(math.log(speed)))
                if best is None or unlike < best[0]:
                    image = rate.seconds * scale * speed
                    best = unlike, run.measured.start * stage.shards + image * stage.images
        if best is not None:
            scaled = [what for what, differs in zip(("network", "calls"), best[0], strict=False) if differs]
            found.append(Estimate(stage, best[1], " and ".join(reversed(scaled)) or "measured"))
    return found


def _kind(name: str) -> tuple[str, str]:
    """Return the rule of a group of jobs, and its split where splits have jobs of their own."""
    rule, *_, last = name.split("/")
    return rule, last if last in ("validation", "test") else ""


def planned(found: Sequence[Estimate]) -> list[list[object]]:
    """Return a row for each experiment and way of knowing."""
    groups: dict[tuple[str, str], list[Estimate]] = defaultdict(list)
    for one in found:
        groups[one.stage.experiment, one.basis].append(one)
    rows: list[list[object]] = []
    for (experiment, basis), members in groups.items():
        seconds = sum(one.seconds for one in members)
        names = ", ".join(dict.fromkeys(one.stage.section for one in members))
        told = "measured" if basis == "measured" else f"computed ({basis})"
        jobs_ = sum(one.stage.shards for one in members)
        rows.append([experiment, names, told, jobs_, hours(seconds), hours(seconds / GPU)])
    total = sum(one.seconds for one in found)
    return [*rows, ["all", "", "", sum(one.stage.shards for one in found), hours(total), hours(total / GPU)]]


# ---------------------------------------------------------------- 50,000 pictures


def per_method(run: Run) -> list[list[object]]:
    """Return a row for each method and for the distances: what a picture costs, and what 50,000 cost."""
    import pandas as pd

    rows: list[list[object]] = []
    for experiment in run.measured.config["experiments"]:
        explained = pd.read_parquet(run.folder / f"tables/{experiment}/explanations.parquet")
        for method, part in explained.groupby("method", sort=False):
            files = list((run.folder / f"explanations/{experiment}/{method}").glob("*.npz"))
            stored = sum(path.stat().st_size for path in files) / part["image_id"].nunique()
            rows.append(_scaled(run, str(method), part["calls"].mean(), part["seconds"].mean(), stored))
        rate = run.measured.rates[f"compute_distances/{experiment}"]
        compared = pd.read_parquet(run.folder / f"tables/{experiment}/distances.parquet")
        stored = (run.folder / f"tables/{experiment}/distances.parquet").stat().st_size / len(compared)
        rows.append(_scaled(run, "CASO against CAFO", compared["calls"].mean(), rate.seconds, stored))
    return rows


def _scaled(run: Run, name: str, calls: float, seconds: float, stored: float) -> list[object]:
    shards = max(1, math.ceil(PICTURES * seconds / (60 * MINUTES - run.measured.start)))
    total = PICTURES * seconds + shards * run.measured.start
    return [
        name,
        f"{calls:.0f}",
        f"{seconds:.2g}",
        f"{shards:,}",
        hours(total),
        hours(total / GPU),
        size(PICTURES * stored),
    ]


# ---------------------------------------------------------------- the pages


def rates(runs: Sequence[Run]) -> str:
    """Return what an image of each stage costs in the runs that were measured."""
    rows = [
        [
            run.label,
            name.replace("/", ", "),
            rate.images,
            two_digits(rate.seconds),
            f"{rate.peak_mib:,.0f} MiB",
        ]
        for run in runs
        for name, rate in run.measured.rates.items()
    ]
    starts = " and ".join(f"{run.measured.start:.0f} s ({run.label})" for run in runs)
    head = ["run", "jobs of", "images", "seconds an image", "peak memory"]
    return f"Before its first image a job takes {starts}.\n\n{table(head, rows)}"


def clusters(runs: Sequence[Run], pictures: Run, paper: Mapping[str, Any], speeds: Speeds) -> dict[str, str]:
    """Return the parts of docs/clusters.md, by marker."""
    found = estimate(paper, [*runs, pictures], speeds)
    costs = ["core hours", f"GPU hours at {GPU:g}×"]
    several = "gradient calls", "seconds a picture", f"jobs of {MINUTES:g} minutes"
    known = pictures.measured.rates.values()
    peak = max(rate.peak_mib for rate in known if rate.peak_mib == rate.peak_mib)
    images = count(min(rate.images for rate in known), "picture")
    return {
        "measured": table(
            ["run", "jobs", "core hours", "longest job", "peak memory of a job", "disk"],
            map(totals, [*runs, pictures]),
        )
        + f"\n\n{machines([*runs, pictures])}",
        "paper": table(["experiment", "stages", "known from", "jobs", *costs], planned(found)),
        "pictures": table(["method", *several, *costs, "disk"], per_method(pictures))
        + f"\n\nMeasured on {images} or more, and multiplied. A job took {peak:,.0f} MiB of memory at most.",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", action="append", default=[], metavar="LABEL=RESULTS", help="a finished run")
    parser.add_argument("--pictures", type=Path, required=True, help="results of config/imagenet_size.yaml")
    parser.add_argument("--root", type=Path, default=ROOT, help="where the pages are")
    chosen = parser.parse_args(arguments)
    runs = [
        Run(label, Path(folder), workload.measure(folder))
        for label, _, folder in (text.partition("=") for text in chosen.run)
    ]
    pictures = Run("pictures", chosen.pictures, workload.measure(chosen.pictures))
    paper = workload.configuration(ROOT / "config/paper.yaml")
    pages = {
        "docs/clusters.md": clusters(runs, pictures, paper, Speeds()),
        "config/README.md": {"rates": rates([*runs, pictures])},
    }
    for name, parts in pages.items():
        page = chosen.root / name
        page.write_text(fill(page.read_text(encoding="utf-8"), parts), encoding="utf-8")
        print(f"written: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
