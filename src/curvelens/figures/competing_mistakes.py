"""Explanations of the predicted and the true class of misclassified images, and their difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures._competing import QUANTILE, cap, found, label, plain_axes, share, show
from curvelens.figures.maps import NAMES
from curvelens.figures.wording import count, listing, sentences, shortened
from curvelens.summaries.competing import MISTAKE, RIGHT, ordered, relation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

SHOWN = 6
_LETTERS = 22  # of the name of a class


def _rows(tables: Tables) -> DataFrame:
    return ordered(tables["competing"], MISTAKE, RIGHT)


def _images(rows: DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["image_id"]))[:SHOWN]


def _methods(rows: DataFrame) -> list[str]:
    present = set(rows["method"])
    return [name for name in NAMES if name in present] + sorted(present - set(NAMES))


def _title(row: Any) -> str:
    true, a = (shortened(name, _LETTERS) for name in (row.label_name, row.name_a))
    said = f"{true} taken for {a}" if row.part == MISTAKE else f"{a}, right"
    chances = ", ".join(f"{shortened(name, _LETTERS)} {share(p)}" for name, p in _chances(row))
    return f"{label(row.image_id)}\n{said}\n{chances}"


def _chances(row: Any) -> list[tuple[str, float]]:
    return [(row.name_a, row.probability_a), (row.name_b, row.probability_b)]


def _panels(axes: list[Axes], tables: Tables, row: Any) -> None:
    """Draw the maps of both classes and their difference on one scale."""
    (a, b), _ = found(tables, row)
    largest = cap(np.stack([a, b, a - b]))
    signed = bool((a < 0).any() or (b < 0).any())
    for one, values, negative in zip(axes, (a, b, a - b), (signed, signed, True), strict=True):
        show(one, values, largest, negative)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw an image a row on a page; on a telephone an image a block, a method a row."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = _rows(tables)
    images, methods = _images(rows), _methods(rows)
    if not images:
        figure = Figure(figsize=(layout.width, 1.5), layout="constrained")
        style.empty(figure.subplots(), "no image could be explained for two classes")
        return figure
    across = 4 if layout.narrow else 1 + 3 * len(methods)
    down = len(images) * (len(methods) if layout.narrow else 1)
    side = layout.width / (across + (0.1 if layout.narrow else 0.75))
    # On a telephone the name of the image stands above its block.
    extra = 0.65 * len(images) if layout.narrow else 0.45
    room = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.015, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(layout.width, down * side * 1.05 + extra), layout=room)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.ravel():
        plain_axes(axes)
    for number, name in enumerate(images):
        own = rows[rows["image_id"] == name].set_index("method", drop=False)
        first = number * len(methods) if layout.narrow else number
        for place, method in enumerate(methods):
            row = next(own.loc[[method]].itertuples())
            line = first + place if layout.narrow else first
            start = 1 if layout.narrow else 1 + 3 * place
            panels = list(grid[line, start : start + 3])
            _panels(panels, tables, row)
            _head(panels, row, layout, number, place)
            if place == 0:
                _picture(grid[line, 0], found(tables, row)[1], row, layout)
    return figure


def _head(panels: list[Axes], row: Any, layout: style.Layout, number: int, place: int) -> None:
    """Name what stands in a method's three columns."""
    text: dict[str, Any] = {"fontsize": 7.5, "loc": "center", "fontweight": "normal", "pad": 3}
    own = ("predicted", "true" if row.part == MISTAKE else "runner-up", "difference")
    method = NAMES.get(row.method, row.method)
    if layout.narrow:
        if place == 0:
            for axes, name in zip(panels, own, strict=True):
                axes.set_title(name, **text)
        panels[0].set_ylabel(method, fontsize=7.5, labelpad=2)
    elif number == 0:
        for axes, name in zip(panels, ("predicted", f"{method}\ntrue (or next)", "difference"), strict=True):
            axes.set_title(name, **text)


def _picture(axes: Axes, pixels: np.ndarray, row: Any, layout: style.Layout) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    colour = style.VERMILLION if row.part == MISTAKE else style.INK
    text = style.literal(_title(row))
    if layout.narrow:
        axes.set_title(text, fontsize=6.5, loc="left", fontweight="normal", color=colour, pad=13)
    else:
        axes.set_ylabel(text, fontsize=7.5, rotation=0, ha="right", va="center", color=colour, labelpad=4)


def _told(rows: DataFrame) -> tuple[str, str]:
    """Return in words, and in numbers, how the maps of both classes stand to each other by each method."""
    cosines = rows.groupby("method")["cosine"].median()
    medians = {NAMES.get(name, name): float(cosines[name]) for name in _methods(rows)}
    by_word: dict[str, list[str]] = {}
    for name, median in medians.items():
        by_word.setdefault(relation(median), []).append(name)
    words = listing(f"{word} by {listing(names)}" for word, names in by_word.items())
    return words, listing(f"{name} {median:.2f}".replace("-", "−") for name, median in medians.items())


def finding(tables: Tables) -> str:
    """Say how the two classes' maps stand to each other."""
    rows = _rows(tables)
    if rows.empty:
        return ""
    wrong = rows.loc[rows["part"] == MISTAKE, "image_id"].nunique()
    words, numbers = _told(rows)
    return (
        f"The maps of the predicted and of the competing class are {words}: median cosine {numbers} on "
        f"{count(rows['image_id'].nunique(), 'image')}, {wrong} of them misclassified."
    )


def caption(tables: Tables) -> str:
    """Return what is drawn, how maps were processed, and the n."""
    rows = _rows(tables)
    if rows.empty:
        return "No image could be explained for two classes."
    images, first = _images(rows), rows.iloc[0]
    wrong = rows[rows["image_id"].isin(images) & (rows["part"] == MISTAKE)]["image_id"].nunique()
    filled = len(images) - wrong
    return sentences(
        finding(tables),
        f"Each row is an image, each method its map of the {first['scalar'].replace('_', ' ')} of the class "
        "predicted, that of the true class, and the first less the second.",
        f"The network errs on {first['test_errors']} of {first['test_images']} labelled test images; "
        f"{count(wrong, 'of them is', 'of them are')} shown (red)"
        + (
            f", and {filled} on which it was right and least sure, with the runner-up in the place of the "
            "true class."
            if filled
            else "."
        ),
        f"Post-processing, the same for all: channels summed; the three maps of an image and method share a "
        f"colour scale that ends at the {QUANTILE:.0%} quantile of their magnitudes; no smoothing. Signed "
        "maps and all differences are red above zero and blue below, with zero in the middle; magnitudes "
        "(VarGrad) go from white to purple.",
        f"n = {count(len(images), 'image')}.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = _rows(tables)
    images = _images(rows)
    heads = rows[rows["image_id"].isin(images)].drop_duplicates("image_id")
    told = "; ".join(_title(row).replace("\n", ", ") for row in heads.itertuples())
    names = listing(NAMES.get(method, method) for method in _methods(rows))
    return (
        f"Grid of {count(len(images), 'image')}; for each the {names} maps of two classes and their "
        f"difference. {told}."
    )


register(
    FigureSpec(
        name="competing_mistakes",
        tables=("competing", "competing_maps"),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        suffix=".png",
        rank=61,
    )
)
