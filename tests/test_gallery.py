"""The gallery: which images have a page, what it says, and that text from data stays text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import gallery_world as world
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_world import HOSTILE

from curvelens.figures import maps
from curvelens.reporting import gallery, gallery_pages, gallery_pictures, superpixels
from curvelens.reporting.document import Report

POLICY = re.compile(r'Content-Security-Policy" content="([^"]+)"')


class Reader(HTMLParser):
    """Collects what a page has: tags, links, pictures, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [found["href"]] if tag == "a" else []
        self.pictures += [found] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def pages() -> dict[str, dict[str, str]]:
    return json.loads((world.written() / "pages.json").read_text())


def page(pages: dict[str, dict[str, str]], image_id: str) -> str:
    return (world.written().parent / pages["digits"][image_id]).read_text()


@pytest.fixture(scope="module")
def hostile(pages) -> str:
    return page(pages, f"digits/{HOSTILE}0")


def test_the_number_of_pages_is_bounded_and_errors_come_first(pages):
    assert list(pages) == ["digits", "few"]
    assert list(pages["digits"]) == [f"digits/{HOSTILE}0", *(f"digits/{i:05d}" for i in range(1, 7))]
    assert len(pages["few"]) == 4
    stored = sorted(str(path.relative_to(world.written().parent)) for path in world.written().rglob("*.html"))
    listed = [address for addresses in pages.values() for address in addresses.values()]
    assert stored == sorted([*listed, "gallery/index.html"])


def test_misclassified_images_are_preferred():
    rows = pd.DataFrame(
        {"image_id": [*"abcdab"], "label": [0, 0, -1, 0, 0, 0], "prediction": [0, 1, 1, 0, 0, 1]}
    )
    assert gallery.chosen(rows, 3)["image_id"].tolist() == ["b", "a", "c"]
    unread = pd.DataFrame({"image_id": ["a"], "label": [0], "prediction": [None]})
    assert gallery.chosen(unread, 3).empty


def test_file_names_are_safe_and_differ_for_every_id():
    ids = ["a/b", "a b", 'x"y<script>', "../../etc/passwd", "Ärger.jpg", "", "日本", "a" * 300, "CON"]
    names = [gallery.slug(image_id) for image_id in ids]
    assert len({name.lower() for name in names}) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name) and len(name) < 64 for name in names)
    assert names == [gallery.slug(image_id) for image_id in ids]


def test_markup_in_names_of_images_and_classes_is_text(hostile):
    read = Reader(hostile)
    assert "script" not in read.tags
    assert read.text.count(HOSTILE) >= 3  # title, heading, true class
    assert any(HOSTILE in (picture["alt"] or "") for picture in read.pictures)
    index = Reader((world.written() / "index.html").read_text())
    assert index.tags.count("script") == 1  # the filters


def test_a_page_has_the_image_every_map_and_the_numbers(hostile):
    read = Reader(hostile)
    assert len(read.pictures) == 4
    for name in ("gradient", "SmoothGrad", "VarGrad", "misclassified", "trust radius", "1.00 to 2.00"):
        assert name in read.text
    for name in ("largest eigenvalue", "kantorovich bound", "What these are"):
        assert name in read.text
    assert "fidelity" not in read.text  # that table has no images
    assert read.text.count("Post-processing") == 1
    assert all(picture["alt"] and picture["src"].startswith("data:image/png") for picture in read.pictures)


def test_two_classes_stand_side_by_side_on_one_scale(pages):
    text = (world.written().parent / pages["few"]["digits/00002"]).read_text()
    read = Reader(text)
    assert "By gradient" in read.text
    assert len(read.pictures) == 4 + 3
    assert f"cat {HOSTILE} less dog & co" in read.text
    assert "script" not in read.tags
    scene = Reader((world.written().parent / pages["few"][f"scene/{HOSTILE}"]).read_text())
    assert len(scene.pictures) == 1 + 3
    assert "not known" in scene.text
    shared = np.array([[[1.0, -1.0]], [[4.0, 0.0]]])
    assert maps.scaled(shared[0], True, maps.cap(shared))[0].tolist() == pytest.approx(
        [0.625, 0.375], abs=0.01
    )


def test_pictures_show_the_maps(tmp_path):
    values = np.zeros((10, 20))
    values[:4, :8], values[8, 19] = -2.0, 1.0
    encoded = gallery_pictures.coloured(values, True).removeprefix("data:image/png;base64,")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")).astype(int)
    assert drawn.shape == (10, 20, 3)
    blue, white, red = drawn[0, 0], drawn[5, 5], drawn[8, 19]
    assert blue[2] > blue[0] + 50
    assert white.min() > 240
    assert red[0] > red[2] + 50


@pytest.mark.parametrize(("values", "signed", "told"), [
    (np.pad([[4.0]], ((8, 0), (0, 8))), True, "lower left ninth, with 100% of its magnitude; 100%"),
    (np.pad([[-1.0, 3.0]], 4), True, "centre ninth, with 100% of its magnitude; 75% of it positive"),
    (np.eye(9)[:, ::-1] * [[9, 1, 1, 1, 1, 1, 1, 1, 1]], False, "lower left ninth, with 65%"),
    (np.zeros((3, 3)), True, "zero everywhere"),
])  # fmt: skip
def test_alternative_texts_say_where_a_map_is_strong(values, signed, told):
    assert told in gallery_pictures.where(values, signed)


def test_large_pictures_are_reduced_to_means_of_blocks():
    values = np.arange(450 * 300, dtype=float).reshape(450, 300)
    small = gallery_pictures.reduced(values)
    assert small.shape == (150, 100)
    assert small[0, 0] == pytest.approx(values[:3, :3].mean())
    pixels = np.full((225, 10, 3), 7, np.uint8)
    assert (gallery_pictures.reduced(pixels) == 7).all()


def test_pages_load_nothing_and_run_only_the_filters(pages):
    script = world.TEMPLATES["script"].read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    for path in world.written().rglob("*.html"):
        text = path.read_text()
        policy = POLICY.search(text)[1]
        assert policy.startswith("default-src 'none'; img-src data:;")
        assert ("script-src" in policy) == (path.name == "index.html")
        assert path.name != "index.html" or f"'sha256-{digest}'" in policy.replace("&#39;", "'")
        assert not re.search(r'(?:src|srcset|poster)="(?!data:)', text)


def test_every_link_leads_somewhere():
    folder = world.written()
    (folder.parent / "index.html").touch()  # the report
    for path in folder.rglob("*.html"):
        for link in Reader(path.read_text()).links:
            assert link.startswith("#") or (path.parent / link).resolve().is_file(), (path, link)


def test_failed_methods_are_told(tmp_path):
    found = world.files(tmp_path)
    table = next(path for path in found["tables"] if path.stem == "explanations")
    index = pd.read_parquet(table)
    bad = (index["image_id"] == "digits/00003") & (index["method"] == "smoothgrad")
    index.loc[bad, "status"], index.loc[bad, "error"] = "failed", f"RuntimeError: {HOSTILE}"
    index.to_parquet(table)
    shown = {one.image_id: one for one in gallery.pictures("digits", found, 9)}["digits/00003"]
    text = gallery_pages.picture("title", shown, (None, None), "")
    assert "SmoothGrad failed: RuntimeError: &lt;script&gt;" in text


def test_the_report_links_to_the_gallery(pages):
    report = Report({"title": "t", "experiments": {"digits": {}, "few": {}}, "gallery": pages})
    read = Reader(str(report.gallery()))
    assert read.links[0] == "gallery/index.html"
    assert read.links[1:] == [address for found in pages.values() for address in found.values()]
    assert "script" not in read.tags
    assert "made no gallery" in str(Report({"title": "t", "experiments": {}}).gallery())
    linked = superpixels.linked("a", {"a": "gallery/a.html"})
    assert str(linked) == '<a href="gallery/a.html">a</a>'
    assert superpixels.linked("b", {}) == "b"
