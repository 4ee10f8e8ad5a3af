"""Methods side by side on one scale (Singla et al. 2019, Fig. 4 and 11 to 16)."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, pixels, register, style
from curvelens.figures.explanations import chosen, misclassified
from curvelens.figures.inputs import succeeded
from curvelens.figures.maps import NAMES
from curvelens.figures.wording import count, listing, percent, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage
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


def _images(tables: Tables) -> DataFrame:
    """Return a row for each image shown, by falling confidence; other methods may have failed on it."""
    rows = succeeded(tables["explanations"])
    return chosen({**tables, "explanations": rows[rows["method"].isin(METHODS)]})


def _panels(axes: list[Axes], tables: Tables, row: Any, methods: list[str]) -> AxesImage | None:
    """Draw an image and its maps, one a panel; return what a colour bar needs."""
    from curvelens.context_aware import normalise

    for panel in axes:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    axes[0].imshow(pixels.picture(tables, row.image_id), cmap="gray", vmin=0, vmax=255)
    drawn = None
    for panel, method in zip(axes[1:], methods, strict=False):
        shown = normalise(pixels.attribution(tables, row.image_id, method)).numpy()
        drawn = panel.imshow(shown, cmap=_MAP, vmin=0, vmax=1)
        panel.set_xlabel(_sparsity(tables, row.image_id, method), fontsize=7, labelpad=2)
    return drawn


def _label(tables: Tables, row: Any, width: int) -> dict[str, Any]:
    wrong = 0 <= row.label != row.prediction
    said = style.literal(textwrap.fill(pixels.said(tables, row), width))
    colour = style.VERMILLION if wrong else style.INK
    return {"s": f"{said}\n{pixels.confidence(row.confidence)}", "color": colour, "fontsize": 8}


def _wide(figure: SubFigure, tables: Tables, images: DataFrame, methods: list[str]) -> AxesImage | None:
    grid = figure.subplots(len(images), 1 + len(methods), squeeze=False)
    drawn = None
    for axes, row in zip(grid, images.itertuples(), strict=True):
        drawn = _panels(axes.tolist(), tables, row, methods) or drawn
        label = _label(tables, row, 17)
        axes[0].set_ylabel(label.pop("s"), rotation=0, ha="right", va="center", **label)
    for panel, name in zip(grid[0], ["image", *(NAMES[method] for method in methods)], strict=True):
        panel.set_title(textwrap.fill(name, 12), fontsize=8.5, loc="center")
    return drawn


def _narrow(figure: SubFigure, tables: Tables, images: DataFrame, methods: list[str]) -> AxesImage | None:
    drawn = None
    parts = figure.subfigures(len(images), 1, squeeze=False)
    for part, row in zip(parts.ravel(), images.itertuples(), strict=True):
        axes = part.subplots(-(-(1 + len(methods)) // _ACROSS), _ACROSS, squeeze=False).ravel().tolist()
        drawn = _panels(axes, tables, row, methods) or drawn
        label = _label(tables, row, 56)
        part.suptitle(label.pop("s").replace("\n", ", "), x=0.02, ha="left", **label)
        for panel, name in zip(axes, ["image", *(NAMES[method] for method in methods)], strict=False):
            panel.set_title(textwrap.fill(name, 12), fontsize=6.5, loc="center", fontweight="normal", pad=3)
    return drawn


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw an image a row on a page, in rows of four panels on a telephone."""
    from matplotlib.figure import Figure

    images, methods = _images(tables), _methods(tables)
    across = _ACROSS if layout.narrow else 1 + len(methods)
    room = layout.width if layout.narrow else layout.width - 1.1  # inches; the labels stand beside
    rows = -(-(1 + len(methods)) // across) * max(len(images), 1)
    height = rows * (room / across + (0.36 if layout.narrow else 0.2)) + len(images) * 0.2 * layout.narrow
    figure = Figure(figsize=(layout.width, height + 0.75), layout="constrained")
    if images.empty:
        style.empty(figure.subplots(), "no image was explained by every method")
        return figure
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[height, 0.55]).ravel()
    drawn = (_narrow if layout.narrow else _wide)(top, tables, images, methods)
    if drawn is not None:
        scale = bottom.subplots()
        bar = figure.colorbar(drawn, cax=scale, orientation="horizontal")
        scale.set_box_aspect(0.035)
        bar.set_label("magnitude, as a share of the map's 99th percentile", fontsize=8)
        bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1 and above"], fontsize=7.5)
        bar.outline.set_visible(False)
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


def _cosine(value: float) -> str:
    """Return a cosine or a correlation with two digits after the point, more where it is nearly 1."""
    digits = 2 if abs(value) < 0.995 else 4
    text = f"{math.floor(abs(value) * 10**digits) / 10**digits if digits == 4 else abs(value):.{digits}f}"
    return f"−{text}" if value < 0 and float(text) else text


def _range(values: list[float]) -> str:
    low, high = _cosine(min(values)), _cosine(max(values))
    return low if low == high else f"{low} to {high}"


def finding(tables: Tables) -> str:
    """Return how much curvature and how much noise change the sparse explanations."""
    plain = _pair(tables, ("cafo", "caso"), "cosine")["cosine"]
    smooth = _pair(tables, ("cafo", "smoothcafo"), "cosine")["cosine"]
    if not len(plain) or not len(smooth):
        return ""
    moved = "less" if plain.median() > smooth.median() else "no less"
    return (
        f"Curvature changes a sparse explanation {moved} than noise on the image does: median cosine "
        f"{_cosine(plain.median())} of CASO to CAFO, {_cosine(smooth.median())} of SmoothCAFO to CAFO "
        f"(n = {len(plain)})."
    )


def _agreements(tables: Tables) -> str:
    told = []
    for pair in _PAIRS:
        cosines = _pair(tables, pair, "cosine")["cosine"].tolist()
        ranks = _pair(tables, pair, "rank_correlation")["rank_correlation"].tolist()
        if cosines and ranks:
            names = " and ".join(NAMES[name] for name in pair)
            told.append(f"{names} {_range(cosines)} (of pixels' ranks {_range(ranks)})")
    return f"Cosines between maps, over all images: {'; '.join(told)}." if told else ""


def _image_by_image(tables: Tables) -> str:
    images = _images(tables)
    told = []
    for row in images.itertuples():
        found = _pair(tables, ("cafo", "caso"), "cosine")
        found = found[found["image_id"] == row.image_id]
        if len(found):
            told.append(
                f"{pixels.said(tables, row)} {_cosine(found['cosine'].iloc[0])} (ranks "
                f"{_cosine(found['rank_correlation'].iloc[0])})"
            )
    return f"CASO to CAFO image by image: {'; '.join(told)}." if told else ""


def _same_l1(tables: Tables) -> str:
    """Say on how many images CAFO and CASO have the same λ₁, without which their cosine says little."""
    rows = succeeded(tables["context_aware"])
    first, second = (
        rows[rows["method"] == name].set_index("image_id")["lambda1"].astype(float).rename(name)
        for name in ("cafo", "caso")
    )
    l1 = first.to_frame().join(second, how="inner")
    if l1.empty:
        return ""
    same = int(np.isclose(l1["cafo"], l1["caso"]).sum())
    return f"CAFO and CASO have the same λ₁ on {same} of {count(len(l1), 'image')}; each has its own choice."


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, how maps were made visible, and the n."""
    images, methods = _images(tables), _methods(tables)
    rows = succeeded(tables["context_aware"])
    sparse = rows.groupby("method")["sparsity"].median()
    wrong = int(misclassified(images).sum())
    return sentences(
        finding(tables),
        _agreements(tables),
        _image_by_image(tables),
        _same_l1(tables),
        f"Maps by {listing(NAMES[name] for name in methods)} of {count(len(images), 'image')}, from the "
        "surest prediction to the least sure" + (f", {wrong} of them misclassified (red)." if wrong else "."),
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
        for row in _images(tables).itertuples()
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
