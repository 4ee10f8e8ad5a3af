"""The gallery's pages: an index with filters and a page an image, each one file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from curvelens.figures import maps
from curvelens.figures.wording import MISSING, count, listing, number, percent
from curvelens.reporting.gallery_pictures import coloured, png, reduced, where
from curvelens.reporting.html import (
    Html,
    bullets,
    details,
    element,
    facts,
    heading,
    note,
    paragraph,
    raw,
    table,
)

if TYPE_CHECKING:
    from curvelens.reporting.gallery import Numbers, Picture

_THUMBNAIL = 64
_SMALL = 96  # below it pixels are shown as squares instead of being blurred


@dataclass(frozen=True)
class Card:
    """What the index says of an image.

    Attributes:
        experiment, image_id, label, prediction, confidence, page: As of the picture.
        thumbnail: Its ``data:`` address.
    """

    experiment: str
    image_id: str
    label: str | None
    prediction: str
    confidence: float
    page: str
    thumbnail: str

    @property
    def verdict(self) -> str:
        """``right``, ``wrong`` or ``unknown``."""
        return "unknown" if self.label is None else "right" if self.label == self.prediction else "wrong"


def card(shown: Picture) -> Card:
    """Return what the index needs of a picture, so that the rest can be forgotten."""
    thumbnail = png(reduced(shown.pixels, _THUMBNAIL).astype(np.uint8))
    return Card(
        shown.experiment,
        shown.image_id,
        shown.label,
        shown.prediction,
        shown.confidence,
        shown.page,
        thumbnail,
    )


def document(title: str, style: str, *content: object, script: str = "") -> str:
    """Return a whole page under a policy that lets it load nothing and run nothing but ``script``."""
    allowed = f" script-src 'sha256-{_digest(script)}';" if script else ""
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline';{allowed} base-uri 'none'; "
        "form-action 'none'"
    )
    head = Markup(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="{}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<title>{}</title>\n'
        '<link rel="icon" href="data:,">\n<style>\n{}\n</style>\n</head>\n'
    ).format(Markup(policy), title, Markup(style))
    skip = element("a", "Skip to the content", class_="skip", href="#content")
    body = element("body", skip, element("main", *content, id="content"), _script(script), class_="gallery")
    return f"{head}{body}\n</html>\n"


def _script(text: str) -> Html:
    return raw(f"<script>{text}</script>") if text else Html()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def index(title: str, cards: Sequence[Card], style: str, script: str) -> str:
    """Return the page that lists the images, with filters by class, correctness and confidence.

    Args:
        title: Heading of the report.
        cards: The images, in their order.
        style: The style sheet.
        script: The filters; without it every image is shown.
    """
    wrong = sum(one.verdict == "wrong" for one in cards)
    unknown = sum(one.verdict == "unknown" for one in cards)
    said = count(len(cards), "image")
    said += f", {wrong:,} misclassified, which come first" if wrong else ""
    said += f", {unknown:,} of no known class" if unknown else ""
    parts = [
        _way(("The report", "../index.html")),
        element("h1", f"Gallery: {title}"),
        paragraph(f"Each image has a page with its maps by every method and what was measured: {said}."),
        _filters(cards),
        element("p", count(len(cards), "image") + " shown", id="shown", role="status", class_="shown"),
        element("ul", *(_card(one, len({c.experiment for c in cards}) > 1) for one in cards), class_="cards"),
    ]
    return document(f"Gallery: {title}", style, *parts, script=script)


def _filters(cards: Sequence[Card]) -> Html:
    experiments = sorted({one.experiment for one in cards})
    classes = sorted({name for one in cards for name in (one.label, one.prediction) if name is not None})
    verdicts = [("right", "classified correctly"), ("wrong", "misclassified"), ("unknown", "class not known")]
    present = {one.verdict for one in cards}
    fields = [
        _select("class", "Class, true or predicted", [(name, name) for name in classes]),
        _select("verdict", "Prediction", [pair for pair in verdicts if pair[0] in present]),
        _bound("least", "Confidence from", 0),
        _bound("most", "to", 100),
    ]
    if len(experiments) > 1:
        fields.insert(0, _select("experiment", "Experiment", [(name, name) for name in experiments]))
    clear = element("button", "Show all", type="reset")
    return element("form", *fields, clear, id="filters", hidden=True, aria_label="Filters", class_="filters")


def _select(name: str, text: str, options: Iterable[tuple[str, str]]) -> Html:
    shown = [element("option", "all", value="")]
    shown += [element("option", said, value=value) for value, said in options]
    return element("label", element("span", text), element("select", *shown, name=name))


def _bound(name: str, text: str, value: int) -> Html:
    field = Markup('<input type="number" name="{}" min="0" max="100" step="any" value="{}">')
    return element("label", element("span", f"{text} (%)"), raw(field.format(name, value)))


def _card(one: Card, several: bool) -> Html:
    picture = Markup('<img src="{}" alt="" width="64" height="64">').format(Markup(one.thumbnail))
    lines = [
        element("b", one.image_id),
        element("span", _verdict(one.label, one.prediction), class_=one.verdict),
        element("small", f"{percent(one.confidence, 1)} confident"),
    ]
    if several:
        lines.append(element("small", one.experiment))
    link = element("a", raw(picture), element("span", *lines, class_="lines"), href=one.page)
    told = {
        "data_experiment": one.experiment,
        "data_label": one.label or "",
        "data_prediction": one.prediction,
        "data_verdict": one.verdict,
        "data_confidence": f"{100 * one.confidence:.6g}",
    }
    return element("li", link, **told)


def _verdict(label: str | None, prediction: str) -> str:
    if label is None:
        return prediction
    return f"{prediction}, correct" if label == prediction else f"{label} taken for {prediction}"


def picture(title: str, shown: Picture, beside: tuple[str | None, str | None], style: str) -> str:
    """Return the page of an image.

    Args:
        title: Heading of the report.
        shown: The image.
        beside: Pages of the images before and after it.
        style: The style sheet.
    """
    up = "../../"
    names = (("Previous image", beside[0]), ("Next image", beside[1]))
    ways = [("The report", f"{up}../index.html"), ("All images", f"{up}index.html")]
    ways += [(text, up + page) for text, page in names if page is not None]
    parts = [
        _way(*ways),
        element("h1", shown.image_id),
        facts(_known(shown)),
        element("div", _original(shown), *(_map(*one) for one in shown.maps.items()), class_="maps"),
        paragraph(_legend(shown), "processing") if shown.maps else note("No method explained this image."),
        heading("What was measured", 2),
        _methods(shown),
        *(_numbers(told) for told in shown.numbers),
    ]
    return document(f"{shown.image_id} – {title}", style, *parts)


def _way(*links: tuple[str, str]) -> Html:
    items = (element("li", element("a", text, href=address)) for text, address in links)
    return element("nav", element("ol", *items), aria_label="Gallery", class_="way")


def _known(shown: Picture) -> list[tuple[str, object]]:
    told: list[tuple[str, object]] = [
        ("prediction", shown.prediction),
        ("true class", shown.label if shown.label is not None else "not known"),
        ("confidence", percent(shown.confidence, 2)),
        ("verdict", {True: "correct", False: "misclassified", None: "–"}[shown.correct]),
        ("experiment", shown.experiment),
        ("size", " × ".join(map(str, shown.pixels.shape[:2])) + " pixels"),
    ]
    radii = [row["trust_radius"] for row in shown.explained.values() if _is_number(row.get("trust_radius"))]
    if radii:
        told.append(("largest trust radius", number(max(radii))))
    return told


def _original(shown: Picture) -> Html:
    alt = f"The image {shown.image_id}, classified as {shown.prediction}."
    return _figure(png(reduced(shown.pixels).astype(np.uint8)), alt, "image", shown.pixels.shape)


def _map(method: str, values: np.ndarray) -> Html:
    signed = maps.is_signed(method, values)
    name = maps.NAMES.get(method, method)
    return _figure(coloured(values, signed), f"{name}: {where(values, signed)}", name, values.shape)


def _figure(address: str, alt: str, caption: str, shape: tuple[int, ...]) -> Html:
    kind = ' class="squares"' if max(shape[:2]) < _SMALL else ""
    shown = Markup('<img src="{}" alt="{}"{}>').format(Markup(address), alt, Markup(kind))
    return element("figure", raw(shown), element("figcaption", caption))


def _legend(shown: Picture) -> Html:
    present = {maps.is_signed(name, values) for name, values in shown.maps.items()}
    keys = [("signed", "negative to positive"), ("magnitude", "zero to large")]
    bars = [
        element("span", element("i", class_=f"bar {kind}"), f" {text}", class_="key")
        for (kind, text), signed in zip(keys, (True, False), strict=True)
        if signed in present
    ]
    return Html(*bars, " ", maps.PROCESSING)


def _methods(shown: Picture) -> Html:
    """Return what is known of each map: trust radius, cost, completeness, failure."""
    head = [
        "map",
        "trust radius",
        "95% interval",
        "gradient calls",
        "evaluations",
        "time (s)",
        "completeness error",
    ]
    rows: list[list[object]] = []
    failed: list[str] = []
    for name in maps.ordered(list(shown.explained)):
        row = shown.explained[name]
        if row["status"] != "ok":
            failed.append(f"{maps.NAMES.get(name, name)} failed: {row['error']}")
            continue
        rows.append([element("b", maps.NAMES.get(name, name)), *_row(row)])
    scalars = listing(sorted({str(row["scalar"]).replace("_", " ") for row in shown.explained.values()}))
    text = (
        f"The maps explain the {scalars}. Trust radius: how far, in L2 norm, the map predicts what the score "
        "does; a map that is no local model has none. Calls that methods share count for the first of them."
    )
    told = [i for i in range(len(head)) if any(row[i] != MISSING for row in rows)]
    rows = [[row[i] for i in told] for row in rows]
    listed = table([[head[i] for i in told]], rows, text) if rows else Html()
    return Html(listed, bullets(failed) if failed else Html())


def _row(row: Any) -> list[object]:
    low, high = row.get("trust_low"), row.get("trust_high")
    interval = f"{_value(low)} to {_value(high)}" if _is_number(low) else MISSING
    bound = {"below": "≤ ", "above": "≥ "}.get(str(row.get("trust_censored")), "")
    radius = row.get("trust_radius")
    return [
        bound + number(radius) if _is_number(radius) else MISSING,
        interval,
        *(_value(row.get(name)) for name in ("calls", "forward_calls", "seconds", "completeness_error")),
    ]


def _numbers(told: Numbers) -> Html:
    header = [told.table.replace("_", " "), *(told.rows if any(told.rows) else ["value"])]
    rows = [
        [
            Html(fact.name, element("small", fact.unit) if fact.unit else ""),
            *(_value(value) for value in fact.values),
        ]
        for fact in told.facts
    ]
    meanings = details("What the rows mean", bullets(f"{fact.name}: {fact.meaning}" for fact in told.facts))
    shown = table([header], rows, f"From the table {told.table}.")
    return element("section", heading(told.table.replace("_", " ")), shown, meanings)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and value == value


def _value(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    if value is None or isinstance(value, float | np.floating):
        return MISSING if value is None else number(float(value), 3)
    return str(value) or MISSING
