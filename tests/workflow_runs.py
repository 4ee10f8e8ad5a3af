"""Running the workflow in a folder of its own, as a user would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from curvelens import summaries

ROOT = Path(__file__).resolve().parents[1]
TEST_CONFIG = ROOT / "config/test.yaml"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake with ``folder`` as its working directory."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


def snakemake(
    folder: Path, *arguments: str, config: Path | None = TEST_CONFIG, project: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on a checkout's Snakefile with ``folder`` as its working directory."""
    chosen = [] if config is None else ["--configfile", str(config)]
    return run(
        folder, "--snakefile", str(project / "Snakefile"), "--directory", str(folder), *arguments, *chosen
    )


def output(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def scheduled(
    folder: Path, *arguments: str, config: Path | None = TEST_CONFIG, project: Path = ROOT
) -> set[str]:
    """Names of the rules that a dry run would execute."""
    done = snakemake(folder, "--dry-run", *arguments, config=config, project=project)
    assert done.returncode == 0, output(done)
    return rules_in_plan(done)


def rules_in_plan(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Names of the rules in a dry run's table of jobs."""
    if "Nothing to be done" in output(done):
        return set()
    jobs = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\ntotal ", output(done), re.DOTALL)
    assert jobs, output(done)
    return {line.split()[0] for line in jobs[1].splitlines()}


def changed_config(folder: Path, edit: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Path:
    """Write the test configuration, edited: ``edit`` is given its experiment and the whole."""
    raw = yaml.safe_load(TEST_CONFIG.read_text())
    edit(raw["experiments"]["digits"], raw)
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def import_all_schemas() -> None:
    """Import every module of summaries: the schema of a table is known once its module is."""
    summaries.import_all()
