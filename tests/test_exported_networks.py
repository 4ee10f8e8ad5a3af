"""Exported programs: the same numbers and derivatives as the network they were made from, and no code run."""

import json
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from curvelens import hessian, models, region_radius, targets
from curvelens.config import load
from curvelens.derivatives import vjp
from curvelens.errors import ConfigError, DataError, ModelError
from curvelens.linearity import is_piecewise_linear
from curvelens.models._archive import read_archive
from curvelens.surrogates import softplus_surrogate

SHAPE = (2, 6, 6)


class Residual(nn.Module):
    """Convolutions with normalisation, a shortcut, in-place ReLUs, a view of the number of images."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu1 = activation(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu2 = activation(inplace=True)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.register_buffer("shift", torch.full((1, 4, 1, 1), 0.1))
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(36, 3)
        with torch.no_grad():
            self.bn1.running_mean.uniform_(-0.1, 0.1)
            self.bn1.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.relu1(self.bn1(self.conv1(x)))
        y = self.conv2(x)
        y += x
        y = self.relu2(y) + self.shift
        y = self.pool(self.drop(y))
        return self.fc(y.view(x.shape[0], -1))


def chain(activation=nn.ReLU):
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), activation(), nn.Flatten(), nn.Linear(48, 5), activation(), nn.Linear(5, 3)
    )


def export(model, path, batch="dynamic", decompose=None, shape=SHAPE):
    dynamic = ({0: torch.export.Dim.DYNAMIC},) if batch == "dynamic" else None
    images = torch.rand(2 if batch == "dynamic" else batch, *shape)
    program = torch.export.export(model.eval(), (images,), dynamic_shapes=dynamic)
    if decompose is not None:
        program = program.run_decompositions(*decompose)
    torch.export.save(program, path)
    return path


def described(shape=SHAPE, classes=3, **parameters):
    return {"architecture": "exported", "parameters": parameters, "classes": classes, "image_shape": shape}


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    torch.manual_seed(0)
    model = Residual().eval()
    return model, export(model, tmp_path_factory.mktemp("programs") / "residual.pt2")


def images(count, shape=SHAPE, dtype=torch.float32):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(7), dtype=dtype)


# ---------------------------------------------------------------- the same network


@pytest.mark.parametrize("decompose", [None, ({},), ()], ids=["as exported", "functional", "core"])
@pytest.mark.parametrize("batch", ["dynamic", 1, 3])
def test_a_program_is_the_network_for_any_number_of_images(tmp_path, residual, batch, decompose):
    model, _ = residual
    path = export(model, tmp_path / "m.pt2", batch, decompose)
    found = models.restore(path, **described())
    x = images(5)
    torch.testing.assert_close(found(x), model(x))
    models.save_weights(found, tmp_path / "stored.safetensors")
    again = models.restore(tmp_path / "stored.safetensors", **described())
    assert torch.equal(again(x), found(x))
    assert is_piecewise_linear(again)


def test_derivatives_are_those_of_the_network(residual):
    """Against another way: the definition, by differences in float64, and autograd of the original."""
    model, path = residual
    original, found = (m.double() for m in (Residual(), models.restore(path, **described())))
    original.load_state_dict(model.state_dict())
    original.eval()
    x = images(1, dtype=torch.float64)[0]
    f = targets.loss(found, 1)
    H = hessian(f, x)
    jacobian = torch.autograd.functional.jacobian(lambda z: original(z[None])[0], x).flatten(1)
    p = original(x[None])[0].softmax(0).detach()
    # The network is piecewise linear, so the loss has no other curvature than the softmax's.
    expected = jacobian.T @ (p.diag() - p[:, None] * p) @ jacobian
    torch.testing.assert_close(H, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(vjp(targets.logits(found), x, torch.eye(3).double()).flatten(1), jacobian)
    products = torch.func.vmap(
        lambda v: torch.func.jvp(torch.func.grad(lambda z: f(z[None])[0]), (x,), (v.view_as(x),))[1].flatten()
    )(torch.eye(x.numel(), dtype=torch.float64))
    torch.testing.assert_close(products, expected, rtol=1e-8, atol=1e-10)


def test_layers_are_modules_again(residual):
    """So that surrogates replace ReLUs, regions are followed, and an inner neuron is found."""
    model, path = residual
    found = models.restore(path, **described())
    kinds = [type(part).__name__ for part in found.network.layers.values()]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "Linear"]
    assert list(found.network.layers)[:2] == ["conv1", "bn1"]
    x = images(1)
    assert float(region_radius(found, x[0])) == pytest.approx(float(region_radius(model, x[0])), rel=1e-6)
    smooth = softplus_surrogate(found, 20.0)
    torch.testing.assert_close(smooth(x), softplus_surrogate(Separate(model), 20.0)(x))
    assert not is_piecewise_linear(smooth)
    assert targets.inner_neuron(found, int(found(x).argmax()), x)[0] == "network.layers.conv2"


class Separate(nn.Module):
    """The residual network without writing in place, for surrogates."""

    def __init__(self, model):
        super().__init__()
        self.m = model
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        m = self.m
        x = self.relu1(m.bn1(m.conv1(x)))
        return m.fc(m.pool(self.relu2(m.conv2(x) + x) + m.shift).flatten(1))


def test_a_chain_of_layers_is_a_sequential(tmp_path):
    model = chain()
    found = models.restore(export(model, tmp_path / "m.pt2"), **described())
    assert [type(part) for part in found.network] == [type(part) for part in model]
    torch.testing.assert_close(found(images(4)), model(images(4)))


@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU, nn.Hardswish, nn.Softplus, nn.Tanh, nn.ELU])
def test_curved_programs_are_not_taken_for_linear(tmp_path, activation):
    model = chain(activation)
    found = models.restore(export(model, tmp_path / "m.pt2"), **described())
    assert [type(part) for part in found.network] == [type(part) for part in model]
    assert models.probe(found, **described()) == {"piecewise_linear": False, "second_derivatives": True}


@pytest.mark.parametrize("activation", [nn.ReLU6, nn.LeakyReLU, nn.Hardtanh])
def test_straight_programs_are_known_to_be(tmp_path, activation):
    model = chain(activation)
    found = models.restore(export(model, tmp_path / "m.pt2"), **described())
    torch.testing.assert_close(found(images(4)), model(images(4)))
    assert models.probe(found, **described())["piecewise_linear"]


class Attention(nn.Module):
    """A transformer's block over rows of pixels, with a product of values, which is curved."""

    def __init__(self):
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        rows = x.permute(0, 2, 1, 3).flatten(2)
        rows = torch.cat([self.token.expand(x.shape[0], -1, -1), rows], 1)
        return self.fc(self.inner(rows)[:, 0])


def test_attention_has_second_derivatives(tmp_path):
    torch.manual_seed(1)
    model = Attention().eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        found = models.restore(export(model, tmp_path / "m.pt2"), **described())
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    torch.testing.assert_close(found(images(3)), model(images(3)), rtol=1e-4, atol=1e-5)
    found = found.double()
    x, v = images(1, dtype=torch.float64)[0], torch.ones(SHAPE, dtype=torch.float64)
    f = targets.logit(found, 0)
    h = 1e-4  # the fourth-order error is about 1e-8 here, rounding 1e-8 of a second difference
    with torch.no_grad():
        second = (f((x + h * v)[None]) - 2 * f(x[None]) + f((x - h * v)[None])) / h**2
    assert float(v.flatten() @ hessian(f, x) @ v.flatten()) == pytest.approx(
        float(second), rel=1e-4, abs=1e-6
    )


def test_preprocessing_and_shapes(tmp_path, residual):
    _, path = residual
    with pytest.raises(
        ModelError, match=r"exported for images \[2, 6, 6\], and gets \[2, 8, 6\]; give parameters"
    ):
        models.restore(path, **described((2, 8, 6)))
    found = models.restore(path, **described((2, 8, 6), resize=[6, 6]))
    assert models.probe(found, **described((2, 8, 6)))["piecewise_linear"]
    with pytest.raises(ModelError, match="gives 3 outputs, and the data set has 4 classes"):
        models.probe(found, **described((2, 8, 6), classes=4))


class OneByOne(nn.Module):
    """Whose program holds on to the number of images it was made for."""

    def forward(self, x):
        ranks = torch.cat([x[i : i + 1].flatten(1)[:, :3] * 2 for i in range(x.shape[0])])
        return ranks * 1.0


def test_a_fixed_number_of_images_is_kept_where_it_must_be(tmp_path, caplog):
    path = export(OneByOne(), tmp_path / "m.pt2", 2)
    found = models.restore(path, **described())
    x = images(5)
    torch.testing.assert_close(found(x), x.flatten(1)[:, :3] * 2)
    assert "was exported for exactly 2 images at a time" in caplog.text
    f = targets.loss(found.double(), 0)
    p = (x[0].double().flatten()[:3] * 2).softmax(0)
    block = hessian(f, x[0].double())[:3, :3]
    torch.testing.assert_close(block, 4 * (p.diag() - p[:, None] * p))


# ---------------------------------------------------------------- what is refused


class Training(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn, self.fc = nn.BatchNorm2d(2), nn.Linear(72, 3)

    def forward(self, x):
        return self.fc(self.bn(x).flatten(1))


class Writes(nn.Module):
    def forward(self, x):
        flat = x * 1
        view = flat.view(x.shape[0], -1)
        flat.relu_()
        return view[:, :3] + flat.sum((1, 2, 3))[:, None]


class Sorts(nn.Module):
    def forward(self, x):
        return x.flatten(1).sort(1).values[:, :3]


class TwoResults(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3], x


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Writes(), r"aten\.relu_\.default writes into mul, which .*run_decompositions\(\{\}\)"),
        (Sorts(), r"operation aten\.sort.*, which is not one that files may name; give the network as code"),
        (TwoResults(), "gives 2 results; export a network that gives one tensor of logits"),
    ],
)
def test_programs_that_cannot_be_run_are_told(tmp_path, model, told):
    with pytest.raises(ModelError, match=told) as caught:
        models.restore(export(model, tmp_path / "m.pt2"), **described())
    assert str(caught.value).startswith(f"{tmp_path / 'm.pt2'}: ")
    assert "\n" not in str(caught.value)


def test_a_program_of_training_is_refused(tmp_path):
    program = torch.export.export(Training().train(), (torch.rand(4, *SHAPE),))
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(ModelError, match=r"call model\.eval\(\) before torch\.export\.export"):
        models.restore(tmp_path / "m.pt2", **described())


def test_writing_in_place_can_be_undone_as_told(tmp_path):
    model = Writes()
    found = models.restore(export(model, tmp_path / "m.pt2", decompose=({},)), **described())
    torch.testing.assert_close(found(images(3) - 0.5), model(images(3) - 0.5))


class Program:
    """A pickle that runs a command."""

    def __reduce__(self):
        return (os.system, ("touch ran",))


def rewritten(source, target, edit):
    """The archive with its files changed: ``edit`` gets them by name, below the archive's folder."""
    with zipfile.ZipFile(source) as archive:
        folder = archive.namelist()[0].partition("/")[0]
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    edit(files)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}/{name}", data)
    return target


def change_json(name, change):
    def edit(files):
        content = json.loads(files[name])
        change(content)
        files[name] = json.dumps(content).encode()

    return edit


def pickled(files):
    files["data/weights/weight_0"] = pickle.dumps(Program())
    change_json("data/weights/model_weights_config.json", first_is_pickled)(files)


def first_is_pickled(content):
    next(iter(content["config"].values())).update(use_pickle=True)


def pickled_constant(files):
    files["data/constants/opaque_obj_0"] = pickle.dumps(Program())
    meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    change_json(
        "data/constants/model_constants_config.json", lambda content: content["config"].update(k=meta)
    )(files)


def pickled_whole(files):
    files["data/weights/model.pt"] = pickle.dumps(Program())


def calls_the_system(content):
    node = content["graph_module"]["graph"]["nodes"][0]
    node["target"] = "torch.os.system"
    node["inputs"] = [{"name": "command", "arg": {"as_string": "touch ran"}, "kind": 1}]


def evaluates_a_size(content):
    graph = content["graph_module"]["graph"]
    name = next(iter(graph["sym_int_values"]))
    graph["sym_int_values"][name] = {"as_expr": {"expr_str": "__import__('os').system('touch ran')"}}
    content["guards_code"] = ["__import__('os').system('touch ran')"]


ATTACKS = {
    "pickled weights": (pickled, "is pickled, not stored as numbers, and was refused"),
    "pickled constants": (pickled_constant, "is pickled, not stored as numbers, and was refused"),
    "pickled state": (pickled_whole, r"damaged, or not as torch writes it \(UnpicklingError"),
    "a system call": (
        change_json("models/model.json", calls_the_system),
        r"operation torch\.os\.system, which is not one that files may name",
    ),
    "compiled code": (
        lambda files: files.update({"data/aotinductor/model/m.so": b"\x7fELF"}),
        "holds compiled code",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_program_that_would_run_code_is_refused(tmp_path, monkeypatch, residual, attack):
    monkeypatch.chdir(tmp_path)
    edit, told = ATTACKS[attack]
    path = rewritten(residual[1], tmp_path / "m.pt2", edit)
    with pytest.raises((DataError, ModelError), match=told) as caught:
        models.restore(path, **described())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_code_in_what_is_not_needed_is_never_looked_at(tmp_path, monkeypatch, residual):
    """Example inputs are a pickle, sizes and guards are text that torch evaluates; the weights are good."""
    monkeypatch.chdir(tmp_path)
    model, source = residual
    path = rewritten(source, tmp_path / "m.pt2", change_json("models/model.json", evaluates_a_size))
    path = rewritten(
        path,
        tmp_path / "n.pt2",
        lambda files: files.update({"data/sample_inputs/model.pt": pickle.dumps(Program())}),
    )
    found = models.restore(path, **described())
    torch.testing.assert_close(found(images(2)), model(images(2)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["m.pt2", "m.pt", "m.pth", "m.safetensors"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_refused_under_every_name(tmp_path, monkeypatch, name, legacy):
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": Program()}, name, _use_new_zipfile_serialization=not legacy)
    digits = {"architecture": "mlp", "parameters": {"hidden": [4]}, "classes": 3, "image_shape": SHAPE}
    for network in (described(), digits):
        with pytest.raises(DataError, match=r"refused|neither an exported program") as caught:
            models.restore(tmp_path / name, **network)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda files: files.pop("models/model.json"), "is not an exported program"),
        (lambda files: files.pop("data/weights/weight_0"), "data/weights/weight_0 is missing"),
        (lambda files: files.update({"models/other.json": b"{}"}), "holds 2 programs"),
        (
            lambda files: files.update({"models/model.json": b"{"}),
            r"damaged, or not as torch writes it \(JSON",
        ),
        (
            lambda files: files.update({"models/model.json": b"[" * 10**5}),
            "damaged, or not as torch writes it",
        ),
        (lambda files: files.update({"data/weights/weight_0": b"\0"}), "damaged, or not as torch writes it"),
        (lambda files: files.update({"byteorder": b"big"}), "another byte order"),
        (change_json("models/model.json", lambda c: c["schema_version"].update(major=9)), "has format 9"),
        (
            change_json("models/model.json", lambda c: c["graph_module"]["graph"]["nodes"].pop(1)),
            "uses a value that nothing makes",
        ),
        (
            change_json("models/model.json", lambda c: c["graph_module"]["graph"]["nodes"][1].pop("target")),
            r"damaged, or not as torch writes it \(KeyError: 'target'\)",
        ),
    ],
)
def test_damaged_programs_are_told(tmp_path, residual, edit, told):
    path = rewritten(residual[1], tmp_path / "m.pt2", edit)
    with pytest.raises((DataError, ModelError), match=told) as caught:
        models.restore(path, **described())
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_compressed_archive_is_refused(tmp_path, residual):
    with zipfile.ZipFile(residual[1]) as old, zipfile.ZipFile(tmp_path / "m.pt2", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="compressed, as torch never does"):
        read_archive(tmp_path / "m.pt2")


def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "m.pt2")
    with pytest.raises(DataError, match="is TorchScript, which brings code of its own, and was refused"):
        models.restore(tmp_path / "m.pt2", **described())


def test_the_file_has_to_be_named():
    raw = {
        "datasets": {"digits": {"source": "sklearn_digits"}},
        "models": {"own": {"dataset": "digits", "architecture": "exported"}},
        "experiments": {"e": {"model": "own"}},
    }
    with pytest.raises(
        ConfigError, match=r"models\.own\.weights is missing: architecture exported needs the file"
    ):
        load(raw)
    with pytest.raises(ModelError, match="the network is in its file"):
        models.build(**described())
