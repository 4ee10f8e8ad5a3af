"""Regression: sets on disk, training against closed forms, killed and resumed, and its architecture."""

import numpy as np
import pytest
import torch
from torch import nn

from curvelens import models, store, tables, training
from curvelens.errors import ArgumentError, DataError, ModelError
from curvelens.schedules import Training
from curvelens.store import RegressionSet


def examples(count=40, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, 2)).astype(np.float32)
    targets = (inputs[:, 0] * inputs[:, 1] + 1).astype(np.float32)
    return RegressionSet(inputs, targets, [f"s{seed}/{index}" for index in range(count)])


TRAIN, VALIDATION = examples(40, 0), examples(20, 1)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(**changes):
    return Training(
        **({"optimizer": "rmsprop", "epochs": 3, "batch_size": 16, "learning_rate": 0.01} | changes)
    )


class Linear(nn.Module):
    """Least squares in float64, with its weights at zero; predictions are [B]."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1, dtype=torch.float64)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x):
        return self.layer(x)[:, 0]


def network(name="n"):
    return models.build("regression_mlp", {"hidden": [8, 8]}, 1, (2,), name=name)


def closed_form(rule, rates):
    """Full-batch descent on least squares, written out; the weights and the error before each update."""
    x = np.c_[TRAIN.inputs.astype(float), np.ones(len(TRAIN))]
    y, w, memory, errors = TRAIN.targets.astype(float), np.zeros(3), np.zeros(3), []
    for rate in rates:
        residual = x @ w - y
        errors.append(np.mean(residual**2))
        g = 2 * x.T @ residual / len(y)
        if rule == "rmsprop":  # Tieleman and Hinton 2012, with PyTorch's decay 0.99
            memory = 0.99 * memory + 0.01 * g**2
            w = w - rate * g / (np.sqrt(memory) + 1e-8)
        else:
            memory = 0.9 * memory + g
            w = w - rate * memory
    return w, errors


@pytest.mark.parametrize("rule", ["sgd", "rmsprop"])
def test_full_batch_training_follows_the_closed_form(rule):
    model = Linear()
    parameters = settings(optimizer=rule, epochs=4, batch_size=40, learning_rate=0.1, decay_at=[2])
    history = training.train_regression(model, TRAIN, VALIDATION, parameters, seed=0)
    w, errors = closed_form(rule, (0.1, 0.1, 0.01, 0.01))
    # float64 on both sides; the data are float32 numbers on both sides too.
    np.testing.assert_allclose(model.layer.weight.detach()[0], w[:2], rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.layer.bias.detach(), w[2:], rtol=0, atol=1e-12)
    np.testing.assert_allclose(history["loss"], errors, rtol=1e-12)
    x, y = VALIDATION.inputs.astype(float), VALIDATION.targets.astype(float)
    expected = np.mean((x @ w[:2] + w[2] - y) ** 2)
    assert history["validation_loss"].iloc[-1] == pytest.approx(expected, rel=1e-12)
    assert training.mean_squared_error(model, VALIDATION, chunk=7) == pytest.approx(expected, rel=1e-12)
    tables.frame(history.to_dict("records"), training.REGRESSION_HISTORY)


def test_updates_replace_epochs_and_may_end_within_one():
    # Three batches of 16, 16 and 8 examples an epoch; five updates end after two batches of the second.
    seen = []

    class Recorder(Linear):
        def forward(self, x):
            if self.training:
                seen.append(len(x))
            return super().forward(x)

    history = training.train_regression(Recorder(), TRAIN, VALIDATION, settings(updates=5), seed=0)
    assert seen == [16, 16, 8, 16, 16]
    assert history["updates"].tolist() == [3, 5]
    # At a rate of 1e-300 the weights stay at zero: the means are those of the targets' squares.
    still = settings(updates=5, learning_rate=1e-300)
    history = training.train_regression(Linear(), TRAIN, VALIDATION, still, seed=0)
    assert history["loss"].iloc[0] == pytest.approx(np.mean(TRAIN.targets.astype(float) ** 2), rel=1e-12)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
@pytest.mark.parametrize("updates", [2, 3, 7])
def test_a_killed_training_ends_as_if_nothing_had_happened(tmp_path, monkeypatch, optimizer, updates):
    parameters = settings(optimizer=optimizer, updates=8, decay_at=[5])
    whole = network()
    expected = training.train_regression(whole, TRAIN, VALIDATION, parameters, seed=1)
    path, save = tmp_path / "checkpoint.pt", training._save_checkpoint

    def run(model):
        return training.train_regression(
            model, TRAIN, VALIDATION, parameters, seed=1, checkpoint=path, checkpoint_seconds=0
        )

    def save_then_die(*arguments):
        save(*arguments)
        if arguments[-1].update == updates:
            raise KilledError

    monkeypatch.setattr(training, "_save_checkpoint", save_then_die)
    with pytest.raises(KilledError):
        run(network())
    monkeypatch.setattr(training, "_save_checkpoint", save)
    model = network()
    history = run(model)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert history.drop(columns="seconds").equals(expected.drop(columns="seconds"))


def test_training_depends_on_seed_name_and_targets():
    def weights(data=TRAIN, **identity):
        model = network()
        training.train_regression(
            model, data, VALIDATION, settings(), **({"seed": 1, "name": "a"} | identity)
        )
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    first = weights()
    assert torch.equal(weights(), first)
    assert not torch.equal(weights(seed=2), first)
    assert not torch.equal(weights(name="b"), first)


def test_a_checkpoint_of_other_targets_is_not_used(tmp_path, caplog):
    path = tmp_path / "checkpoint.pt"
    training.train_regression(network(), TRAIN, VALIDATION, settings(), seed=1, checkpoint=path)
    other = RegressionSet(TRAIN.inputs, TRAIN.targets + 1, TRAIN.ids)
    with caplog.at_level("INFO", logger="curvelens"):
        training.train_regression(network(), other, VALIDATION, settings(), seed=1, checkpoint=path)
    assert "belongs to another training" in caplog.text


def test_what_cannot_be_trained_is_refused():
    two = models.build("regression_mlp", {"hidden": [4]}, 2, (2,))
    with pytest.raises(ArgumentError, match=r"returns \[16, 2\] for 16 inputs; give it one output"):
        training.train_regression(two, TRAIN, VALIDATION, settings(), seed=0)
    wild = settings(optimizer="sgd", learning_rate=1e308)
    with pytest.raises(ModelError, match="training wild: the loss is inf in epoch 1"):
        training.train_regression(Linear(), TRAIN, VALIDATION, wild, seed=0, name="wild")


def test_a_set_comes_back_from_disk_as_it_was(tmp_path):
    path = tmp_path / "set.npz"
    store.save_regression_set(path, TRAIN)
    found = store.load_regression_set(path)
    np.testing.assert_array_equal(found.inputs, TRAIN.inputs)
    np.testing.assert_array_equal(found.targets, TRAIN.targets)
    assert found.ids == TRAIN.ids
    part = found.subset([3, 1])
    assert part.ids == ["s0/3", "s0/1"]
    np.testing.assert_array_equal(part.targets, TRAIN.targets[[3, 1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": TRAIN.inputs.astype(float)}, r"inputs must be float32 \[N, \*shape\], not float64"),
        ({"inputs": TRAIN.inputs[:, 0]}, r"inputs must be float32 .* not float32 \[40\]"),
        ({"targets": TRAIN.targets[:, None]}, r"targets must be float32 \[40\], not float32 \[40, 1\]"),
        ({"targets": np.full(40, np.nan, np.float32)}, "targets: 40 of 40 values are not finite"),
        ({"ids": ["a"] * 40}, "ids must be 40 different names"),
    ],
)
def test_a_set_that_does_not_fit_is_refused(change, message):
    arguments = {"inputs": TRAIN.inputs, "targets": TRAIN.targets, "ids": TRAIN.ids} | change
    with pytest.raises(DataError, match=message):
        RegressionSet(**arguments)


def test_a_file_that_is_no_regression_set_is_named(tmp_path):
    store.save_npz(tmp_path / "a.npz", {"inputs": TRAIN.inputs, "targets": TRAIN.targets})
    with pytest.raises(DataError, match=r"a\.npz: has no array 'ids'"):
        store.load_regression_set(tmp_path / "a.npz")


def test_a_regression_network_is_stored_and_read_like_a_classifier(tmp_path):
    model = network("kept")
    models.save(
        model,
        tmp_path,
        architecture="regression_mlp",
        parameters={"hidden": [8, 8]},
        classes=1,
        image_shape=[2],
        meta={"mean_squared_error": 0.5},
    )
    found = models.load(tmp_path)
    x = torch.from_numpy(VALIDATION.inputs)
    assert torch.equal(found(x), model(x))
    assert found(x).shape == (20, 1)
    # By hand, with numpy.
    z = VALIDATION.inputs
    for layer in ("linear1", "linear2"):
        part = getattr(found, layer)
        z = np.maximum(z @ part.weight.detach().numpy().T + part.bias.detach().numpy(), 0)
    z = z @ found.output.weight.detach().numpy().T + found.output.bias.detach().numpy()
    np.testing.assert_allclose(
        training.predict(found, VALIDATION.inputs, chunk=6), z[:, 0], rtol=1e-5, atol=1e-6
    )


def test_classifiers_still_need_images_and_classes():
    for arguments in ((1, (1, 4, 4)), (3, (4,))):
        with pytest.raises(ModelError, match="give at least 2 classes and a shape"):
            models.build("mlp", {"hidden": [4]}, *arguments)
    with pytest.raises(ModelError):
        models.build("regression_mlp", {}, 0, (2,))
