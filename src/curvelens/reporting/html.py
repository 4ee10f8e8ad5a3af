"""Blocks of HTML that need nothing from elsewhere: tables, figures, videos, notes. All text is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup, escape

from curvelens.errors import DataError
from curvelens.store import load_json

_TYPES = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}
NARROW_BELOW = 640
"""Width of the window, in CSS pixels, below which the telephone's version of a figure is shown."""


class Html:
    """A block that notebooks and nbconvert show as it is.

    Args:
        parts: Blocks or strings; strings are escaped.
    """

    def __init__(self, *parts: object) -> None:
        self.markup: Markup = Markup("").join(
            part.markup if isinstance(part, Html) else escape(part) for part in parts
        )

    def _repr_html_(self) -> str:
        return str(self.markup)

    def __str__(self) -> str:
        return str(self.markup)


def raw(text: str) -> Html:
    """Return HTML that the caller vouches for."""
    return Html(Markup(text))


def element(tag: str, *content: object, **attributes: object) -> Html:
    """Return ``<tag ...>content</tag>``; strings in content and attributes are escaped.

    Args:
        tag: Name of the element.
        content: Blocks or strings.
        attributes: ``class_`` stands for ``class``; None leaves an attribute out, True gives one without
            value.
    """
    given = [
        (name.rstrip("_").replace("_", "-"), value)
        for name, value in attributes.items()
        if value not in (None, False)
    ]
    opened = Markup("").join(
        Markup(" {}").format(name) if value is True else Markup(' {}="{}"').format(name, str(value))
        for name, value in given
    )
    inner = Markup("").join(part.markup if isinstance(part, Html) else escape(part) for part in content)
    return Html(Markup("<{}{}>{}</{}>").format(Markup(tag), opened, inner, Markup(tag)))


def paragraph(text: object, kind: str | None = None) -> Html:
    """Return a paragraph, of a CSS class if ``kind`` is given."""
    return element("p", text, class_=kind)


def claim_first(finding: str) -> Html:
    """Set a finding's claim, the words before its first colon, in bold."""
    claim, colon, evidence = finding.partition(": ")
    return Html(element("b", f"{claim}{colon}"), f"{evidence} ") if colon else Html(f"{finding} ")


def interpretation(paragraphs: Sequence[str]) -> Html:
    """Return what a section's numbers mean, each paragraph with its claim in bold; nothing where empty."""
    if not paragraphs:
        return Html()
    told = (element("p", claim_first(text)) for text in paragraphs)
    label = element("p", "Interpretation, from the numbers above", class_="label")
    return element("div", label, *told, class_="interpretation")


def note(text: str) -> Html:
    """Return a remark set apart from the text, such as a stage that was not run."""
    return element("p", text, class_="note")


def heading(text: str, level: int = 3) -> Html:
    """Return a heading that is not part of the table of contents."""
    return element(f"h{level}", text)


def bullets(items: Iterable[object]) -> Html:
    """Return a list."""
    return element("ul", *(element("li", item) for item in items))


def details(summary: str, *content: object) -> Html:
    """Return content that is folded away until the reader asks for it."""
    return element("details", element("summary", summary), *content)


def code(text: str) -> Html:
    """Return preformatted text that scrolls inside its own box."""
    return element("pre", text, tabindex="0")


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Return names with their values, as a list that wraps."""
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in pairs),
        class_="facts",
    )


def table(header: Sequence[Sequence[object]], rows: Iterable[Sequence[object]], caption: object) -> Html:
    """Return a table that scrolls sideways inside its own box where the page is too narrow.

    Args:
        header: Rows of column names; a name that spans columns is a pair (name, columns).
        rows: Cells; the first of each row is its heading.
        caption: What the numbers are.

    Returns:
        The block.
    """
    head = [element("tr", *(_column(name) for name in row)) for row in header]
    body = [element("tr", element("th", row[0], scope="row"), *map(_cell, row[1:])) for row in rows]
    parts = (element("caption", caption), element("thead", *head), element("tbody", *body))
    label = "Table, scrolls sideways"
    return element(
        "div", element("table", *parts), class_="scroll", tabindex="0", role="region", aria_label=label
    )


def _column(name: object) -> Html:
    text, span = name if isinstance(name, tuple) else (name, 1)
    return element("th", text, scope="col" if span == 1 else "colgroup", colspan=span if span > 1 else None)


def _cell(value: object) -> Html:
    return value if isinstance(value, Html) and str(value).startswith("<td") else element("td", value)


def best(text: object) -> Html:
    """Return a table cell whose number is the best of its column."""
    return element("td", element("strong", text), class_="best")


def linked(name: str, pages: Mapping[str, str]) -> object:
    """Return a name, as a link where ``pages`` has an address for it."""
    return element("a", name, href=pages[name]) if name in pages else name


def data_uri(path: Path) -> str:
    """Return a file as a ``data:`` address; a PNG as WebP, see :func:`webp`.

    Raises:
        DataError: The file is missing, or of a type that a report cannot show.
    """
    if path.suffix not in _TYPES:
        raise DataError(f"{path}: a report shows {', '.join(_TYPES)}; convert the file")
    if not path.is_file():
        raise DataError(f"{path}: no such file; run the step that makes it, or correct the path")
    kind, content = _TYPES[path.suffix], path.read_bytes()
    if path.suffix == ".png":
        kind, content = "image/webp", webp(path)
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def webp(path: Path) -> bytes:
    """Return a picture as WebP, without loss or at quality 80, whichever is smaller.

    Maps of noise hardly compress without loss: with a dozen of them a page would have tens of megabytes. The
    picture's own file, beside the page, keeps every pixel.

    Raises:
        DataError: The file is no picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        raise DataError(f"{path}: is no picture, or is damaged; run the step that makes it again") from error
    versions = []
    for options in ({"lossless": True}, {"quality": 80}):
        stream = io.BytesIO()
        picture.save(stream, "webp", **options)
        versions.append(stream.getvalue())
    return min(versions, key=len)


def figure(texts: Path, number: int, lead: bool = False) -> Html:
    """Return a figure in two versions, for page and telephone, with its caption and alternative text.

    Args:
        texts: The JSON file that ``curvelens.figures.draw`` wrote.
        number: Its number in the report.
        lead: Whether it stands on the first page.

    Returns:
        The block.
    """
    said = load_json(texts)
    wide, narrow = (data_uri(texts.with_name(said[key])) for key in ("wide", "narrow"))
    picture = element(
        "picture",
        raw(f'<source media="(max-width: {NARROW_BELOW - 1}px)" srcset="{narrow}">'),
        Html(Markup('<img src="{}" alt="{}">').format(Markup(wide), said["alt"])),
    )
    caption = element("figcaption", element("b", f"Figure {number}. "), said["caption"])
    return element(
        "figure", picture, caption, class_="lead" if lead else None, id=f"figure-{said['name']}-{number}"
    )


def film(video: Path, poster: Path, caption: str, alt: str, number: int) -> Html:
    """Return a film that plays offline.

    Args:
        video: mp4 or webm, 16:9.
        poster: One of its frames (png), shown until the film plays.
        caption: What it shows.
        alt: The same for readers who cannot see it.
        number: Its number among the figures.
    """
    switches = dict.fromkeys(("controls", "loop", "muted", "playsinline"), True)
    instead = "Your reader does not play films: the frames and curves below show the same."
    player = element(
        "video", instead, src=data_uri(video), poster=data_uri(poster), aria_label=alt, **switches
    )
    return element("figure", player, element("figcaption", element("b", f"Figure {number}. "), caption))
