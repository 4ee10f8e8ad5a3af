"""Runs that are killed: the long trial at a small size, and training between two checkpoints."""

import re
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from workflow_runs import ROOT

KILLS = 8


@pytest.mark.slow
@pytest.mark.workflow
def test_the_workflow_survives_kills(tmp_path):
    """tests/soak/kills.py, which kills every stage 200 times, on four rules."""
    target = "results/tables/digits/predictions.parquet"
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "tests/soak/kills.py"), "--kills", str(KILLS)),
            *("--seed", "1", "--target", target, "--pages", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "kills.md").read_text()
    told = re.search(r"\| kills survived \| (\d+) \|", page)
    assert told, page
    assert int(told[1]) >= KILLS  # a few more if a rule was missed
    assert "| jobs started although reported finished | 0 |" in page


TRAINING = """
import logging, sys, time
from pathlib import Path
import numpy as np, torch
from curvelens import models, training
from curvelens.schedules import Training
from curvelens.store import ImageSet
from curvelens.training.descent import Descent
checkpoint, result, made = (Path(name) for name in sys.argv[1:])
logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
rng = np.random.default_rng(0)
images = ImageSet(
    rng.integers(0, 256, (64, 1, 4, 4), dtype=np.uint8), rng.integers(0, 3, 64), [str(i) for i in range(64)]
)
step = Descent.step
def slow(self):
    # One byte an update, on disk at once: what a killed process did is counted as well.
    with made.open("ab") as stream:
        stream.write(b".")
    time.sleep(0.005)
    step(self)
Descent.step = slow
model = models.build("mlp", {"hidden": [8, 8]}, 3, (1, 4, 4))
parameters = Training(epochs=60, batch_size=16, learning_rate=0.1, momentum=0.9)
history = training.train(
    model, images, images, parameters, seed=0, checkpoint=checkpoint, checkpoint_seconds=0.2, threads=1
)
torch.save({"weights": model.state_dict(), "loss": history["loss"].tolist()}, result)
"""
UPDATES = 60 * 64 // 16


@pytest.mark.slow
def test_training_killed_between_checkpoints_repeats_what_followed_the_last_one_only(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(TRAINING))

    def start(name, attempt):
        files = [f"{name}.checkpoint", f"{name}.result", f"{name}.{attempt}.made"]
        command = [sys.executable, str(script), *(str(tmp_path / file) for file in files)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def made(name, attempt):
        path = tmp_path / f"{name}.{attempt}.made"
        return path.stat().st_size if path.is_file() else 0

    assert start("whole", 0).wait() == 0
    killed = start("parts", 0)
    checkpoint = tmp_path / "parts.checkpoint"
    while not (checkpoint.is_file() and made("parts", 0) > UPDATES // 4):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    at = torch.load(checkpoint, weights_only=True)["state"]["update"]
    again = start("parts", 1)
    told, _ = again.communicate()
    assert again.returncode == 0
    assert f"epoch {at // 4 + 1}, update {at}" in told
    assert 0 < at <= made("parts", 0) < UPDATES
    assert made("parts", 1) == UPDATES - at
    whole, parts = (torch.load(tmp_path / f"{name}.result", weights_only=True) for name in ("whole", "parts"))
    assert parts["loss"] == whole["loss"]
    assert all(torch.equal(parts["weights"][name], tensor) for name, tensor in whole["weights"].items())
