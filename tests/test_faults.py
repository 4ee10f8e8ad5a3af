"""The workflow on a full disk, in a read-only folder, under a clock that jumps, and twice in a folder."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from soak import _runs
from workflow_runs import ROOT, output, scheduled, snakemake

from curvelens import models, store

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
CONFIG = ROOT / "tests/soak/kills.yaml"
# Two jobs in a row, neither of which imports torch.
FIRST, TARGET = "results/data/digits/dataset.json", "results/data/digits/covariance/per_feature.npz"
DAY = 86400.0


def artifacts(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, store.sha256(path))
        for path in sorted((folder / "results/data").rglob("*"))
        if path.is_file()
    }


def contents(folder):
    return {name: digest for name, (_, digest) in artifacts(folder).items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the two jobs are done."""
    folder = tmp_path_factory.mktemp("finished")
    done = snakemake(folder, TARGET, config=CONFIG)
    assert done.returncode == 0, output(done)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def told(done):
    return [line for line in output(done).splitlines() if line.startswith("curvelens: ")]


@pytest.fixture
def on_disk(disk, tmp_path):
    """A folder to run in whose results lie on that file system."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results").symlink_to(disk)
    return folder


def test_a_full_disk_costs_nothing_but_time(on_disk, disk, finished):
    # Room for a log, but not for all images.
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(free - 40 * 1024))
    done = snakemake(on_disk, TARGET, config=CONFIG)
    assert done.returncode != 0
    lines = set(told(done))
    assert len(lines) == 1, output(done)
    assert re.fullmatch(
        r"curvelens: error: results/data/digits/\w+\.\w+: cannot be written \(No space left on device\); "
        r"free space on that disk and run again; what is finished is kept",
        lines.pop(),
    )
    assert contents(on_disk).items() <= contents(finished).items()
    (disk / "filler").unlink()
    done = snakemake(on_disk, TARGET, config=CONFIG)
    assert done.returncode == 0, output(done)
    assert contents(on_disk) == contents(finished)


def test_a_read_only_folder_of_results_is_told(on_disk, disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = snakemake(on_disk, TARGET, config=CONFIG)
    assert done.returncode != 0
    assert told(done) == [
        "curvelens: results: cannot be written (Read-only file system); make its folder writable, or name "
        "another one with --directory"
    ], output(done)
    assert "Traceback" not in output(done)


def redate(folder, seconds):
    for path in folder.rglob("*"):
        if path.is_file():
            state = path.stat()
            os.utime(path, (state.st_atime + seconds, state.st_mtime + seconds))


@pytest.mark.parametrize("days", [-3650, 1])
def test_a_clock_that_was_wrong_all_along_reruns_nothing(copied, days):
    redate(copied, days * DAY)
    assert scheduled(copied, TARGET, config=CONFIG) == set()


def test_a_clock_set_back_in_the_middle_of_a_run(copied):
    """What the first job made is dated tomorrow; it is kept, and the second job, today, can do its work."""
    (copied / TARGET).unlink()
    redate(copied / "results", DAY)
    before = contents(copied)
    done = snakemake(copied, TARGET, config=CONFIG)
    assert done.returncode == 0, output(done)
    assert re.search(r"\d+ files from the future are dated now", output(done))
    assert "Prepare data set" not in output(done)
    assert (copied / TARGET).is_file()
    assert before.items() <= contents(copied).items()
    assert scheduled(copied, TARGET, config=CONFIG) == set()


def test_a_change_under_a_clock_that_is_slow_is_not_overlooked(copied, tmp_path):
    """Everything is dated tomorrow, as the run was; what is changed today is computed again nevertheless."""
    redate(copied, DAY)
    changed = tmp_path / "changed.yaml"
    changed.write_text(CONFIG.read_text().replace("seed: 0", "seed: 1"))
    assert "prepare_dataset" in scheduled(copied, FIRST, config=changed)


def test_another_file_of_the_users_counts_however_old_it_is_dated(copied, tmp_path):
    weights, changed = tmp_path / "own.safetensors", tmp_path / "changed.yaml"
    target = "results/models/given/weights.safetensors"
    raw = yaml.safe_load(CONFIG.read_text())
    raw["models"]["given"]["weights"] = str(weights)
    changed.write_text(yaml.safe_dump(raw))
    network = ("mlp", raw["models"]["given"]["parameters"], 10, (1, 8, 8))
    models.save_weights(models.build(*network, seed=0), weights)
    done = snakemake(copied, target, config=changed)
    assert done.returncode == 0, output(done)
    models.save_weights(models.build(*network, seed=1), weights)
    os.utime(weights, (0, 0))
    assert scheduled(copied, target, config=changed) == {"import_model"}


def test_a_second_run_in_the_same_folder_is_refused_and_touches_nothing(tmp_path, finished):
    folder = tmp_path / "run"
    folder.mkdir()
    first = _runs.Run(
        _runs.command(folder, CONFIG, TARGET), folder, tmp_path / "first.log", tmp_path / "caches"
    )
    while not first.look():
        assert first.process.poll() is None, first.log.read_text()
        time.sleep(_runs.POLL_SECONDS)
    os.killpg(first.process.pid, signal.SIGSTOP)
    before = artifacts(folder)
    done = snakemake(folder, TARGET, config=CONFIG)
    assert artifacts(folder) == before
    os.killpg(first.process.pid, signal.SIGCONT)
    assert done.returncode != 0
    assert "Directory cannot be locked" in output(done)
    assert str(folder) in output(done)
    assert "Traceback" not in output(done)
    assert not first.watch(_runs.never)
    assert first.process.returncode == 0, first.log.read_text()
    assert contents(folder) == contents(finished)
