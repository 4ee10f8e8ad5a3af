"""New last layers on frozen ones, fine-tuning, and the small network that averages."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from curvelens import datasets, models, region_radius, targets, training
from curvelens.errors import ConfigError, ModelError
from curvelens.schedules import Augmentation, Training
from curvelens.store import ImageSet
from curvelens.training.heads import frozen_layers

SHARED = Path(os.environ.get("CURVELENS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def images(count, shape=(1, 3, 4), classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = rng.integers(0, 200, (count, *shape)) + 18 * labels[:, None, None, None]
    ids = [f"{seed}/{i}" for i in range(count)]
    return ImageSet(pixels.astype(np.uint8), labels.astype(np.int64), ids)


def network():
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3)]
    layers[1].requires_grad_(False)
    return nn.Sequential(*layers).eval()


def test_a_head_is_the_logistic_regression_on_its_features():
    """scikit-learn minimises the sum of losses with |w|²/2C; ours is the mean with weight_decay |w|²/2."""
    from sklearn.linear_model import LogisticRegression

    data, model, decay = images(90), network(), 0.01
    parameters = Training(epochs=3000, batch_size=90, learning_rate=1.0, momentum=0.9, weight_decay=decay)
    training.train(model, data, images(9, seed=1), parameters, seed=0)
    with torch.no_grad():
        features = model[:3](data.tensor()).numpy().astype(np.float64)
    ones = np.hstack([features, np.ones((90, 1))])  # ours penalises the constant as well
    reference = LogisticRegression(C=1 / (decay * 90), fit_intercept=False, tol=1e-10, max_iter=10_000)
    reference.fit(ones, data.labels)
    ours = torch.cat([model[3].weight, model[3].bias[:, None]], 1).detach().numpy()
    # The gradient of ours is float32: 6e-8 times features of 1, over a curvature of at least the decay.
    np.testing.assert_allclose(ours, reference.coef_, atol=1e-4)


def test_computing_features_once_changes_nothing(monkeypatch):
    """Through the whole network, and from what the frozen layers give: the same updates up to rounding."""
    data, held_out = images(50), images(20, seed=1)
    held_out.labels[3] = -1
    parameters = Training(epochs=3, batch_size=16, learning_rate=0.3)
    cached, whole = network(), network()
    before = copy.deepcopy(cached.state_dict())
    assert frozen_layers(cached) == 3
    first = training.train(cached, data, held_out, parameters, seed=5)
    monkeypatch.setattr(training, "frozen_layers", lambda model: 0)
    second = training.train(whole, data, held_out, parameters, seed=5)
    for name, weight in cached.state_dict().items():
        torch.testing.assert_close(weight, whole.state_dict()[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(weight, before[name]) == name.startswith("1.")
    columns = ["loss", "accuracy", "validation_loss", "validation_accuracy"]
    np.testing.assert_allclose(first[columns], second[columns], rtol=1e-5)


def test_what_is_no_frozen_beginning_is_trained_as_a_whole():
    model = network()
    assert frozen_layers(model.requires_grad_(True)) == 0
    assert frozen_layers(nn.Sequential(nn.Flatten(), nn.Linear(12, 3))) == 0  # nothing is frozen
    model = network()
    model[1].requires_grad_(True)
    model[3].requires_grad_(False)
    assert frozen_layers(model) == 0  # the end is frozen, not the beginning

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x)

    assert frozen_layers(Wrapped()) == 0


@pytest.mark.parametrize("finetune", ["head", "all"])
def test_the_pretrained_network_is_trained_on(finetune, tmp_path):
    data = images(8, (3, 32, 32), 2)
    settings = {"finetune": finetune}
    model = models.build("efficientnet_lite0", settings, 2, (3, 32, 32), seed=1)
    before = copy.deepcopy(model.state_dict())
    # A cut-out forbids to compute features once; both ways the body changes only where it should.
    for augmentation in (None, Augmentation(crop=0.5)):
        parameters = Training(epochs=1, batch_size=4, learning_rate=0.01, augmentation=augmentation)
        training.train(model, data, data, parameters, seed=0)
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert {"logits.weight", "logits.bias"} <= changed
    assert ("stem.1.weight" in changed or "stem.0.weight" in changed) == (finetune == "all")
    models.save(
        model,
        tmp_path,
        architecture="efficientnet_lite0",
        parameters=settings,
        classes=2,
        image_shape=(3, 32, 32),
    )
    again = models.load(tmp_path)
    x = data.tensor()
    torch.testing.assert_close(again(x), model(x))
    assert targets.logits(again).piecewise_linear


def test_only_a_network_with_a_new_layer_needs_training():
    assert models.needs_training("small_cnn", {})
    assert not models.needs_training("efficientnet_lite0", {})
    assert models.needs_training("efficientnet_lite0", {"finetune": "head"})
    with pytest.raises(ConfigError, match="finetune"):
        models.needs_training("efficientnet_lite0", {"finetune": "tail"})
    with pytest.raises(ModelError, match=r"or train a new last layer \(parameters\.finetune\)"):
        models.build("efficientnet_lite0", {}, 2, (3, 32, 32))
    own = models.build("efficientnet_lite0", {"finetune": "head"}, 1000, (3, 32, 32), seed=2)
    given = models.build("efficientnet_lite0", {}, 1000, (3, 32, 32))
    assert not torch.equal(own.logits.weight, given.logits.weight)


@pytest.mark.skipif(not (SHARED / "dogs_vs_cats").is_dir(), reason="needs photographs of cats and dogs")
def test_a_head_tells_cats_from_dogs():
    """At 224 pixels all 100 test photographs come out right; 128 pixels are three times cheaper."""
    raw = datasets.load(
        "image_folder", {"size": 128, "classes": "folders", "trainable": True}, SHARED / "dogs_vs_cats"
    )
    parts = datasets.split(raw, validation=300)
    model = models.build("efficientnet_lite0", {"finetune": "head"}, 2, (3, 128, 128))
    parameters = Training(optimizer="adam", epochs=30, learning_rate=0.002)
    training.train(model, parts["train"], parts["validation"].subset(range(2)), parameters, seed=0)
    # The standard error of a share of 0.97 of 100 is 0.017.
    assert training.evaluate(model, parts["test"]).accuracy >= 0.93


# ---------------------------------------------------------------- the network that averages


def test_the_averaging_network_is_the_formula():
    """Its logits are the mean of the class activation map (Zhou et al. 2016, eq. 1 and 2) plus a constant."""
    parameters = {"channels": [4, 6], "mean": [0.2], "std": [0.5]}
    model = models.build("averaging_cnn", parameters, 3, (3, 8, 10), seed=3).double()
    random = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if "norm" in name and tensor.is_floating_point() and "normalise" not in name:
            tensor.copy_(torch.rand(tensor.shape, generator=random, dtype=torch.float64) + 0.5)
    x = torch.rand(2, 3, 8, 10, generator=random, dtype=torch.float64)
    z, weights = (x - 0.2) / 0.5, model.state_dict()
    for block in ("1", "2"):
        z = nn.functional.conv2d(z, weights[f"convolution{block}.weight"], padding=1)
        mean, variance = weights[f"norm{block}.running_mean"], weights[f"norm{block}.running_var"]
        z = (z - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
        z = z * weights[f"norm{block}.weight"][:, None, None] + weights[f"norm{block}.bias"][:, None, None]
        z = z.clamp(min=0)
        if block == "1":
            z = (z[..., ::2, ::2] + z[..., 1::2, ::2] + z[..., ::2, 1::2] + z[..., 1::2, 1::2]) / 4
    maps = torch.einsum("bkhw,ck->bchw", z, weights["logits.weight"])
    expected = maps.mean((2, 3)) + weights["logits.bias"]
    # The constants 0.2 and 0.5 were rounded to float32 when the model was built.
    torch.testing.assert_close(model(x), expected, rtol=1e-6, atol=1e-6)
    assert targets.logits(model).piecewise_linear
    assert float(region_radius(model, x[0])) > 0
    smooth = models.build("averaging_cnn", parameters | {"activation": "softplus"}, 3, (3, 8, 10))
    assert not targets.logits(smooth).piecewise_linear
    with pytest.raises(ModelError, match="2 x 8 pixels are too few for 3 blocks"):
        models.build("averaging_cnn", {"channels": [4, 4, 4]}, 3, (3, 2, 8))
