"""Every profile is read by Snakemake; the one for any scheduler runs jobs, on a queue of two programs."""

import os
import subprocess

import own_world
import pytest
import yaml
from workflow_runs import ROOT, output, scheduled, snakemake

from curvelens.manifest import content_sha256

PROFILES = sorted(path.parent for path in (ROOT / "profiles").glob("*/config.yaml"))
STATUS = ROOT / "profiles/cluster-generic/status.sh"
TABLE = "results/distances/own/0.parquet"

# PBS as the profile sees it. The first job of compute_distances is killed before it starts.
QSUB = """#!/bin/sh
echo "$@" >> "$QUEUE/submitted"
for script; do :; done
job=$$.here
if grep -q -- "compute_distances:" "$script" && mkdir "$QUEUE/lost" 2>/dev/null; then
    echo 271 > "$QUEUE/$job.exit"
else
    (setsid sh "$script" > "$QUEUE/$job.out" 2>&1; echo $? > "$QUEUE/$job.exit") >/dev/null 2>&1 &
fi
echo $job
"""
QSTAT = """#!/bin/sh
code=$(cat "$QUEUE/$3.exit" 2>/dev/null)
echo "Job Id: $3"
if [ -z "$code" ]; then
    echo "    job_state = R"
else
    echo "    job_state = F"
    echo "    Exit_status = $code"
fi
"""


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Programs called qsub and qstat, and the folder of what they know."""
    folder, programs = tmp_path / "queue", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    for name, text in (("qsub", QSUB), ("qstat", QSTAT)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("QUEUE", str(folder))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.mark.workflow
@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_a_profile_is_read(profile, tmp_path):
    assert scheduled(tmp_path, "--workflow-profile", str(profile)) >= {
        "train_model",
        "measure_attacks",
        "all",
    }


@pytest.mark.workflow
@pytest.mark.slow
def test_any_scheduler_computes_what_one_machine_computes(queue, tmp_path):
    settings = own_world.make(tmp_path / "pictures", tmp_path / "own.safetensors")
    config = tmp_path / "own.yaml"
    config.write_text(yaml.safe_dump(settings))
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    profile = ["--workflow-profile", str(ROOT / "profiles/cluster-generic")]
    asked = ["--seconds-between-status-checks", "1", "--latency-wait", "5"]
    done = snakemake(one, TABLE, *profile, *asked, config=config)
    assert done.returncode == 0, output(done)
    submitted = (queue / "submitted").read_text().splitlines()
    assert len(submitted) == 5, "four jobs, one of them twice"
    lost, again = (line for line in submitted if "-N compute_distances" in line)
    assert "select=1:ncpus=1:mem=4000mb" in lost
    assert "walltime=120:00" in again
    done = snakemake(other, TABLE, config=config)
    assert done.returncode == 0, output(done)
    assert content_sha256(one / TABLE) == content_sha256(other / TABLE)


@pytest.mark.parametrize(
    ("told", "code", "state"),
    [
        ("    job_state = Q", 0, "running"),
        ("    job_state = F\n    Exit_status = 0", 0, "success"),
        ("    job_state = F\n    Exit_status = 1", 0, "failed"),
        ("    job_state = F\n    Exit_status = -11", 0, "failed"),
        ("    job_state = F", 0, "failed"),  # deleted while it waited
        ("qstat: Unknown Job Id 7.pbs", 153, "failed"),
        ("qstat: cannot connect to server", 1, "running"),
    ],
)
def test_what_the_scheduler_says_of_a_job(told, code, state, tmp_path):
    program = tmp_path / "qstat"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{told}\nEND\nexit {code}\n")
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}/usr/bin:/bin"}
    done = subprocess.run([STATUS, "7.pbs"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{state}\n"
