"""The gallery's pages: one file an image, which loads nothing."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from curvelens.figures import maps
from curvelens.figures.pixels import confidence as probability
from curvelens.figures.wording import MISSING, listing, number
from curvelens.reporting.gallery_pictures import coloured, png, reduced, where
from curvelens.reporting.html import (
    Html,
    bullets,
    details,
    element,
    facts,
    heading,
    paragraph,
    raw,
    table,
)

if TYPE_CHECKING:
    from curvelens.reporting.gallery import Contest, Numbers, Picture

_SMALL = 96  # below it pixels are shown as squares instead of being blurred


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
        way(*ways),
        element("h1", shown.image_id),
        facts(_known(shown)),
        element("div", _original(shown), *(_map(*one) for one in shown.maps.items()), class_="maps"),
        paragraph(_legend(shown), "processing") if shown.maps else Html(),
        _contests(shown),
    ]
    if shown.explained or shown.numbers:
        parts += [heading("What was measured", 2), _methods(shown), *map(_numbers, shown.numbers)]
    return document(f"{shown.image_id} – {title}", style, *parts)


def way(*links: tuple[str, str]) -> Html:
    """Return the links at the head of a page."""
    items = (element("li", element("a", text, href=address)) for text, address in links)
    return element("nav", element("ol", *items), aria_label="Gallery", class_="way")


def _known(shown: Picture) -> list[tuple[str, object]]:
    told: list[tuple[str, object]] = [
        ("prediction", shown.prediction),
        ("true class", shown.label if shown.label is not None else "not known"),
        ("confidence", probability(shown.confidence)),
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


def _contests(shown: Picture) -> Html:
    """Return maps of two classes and their difference, each method's on one colour scale."""
    if not shown.contests:
        return Html()
    text = (
        "Channels summed; one colour scale for the three maps of a method, capped at the "
        f"{maps.QUANTILE:.0%} quantile of the magnitudes of both classes; no smoothing, no "
        "multiplication by the image."
    )
    once: dict[object, Contest] = {}
    for one in shown.contests:
        once.setdefault((one.method, frozenset(one.names)), one)
    parts = [_contest(one) for one in once.values()]
    return element("section", heading("Two classes", 2), *parts, paragraph(text, "processing"))


def _contest(contest: Contest) -> Html:
    a, b = contest.names
    signed = maps.is_signed(contest.method, contest.maps)
    largest = maps.cap(contest.maps)
    name = maps.NAMES.get(contest.method, contest.method)
    tiles = [
        (contest.maps[0], a, signed),
        (contest.maps[1], b, signed),
        (contest.maps[0] - contest.maps[1], f"{a} less {b}", True),
    ]
    figures = []
    for values, said, sign in tiles:
        alt = f"{name} of {said}: {where(values, sign)}"
        figures.append(_figure(coloured(values, sign, largest), alt, said, values.shape))
    return Html(heading(f"By {name}"), element("div", *figures, class_="maps"))


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
    text = f"The maps explain the {scalars}. Calls that methods share count for the first of them."
    if any(row[1] != MISSING for row in rows):
        text += (
            " Trust radius: how far, in L2 norm, the map predicts what the score does; a map that is no "
            "local model has none."
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
    """Return what is the same in all rows as a list, and what is not as a table."""
    name = told.table.replace("_", " ")
    said = [(fact, [_value(value) for value in fact.values]) for fact in told.facts]
    shared = [
        (fact.name, f"{values[0]} {fact.unit}".rstrip()) for fact, values in said if len({*values}) == 1
    ]
    rows = [
        [Html(fact.name, element("small", fact.unit) if fact.unit else ""), *values]
        for fact, values in said
        if len({*values}) > 1
    ]
    shown = table([["", *told.rows]], rows, f"From the table {told.table}.") if rows else Html()
    meanings = details("What these are", bullets(f"{fact.name}: {fact.meaning}" for fact in told.facts))
    return element("section", heading(name), facts(shared) if shared else Html(), shown, meanings)


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
