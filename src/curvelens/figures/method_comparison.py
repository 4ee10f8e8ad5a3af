"""Methods side by side on one scale (Singla et al. 2019, Fig. 4 and 11 to 16)."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, pixels, register, style
from curvelens.figures.explanations import NAMES, chosen, misclassified
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import count, listing, number, percent, sentences, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

METHODS = ("gradient", "smoothgrad", "integrated_gradients", "cafo", "caso", "smoothcafo", "smoothcaso")
_MAP = "gray"
_ACROSS = 4  # panels beside each other on a telephone


def _methods(tables: Tables) -> list[str]:
    present = set(succeeded(tables["explanations"])["method"])
    return [name for name in METHODS if name in present]


def _sparsity(tables: Tables, image_id: str, method: str) -> str:
    rows = succeeded(tables["context_aware"])
    found = rows[(rows["image_id"] == image_id) & (rows["method"] == method)]
    if found.empty:
        return ""
    share = float(found["sparsity"].iloc[0])
    return f"η = {np.floor(1000 * share) / 1000:.3f}"


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _panels(axes: list[Axes], tables: Tables, row: Any, methods: list[str]) -> Any:
    """Draw an image and its maps, one a panel; return what a colour bar needs."""
    from curvelens.context_aware import normalise

    axes[0].imshow(pixels.picture(tables, row.image_id), cmap="gray", vmin=0, vmax=255)
    drawn = None
    for panel, method in zip(axes[1:], methods, strict=False):
        shown = normalise(pixels.attribution(tables, row.image_id, method)).numpy()
        drawn = panel.imshow(shown, cmap=_MAP, vmin=0, vmax=1)
        panel.set_xlabel(_sparsity(tables, row.image_id, method), fontsize=7.5, labelpad=2)
    return drawn


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw an image a row on a page, in two rows on a telephone."""
    from matplotlib.figure import Figure

    images, methods = chosen(tables), _methods(tables)
    across = _ACROSS if layout.narrow else 1 + len(methods)
    each = -(-(1 + len(methods)) // across)
    down = each * max(len(images), 1)
    room = layout.width if layout.narrow else layout.width - 1.0  # inches; the labels stand beside
    height = down * (room / across * 1.08 + 0.16) + (0.28 * len(images) if layout.narrow else 0) + 0.7
    figure = Figure(figsize=(layout.width, height), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.ravel():
        _bare(axes)
    if images.empty:
        style.empty(grid[0, 0], "no image was explained by every method")
        return figure
    names = ["image", *(NAMES[method] for method in methods)]
    drawn = None
    for place, row in enumerate(images.itertuples()):
        axes = grid[place * each : (place + 1) * each].ravel().tolist()
        drawn = _panels(axes, tables, row, methods) or drawn
        wrong = 0 <= row.label != row.prediction
        text: dict[str, Any] = {"fontsize": 8, "color": style.VERMILLION if wrong else style.INK}
        label = f"{pixels.said(tables, row)}, {pixels.confidence(row.confidence)}"
        if layout.narrow:
            axes[0].set_title(style.literal(textwrap.fill(label, 52)), fontweight="normal", **text)
        else:
            axes[0].set_ylabel(
                style.literal(textwrap.fill(label, 16)), rotation=0, ha="right", va="center", **text
            )
        for panel, name in zip(axes, names, strict=False):
            if layout.narrow and panel is not axes[0]:
                panel.set_title(
                    textwrap.fill(name, 12), fontsize=6.5, loc="center", fontweight="normal", pad=3
                )
            elif place == 0 and not layout.narrow:
                panel.set_title(textwrap.fill(name, 12), fontsize=8.5, loc="center")
    if drawn is not None:
        bar = figure.colorbar(
            drawn, ax=grid, orientation="horizontal", fraction=0.03, pad=0.01, aspect=45, shrink=0.6
        )
        bar.set_label("magnitude, as a share of the map's 99th percentile", fontsize=8)
        bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1 and above"], fontsize=7.5)
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


_PAIRS = (
    ("cafo", "caso"),
    ("cafo", "gradient"),
    ("cafo", "smoothcafo"),
    ("smoothcafo", "smoothcaso"),
    ("smoothcafo", "smoothgrad"),
)


def _pair(tables: Tables, pair: tuple[str, str], column: str) -> DataFrame:
    rows = tables["map_agreement"]
    found = rows[(rows["first"] == pair[0]) & (rows["second"] == pair[1])]
    return found[found[column].notna()]


def finding(tables: Tables) -> str:
    """Return how much curvature and how much noise change the sparse explanations."""
    plain = _pair(tables, ("cafo", "caso"), "cosine")["cosine"]
    smooth = _pair(tables, ("cafo", "smoothcafo"), "cosine")["cosine"]
    if not len(plain) or not len(smooth):
        return ""
    moved = "less" if plain.median() > smooth.median() else "no less"
    return (
        f"Curvature changes a sparse explanation {moved} than noise on the image does: median cosine "
        f"{number(plain.median())} of CASO to CAFO, {number(smooth.median())} of SmoothCAFO to CAFO "
        f"(n = {len(plain)})."
    )


def _agreements(tables: Tables) -> str:
    told = []
    for pair in _PAIRS:
        cosines = _pair(tables, pair, "cosine")["cosine"].tolist()
        ranks = _pair(tables, pair, "rank_correlation")["rank_correlation"].tolist()
        if cosines and ranks:
            names = " and ".join(NAMES[name] for name in pair)
            told.append(f"{names} {spread(cosines)} (of pixels' ranks {spread(ranks)})")
    return f"Cosines between maps, over all images: {'; '.join(told)}." if told else ""


def _images(tables: Tables) -> str:
    images = chosen(tables)
    told = []
    for row in images.itertuples():
        found = _pair(tables, ("cafo", "caso"), "cosine")
        found = found[found["image_id"] == row.image_id]
        if len(found):
            told.append(
                f"{pixels.said(tables, row)} {number(found['cosine'].iloc[0])} (ranks "
                f"{number(found['rank_correlation'].iloc[0])})"
            )
    return f"CASO to CAFO image by image: {'; '.join(told)}." if told else ""


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, how maps were made visible, and the n."""
    images, methods = chosen(tables), _methods(tables)
    rows = succeeded(tables["context_aware"])
    sparse = rows.groupby("method")["sparsity"].median()
    wrong = int(misclassified(images).sum())
    return sentences(
        finding(tables),
        _agreements(tables),
        _images(tables),
        f"{listing(NAMES[name] for name in methods)} of {count(len(images), 'image')} from the surest "
        "prediction to the least sure" + (f", {wrong} of them misclassified (red)." if wrong else "."),
        "All on one scale, made as the paper says: absolute values, summed over the channels, capped at "
        "their 99th percentile and divided by it; nothing is multiplied by the image, but by Integrated "
        "Gradients itself. A map with fewer pixels than that is divided by its largest.",
        "η is the share of pixels that are exactly zero, median "
        + listing(f"{percent(share, 1)} for {NAMES[name]}" for name, share in sparse.items())
        + "."
        if len(sparse)
        else "",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    told = "; ".join(
        f"{pixels.said(tables, row)}, {pixels.confidence(row.confidence)}"
        for row in chosen(tables).itertuples()
    )
    names = listing(NAMES[name] for name in _methods(tables))
    return f"Grid of images with their {names} maps in grey on black. Predictions: {told}. {finding(tables)}"


register(
    FigureSpec(
        name="method_comparison",
        tables=("explanations", "maps", "images", "map_agreement", "context_aware"),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        suffix=".png",
        rank=46,
    )
)
