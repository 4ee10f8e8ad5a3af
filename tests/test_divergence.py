"""Training that diverges stops with one line and keeps the last good state; wild weights are refused."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from curvelens import models, training
from curvelens.errors import DataError, ModelError
from curvelens.finite import not_finite
from curvelens.schedules import Training
from curvelens.store import ImageSet, RegressionSet


def image_set(count=48, labels=(0, 1, 2)):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    return ImageSet(pixels, np.resize(np.array(labels), count), [f"own/{index}" for index in range(count)])


def network(seed=0):
    return models.build("mlp", {"hidden": [8], "activation": "softplus"}, 3, (1, 4, 4), seed=seed)


def settings(**changes):
    return Training(**({"epochs": 3, "batch_size": 16, "learning_rate": 0.1} | changes))


class PoisonedAt(nn.Module):
    """A network whose output is NaN from the given forward pass in training mode on."""

    def __init__(self, passes):
        super().__init__()
        self.inner, self.left = network(), passes

    def forward(self, x):
        if self.training:
            self.left -= 1
        return self.inner(x) * (float("nan") if self.left < 0 else 1.0)


def told(caught):
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_first_wild_loss_ends_it(tmp_path):
    """Two epochs of three updates pass; the eighth pass is NaN; the checkpoint is that of update 7."""
    model, checkpoint = PoisonedAt(7), tmp_path / "checkpoint.pt"
    with pytest.raises(ModelError) as caught:
        training.train(
            model, image_set(), image_set(), settings(), seed=0, name="m", checkpoint=checkpoint,
            checkpoint_seconds=0.0,
        )  # fmt: skip
    assert told(caught) == (
        "training m: the loss is nan in epoch 3, after 7 updates, at learning rate 0.1; lower "
        f"training.learning_rate, or warm up longer (training.warmup_epochs); {checkpoint} "
        "keeps the last good state"
    )
    kept = torch.load(checkpoint, weights_only=True)
    assert kept["state"]["update"] == 7
    assert not_finite(kept["model"]) == ""
    before = checkpoint.read_bytes()
    # Again from there: the same line, and the same checkpoint.
    with pytest.raises(ModelError, match="in epoch 3, after 7 updates"):
        training.train(
            PoisonedAt(0), image_set(), image_set(), settings(), seed=0, name="m", checkpoint=checkpoint,
            checkpoint_seconds=0.0,
        )  # fmt: skip
    assert checkpoint.read_bytes() == before


class RootOfZero(nn.Module):
    """Finite logits whose derivative by a weight is not: the square root of that weight, at 0."""

    def __init__(self):
        super().__init__()
        self.inner, self.weight = network(), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.inner(x) + self.weight.square().sum().sqrt()


def test_wild_weights_never_reach_a_checkpoint(tmp_path):
    """The loss is that before the update, and finite; the weights after it are not."""
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(ModelError) as caught:
        training.train(
            RootOfZero(), image_set(), image_set(), settings(), seed=0, name="m", checkpoint=checkpoint,
            checkpoint_seconds=0.0,
        )  # fmt: skip
    assert "weights are not finite in epoch 1, after 1 updates" in told(caught)
    assert re.search(r"\(weight: 3 of 3 values are not finite\)", told(caught))
    assert "keeps the last good" not in told(caught)
    assert not checkpoint.exists()


def test_a_regression_that_diverges_names_its_layers():
    rng = np.random.default_rng(0)
    examples = RegressionSet(
        rng.normal(size=(32, 16)).astype(np.float32),
        rng.normal(size=32).astype(np.float32),
        list(map(str, range(32))),
    )
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))
    wild = settings(learning_rate=1e30, batch_size=8)
    with pytest.raises(ModelError, match=r"training r: the loss is (nan|inf) in epoch 1") as caught:
        training.train_regression(model, examples, examples, wild, seed=0, name="r")
    told(caught)


def test_the_words_count_values_and_tensors():
    bad = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])
    assert not_finite({"a": torch.ones(2), "n": torch.ones(2, dtype=torch.int64)}) == ""
    assert not_finite({"a": bad}) == "a: 3 of 4 values are not finite"
    assert not_finite({"a": bad, "b": bad}) == "a: 3 of 4 values are not finite, and 1 more tensor"
    assert not_finite({"a": bad, "b": bad, "c": bad}).endswith("and 2 more tensors")


# ---------------------------------------------------------------- weights on disk


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_wild_weights_are_refused_by_name(tmp_path, suffix):
    """As import_model reads them, and every stage that loads a stored network."""
    model, path = network(), tmp_path / f"weights{suffix}"
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = [name for name in state if name.endswith("weight")]
    state[names[0]][0, :2] = torch.tensor([float("nan"), float("inf")])
    state[names[1]][0, 0] = float("nan")
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        models.load_weights(model, path)
    size = state[names[0]].numel()
    assert told(caught).startswith(
        f"{path}: {names[0]}: 2 of {size} values are not finite, and 1 more tensor; the training diverged"
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_stored_network_with_wild_weights_is_refused(tmp_path):
    model = network()
    models.save(
        model, tmp_path, architecture="mlp", parameters={"hidden": [8], "activation": "softplus"}, classes=3,
        image_shape=(1, 4, 4),
    )  # fmt: skip
    path = tmp_path / "weights.safetensors"
    state = load_file(path)
    name = next(iter(state))
    state[name].view(-1)[0] = float("inf")
    save_file(state, path)
    with pytest.raises(ModelError, match=rf"weights\.safetensors: {re.escape(name)}: 1 of"):
        models.load(tmp_path)


# ---------------------------------------------------------------- labels


def test_a_label_beyond_the_classes_is_named():
    wrong = image_set(labels=(0, 1, 2, 7))
    for parts in ((wrong, image_set()), (image_set(), wrong)):
        with pytest.raises(DataError) as caught:
            training.train(network(), *parts, settings(), seed=0, name="m")
        assert re.match(
            r"training m: 12 of 48 images to (train|validate) on have a label beyond the "
            r"network's 3 classes, first 'own/3' with 7; correct the labels, or the data set's class names",
            told(caught),
        )


def test_images_without_a_label_are_not_learnt_from():
    """The same weights as without them."""
    some = image_set(labels=(0, 1, 2, -1))
    trained = []
    for part in (some, some.subset(np.flatnonzero(some.labels >= 0))):
        model = network()
        training.train(model, part, image_set(), settings(), seed=0, name="m")
        trained.append(model.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


@pytest.mark.parametrize("labels", [(-1,), ()])
def test_nothing_to_learn_from_is_told(labels):
    none = image_set(labels=labels) if labels else image_set(0, (0,))
    for parts, purpose in (((none, image_set()), "train"), ((image_set(), none), "validate")):
        with pytest.raises(DataError, match=f"training m: .* no images with a label to {purpose} on; choose"):
            training.train(network(), *parts, settings(), seed=0, name="m")
