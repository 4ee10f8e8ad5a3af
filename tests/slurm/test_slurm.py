"""The default configuration's shape on a Slurm of two nodes, with a job cancelled and a node lost on the way.

``make test-slurm`` runs this; elsewhere it skips, because it installs packages and starts daemons.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cluster
import pytest
from workflow_runs import ROOT, output, run

from curvelens import manifest, store

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
CONFIG = ["--configfile", str(ROOT / "config/config.yaml"), str(ROOT / "tests/slurm/small.yaml")]


@dataclass
class Disturbed:
    """A run in which a job was cancelled and a node lost: folder, exit code, the jobs that were hit."""

    folder: Path
    code: int
    cancelled: dict[str, str]
    lost: list[dict[str, str]]


@pytest.fixture(scope="module", autouse=True)
def slurm():
    """A Slurm of two nodes, gone again afterwards."""
    if not os.environ.get("CURVELENS_SLURM"):
        pytest.skip("make test-slurm runs this")
    try:
        cluster.up()
        yield
    except cluster.UnavailableError as error:
        pytest.skip(str(error))
    finally:
        cluster.down()


def arguments(folder, profile="slurm"):
    """Of a run in ``folder``; the first look at a job comes soon, because jobs are short here."""
    return [
        *("--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), *CONFIG),
        *("--workflow-profile", str(ROOT / f"profiles/{profile}")),
        *("--slurm-init-seconds-before-status-checks", "2"),
    ]


@pytest.fixture(scope="module")
def disturbed(slurm, tmp_path_factory):
    """The whole run, from data to report."""
    folder = tmp_path_factory.mktemp("slurm")
    told = folder / "output.txt"
    with told.open("w") as stream:
        driver = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *arguments(folder)],
            cwd=folder,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        cancelled = computing(driver, folder, "train_model")
        subprocess.run(["scancel", cancelled["id"]], check=True)
        node = computing(driver, folder, "measure_fidelity")["node"]
        lost = [job for job in cluster.jobs() if job["node"] == node and job["state"] == "RUNNING"]
        cluster.kill_node(node)
        eventually(driver, lambda: cluster.state(node).startswith("DOWN"))
        cluster.revive_node(node)
        code = driver.wait(timeout=1800)
    finally:
        driver.kill()  # its jobs end with the cluster
        driver.wait()
        sys.stdout.write(told.read_text())
    return Disturbed(folder, code, cancelled, lost)


def computing(driver, folder, rule):
    """Wait until a job of a rule computes, which is when it has a log; return it as squeue tells it."""

    def found():
        logs = (folder / f"results/logs/{rule}").rglob("*.log")
        names = {"_".join(path.relative_to(folder / "results/logs").with_suffix("").parts) for path in logs}
        return next((job for job in cluster.jobs() if job["state"] == "RUNNING" and name(job) in names), None)

    return eventually(driver, found)


def name(job):
    """What a job computes: rule and wildcards, joined as in the comment that Snakemake submits it with."""
    return job["comment"].removeprefix("rule_").replace("_wildcards_", "_")


def eventually(driver, condition):
    """Wait until a condition holds, and return what it returned."""
    until = time.monotonic() + 900
    while not (held := condition()):
        assert driver.poll() is None, "Snakemake ended before that"
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.2)
    return held


def states(job):
    """How all jobs ended that were submitted for the same rule and wildcards, the latest first."""
    return [other["state"] for other in cluster.jobs() if other["comment"] == job["comment"]]


def test_the_run_ends_with_a_report(disturbed):
    assert disturbed.code == 0
    assert (disturbed.folder / "results/report/index.html").is_file()


def test_rules_of_seconds_are_not_submitted(disturbed):
    submitted = {name(job) for job in cluster.jobs()}
    assert "compute_spectra_mnist_mnist_relu_0" in submitted
    assert not [
        one for one in submitted if one.startswith(("draw_", "gather_", "choose_attacks", "render_report"))
    ]


def test_a_cancelled_job_is_submitted_again(disturbed):
    told = states(disturbed.cancelled)
    assert (told[0], told[-1]) == ("COMPLETED", "CANCELLED")


def test_the_jobs_of_a_lost_node_are_submitted_again(disturbed):
    assert disturbed.lost
    for job in disturbed.lost:
        assert states(job)[:2] == ["COMPLETED", "NODE_FAIL"], job


def test_results_equal_those_of_a_local_run(disturbed, tmp_path):
    results = disturbed.folder / "results"
    assert manifest.verify(results / "manifest.json") == []
    described = store.load_json(results / "manifest.json")["files"]
    # Figures and report are made of the rest, by local rules; a CSV file is its parquet table once more.
    there = {
        entry["@id"]: identity(entry)
        for entry in described
        if not entry["@id"].startswith(("figures/", "report/")) and not entry["@id"].endswith(".csv")
    }
    assert len(there) > 100
    targets = [f"results/{name}" for name in there]
    done = run(tmp_path, *targets, "--snakefile", str(ROOT / "Snakefile"), *CONFIG)
    assert done.returncode == 0, output(done)
    described = manifest.describe(map(tmp_path.joinpath, targets), tmp_path / "results")
    assert {entry["@id"]: identity(entry) for entry in described} == there


def identity(entry):
    """What has to be equal of a file: a table's content without its times, all bytes of any other."""
    return entry.get("content_sha256", entry["sha256"])


def test_a_second_run_submits_nothing(disturbed):
    done = run(disturbed.folder, *arguments(disturbed.folder), "--dry-run")
    assert "Nothing to be done" in output(done)


def test_gpus_are_asked_for_by_gres(disturbed):
    known = {job["id"] for job in cluster.jobs()}
    targets = ["results/tables/mnist/predictions.parquet", "results/tables/photographs/map_agreement.parquet"]
    forced = ["--forcerun", "predict_images", "compare_maps"]
    done = run(disturbed.folder, *targets, *arguments(disturbed.folder, "slurm-gres"), *forced)
    assert done.returncode == 0, output(done)
    told = {
        job["comment"]: cluster.show("job", job["id"]) for job in cluster.jobs() if job["id"] not in known
    }
    with_network = told["rule_predict_images_wildcards_mnist"]
    assert with_network["NodeList"] == cluster.GPU_NODE
    assert with_network["TresPerNode"].endswith("gpu:1")
    assert "TresPerNode" not in told["rule_compare_maps_wildcards_photographs"]
