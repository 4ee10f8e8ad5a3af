"""Files that are refused in place of exported programs, with one line, and nothing in them is run."""

import json
import os
import pickle
import zipfile

import pytest
import torch
from exported_world import SHAPE, described, export, exported_residual, images
from torch import nn

from curvelens import models
from curvelens.config import load
from curvelens.errors import ConfigError, DataError, ModelError
from curvelens.models._archive import read_archive


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    return exported_residual(tmp_path_factory.mktemp("programs") / "residual.pt2")


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
