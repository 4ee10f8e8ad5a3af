"""The documentation says what is so: its examples run, its links lead somewhere, its files are valid."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("node_modules", "results") for part in page.relative_to(ROOT).parts[:-1])
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[str]:
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def prose(page: Path) -> str:
    """The page without its code blocks, in which brackets are not links."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that a code host makes of headings: lower case, punctuation dropped, blanks to hyphens."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_pages_name_no_file_that_does_not_exist() -> None:
    """Paths in back quotes that look like files of this repository."""
    known = re.compile(r"`((?:src|docs|config|rules|scripts|profiles|tests|locks|envs|benchmarks)/[\w./-]+\.\w+)`")
    named = {(page, path) for page in PAGES for path in known.findall(page.read_text(encoding="utf-8"))}
    # Generated on demand or written by the reader of a how-to page.
    own = {re.match(r"# (src/\S+)", block).group(1) for page in HOW_TO for block in blocks(page)[:1]}  # type: ignore[union-attr]
    missing = sorted(path for _, path in named if path not in own and not (ROOT / path).exists())
    assert not missing


HOW_TO = ("docs/add-a-method.md", "docs/add-a-dataset.md", "docs/add-a-model.md")
CHECKS = """
import sys, json, warnings
from pathlib import Path

# The workflow imports every registered module to check a configuration: that must stay cheap.
from curvelens import config, datasets, methods, models
raw = {
    "datasets": {"pets": {"source": "picture_folder", "data_dir": "pictures", "parameters": {"size": 8}}},
    "models": {"net": {"dataset": "pets", "architecture": "pooled_cnn", "parameters": {"channels": 4}}},
    "experiments": {"one": {"model": "net", "explanations": {"methods": {"mean_magnitude": {"samples": 8}}}}},
}
settings = config.load(raw)
assert settings.models["net"].parameters == {"channels": 4, "mean": 0.5, "std": 0.5}
assert "mean_magnitude" in json.dumps(config.json_schema())
assert "torch" not in sys.modules and "pandas" not in sys.modules and "PIL" not in sys.modules

import torch
torch.set_num_threads(1)
from curvelens import region_radius, targets

splits = datasets.prepare("picture_folder", "out", parameters={"size": 8}, data_dir="pictures", validation=0.25, test=0.25)
assert sum(map(len, splits.values())) == 16 and splits["train"].shape == (3, 8, 8)
assert json.loads(Path("out/dataset.json").read_text())["class_names"] == ["dark", "light"]
images = splits["train"]
bright = images.tensor().mean((1, 2, 3)) > 0.5
assert bright.tolist() == [label == 1 for label in images.labels]

model = models.build("pooled_cnn", {"channels": 4}, classes=2, image_shape=images.shape)
models.save(model, "net", architecture="pooled_cnn", parameters={"channels": 4}, classes=2, image_shape=images.shape)
x = images.tensor(0)
assert torch.equal(models.load("net")(x[None]), model(x[None]))
f = targets.logit(model, 1)
assert f.piecewise_linear and float(region_radius(model, x)) >= 0
found = methods.explain("mean_magnitude", f, x, seed=0, parameters={"samples": 32})
assert found.calls == 32 and found.maps["attribution"].shape == x.shape and found.maps["attribution"].min() >= 0
"""


def test_how_to_examples_work_as_one_new_file_each(tmp_path: Path) -> None:
    """Each page's first block, pasted into a copy of the library, is found by the registry, the schema and a caller."""
    np = pytest.importorskip("numpy")
    from PIL import Image

    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for page in HOW_TO:
        code = blocks(page)[0]
        name = re.match(r"# (src/\S+\.py)\n", code)
        assert name, f"{page}: the first block does not begin with the file's name"
        assert not (tmp_path / name.group(1)).exists(), f"{page}: {name.group(1)} exists already"
        (tmp_path / name.group(1)).write_text(code.partition("\n")[2], encoding="utf-8")
    random = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(level, level + 40, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{number}.png")
    run_python(CHECKS, tmp_path, tmp_path / "src")
    # The page's own test of its method.
    (tmp_path / "test_example.py").write_text(blocks(HOW_TO[0])[-1], encoding="utf-8")
    run_python("import sys, pytest; sys.exit(pytest.main(['-q', 'test_example.py']))", tmp_path, tmp_path / "src")


def run_python(code: str, folder: Path, source: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_citation_has_what_the_format_requires() -> None:
    """Citation File Format 1.2.0: the required keys, and those of each reference."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "MIT"
    assert {"message", "title", "authors"} <= citation.keys()
    assert len(citation["references"]) == 2
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        assert all({"family-names", "given-names"} <= author.keys() for author in reference["authors"])


def test_citation_and_package_agree() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert project["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_catalogue_entry_uses_documented_keys() -> None:
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    assert usage.keys() <= {"mandatory-flags", "software-stack-deployment"}
    assert usage["mandatory-flags"].keys() <= {"desc", "flags"}
    assert usage["software-stack-deployment"].keys() <= {"conda", "apptainer", "apptainer+conda", "report"}
    assert (ROOT / "workflow" / "Snakefile").is_file()
    assert (ROOT / "config" / "README.md").is_file()
