"""The examples for networks of one's own run as they stand."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from curvelens import models
from curvelens.config import load

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/add-a-model.md").read_text().split("\n## Your own network\n")[1].split("\n## ")[0]


@pytest.mark.slow
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "docs/add-a-model.md", "exec"), {})
    examples = [
        yaml.safe_load(text)["models"]
        for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    ]
    assert len(examples) == 3
    merged = {name: model for example in examples for name, model in example.items()}
    raw = {
        "datasets": {"digits": {"source": "sklearn_digits"}},
        "models": merged,
        "experiments": {name: {"model": name} for name in merged},
    }
    dataset = {"class_names": list("0123456789"), "image_shape": [1, 8, 8]}
    x = torch.rand(2, 1, 8, 8)
    found = {}
    for name, model in load(raw).models.items():
        settings = model.model_dump(mode="json")
        described = models.described(settings, dataset)
        found[name] = models.restore(settings["weights"], **described)
        told = models.probe(found[name], **described)
        assert told == {"piecewise_linear": True, "second_derivatives": True}
    # The same network by two ways; in the second the outputs stand for nine, eight, ...
    torch.testing.assert_close(found["own_function"](x), found["own_program"](x).flip(1))
    sys.modules.pop("my_networks", None)


def test_the_copyable_configurations_are_valid(tmp_path):
    text = (ROOT / "config/README.md").read_text().split("\n### Your own model\n")[1].split("\n## ")[0]
    block = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    own = yaml.safe_load(block)
    assert {model["architecture"] for model in own.values()} == {"torchvision", "exported", "function"}
    (tmp_path / "my_networks.py").write_text("def small():\n    pass\n")
    own["own_function"]["parameters"]["folder"] = str(tmp_path)
    pets = {"source": "image_folder", "data_dir": "/data/pets"}
    raw = {"datasets": {"pets": pets}, "models": own, "experiments": {"e": {"model": "own_resnet"}}}
    assert load(raw).models["own_program"].parameters["scale"] == 255
