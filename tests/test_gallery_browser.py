"""The gallery in a browser, from the file system: filters, links, widths, both colour schemes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import browser
import gallery_world as world
import pytest

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(browser.find() is None, reason="no Chromium here (Debian: apt-get install chromium)"),
]
SHOWN = "[...document.querySelectorAll('.cards > li')].filter(card => !card.hidden).map(card => card.dataset)"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.Browser(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


def index() -> str:
    return (world.written() / "index.html").as_uri()


def a_page() -> str:
    pages = json.loads((world.written() / "pages.json").read_text())
    return (world.written().parent / next(iter(pages["digits"].values()))).as_uri()


def choose(chromium: browser.Browser, **fields: object) -> list[dict[str, str]]:
    for name, value in fields.items():
        chromium.evaluate(
            f"(field => {{ field.value = {json.dumps(str(value))};"
            " field.dispatchEvent(new Event('input', {bubbles: true})); })"
            f"(document.forms[0].elements[{json.dumps(name)}])"
        )
    return chromium.evaluate(f"{SHOWN}.map(told => ({{...told}}))")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("address", [index, a_page])
def test_nothing_is_loaded_nothing_complains_nothing_sticks_out(chromium, address, width, dark):
    chromium.open(address(), width=width, dark=dark)
    assert chromium.complaints() == []
    assert chromium.requests() == [address()]
    page, window = chromium.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert page <= window
    sizes = chromium.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
    assert sizes
    assert all(sizes)
    background = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 24, 29)") == dark


def test_filters_by_class_correctness_confidence_and_experiment(chromium):
    chromium.open(index(), width=1280)
    every = choose(chromium)
    assert len(every) == 11
    wrong = choose(chromium, verdict="wrong")
    assert len(wrong) == 4
    assert all(told["label"] != told["prediction"] for told in wrong)
    one = choose(chromium, **{"class": world.CLASSES[0]})
    assert one
    assert all(world.CLASSES[0] in (told["label"], told["prediction"]) for told in one)
    assert chromium.evaluate("document.getElementById('shown').textContent").startswith(f"{len(one)} of 11")
    chromium.evaluate("document.forms[0].reset()")
    chromium.evaluate("new Promise(resolve => setTimeout(resolve, 20))")
    assert len(choose(chromium)) == 11
    middle = sorted(float(told["confidence"]) for told in every)[5]
    assert {float(told["confidence"]) >= middle for told in choose(chromium, least=middle)} == {True}
    assert {told["experiment"] for told in choose(chromium, least=0, experiment="few")} == {"few"}


def test_what_is_chosen_is_part_of_the_address(chromium):
    chromium.open(index(), width=1280)
    choose(chromium, verdict="wrong", least=5)
    address = chromium.evaluate("location.href")
    assert address.endswith("#verdict=wrong&least=5")
    chromium.open("about:blank", width=1280)
    chromium.open(address, width=1280)
    assert chromium.evaluate("document.forms[0].elements.verdict.value") == "wrong"
    assert len(choose(chromium)) <= 4


def test_cards_are_reached_by_the_keyboard(chromium):
    chromium.open(index(), width=1280)
    focused = []
    for _ in range(9):
        for kind in ("rawKeyDown", "keyUp"):
            chromium.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        focused.append(
            chromium.evaluate("document.activeElement.closest('a, select, input, button')?.tagName")
        )
    assert focused[:2] == ["A", "A"]  # skip to the content, back to the report
    assert set(focused[2:8]) == {"SELECT", "INPUT", "BUTTON"}
    assert focused[8] == "A"
