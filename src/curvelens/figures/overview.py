"""The front page: one panel a question, each titled with its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curvelens.figures import (
    FigureSpec,
    Tables,
    attacks,
    distances,
    fidelity,
    regions,
    register,
    style,
)
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import sentences

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

_PANELS = (
    ("spectra", regions.panel, regions.headline, regions.finding),
    ("distances", distances.panel, distances.headline, distances.finding),
    ("fidelity", fidelity.panel, fidelity.headline, fidelity.finding),
    ("attacks", attacks.panel, attacks.headline, attacks.finding),
)


_WORDS = ("", "One question", "Two questions", "Three questions", "Four questions")
_OF_METHODS = ("fidelity", "attacks")


def _present(tables: Tables) -> list[tuple]:
    return [part for part in _PANELS if part[0] in tables]


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw a panel for each stage that was run."""
    parts = _present(tables)
    figure, axes = style.panels(layout, max(len(parts), 1), height=2.75, columns=2)
    if not parts:
        style.empty(axes[0], "no experiment was run")
    methods: dict[str, Any] = {}
    for one, (table, panel, headline, _) in zip(axes, parts, strict=False):
        panel(one, tables)
        style.title(one, headline(tables))
        if table in _OF_METHODS:
            handles, labels = one.get_legend_handles_labels()
            methods |= dict(zip(labels, handles, strict=True))
    if methods:
        names = style.order(methods)
        columns = 3 if layout.narrow else 7
        figure.legend([methods[name] for name in names], names, loc="outside lower center", ncols=columns)
    return figure


def _sample(table: DataFrame) -> str:
    images = table["images"].max() if "images" in table else succeeded(table)["image_id"].nunique()
    return f" (n = {int(images)})" if images == images else ""


def caption(tables: Tables) -> str:
    """Return what the panels are."""
    parts = _present(tables)
    names = {
        "spectra": "how far the ReLU network's gradient is exact",
        "distances": "how far curvature moves the explanation",
        "fidelity": "how faithful each local model is",
        "attacks": "how many predictions its attack leaves standing",
    }
    if not parts:
        return "No experiment was run."
    told = "; ".join(names[part[0]] + _sample(tables[part[0]]) for part in parts)
    return sentences(
        f"{_WORDS[len(parts)]} in one look: {told}.",
        "Solid lines are second-order local models, dashed ones first-order;",
        "the sections below say how each was measured.",
    )


def alt(tables: Tables) -> str:
    """Describe the panels by what they found."""
    return sentences(*(finding(tables) for _, _, _, finding in _present(tables))) or "No experiment was run."


register(
    FigureSpec(
        name="overview",
        tables=(),
        optional=("spectra", "distances", "fidelity", "attacks", "attacks_images"),
        draw=draw,
        caption=caption,
        alt=alt,
        rank=0,
    )
)
