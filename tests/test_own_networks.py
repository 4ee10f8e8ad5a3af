"""Networks made elsewhere: what lies around them, code of one's own, and mismatches told apart."""

import json
import sys

import pytest
import torch
from torch import nn

from curvelens import hessian, models, owncode, targets
from curvelens.config import load
from curvelens.errors import ConfigError, DataError, ModelError
from curvelens.linearity import is_piecewise_linear

NAMES = ["ant", "bee", "cat"]


def tiny(library, **parameters):
    """A classifier of a library that is small enough for a test."""
    name = {"torchvision": "shufflenet_v2_x0_5", "timm": "test_resnet"}[library]
    return {"architecture": library, "parameters": {"model": name, **parameters}}


def built(described, image_shape=(3, 32, 32), classes=3):
    model = models.build(**described, classes=classes, image_shape=image_shape, seed=3)
    return model, {**described, "classes": classes, "image_shape": image_shape}


# ---------------------------------------------------------------- what lies around a network


class Remembers(nn.Module):
    """Keeps what it was given, and answers with its mean in four outputs."""

    def forward(self, x):
        self.seen = x
        return x.mean((1, 2, 3))[:, None] * torch.arange(1.0, 5.0)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes a module into a folder of its own, and forgets what was imported from there."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)

    def write(text, name="own_net"):
        (tmp_path / f"{name}.py").write_text(text)
        owncode._parsed.cache_clear()
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


FUNCTION = """
import torch
from torch import nn

class Remembers(nn.Module):
    def forward(self, x):
        self.seen = x
        return x.mean((1, 2, 3))[:, None] * torch.arange(1.0, 5.0)

def remembers():
    return Remembers()

def small(classes, image_shape, width=4):
    pixels = torch.Size(image_shape).numel()
    layers = [nn.Linear(pixels, width), nn.ReLU(inplace=True), nn.Linear(width, classes)]
    return nn.Sequential(nn.Flatten(), *layers)
"""


def own(folder, function="own_net:small", **parameters):
    return {
        "architecture": "function",
        "parameters": {"function": function, "folder": str(folder), **parameters},
    }


def test_preprocessing_is_the_formula(written):
    """A grey image of 4 x 4 is shown three times, at half the size, in the range of its training."""
    parameters = {"scale": 255, "mean": [10.0, 20.0, 30.0], "std": [2.0], "resize": [2, 4], "channels": 3}
    described = own(written(FUNCTION), "own_net:remembers", **parameters)
    model, _ = built(described, (1, 4, 4), classes=4)
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    model(x)
    # A hat of half-width 2 over rows at 0.5, 1.5, 2.5, 3.5 around 1 and 3, cut off at the border, of sum 1.
    hat = torch.tensor([[3.0, 3.0, 1.0, 0.0], [0.0, 1.0, 3.0, 3.0]]) / 7
    expected = (255 * (hat @ x).expand(-1, 3, -1, -1) - torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1)) / 2
    torch.testing.assert_close(model.network.seen, expected)
    assert [name for name, _ in model.named_children()] == ["resize", "channels", "normalise", "network"]


def test_coloured_images_become_their_luma(written):
    model, _ = built(own(written(FUNCTION), "own_net:remembers", channels=1), (3, 2, 2), classes=4)
    x = torch.rand(1, 3, 2, 2)
    model(x)
    expected = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    torch.testing.assert_close(model.network.seen[:, 0], expected)
    with pytest.raises(ModelError, match="images of 2 channels do not become images of 1"):
        built(own(written(FUNCTION), channels=1), (2, 4, 4))


def test_what_lies_around_keeps_a_network_piecewise_linear(written):
    parameters = {"resize": 3, "channels": 3, "outputs": [2, 0], "scale": 2.0, "arguments": {"classes": 4}}
    model, _ = built(own(written(FUNCTION), **parameters), (1, 6, 5), classes=2)
    assert is_piecewise_linear(model)
    model = model.double()
    x = torch.rand(1, 6, 5, dtype=torch.float64)
    loss = targets.loss(model, 0)
    step = 1e-4 * torch.randn(1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        around = [float(loss((x + sign * step)[None])) for sign in (1, 0, -1)]
    # Central differences err by the fourth derivative times the fourth power of the step, about 1e-14.
    second = float(step.flatten() @ hessian(loss, x) @ step.flatten())
    assert around[0] - 2 * around[1] + around[2] == pytest.approx(second, rel=1e-3, abs=1e-13)


def test_classes_are_put_in_the_data_sets_order(written, tmp_path):
    described = own(written(FUNCTION), class_names=["bee", "cat", "ant"])
    entry = models.REGISTRY.get("function")
    described["parameters"] = entry.parse(described["parameters"]).model_dump(mode="json")
    fitted = models.described(described, {"class_names": NAMES, "image_shape": [1, 2, 2]})
    assert fitted["parameters"]["outputs"] == [2, 0, 1]
    model = models.build(**fitted)
    x = torch.rand(2, 1, 2, 2)
    torch.testing.assert_close(model(x), model[:-1](x)[:, [2, 0, 1]])
    with pytest.raises(
        ModelError, match=r"lack dog of the data set and have bee, ant, which the data set has"
    ):
        models.described(described, {"class_names": ["cat", "dog"], "image_shape": [1, 2, 2]})


@pytest.mark.parametrize(
    ("name", "text"), [("n.txt", "ant\nbee\n\ncat\n"), ("n.json", json.dumps(NAMES)), ("m.json", "")]
)
def test_class_names_are_read_from_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text or json.dumps({str(index): name for index, name in enumerate(NAMES)}))
    entry = models.REGISTRY.get("torchvision")
    assert entry.parse({"class_names": str(tmp_path / name)}).class_names == NAMES


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "there is no file"),
        (b"\xff\xfe\x00", "neither a name a line nor JSON"),
        (b'{"1": "ant"}', "neither a name a line nor JSON"),
        (b"[1, 2]", "holds no list of names"),
        (b'["a", "a"]', "'a' stands there twice"),
        (b" " * 2**21, "larger than a list of names"),
    ],
)
def test_files_without_class_names_are_told(tmp_path, content, told):
    path = tmp_path / "names.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=told) as caught:
        models.REGISTRY.get("timm").parse({"class_names": str(path)})
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- torchvision and timm


@pytest.mark.parametrize(
    ("library", "shape", "classes"),
    [("torchvision", (3, 40, 32), 7), ("timm", (3, 32, 32), 2), ("timm", (1, 32, 48), 3)],
)
def test_libraries_make_networks_for_any_number_of_classes(library, shape, classes, tmp_path):
    values = {"mean": [0.5], "std": [0.5]}
    model, described = built(tiny(library, **values), shape, classes)
    found = models.probe(model, **described)
    assert found["second_derivatives"]
    models.save_weights(model, tmp_path / "w.safetensors")
    again = models.restore(tmp_path / "w.safetensors", **described)
    x = torch.rand(2, *shape)
    torch.testing.assert_close(again(x), model(x))


def test_torchvision_sees_grey_images_three_times():
    with pytest.raises(ModelError, match=r"take 3 channels, not 1; give parameters\.channels: 3"):
        built(tiny("torchvision"), (1, 32, 32))
    model, described = built(tiny("torchvision", channels=3), (1, 32, 32))
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 3)
    assert not models.probe(model, **described)["piecewise_linear"] or is_piecewise_linear(model)


def test_some_outputs_of_a_network(tmp_path):
    whole, _ = built(tiny("timm"), classes=6)
    models.save_weights(whole, tmp_path / "w.safetensors")
    some = tiny("timm", outputs=[4, 1], num_classes=6)
    model = models.restore(tmp_path / "w.safetensors", **some, classes=2, image_shape=(3, 32, 32))
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(x), whole(x)[:, [4, 1]])


@pytest.mark.parametrize(
    ("parameters", "error", "told"),
    [
        ({"model": "resnet81"}, ConfigError, "torchvision has no classifier 'resnet81'; try resnet18"),
        ({"options": {"weights": "DEFAULT"}}, ConfigError, "weights would fetch or read weights unchecked"),
        ({"options": {"num_classes": 4}}, ConfigError, "num_classes is set by curvelens"),
        ({"options": {"colour": 4}}, ConfigError, r"cannot be made with \{'colour': 4\}"),
        (
            {"outputs": [0, 1, 2]},
            ModelError,
            r"without saying how many there are; add parameters\.num_classes",
        ),
        ({"outputs": [0, 1, 9], "num_classes": 5}, ModelError, "names output 9 of a network with 5"),
        (
            {"outputs": [0, 1], "num_classes": 5},
            ModelError,
            "names 2 outputs, and the data set has 3 classes",
        ),
        ({"num_classes": 5}, ModelError, "num_classes is 5, and there are 3 classes"),
        ({"resize": [1, 2, 3]}, ConfigError, "resize has 3 numbers"),
    ],
)
def test_what_a_library_cannot_make_is_told(parameters, error, told):
    with pytest.raises(error, match=told) as caught:
        built({"architecture": "torchvision", "parameters": {"model": "shufflenet_v2_x0_5"} | parameters})
    assert "\n" not in str(caught.value)


def test_weights_for_colour_do_not_pass_for_grey(tmp_path):
    model, _ = built(tiny("timm"))
    models.save_weights(model, tmp_path / "w.safetensors")
    grey, _ = built(tiny("timm", mean=[0.5], std=[0.5]), (1, 32, 32))
    with pytest.raises(ModelError, match=r"3 channels, the model takes 1; give parameters\.channels: 3"):
        models.load_weights(grey, tmp_path / "w.safetensors")


# ---------------------------------------------------------------- code of one's own


def test_a_function_makes_the_network(written):
    described = own(written(FUNCTION), arguments={"width": 5})
    model, described = built(described, (1, 2, 3))
    assert model.network[1].weight.shape == (5, 6)
    assert not model.network[2].inplace
    again = models.build(**described, seed=3)
    torch.testing.assert_close(again.network[1].weight, model.network[1].weight)  # drawn from the run's seed
    assert models.probe(model, **described) == {"piecewise_linear": True, "second_derivatives": True}
    assert models.needs_training("function", described["parameters"])
    assert not models.needs_training("function", described["parameters"] | {"trained": True})


@pytest.mark.parametrize(
    ("text", "function", "told"),
    [
        (FUNCTION, "own_net:smal", r"has no function smal; it has .*small"),
        (FUNCTION, "own_nest:small", r"there is no module own_nest in .*name with `folder`"),
        ("import nothing_such\n", "own_net:f", r"cannot be imported \(ModuleNotFoundError: .*nothing_such"),
        ("def f(:\n", "own_net:f", r"own_net\.py: is not valid Python \(SyntaxError"),
        ("def f():\n    return 3\n", "own_net:f", r"returned int; return a torch\.nn\.Module"),
        ("def f(a):\n    return a\n", "own_net:f", r"failed when called with \{\} \(TypeError: .*argument"),
    ],
)
def test_functions_that_make_no_network_are_told(written, text, function, told):
    with pytest.raises((ConfigError, ModelError), match=told) as caught:
        built(own(written(text), function))
    assert "\n" not in str(caught.value)


def test_a_folder_does_not_give_way_to_another_module(written, monkeypatch):
    folder = written("def f():\n    pass\n", "json")
    with pytest.raises(ConfigError, match=r"Python knows another module of this name, .*json.*; rename"):
        built(own(folder, "json:f"))


def test_the_version_of_own_code_follows_its_imports(written):
    folder = written(FUNCTION)
    written(
        "from own_net import small\nimport torch\n\ndef f():\n    return small(2, (1, 2, 2))\n", "own_top"
    )
    written("def unused():\n    return 1\n", "own_other")

    def version():
        owncode._parsed.cache_clear()
        return owncode.own_code_version("own_top:f", folder)

    first = version()
    written("def unused():\n    return 2\n", "own_other")
    written(FUNCTION + "# a comment\n")
    assert version() == first
    written(FUNCTION.replace("width=4", "width=8"))
    assert version() != first
    assert owncode.own_code_version("timm.models:create_model").startswith("timm ")
    assert "own_top" not in sys.modules


def test_packages_beside_a_module_count_too(tmp_path):
    (tmp_path / "own_pack/inner").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "nets": "from . import inner\nfrom .inner.parts import width\n",
        "inner/__init__": "",
        "inner/parts": "from ..nets import width\nfrom ... import beyond\n",
    }.items():
        (tmp_path / f"own_pack/{name}.py").write_text(text)
    closure = owncode._closure("own_pack.nets", tmp_path)
    assert set(closure) == {"own_pack", "own_pack.nets", "own_pack.inner", "own_pack.inner.parts"}


# ---------------------------------------------------------------- mismatches told apart


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            "return x.flatten(1) @ torch.ones(5, 3)",
            r"does not take 2 images of shape \[1, 2, 2\] \(RuntimeError",
        ),
        ("return x", r"gives torch\.float32 \[2, 1, 2, 2\] for 2 images; it must give one row of logits"),
        ("return x.flatten(1)", "gives 4 outputs, and the data set has 3 classes"),
        ("return (x - x.mean(0)).flatten(1)[:, :3]", "change with the other images of its batch"),
        ("return x.detach().flatten(1)[:, :3]", "cannot be differentiated by the pixels"),
        ("return {'logits': x}", "gives dict for 2 images"),
    ],
)
def test_a_network_that_does_not_fit_is_told(written, body, told):
    text = f"import torch\n\nclass N(torch.nn.Module):\n    def forward(self, x):\n        {body}\n"
    model, described = built(own(written(text), "own_net:N"), (1, 2, 2))
    with pytest.raises(ModelError, match=told) as caught:
        models.probe(model, **described)
    assert "\n" not in str(caught.value)


def test_a_network_without_second_derivatives_is_announced(written, caplog):
    text = """
import torch

class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x ** 2
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g

class N(torch.nn.Module):
    def forward(self, x):
        return Once.apply(x).flatten(1)[:, :3]
"""
    model, described = built(own(written(text), "own_net:N"), (1, 2, 2))
    found = models.probe(model, **described)
    assert found == {"piecewise_linear": False, "second_derivatives": False}
    assert "has no second derivatives; images fail in spectra" in caplog.text


def test_checkpoints_are_read_under_the_usual_names(tmp_path, written):
    model, _ = built(own(written(FUNCTION)), (1, 2, 2))
    inner = {f"_orig_mod.module.{name}": tensor for name, tensor in model.network.state_dict().items()}
    torch.save({"epoch": 3, "model_state_dict": inner, "optimizer": {"lr": 0.1}}, tmp_path / "w.pt")
    other, _ = built(own(written(FUNCTION), arguments={"width": 4}), (1, 2, 2))
    other.network[1].weight.data.zero_()
    models.load_weights(other, tmp_path / "w.pt")
    torch.testing.assert_close(other.network[1].weight, model.network[1].weight)
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"holds no state dict \(it holds epoch, optimizer\)"):
        models.load_weights(other, tmp_path / "w.pt")


def test_a_layer_that_is_used_twice_is_stored(tmp_path, written):
    text = """
from torch import nn

def f():
    layer = nn.Linear(4, 4)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)
"""
    model, described = built(own(written(text), "own_net:f"), (1, 2, 2), classes=4)
    models.save_weights(model, tmp_path / "w.safetensors")
    again = models.restore(tmp_path / "w.safetensors", **described)
    x = torch.rand(3, 1, 2, 2)
    torch.testing.assert_close(again(x), model(x))


def test_a_wrong_function_stops_the_configuration(written):
    folder = written(FUNCTION)
    raw = {
        "datasets": {"digits": {"source": "sklearn_digits"}},
        "models": {"own": {"dataset": "digits", **own(folder)}},
        "experiments": {"e": {"model": "own"}},
    }
    assert load(raw).models["own"].parameters["trained"] is False
    assert "own_net" not in sys.modules  # checked without running it
    raw["models"]["own"]["parameters"]["folder"] = str(folder / "missing")
    with pytest.raises(ConfigError, match=r"models\.own\.parameters.*there is no folder .*missing"):
        load(raw)
