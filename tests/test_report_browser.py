"""The report in a browser: nothing to complain of, nothing loaded, every picture there, nothing too wide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
import report_fixture

from curvelens import figures

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(browser.find() is None, reason="no Chromium here (Debian: apt-get install chromium)"),
]
WIDTHS = (360, 390, 1280)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.Browser(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


@pytest.fixture(params=WIDTHS)
def report(chromium: browser.Browser, request: pytest.FixtureRequest) -> browser.Browser:
    chromium.open(report_fixture.rendered().as_uri(), width=request.param)
    return chromium


def test_nothing_to_complain_of_and_nothing_loaded(report: browser.Browser) -> None:
    assert report.complaints() == []
    assert report.requests() == [report_fixture.rendered().as_uri()]


def test_every_picture_is_there(report: browser.Browser) -> None:
    sizes = report.evaluate("[...document.images].map(image => [image.complete, image.naturalWidth])")
    assert len(sizes) == len(figures.specs())
    assert all(complete and width > 0 for complete, width in sizes)


def test_the_film_can_be_played(report: browser.Browser) -> None:
    length = report.evaluate(
        """new Promise((resolve, reject) => {
             const film = document.querySelector("video");
             film.onerror = () => reject(film.error.message);
             film.readyState ? resolve(film.duration) : film.onloadedmetadata = () => resolve(film.duration);
           })"""
    )
    assert length == pytest.approx(1.0, abs=0.05)


def test_telephones_get_their_own_figures(report: browser.Browser) -> None:
    width = report.evaluate("innerWidth")
    pictures = "[...document.querySelectorAll('picture img')]"
    wide = report.evaluate(f"{pictures}.map(image => image.currentSrc === image.src)")
    assert len(wide) > 8
    assert set(wide) == {width >= 640}


def test_the_page_never_scrolls_sideways(report: browser.Browser) -> None:
    page, window = report.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert page <= window
    # Nothing may stick out but what scrolls inside its own box.
    outside = report.evaluate(
        """[...document.querySelectorAll("main *")].filter(part =>
             part.getBoundingClientRect().right > innerWidth + 1 &&
             !part.closest(".scroll, pre, math, details")
           ).map(part => part.outerHTML.slice(0, 80))"""
    )
    assert outside == []


def test_contents_are_reachable(report: browser.Browser) -> None:
    shown = report.evaluate("[...document.querySelectorAll('nav')].filter(nav => nav.offsetParent).length")
    assert shown == 1
    anchors = report.evaluate("[...document.querySelectorAll('nav a')].map(link => link.hash)")
    headings = report.evaluate("document.querySelectorAll('main h2').length")
    assert len(anchors) == 2 * headings > 16
    missing = [anchor for anchor in anchors if not report.evaluate(f"!!document.querySelector('{anchor}')")]
    assert missing == []


def test_formulas_are_set(report: browser.Browser) -> None:
    formulas = "[...document.querySelectorAll('math[display=block]')]"
    heights = report.evaluate(f"{formulas}.map(formula => formula.getBoundingClientRect().height)")
    assert len(heights) >= 3
    assert all(height > 15 for height in heights)


def test_the_browser_test_notices_what_it_looks_for(chromium: browser.Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<script>console.log("hello"); throw Error("no")</script><img src="gone.png">')
    chromium.open(bad.as_uri(), width=1280)
    assert any("hello" in said for said in chromium.complaints())
    assert any("Uncaught" in said for said in chromium.complaints())
    assert (tmp_path / "gone.png").as_uri() in chromium.requests()
