"""Names that are programs elsewhere: from a table of pictures through the workflow to a browser."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import browser
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from workflow_runs import output, snakemake

from curvelens.store import load_json

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
TITLE = """</title><script>document.title = "ran"</script> $\\alpha$ {x} & 'so'"""
CLASSES = [
    """</td></table><script>document.title = "ran"</script>""",
    "=cmd|' /C calc'!A0",
    r"$\frac{1}{0}$ 50 % ^{_",
    "\x1b[31mred\x1b[0m \u202egnp.exe\u202c",
    """_private" onmouseover="alert(1) url(http://evil.invalid/x)""",
    "{wildcards.model} {0} 猫",
    "a single picture",
]
READABLE = [name.translate({0x1B: r"\x1b", 0x202E: r"\u202e", 0x202C: r"\u202c"}) for name in CLASSES]
FILES = [
    "<img src=x onerror=alert(1)> $x_1$.png",
    "=1+1.png",
    "-rf {y} %s.png",
    'it\'s "5 < 6" & größer 猫.png',
    "a\\b #1 ?q=1;.png",
    "photo url(http:evil.invalid).png",
    "turned \u202egnp.png",
    "plain.png",
]


def draw(folder: Path) -> None:
    """Pictures of a colour for each class, and the table that names them; one cannot be read."""
    rng = np.random.default_rng(0)
    rows = []
    for number, label in enumerate(CLASSES):
        for name in FILES if label != CLASSES[-1] else FILES[:1]:
            pixels = rng.integers(0, 60, (8, 8, 3), dtype=np.uint8)
            pixels[..., number % 3] += 60 * (1 + number // 3)
            path = folder / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            rows.append([path.relative_to(folder).as_posix(), label, "javascript:alert(1)", "@SUM(1+1)"])
    (folder / "<b>broken\u202e.png").write_text("no picture")
    rows.append(["<b>broken\u202e.png", CLASSES[0], "", ""])
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["path", "label", "source", "=note"], *rows])


def configuration(pictures: Path) -> dict:
    names = ["evaluation", "explanations", "competing"]
    absent = dict.fromkeys(("spectra", "distances", "fidelity", "attacks", "path"))
    methods = {"gradient": {}, "smoothgrad": {"samples": 4}}
    settings = [{}, {"images": 7, "trust": None, "methods": methods}, {"mistakes": 3, "methods": methods}]
    source = {"classes": "folders", "size": 8, "table": "list.csv", "trainable": True}
    return {
        "report": {"title": TITLE},
        "datasets": {"own": {"source": "image_folder", "data_dir": str(pictures), "parameters": source}},
        "models": {
            "net": {
                "dataset": "own",
                "architecture": "mlp",
                "parameters": {"hidden": [16]},
                "training": {"epochs": 8, "batch_size": 16, "learning_rate": 0.1},
            }
        },
        "experiments": {"names": {"model": "net", **absent, **dict(zip(names, settings, strict=True))}},
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    pictures = folder / "my {pictures} & <co> $x$"
    draw(pictures)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(configuration(pictures)))
    done = snakemake(folder, config=path)
    assert done.returncode == 0, output(done)
    assert "\x1b[31m" not in output(done)
    return folder / "results"


def test_names_are_kept_as_far_as_files_and_terminals_can_bear_them(finished: Path) -> None:
    described = load_json(finished / "data/own/dataset.json")
    assert sorted(described["class_names"]) == sorted(READABLE)
    assert list(described["failed"]) == [r"<b>broken\u202e.png"]
    ids = pd.read_parquet(finished / "tables/names/predictions.parquet")["image_id"]
    assert len(ids)
    assert all(name.isprintable() for name in ids)
    single = described["class_names"].index(READABLE[-1])
    assert sum(counts[single] for counts in described["images_per_class"].values()) == 1


def test_no_cell_of_a_csv_is_a_formula(finished: Path) -> None:
    files = sorted(finished.rglob("*.csv"))
    assert files
    quoted = 0
    for path in files:
        exact = pd.read_parquet(path.with_suffix(".parquet"))
        texts = [name for name in exact if not pd.api.types.is_numeric_dtype(exact[name])]
        shown = pd.read_csv(path, dtype=str, keep_default_na=False)
        for name in texts:
            assert not shown[name].str.startswith(("=", "+", "-", "@")).any(), (path, name)
            quoted += int(shown[name].str.startswith("'=").sum())
    assert quoted


def test_figures_are_xml_and_logs_are_plain_lines(finished: Path) -> None:
    figures = sorted(finished.rglob("*.svg"))
    assert figures
    for path in figures:
        ElementTree.parse(path)
    for path in finished.rglob("*.log"):
        text = path.read_text(encoding="utf-8")
        assert all(line.isprintable() or "\x1b" not in line for line in text.split("\n")), path
        assert "\u202e" not in text, path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    if browser.find() is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    with browser.Browser(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


def opened(chromium: browser.Browser, path: Path) -> str:
    """Open a page on which nothing may run or be fetched; return its text, what is folded away too."""
    chromium.open(path.as_uri(), width=1280)
    assert chromium.complaints() == []
    assert chromium.requests() == [path.as_uri()]
    assert chromium.evaluate("document.title") != "ran"
    assert (
        chromium.evaluate("document.querySelectorAll('[onerror], [onmouseover], iframe, object').length") == 0
    )
    sizes = chromium.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
    assert all(sizes)
    links = chromium.evaluate("[...document.links].map(link => link.protocol)")
    assert "javascript:" not in links
    return chromium.evaluate("document.body.textContent")


@pytest.mark.browser
def test_the_report_shows_the_names_and_runs_nothing(finished: Path, chromium: browser.Browser) -> None:
    text = opened(chromium, finished / "report/index.html")
    assert TITLE in text
    assert chromium.evaluate("document.title") == TITLE
    for name in READABLE[:-1]:
        assert name in text
    assert r"<b>broken\u202e.png" in text


@pytest.mark.browser
def test_the_gallery_shows_the_names_and_runs_nothing(finished: Path, chromium: browser.Browser) -> None:
    gallery = finished / "report/gallery"
    text = opened(chromium, gallery / "index.html")
    ids = pd.read_parquet(finished / "tables/names/explanations.parquet")["image_id"].unique()
    assert len(ids)
    for name in ids:
        assert name in text
    scripts = chromium.evaluate("document.scripts.length")
    assert scripts == 1
    for page in sorted((gallery / "images/names").glob("*.html")):
        assert any(name in opened(chromium, page) for name in ids)
