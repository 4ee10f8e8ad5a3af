"""The container's recipe: what it copies is there, it installs the lock file, its entry point runs."""

import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
RECIPE = (ROOT / "Containerfile").read_text(encoding="utf-8")
LOCK = (ROOT / "locks/clusters.txt").read_text(encoding="utf-8")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ ;\\\n]+)", re.MULTILINE)
# Stands in for uv and pip: says what it was called with, and shows the requirements that it was given.
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
while [ $# -gt 0 ]; do [ "$1" = -r ] && cat "$2" >> "$CALLS.$(wc -l < "$CALLS")"; shift; done
exit 0
"""


def pins(text):
    return dict(PIN.findall(text))


@pytest.fixture
def install(tmp_path):
    """Run what the recipe runs, with programs that install nothing; returns calls and what each was given."""
    for name in ("uv", "pip"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}/usr/bin:/bin", "CALLS": str(tmp_path / "calls")}

    def run(*arguments):
        done = subprocess.run(
            [ROOT / "envs/install_locked.sh", *arguments],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        given = {
            number: path.read_text() for number in range(1, len(calls) + 1)
            if (path := tmp_path / f"calls.{number}").exists()
        }  # fmt: skip
        return done, calls, given

    return run


def test_what_is_copied_is_there_and_not_ignored():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for sources in re.findall(r"^COPY (.+) \S+$", RECIPE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert not any(fnmatch(source, pattern) for pattern in ignored), source
    assert {".venv", "results/*", ".snakemake"} <= set(ignored)


def test_nothing_names_a_host():
    (base,) = re.findall(r"^ARG BASE=(\S+)$", RECIPE, re.MULTILINE)
    assert "/" not in base
    installing = (ROOT / "envs/install_locked.sh").read_text()
    assert "://" not in RECIPE + installing
    assert "://" not in LOCK


def test_the_lock_file_agrees_with_the_others():
    locked = pins(LOCK)
    workflow, dev = (pins((ROOT / f"locks/{name}.txt").read_text()) for name in ("workflow", "dev"))
    assert workflow.items() <= locked.items() <= dev.items()
    wanted = {"snakemake-storage-plugin-fs"} | {
        f"snakemake-executor-plugin-{name}" for name in ("cluster-generic", "kubernetes", "slurm")
    }
    assert wanted == {name for name in locked.keys() - workflow.keys() if "-plugin-" in name} - {
        "snakemake-executor-plugin-slurm-jobstep"
    }


def test_every_file_of_the_image_with_cuda_is_checked(install):
    done, calls, given = install("cuda", "")
    assert done.returncode == 0, done.stderr
    assert calls[0] == "uv pip install --require-hashes -r locks/clusters.txt"
    assert given[1] == LOCK
    assert "--require-hashes" in calls[1]
    assert pins(given[2]) == {"snakemake-storage-plugin-fs": pins(LOCK)["snakemake-storage-plugin-fs"]}
    assert "--hash=sha256:" in given[2]
    assert calls[2:] == ["uv pip check"]


@pytest.mark.parametrize(
    ("index", "source"), [("", "--torch-backend cpu"), ("file:///m", "--index-url file:///m")]
)
def test_without_cuda_the_same_versions_are_installed(install, index, source):
    done, calls, given = install("cpu", index)
    assert done.returncode == 0, done.stderr
    assert "--no-deps --require-hashes" in calls[0]
    locked, rest = pins(LOCK), pins(given[1])
    left_out = locked.keys() - rest.keys()
    assert {"torch", "torchvision", "triton", "nvidia-cublas", "cuda-toolkit"} <= left_out
    assert all(re.match(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)$", name) for name in left_out)
    for requirement in re.split(r"^(?=[a-z0-9])", given[1], flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in requirement
    versions = f"torch=={locked['torch']} torchvision=={locked['torchvision']}"
    assert calls[1] == f"uv pip install --no-deps {source} {versions}"


def test_further_storage_plugins_are_for_pods_as_well(install):
    _, calls, _ = install("cuda", "", "snakemake-storage-plugin-s3")
    assert calls[2:4] == [
        "uv pip install snakemake-storage-plugin-s3",
        "pip download --no-deps --dest /opt/wheels snakemake-storage-plugin-s3",
    ]


def test_a_misspelt_accelerator_is_refused_on_one_line(install):
    done, calls, _ = install("gpu", "")
    assert done.returncode == 1
    assert done.stderr == "ACCELERATOR=gpu is unknown; choose cuda or cpu\n"
    assert not calls


def test_the_profile_names_the_image_that_make_builds():
    command = ["make", "--dry-run", "container", "ENGINE=engine", f"PYTHON={sys.executable}"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    image = yaml.safe_load((ROOT / "profiles/kubernetes/config.yaml").read_text())["container-image"]
    assert f"--tag {image} " in told
    uv = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"--build-arg UV_VERSION={uv[1]} " in told
    told = subprocess.run([*command, "ACCELERATOR=cpu"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"--tag {image}-cpu " in told.stdout
    for argument in re.findall(r"--build-arg (\w+)=", told.stdout):
        assert re.search(rf"^ARG {argument}\b", RECIPE, re.MULTILINE)


@pytest.mark.workflow
def test_the_entry_point_runs(tmp_path):
    program, *_ = json.loads(re.search(r"^ENTRYPOINT (.+)$", RECIPE, re.MULTILINE)[1])
    arguments = json.loads(re.search(r"^CMD (.+)$", RECIPE, re.MULTILINE)[1])
    command = [Path(sys.executable).with_name(program), *arguments, "--dry-run", "--directory", tmp_path]
    command += ["--configfile", ROOT / "config/test.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "render_report" in done.stdout
