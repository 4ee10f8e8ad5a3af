"""Images on which CASO and CAFO agree most beside those on which they differ most (Singla et al. 2019, Fig.
2, 8 and 9)."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, pixels, register, style
from curvelens.figures.explanations import misclassified
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import count, number, sentences, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure
    from pandas import DataFrame

PERCENTILE = 99.0
_MAP = "gray"
_COLUMNS = ("image", "CAFO", "CASO", "difference")


def _rows(tables: Tables, far: bool) -> DataFrame:
    """Return the rows of the table of distances at one end, by rising distance."""
    stored = tables["distance_examples"][0]
    rows = succeeded(tables["distances"])
    return rows[rows["image_id"].isin(stored["ids"][stored["far"] == far])].sort_values("distance")


def maps(tables: Tables, image_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return CAFO, CASO and their difference as pictures ``[H, W]``, on one scale for the three.

    Magnitudes are summed over the channels and divided by CAFO's 99th percentile.
    """
    stored = tables["distance_examples"][0]
    place = int(np.flatnonzero(stored["ids"] == image_id)[0])
    cafo, caso = (stored[name][place].astype(np.float64) for name in ("cafo", "caso"))
    shown = [np.abs(one).sum(0) for one in (cafo, caso, caso - cafo)]
    cap = float(np.percentile(shown[0], PERCENTILE)) or float(shown[0].max()) or 1.0
    first, second, difference = (np.clip(one / cap, 0, 1) for one in shown)
    return first, second, difference


def _row(place: SubFigure, tables: Tables, row: Any, heads: bool, narrow: bool) -> Any:
    axes = place.subplots(1, len(_COLUMNS))
    axes[0].imshow(pixels.picture(tables, row.image_id), cmap="gray", vmin=0, vmax=255)
    drawn = None
    for panel, shown in zip(axes[1:], maps(tables, row.image_id), strict=True):
        drawn = panel.imshow(shown, cmap=_MAP, vmin=0, vmax=1)
    for panel, name in zip(axes, _COLUMNS, strict=True):
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
        if heads:
            panel.set_title(name, fontsize=8, loc="center", pad=3)
    wrong = 0 <= row.label != row.prediction
    label = (
        f"{pixels.said(tables, row)}, {pixels.confidence(row.confidence)}, "
        f"L = {number(row.largest_eigenvalue)}, distance {number(row.distance)}"
    )
    place.suptitle(
        style.literal(textwrap.fill(label, 52 if narrow else 76)),
        fontsize=7.5 if narrow else 8,
        color=style.VERMILLION if wrong else style.INK,
        x=0.02,
        ha="left",
    )
    return drawn


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw agreement on the left and difference on the right; below each other on a telephone."""
    from matplotlib.figure import Figure

    blocks = [_rows(tables, far) for far in (False, True)]
    most = max(map(len, blocks))
    width = layout.width if layout.narrow else layout.width / 2
    height = width / len(_COLUMNS) + 0.38
    down = sum(map(len, blocks)) if layout.narrow else most
    figure = Figure(figsize=(layout.width, max(down * height + (0.9 if layout.narrow else 0.6), 1.2)))
    figure.set_layout_engine("constrained")
    if most == 0:
        style.empty(figure.subplots(), "too few images with a distance")
        return figure
    shape = (2, 1) if layout.narrow else (1, 2)
    heights = [len(block) or 1 for block in blocks] if layout.narrow else None
    titles = ("Smallest distance of CASO from CAFO", "Largest distance")
    parts = figure.subfigures(*shape, squeeze=False, height_ratios=heights).ravel()
    drawn = None
    for part, block, title in zip(parts, blocks, titles, strict=True):
        part.suptitle(title, fontsize=9.5, fontweight="bold", x=0.02, ha="left")
        places = part.subfigures(max(len(block), 1), 1, squeeze=False).ravel()
        for index, row in enumerate(block.itertuples()):
            drawn = _row(places[index], tables, row, index == 0, layout.narrow) or drawn
    return figure


def _sure(rows: DataFrame) -> str:
    return pixels.confidence(float(rows["confidence"].median()))


def finding(tables: Tables) -> str:
    """Return how sure the network is where curvature matters, and where it does not."""
    near, far = _rows(tables, False), _rows(tables, True)
    if near.empty or far.empty:
        return ""
    n = count(len(succeeded(tables["distances"])), "image")
    less = "less" if far["confidence"].median() < near["confidence"].median() else "not less"
    return (
        f"Where CASO and CAFO differ most, at distances of {_spread(far, 'distance')}, the network is {less} "
        f"sure (median {_sure(far)}) than where they agree best, at {_spread(near, 'distance')} (median "
        f"{_sure(near)}; {len(far)} and {len(near)} of {n})."
    )


def _spread(rows: DataFrame, column: str) -> str:
    return spread(rows[column].tolist())


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, on which scale, and the n."""
    near, far = _rows(tables, False), _rows(tables, True)
    return sentences(
        finding(tables),
        "L, the largest eigenvalue of the Hessian of the loss, is "
        f"{_spread(near, 'largest_eigenvalue')} where they agree and {_spread(far, 'largest_eigenvalue')} "
        "where they differ."
        if len(near) and len(far)
        else "",
        "CAFO, CASO (λ₁ = 0, both scaled to unit length) and the difference of the two: magnitudes summed "
        "over the channels, on one scale in each row, from black for zero to white at CAFO's 99th "
        "percentile. The distance is the length of the difference, at most √2.",
        "Misclassified images have red labels."
        if misclassified(near).any() or misclassified(far).any()
        else "",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    told = "; ".join(
        f"{pixels.said(tables, row)}, {pixels.confidence(row.confidence)}, distance {number(row.distance)}"
        for far in (False, True)
        for row in _rows(tables, far).itertuples()
    )
    return f"Rows of image, CAFO, CASO and difference, by rising distance: {told}. {finding(tables)}"


register(
    FigureSpec(
        name="distance_examples",
        tables=("distances", "distance_examples", "images"),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        suffix=".png",
        rank=31,
    )
)
