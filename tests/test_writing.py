"""Files appear complete or not at all: after a kill, on a full or read-only disk, under a wrong clock."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from curvelens import models, store, tables, writing
from curvelens.errors import StorageError

NUMBERS = tables.schema("writing_numbers", "Numbers.", {"value": tables.Column(float, "A number.")})


def leftovers(folder):
    return sorted(path.name for path in Path(folder).rglob(".*") if path.is_file())


def write_npz(path):
    store.save_npz(path.with_suffix(".npz"), {"a": np.random.default_rng(0).random(200_000)})


def write_json(path):
    store.save_json(path.with_suffix(".json"), list(range(200_000)))


def write_table(path):
    rows = pd.DataFrame({"value": np.random.default_rng(0).random(200_000)})
    tables.write(rows, NUMBERS, path.with_suffix(".parquet"), path.with_suffix(".csv"))


def write_weights(path):
    models.save_weights(torch.nn.Linear(500, 500), path.with_suffix(".safetensors"))


def write_checkpoint(path):
    with writing.atomic(path.with_suffix(".pt")) as temporary:
        torch.save({"weights": torch.zeros(250_000)}, temporary)


WRITERS = [write_npz, write_json, write_table, write_weights, write_checkpoint]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB, which holds none of what the writers write."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_is_told_on_one_line_and_leaves_nothing(small_disk, write):
    (small_disk / "before.txt").write_text("stays")
    with pytest.raises(StorageError) as caught:
        write(small_disk / "artifact")
    told = str(caught.value)
    assert told.startswith(f"{small_disk}/artifact.")
    assert "No space left on device" in told
    assert "free space on that disk and run again" in told
    assert "\n" not in told
    assert [path.name for path in small_disk.iterdir()] == ["before.txt"]


@pytest.mark.parametrize("write", WRITERS)
def test_a_read_only_folder_is_told_on_one_line(small_disk, write):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(
        StorageError, match=r"artifact\.\w+: cannot be written \(Read-only file system\); make"
    ):
        write(small_disk / "artifact")
    with pytest.raises(StorageError, match=r"Read-only file system"):
        write(small_disk / "new/artifact")
    with pytest.raises(
        StorageError, match=rf"^{small_disk}/new: cannot be written \(Read-only file system\); "
    ):
        writing.tidy(small_disk / "new")


def test_an_error_that_has_nothing_to_do_with_the_disk_is_passed_on(tmp_path):
    with pytest.raises(KeyError, match="column"), writing.atomic(tmp_path / "a.txt"):
        raise KeyError("column")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "file.json"
    store.save_json(path, {"a": 1})

    def interrupted():
        with writing.atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.load_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def killed_while_writing(path):
    """Kill a process in the middle of writing a file, and wait until it is gone."""
    script = f"""
import time
from curvelens.writing import atomic
with atomic({str(path)!r}) as temporary:
    temporary.write_text("half")
    print("written", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.kill()
    process.wait()


def test_a_killed_process_leaves_the_old_file_and_a_leftover_that_is_tidied_away(tmp_path):
    path = tmp_path / "deep/a.txt"
    path.parent.mkdir()
    path.write_text("old")
    killed_while_writing(path)
    assert path.read_text() == "old"
    assert len(leftovers(tmp_path)) == 1
    with writing.atomic(path) as temporary:
        temporary.write_text("new")
        # That of a process that lives, as this one does, is left alone.
        assert writing.tidy(tmp_path) == (1, 0)
        assert leftovers(tmp_path) == [temporary.name]
    assert path.read_text() == "new"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        ".notes.txt",
        ".a.12345678.txt",
        ".a.00000000-999999999-00000000.txt",  # of another machine
        "a.00000000-1-00000000.txt",
    ],
)
def test_other_hidden_files_are_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    assert writing.tidy(tmp_path) == (0, 0)
    assert (tmp_path / name).exists()


def test_files_from_the_future_are_dated_now_in_the_order_they_had(tmp_path):
    now = time.time()
    dates = {"past": now - 1e5, "tomorrow": now + 86400, "later": now + 86500}
    for name, date in dates.items():
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (date, date))
    assert writing.tidy(tmp_path) == (0, 2)
    past, tomorrow, later = ((tmp_path / name).stat().st_mtime for name in dates)
    assert past == pytest.approx(dates["past"], abs=1e-3)
    assert tomorrow == later
    assert now - 1 <= tomorrow <= time.time()
    assert writing.tidy(tmp_path) == (0, 0)


def test_a_folder_that_is_not_there_needs_no_tidying(tmp_path):
    assert writing.tidy(tmp_path / "none") == (0, 0)
