"""What a reader needs to trust or repeat a run: time, memory, versions, hardware, failures."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens import devices, jobtimes
from curvelens.figures.wording import MISSING, count, duration, percent
from curvelens.reporting.html import Html, code, details, note, table
from curvelens.summaries.failures import unreadable

if TYPE_CHECKING:
    from pandas import DataFrame

_PACKAGES = (
    *("curvelens", "torch", "torchvision", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "captum"),
    *("mlxtend", "matplotlib", "snakemake", "papermill", "nbconvert", "jupytext"),
)
_SHOWN_ERRORS = 5


def times(paths: Iterable[Path]) -> Html:
    """Return run time and memory by stage, from Snakemake's benchmark files.

    Args:
        paths: Files with columns ``s``, ``max_rss`` (MiB), ``cpu_time``; those that do not exist are left
            out.

    Returns:
        A table, longest stage first, or a note where nothing was measured.
    """
    stages: dict[str, list[jobtimes.Job]] = {}
    for job in jobtimes.read(paths):
        stages.setdefault(job.rule, []).append(job)
    if not stages:
        return note("This run kept no benchmark files, so its time and memory are unknown.")
    totals = {name: sum(_seconds(jobs)) for name, jobs in stages.items()}
    rows = []
    for name in sorted(totals, key=lambda name: -totals[name]):
        jobs = stages[name]
        memory = [job.peak_mib for job in jobs if job.peak_mib is not None]
        longest = max(_seconds(jobs), default=float("nan"))
        peak = f"{max(memory):,.0f} MiB" if memory else MISSING
        rows.append([name.replace("_", " "), len(jobs), duration(totals[name]), duration(longest), peak])
    number = sum(len(jobs) for jobs in stages.values())
    rows.append(["all", number, duration(sum(totals.values())), "", ""])
    caption = (
        "Wall time of a stage's jobs (which may have run side by side), its longest job, its peak memory."
    )
    return table([["stage", "jobs", "total time", "longest job", "peak memory"]], rows, caption)


def total_seconds(paths: Iterable[Path]) -> float:
    """Return the wall time of all jobs together; NaN where nothing was measured."""
    measured = jobtimes.read(paths)
    return sum(_seconds(measured)) if measured else float("nan")


def _seconds(jobs: Iterable[jobtimes.Job]) -> list[float]:
    return [job.seconds for job in jobs if job.seconds is not None]


def versions() -> list[tuple[str, str]]:
    """Return Python and the packages that shape results, with their versions."""
    found = [("Python", platform.python_version())]
    for package in _PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return found


def hardware() -> list[tuple[str, str]]:
    """Return what the machine that renders the report is: system, processor, memory, accelerators."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        ("system", f"{platform.system()} {platform.machine()}"),
        ("processor", f"{_processor()}, {count(os.cpu_count() or 1, 'core')}"),
        ("memory", f"{memory:,.0f} GiB"),
        ("accelerator", _accelerators() or "none"),
    ]


def machine(device: str) -> dict[str, Any]:
    """Return what ``run.json`` says of the machine that renders the report.

    Args:
        device: The configuration's ``device``.

    Returns:
        ``device``, the accelerator where the run may use one, else the processor; ``hardware``; ``versions``;
        ``numerics``, how PyTorch was made to compute.
    """
    parts = dict(hardware())
    on_processor = device == "cpu" or parts["accelerator"] == "none"
    return {
        "device": parts["processor" if on_processor else "accelerator"],
        "hardware": parts,
        "versions": dict(versions()),
        "numerics": devices.numerics(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _accelerators() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    asked = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return ", ".join(line.strip() for line in told.splitlines() if line.strip())


def failures(
    tables: Mapping[tuple[str, str], DataFrame], datasets: Mapping[str, Mapping[str, Any]] | None = None
) -> Html:
    """Return how many images failed in each table, and why.

    Args:
        tables: Tables by (experiment, name); those without a column ``status`` are left out.
        datasets: Descriptions of data sets by name; those whose files could all be read are left out.

    Returns:
        A table, with the errors below it.
    """
    rows, errors = [], []
    for (experiment, name), frame in tables.items():
        if "status" not in frame or "image_id" not in frame:
            continue
        failed = frame[frame["status"] == "failed"]
        images, lost = frame["image_id"].nunique(), failed["image_id"].nunique()
        rows.append(
            [
                f"{experiment}: {name.replace('_', ' ')}",
                images,
                lost,
                percent(lost / images if images else 0, 1),
            ]
        )
        reasons = failed.drop_duplicates(["image_id", "error"])["error"].value_counts()
        told = [f"{count(int(n), 'image')}: {reason}" for reason, n in reasons.head(_SHOWN_ERRORS).items()]
        if len(reasons) > _SHOWN_ERRORS:
            told.append(f"and {len(reasons) - _SHOWN_ERRORS} other errors")
        if told:
            errors.append(f"{experiment}: {name}\n" + "\n".join(f"  {line}" for line in told))
    for name, described in (datasets or {}).items():
        unread = unreadable(described)
        if unread:
            images = sum(described["sizes"].values()) + len(unread)
            rows.append([f"{name}: pictures", images, len(unread), percent(len(unread) / images, 1)])
            told = [f"{file}: {reason}" for file, reason in list(unread.items())[:_SHOWN_ERRORS]]
            if len(unread) > _SHOWN_ERRORS:
                told.append(f"and {len(unread) - _SHOWN_ERRORS} others")
            errors.append(f"{name}: pictures\n" + "\n".join(f"  {line}" for line in told))
    if not rows:
        return note("This run has no per-image table.")
    caption = "Images that could not be computed: left out of every number above, whose n counts the others."
    shown = table([["table", "images", "failed", "share"]], rows, caption)
    return Html(shown, details("Their errors", code("\n\n".join(errors)))) if errors else shown


def configuration(config: Mapping[str, Any]) -> Html:
    """Return the complete configuration, defaults filled in, folded away."""
    import yaml

    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    return details("The complete configuration, defaults filled in", code(text))
