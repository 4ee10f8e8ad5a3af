import json
import math
import pickle
from itertools import pairwise

import pytest
import torch
from torch import nn

from curvelens import models
from curvelens.errors import ConfigError, DataError, ModelError

SMALL = {"hidden": [7, 5], "activation": "relu"}


def build(**changes):
    arguments = {"architecture": "mlp", "parameters": SMALL, "classes": 3, "image_shape": (1, 4, 4)} | changes
    return models.build(**arguments)


def save(model, folder, **changes):
    arguments = {"architecture": "mlp", "parameters": SMALL, "classes": 3, "image_shape": (1, 4, 4)} | changes
    models.save(model, folder, **arguments)


def test_the_mlp_is_the_formula():
    parameters = {"hidden": [7, 5], "mean": [0.25], "std": [0.5]}
    model = build(parameters=parameters).double()
    x = torch.rand(6, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = dict(model.named_parameters())
    h = (x.reshape(6, 16) - 0.25) / 0.5
    for name in ("linear1", "linear2"):
        h = (h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]).clamp(min=0)
    expected = h @ weights["logits.weight"].T + weights["logits.bias"]
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_the_network_of_the_paper_has_its_size():
    model = models.build("mlp", None, 10, (1, 28, 28))
    widths = [784, 500, 300, 250, 250, 250, 10]
    assert sum(p.numel() for p in model.parameters()) == sum(a * b + b for a, b in pairwise(widths))
    assert model[-1].out_features == 10
    assert not any(module.training for module in model.modules())


def test_a_softplus_network_starts_centred():
    model = models.build(
        "mlp", {"hidden": [20, 15, 10], "activation": "softplus", "beta": 4.0}, 3, (1, 5, 5)
    ).double()
    x = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    seen = {}
    for name in ("linear1", "linear2", "linear3", "logits"):
        model.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    model(x)
    # At zero every pre-activation is zero: the biases cancel the weights times SoftPlus(0) = log(2)/beta.
    # The biases were computed in float32 from sums of at most 20 terms of order 1.
    for out in seen.values():
        torch.testing.assert_close(out, torch.zeros_like(out), rtol=0, atol=2e-6)
    assert isinstance(model.activation1, nn.Softplus)
    assert (model.activation1.beta, model.activation1.threshold) == (4.0, 20.0)
    row_sums = model.linear2.weight.sum(1)
    torch.testing.assert_close(model.linear2.bias, -row_sums * math.log(2) / 4, rtol=1e-5, atol=1e-6)


def test_weights_depend_on_seed_and_name_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, again = build(seed=1, name="a"), build(seed=1, name="a")
    assert torch.equal(torch.get_rng_state(), before)
    others = [build(seed=2, name="a"), build(seed=1, name="b")]
    assert torch.equal(one.linear1.weight, again.linear1.weight)
    assert not any(torch.equal(one.linear1.weight, other.linear1.weight) for other in others)


def test_initial_weights_have_the_variance_of_he_et_al():
    weight = models.build("mlp", {"hidden": [400, 10]}, 2, (1, 30, 30)).linear1.weight
    # 360,000 normal weights: the relative standard error of their variance is sqrt(2/360000) = 0.24 %.
    assert float(weight.detach().var()) == pytest.approx(2 / 900, rel=0.012)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_the_small_cnn_gives_logits_and_gradients(activation):
    parameters = {"channels": [4, 6], "hidden": 8, "activation": activation}
    model = models.build("small_cnn", parameters, 5, (3, 9, 12))
    x = torch.rand(2, 3, 9, 12, requires_grad=True)
    logits = model(x)
    assert logits.shape == (2, 5)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert gradient.abs().sum() > 0
    # Two 3 x 3 convolutions, averages of 2 x 2 without the odd row: 9 x 12 -> 4 x 6 -> 2 x 3.
    assert model.hidden.in_features == 6 * 2 * 3


@pytest.mark.slow
def test_torchvision_models_take_the_number_of_classes():
    model = models.build("torchvision", {"model": "resnet18"}, 7, (3, 32, 32), seed=3)
    with torch.no_grad():
        assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    # As printed by He et al. 2016 and counted by torchvision: 11,689,512 with 1000 classes of 512 features.
    assert sum(p.numel() for p in model.parameters()) == 11_689_512 - 1000 * 513 + 7 * 513
    torch.testing.assert_close(model.normalise.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    with pytest.raises(ConfigError, match=r"no classifier 'resnet81'; try .*resnet18"):
        models.build("torchvision", {"model": "resnet81"}, 7, (3, 32, 32))
    with pytest.raises(ModelError, match="take 3 channels, not 1"):
        models.build("torchvision", None, 7, (1, 32, 32))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"architecture": "mpl"}, ConfigError, "unknown architecture 'mpl'; did you mean mlp"),
        ({"parameters": {"hidden": []}}, ConfigError, r"parameters\.hidden"),
        ({"parameters": {"hidden": [0]}}, ConfigError, r"parameters\.hidden\.0"),
        ({"parameters": {"widths": [3]}}, ConfigError, r"parameters\.widths: unknown key"),
        ({"parameters": {"std": [0.0]}}, ConfigError, r"parameters\.std\.0"),
        ({"parameters": {"mean": [0.1, 0.2]}}, ModelError, "channels are 1; give 1 value$"),
        ({"classes": 1}, ModelError, "for 1 classes"),
        ({"image_shape": (4, 4)}, ModelError, r"images \[4, 4\]"),
        (
            {"architecture": "small_cnn", "parameters": {"channels": [4] * 3}},
            ModelError,
            "too few for 3 blocks",
        ),
    ],
)
def test_impossible_models_are_refused(changes, error, message):
    with pytest.raises(error, match=message) as caught:
        build(**changes)
    assert "\n" not in str(caught.value)


def test_a_saved_model_comes_back_the_same(tmp_path):
    parameters = SMALL | {"mean": [0.1], "std": [0.3]}
    model = build(parameters=parameters, seed=9)
    save(model, tmp_path / "m", parameters=parameters, meta={"accuracy": 0.5, "class_names": ["a", "b", "c"]})
    back = models.load(tmp_path / "m")
    x = torch.rand(3, 1, 4, 4)
    assert torch.equal(back(x), model(x))
    assert not back.training
    description = json.loads((tmp_path / "m" / "model.json").read_text())
    assert description["accuracy"] == 0.5
    assert description["architecture"] == "mlp"
    assert description["image_shape"] == [1, 4, 4]
    assert description["weights"] == 16 * 7 + 7 + 7 * 5 + 5 + 5 * 3 + 3


def test_the_same_weights_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save(build(seed=9), tmp_path / name)
    assert (tmp_path / "one" / models._storage.WEIGHTS).read_bytes() == (
        tmp_path / "two" / models._storage.WEIGHTS
    ).read_bytes()


def change_description(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 4}, "was trained for 3 classes, the model has 4; use the data set it was trained on"),
        (
            {"parameters": {"hidden": [7, 6]}},
            r"linear2\.weight is \[5, 7\], the model needs \[6, 7\], and 2 more",
        ),
        ({"parameters": {"hidden": [7]}}, r"has unknown linear2\.bias, linear2\.weight"),
        (
            {"parameters": {"hidden": [7, 5, 5]}},
            r"lacks linear3\.weight, linear3\.bias; give the weights of this",
        ),
        (
            {"image_shape": [1, 5, 4]},
            r"linear1\.weight is \[7, 16\], the model needs \[7, 20\]; give the parameters",
        ),
    ],
)
def test_weights_that_do_not_fit_are_told_apart(tmp_path, changes, message):
    save(build(), tmp_path)
    change_description(tmp_path, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        models.load(tmp_path)
    assert str(tmp_path / "weights.safetensors") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"model\.json: no such file"):
        models.load(tmp_path)
    save(build(), tmp_path)
    weights = tmp_path / "weights.safetensors"
    good = weights.read_bytes()
    for bad in (b"", good[:100], good[:-4], b"\xff" * 64):
        weights.write_bytes(bad)
        with pytest.raises(
            DataError, match=r"weights\.safetensors: damaged weights .*; delete it and run again"
        ):
            models.load(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match=r"weights\.safetensors: no such weights; train the model"):
        models.load(tmp_path)
    (tmp_path / "model.json").write_text('{"architecture": "mlp"}')
    with pytest.raises(DataError, match="does not describe a model"):
        models.load(tmp_path)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}]
)
def test_state_dicts_of_torch_are_read(tmp_path, wrap):
    model, other = build(seed=1), build(seed=2)
    torch.save(wrap(model.state_dict()), tmp_path / "weights.pt")
    models.load_weights(other, tmp_path / "weights.pt")
    assert torch.equal(other.linear1.weight, model.linear1.weight)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, zipped):
    trace, path = tmp_path / "trace", tmp_path / "weights.pt"
    model = build(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    content = model.state_dict() | {"extra": Bomb(str(trace))}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        DataError, match=r"holds more than tensors.*was refused; store the weights alone"
    ) as caught:
        models.load_weights(model, path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    # The file does what it claims to do where it is trusted, so the refusal above means something.
    torch.load(path, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("content", [b"", b"rubbish", pickle.dumps({"a": 1}, protocol=2)])
def test_files_that_are_no_weights_are_refused(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"weights\.pt"):
        models.load_weights(build(), path)


def test_something_else_than_a_state_dict_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(DataError, match="holds no state dict"):
        models.load_weights(build(), tmp_path / "list.pt")
