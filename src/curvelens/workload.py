"""What jobs cost, from the benchmark files of a finished run, and how many shards a stage should have.

A job of a stage takes ``start + images * seconds``: loading Python, PyTorch and the network, then each image.
Where settings differ from those of the run that was measured, the seconds of an image are taken to grow with
its work (:func:`work`), counted in gradient calls, so that time scales as images x methods x calls.

    python -m curvelens.workload results                              # of the run that is in results
    python -m curvelens.workload pilot/results --configfile big.yaml  # of a larger one, from a small one

prints the time of each stage's jobs, and the shards that make them ten minutes long (``--minutes``).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curvelens.config import load
from curvelens.errors import CurvelensError, DataError
from curvelens.manifest import jobs
from curvelens.store import load_json

STAGES = {
    "explain": "explanations",
    "compute_spectra": "spectra",
    "compute_distances": "distances",
    "measure_fidelity": "fidelity",
    "measure_attacks": "attacks",
    "measure_trust": "trust",
    "compute_superpixels": "superpixels",
    "compute_sparsity": "sparsity",
    "judge": "judging",
}
"""Stages whose images are divided among jobs: the section of the configuration for each rule."""
_NETWORK = (*STAGES, "import_model", "evaluate_model", "train_model", "choose_neuron", "predict_images")
_FORWARD = 1 / 3  # of a gradient call: a backward pass costs two forward passes
_RADII = 40  # that a search for a trust radius looks at, about


@dataclass(frozen=True)
class Rate:
    """What an image costs in a group of jobs with the same settings.

    Attributes:
        seconds: Of an image.
        images, jobs: That were measured.
        peak_mib: Largest memory of these jobs; NaN where it was not measured.
        work: Of an image, in gradient calls.
    """

    seconds: float
    images: int
    jobs: int
    peak_mib: float
    work: float


@dataclass(frozen=True)
class Measured:
    """The costs of a finished run.

    Attributes:
        start: Seconds before the first image: the shortest job of the run that loads a network.
        rates: By rule and what stands between it and the shard in the names of its benchmark files.
        config: The configuration of the run.
    """

    start: float
    rates: dict[str, Rate]
    config: dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """The jobs of one stage of one experiment, of one split where splits have jobs of their own.

    Attributes:
        name: As in the names of its benchmark files, without the shard.
        experiment, section: Where its settings are.
        images, shards: How many.
        work: Of an image, in gradient calls.
    """

    name: str
    experiment: str
    section: str
    images: int
    shards: int
    work: float


def work(section: str, settings: Mapping[str, Any], split: str, features: int) -> float:
    """Return what an image costs in a stage, in gradient calls; of use for ratios.

    Only what is proportional to settings counts. A Hessian is as many products as there are features, and a
    product is taken for a gradient call, a forward pass for a third of one.

    Args:
        section: Name of the stage in the configuration.
        settings: Its settings, complete.
        split: ``"validation"`` or ``"test"``: the whole grid of parameters, or those that were chosen.
        features: Numbers in an image.
    """
    get, grid = settings.get, split == "validation"
    radii = len(get("radii") or get("magnitudes") or ())
    scored = _FORWARD * (get("samples") or 0)
    if section == "explanations":
        calls = sum(_calls(chosen) for chosen in settings["methods"].values())
        trust = settings.get("trust") or {"samples": 0}
        return calls + len(settings["methods"]) * _RADII / 2 * _FORWARD * trust["samples"]
    if section == "fidelity":
        looked_at = len(settings["scalars"]) * len(settings["covariance"])
        surrogates = len(settings["betas"]) + len(settings["swish_betas"])
        smoothed = radii * (len(settings["sigma_factors"]) if grid else len(settings["laws"]))
        hessians = surrogates if grid else min(surrogates, 2 * radii * len(settings["laws"]))
        return looked_at * (
            smoothed * settings["calls"] + hessians * features + radii * len(settings["laws"]) * scored
        )
    if section == "attacks":
        variances, betas = len(settings["sigma_squared"]), len(settings["betas"])
        if not grid:
            variances, betas = min(variances, radii), min(betas, radii)
        pgd = settings["pgd"] if not grid else None
        return (
            variances * settings["calls"]
            + betas * features
            + (radii * pgd["steps"] * pgd["restarts"] if pgd else 0)
        )
    if section == "trust":
        smoothed = len(settings["smoothing_radii"]) * settings["calls"]
        return smoothed + len(settings["betas"]) * features + _RADII * scored
    if section == "superpixels":
        surrogates = sum(method != "SH+SG" for method in settings["methods"])
        products = features if features <= 4096 else settings["samples"] + 6 * settings["segments"][1]
        return settings["calls"] + (settings["interaction_calls"] or 0) + surrogates * products
    if section == "spectra":
        return float(features)
    return 1.0  # distances, sparsity and judging: in proportion to images


def _calls(parameters: Mapping[str, Any]) -> float:
    """Return the gradient calls of a method: as many as it has samples or steps."""
    return float(max(parameters.get("samples", 1), parameters.get("steps", 1)))


def stages(config: Mapping[str, Any], features: Mapping[str, int]) -> Iterator[Stage]:
    """Yield every stage that a configuration divides among jobs.

    Args:
        config: A complete configuration, as ``run.json`` has it.
        features: Numbers in an image, by experiment.
    """
    for experiment, chosen in config["experiments"].items():
        for rule, section in STAGES.items():
            settings = chosen.get(section)
            if settings is None:
                continue
            own = {"test": settings["images"]}
            name = f"{rule}/{experiment}"
            if section in ("fidelity", "attacks"):
                own["validation"] = settings["validation_images"]
            elif section == "trust":
                own["test"] += settings["validation_images"]
            for split, images in own.items():
                names = [f"{name}/{split}"] if "validation" in own else [name]
                if section == "spectra":
                    networks = filter(None, (chosen["model"], chosen.get("smooth_model")))
                    names = [f"{name}/{network}" for network in networks]
                amount = work(section, settings, split, features[experiment])
                for group in names:
                    yield Stage(group, experiment, section, images, settings["shards"], amount)


def features_of(results: Path, config: Mapping[str, Any]) -> dict[str, int]:
    """Return how many numbers an image of each experiment has, from the prepared data sets.

    Raises:
        DataError: A data set's description is missing.
    """
    found = {}
    for experiment, chosen in config["experiments"].items():
        dataset = config["models"][chosen["model"]]["dataset"]
        shape = load_json(results / "data" / dataset / "dataset.json")["image_shape"]
        found[experiment] = math.prod(shape)
    return found


def configuration(path: Path) -> dict[str, Any]:
    """Return a configuration file with its defaults filled in.

    Raises:
        DataError: It is not readable.
        ConfigError: It is no valid configuration.
    """
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path}: not readable as YAML; name a configuration file") from error
    return load(raw).model_dump(mode="json")


def measure(results: str | Path) -> Measured:
    """Return what the jobs of a finished run cost.

    Args:
        results: Folder with ``benchmarks``, ``report/run.json`` and the prepared data sets.

    Raises:
        DataError: The run is not finished, or none of its jobs was measured.
    """
    folder = Path(results)
    try:
        config = load_json(folder / "report/run.json")["config"]
    except DataError as error:
        raise DataError(f"{folder}: holds no finished run ({error})") from error
    timed: dict[str, list[tuple[float, float]]] = defaultdict(list)
    shortest = math.inf
    for job in jobs(folder / "benchmarks"):
        rule = job["name"].split("/")[0]
        if rule in _NETWORK and job["seconds"] is not None:
            timed[job["name"].rpartition("/")[0]].append((job["seconds"], job["peak_mib"] or math.nan))
            shortest = min(shortest, job["seconds"])
    if not timed:
        raise DataError(f"{folder / 'benchmarks'}: no job with a network was measured; finish a run first")
    rates = {}
    for stage in stages(config, features_of(folder, config)):
        found = timed.get(stage.name)
        if found:
            seconds = sum(max(0.0, took - shortest) for took, _ in found) / stage.images
            peak = max((mib for _, mib in found if mib == mib), default=math.nan)
            rates[stage.name] = Rate(seconds, stage.images, len(found), peak, stage.work)
    return Measured(shortest, rates, config)


def seconds_per_image(measured: Measured, stage: Stage) -> float | None:
    """Return what an image of a stage costs, scaled from the same stage of a run; None if that had none."""
    rate = measured.rates.get(stage.name)
    return None if rate is None else rate.seconds * stage.work / rate.work


def shards_for(stage: Stage, start: float, seconds: float, minutes: float) -> int:
    """Return how many jobs make each about ``minutes`` long, at least one and at most one an image."""
    room = max(60 * minutes - start, seconds, 1.0)
    return min(max(1, math.ceil(stage.images * seconds / room)), stage.images)


def report(measured: Measured, planned: Sequence[Stage], minutes: float) -> Iterator[str]:
    """Yield a line for each stage: how long its jobs are, and the shards that would make them as asked."""
    yield f"A job takes {measured.start:.0f} s before its first image."
    yield f"{'stage':44} {'images':>7} {'s/image':>8} {'shards':>7} {'min/job':>8} {'proposed':>9}"
    for stage in planned:
        seconds = seconds_per_image(measured, stage)
        head = f"{stage.name:44} {stage.images:7d}"
        if seconds is None:
            yield f"{head} {'not measured':>16}"
            continue
        took = (measured.start + stage.images / stage.shards * seconds) / 60
        proposed = shards_for(stage, measured.start, seconds, minutes)
        yield f"{head} {seconds:8.3g} {stage.shards:7d} {took:8.2g} {proposed:9d}"
    yield f"Proposed: {minutes:g} minutes a job. A stage with two splits has one number, the larger."


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the time of each stage's jobs and a number of shards; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m curvelens.workload", description="How long jobs are, and how many shards to use."
    )
    parser.add_argument("results", type=Path, help="folder of a finished run, large or small")
    parser.add_argument("--configfile", type=Path, help="the run that is planned; default: the same")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long a job should be")
    chosen = parser.parse_args(arguments)
    try:
        measured = measure(chosen.results)
        config = measured.config
        if chosen.configfile:
            config = configuration(chosen.configfile)
        sizes = features_of(chosen.results, measured.config)
        planned = list(stages(config, defaultdict(lambda: 1, sizes)))
    except CurvelensError as error:
        print(f"curvelens: {error}", file=sys.stderr)
        return 1
    print(*report(measured, planned, chosen.minutes), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
