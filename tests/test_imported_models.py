"""Networks whose weights come from a file: the architecture they belong to, and what is refused."""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from curvelens import derivatives, models, region_radius, targets
from curvelens.config import load
from curvelens.errors import ConfigError, DataError, ModelError
from curvelens.surrogates import softplus_surrogate

SHARED = Path(os.environ.get("CURVELENS_DATA", Path(__file__).parents[2] / "shared" / "data"))
PUBLISHED = SHARED / "cifar10_resnet_weights"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(**parameters):
    return models.build("resnet_cifar", {"depth": 8, "width": 4} | parameters, 10, (3, 32, 32), seed=5)


def randomised(model):
    """The model with statistics of batches as after training, so that each of them matters."""
    random = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "bn1.weight", "bn2.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.5)
        elif name.endswith(("running_mean", ".bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=random) / 4)
    return model


def by_hand(w, x, blocks):
    """He et al. 2015, sec. 3.3 and 4.2, from the weights alone."""

    def normal(name, z):
        scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
        moved = (z.transpose(1, 3) - w[f"{name}.running_mean"]) * scale + w[f"{name}.bias"]
        return moved.transpose(1, 3)

    # The model was built in float32, and so were these.
    mean, std = (torch.tensor(values).to(x).view(3, 1, 1) for values in (MEAN, STD))
    z = (x - mean) / std
    z = normal("bn1", functional.conv2d(z, w["conv1.weight"], padding=1)).clamp(min=0)
    for stage in (1, 2, 3):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            inner = functional.conv2d(z, w[f"{at}.conv1.weight"], stride=stride, padding=1)
            inner = normal(f"{at}.bn1", inner).clamp(min=0)
            inner = normal(f"{at}.bn2", functional.conv2d(inner, w[f"{at}.conv2.weight"], padding=1))
            if stride == 2:
                kept, channels = z[..., ::2, ::2], z.shape[1]
                z = torch.zeros(len(z), 2 * channels, *kept.shape[2:], dtype=z.dtype)
                z[:, channels // 2 : channels // 2 + channels] = kept
            z = (z + inner).clamp(min=0)
    return z.mean((2, 3)) @ w["linear.weight"].T + w["linear.bias"]


def test_the_residual_network_is_the_formula():
    model = randomised(network(depth=14)).double()
    x = torch.rand(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x), by_hand(model.state_dict(), x, 2), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_residual_networks_have_the_printed_size(depth, millions):
    """He et al. 2015, Table 6; the printed numbers have two digits."""
    model = models.build("resnet_cifar", {"depth": depth}, 10, (3, 32, 32))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1e6 * millions, rel=0.025)
    with pytest.raises(ModelError, match=r"depth 22 is not 6n \+ 2"):
        network(depth=22)


def test_residual_networks_can_be_smoothed_and_measured():
    model = randomised(network())
    x = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(2))
    f = targets.logit(model, 4)
    assert f.piecewise_linear
    # Within the linear region the gradient predicts the logit exactly: to float32 rounding of values near 1.
    radius, g = float(region_radius(model, x)), derivatives.gradient(f, x[None])[0]
    step = 0.5 * radius * g / g.norm()
    assert radius > 0
    with torch.no_grad():
        change = model.double()(torch.stack([x, x + step]).double())[:, 4]
    assert float(change[1] - change[0]) == pytest.approx(float((g * step).sum()), rel=1e-3)
    model.float()
    curved = targets.logit(softplus_surrogate(model, 5.0), 4)
    assert not curved.piecewise_linear
    name, index = targets.inner_neuron(model, int(model(x[None]).argmax()), x[None])
    assert (name, index) == ("pool", int(model[:-2](x[None]).flatten(1).argmax()))


# ---------------------------------------------------------------- weights from elsewhere


def elsewhere(model):
    """A state dict as it is published: without our normalisation, wrapped by data-parallel training."""
    state = {
        f"module.{name}": tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("normalise") and not name.endswith("num_batches_tracked")
    }
    return {"state_dict": state, "best": 91.8}


def test_published_weights_fit_under_every_name(tmp_path):
    model = randomised(network())
    torch.save(elsewhere(model), tmp_path / "w.th")
    empty = network(mean=[0.5, 0.5, 0.5])
    models.load_weights(empty, tmp_path / "w.th")
    torch.testing.assert_close(empty.layer2[0].bn1.running_var, model.layer2[0].bn1.running_var)
    assert empty.normalise.mean.flatten().tolist() == [0.5] * 3
    digest = hashlib.sha256((tmp_path / "w.th").read_bytes()).hexdigest()
    models.load_weights(empty, tmp_path / "w.th", digest)
    with pytest.raises(DataError, match=rf"SHA-256 is {digest}, not 0000.*correct weights_sha256"):
        models.load_weights(empty, tmp_path / "w.th", "0" * 64)


def test_a_network_behind_a_normalisation_takes_its_own_names(tmp_path):
    import torchvision

    inner = torchvision.models.get_model("shufflenet_v2_x0_5", num_classes=5)
    torch.save(inner.state_dict(), tmp_path / "w.pt")
    model = models.build("torchvision", {"model": "shufflenet_v2_x0_5"}, 5, (3, 32, 32), seed=1)
    models.load_weights(model, tmp_path / "w.pt")
    torch.testing.assert_close(model.network.fc.weight, inner.fc.weight)


@pytest.mark.parametrize(
    ("edit", "error", "told"),
    [
        (lambda s: s.pop("module.conv1.weight"), ModelError, r"lacks conv1\.weight; give the weights"),
        (lambda s: s.update({"module.extra": torch.zeros(1)}), ModelError, "has unknown extra; give"),
        (
            lambda s: s.update({"module.conv1.weight": torch.zeros(4, 3, 5, 5)}),
            ModelError,
            r"conv1\.weight is \[4, 3, 5, 5\], the model needs \[4, 3, 3, 3\]",
        ),
        (
            lambda s: s.update(
                {"module.linear.weight": torch.zeros(100, 16), "module.linear.bias": torch.zeros(100)}
            ),
            ModelError,
            "was trained for 100 classes, the model has 10",
        ),
        (lambda s: s.update({"module.note": "text"}), DataError, "holds no state dict"),
    ],
)
def test_weights_that_do_not_fit_are_told_apart(tmp_path, edit, error, told):
    content = elsewhere(network())
    edit(content["state_dict"])
    torch.save(content, tmp_path / "w.th")
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(error, match=told) as caught:
        models.load_weights(model, tmp_path / "w.th")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Program:
    def __reduce__(self):
        return (os.system, ("touch ran",))


def test_a_pickle_that_needs_more_than_tensors_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": elsewhere(network())["state_dict"], "extra": Program()}, "w.th")
    with pytest.raises(DataError, match=r"w\.th: holds more than tensors.*was refused") as caught:
        models.load_weights(network(), "w.th")
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


def test_the_configuration_pairs_weights_and_checksum():
    model = {"dataset": "digits", "architecture": "mlp", "weights_sha256": "0" * 64}
    raw = {"datasets": {"digits": {"source": "sklearn_digits"}}, "models": {"m": model}}
    raw["experiments"] = {"e": {"model": "m"}}
    with pytest.raises(ConfigError, match=r"models\.m.*weights_sha256 is given without weights"):
        load(raw)
    model |= {"weights": "w.th", "weights_sha256": "abc"}
    with pytest.raises(ConfigError, match=r"models\.m\.weights_sha256"):
        load(raw)
    model["weights_sha256"] = "0" * 64
    assert str(load(raw).models["m"].weights) == "w.th"


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs published weights (CURVELENS_DATA)")
@pytest.mark.parametrize(("depth", "right"), [(20, 20), (32, 19), (44, 20), (56, 20)])
def test_published_weights_recognise_lossless_pictures(depth, right):
    """The 20 CIFAR-10 pictures of foolbox, whose names end in the label."""
    spec = find_spec("foolbox")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    files = sorted(folder.glob("cifar10_*.png"))
    assert len(files) == 20
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]).transpose(0, 3, 1, 2)
    labels = torch.tensor([int(file.stem.rpartition("_")[2]) for file in files])
    model = models.build("resnet_cifar", {"depth": depth}, 10, (3, 32, 32))
    (file,) = PUBLISHED.glob(f"resnet{depth}-*.th")
    models.load_weights(model, file)
    with torch.no_grad():
        found = model(torch.from_numpy(pixels.copy()).float() / 255).argmax(1)
    assert int((found == labels).sum()) == right
