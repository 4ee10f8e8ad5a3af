"""The gallery's index: a card an image, with filters by class, correctness and confidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from curvelens.figures.pixels import confidence as probability
from curvelens.figures.wording import count
from curvelens.reporting.gallery_pages import document, way
from curvelens.reporting.gallery_pictures import png, reduced
from curvelens.reporting.html import Html, element, paragraph, raw

if TYPE_CHECKING:
    from curvelens.reporting.gallery import Picture

_THUMBNAIL = 64


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
    said += f", {wrong:,} misclassified, the first of their experiment" if wrong else ""
    said += f", {unknown:,} of no known class" if unknown else ""
    parts = [
        way(("The report", "../index.html")),
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
        element("small", probability(one.confidence)),
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
