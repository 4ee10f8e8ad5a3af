"""The front page: one panel a question, each titled with its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures import FigureSpec, Tables, attacks, distances, fidelity, regions, register, spectra, style
from curvelens.figures.wording import count, sentences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = (
    ("spectra", regions.panel, regions.headline, regions.finding),
    ("distances", distances.panel, distances.headline, distances.finding),
    ("fidelity", fidelity.panel, fidelity.headline, fidelity.finding),
    ("attacks", attacks.panel, attacks.headline, attacks.finding),
)
_WITH_LEGEND = ("fidelity", "attacks")


def _present(tables: Tables) -> list[tuple]:
    return [part for part in _PANELS if part[0] in tables]


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw a panel for each stage that was run."""
    parts = _present(tables)
    figure, axes = style.panels(layout, max(len(parts), 1), height=2.75, columns=2)
    if not parts:
        style.empty(axes[0], "no experiment was run")
    for one, (table, panel, headline, _) in zip(axes, parts, strict=False):
        if table in _WITH_LEGEND:
            panel(one, tables, legend=True)
        else:
            panel(one, tables)
        one.set_title(headline(tables))
    return figure


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
    return sentences(
        f"{count(len(parts), 'question')} in one look: {'; '.join(names[part[0]] for part in parts)}.",
        "The sections below say how each was measured and on how many images.",
    )


def alt(tables: Tables) -> str:
    """Describe the panels by what they found."""
    return sentences(*(finding(tables) for _, _, _, finding in _present(tables))) or "No experiment was run."


register(
    FigureSpec(
        name="overview", tables=(), optional=("spectra", "distances", "fidelity", "attacks", "attacks_images"),
        draw=draw, caption=caption, alt=alt, rank=0,
    )  # fmt: skip
)
