"""CAFO, CASO and the clipped gradient as λ₁ grows, the one chosen marked (Singla et al. 2019, Fig. 3)."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import entry, succeeded
from curvelens.figures.pixels import confidence, picture, said
from curvelens.figures.wording import count, listing, number, percent, sentences
from curvelens.summaries.sparsity import CAFO, CASO, CLIPPED, METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

IMAGES = 2
COLUMNS = 6
SPARSEST = 0.999  # beyond it there is nothing to see
QUANTILE = 0.99
CHOSEN = style.GREEN
_MAP = "Greys"
_LABELS = {CAFO: "CAFO", CASO: "CASO", CLIPPED: "clipped\ngradient"}


def rows_of(tables: Tables) -> DataFrame:
    """Return the rows of the kind of block that is followed along λ₁: the first one named."""
    rows = succeeded(tables["sparsity"])
    if rows.empty:
        return rows
    first = str(tables["sparsity_maps"][0]["blocks"][0][0])
    return rows[rows["block"] == first]


def shown(rows: DataFrame) -> list[str]:
    """Return the images drawn: the surest and the least sure, at most :data:`IMAGES`."""
    images = rows.drop_duplicates("image_id").sort_values(["confidence", "image_id"], ascending=[False, True])
    places = np.unique(np.linspace(0, len(images) - 1, min(IMAGES, len(images))).round().astype(int))
    return images["image_id"].iloc[places].tolist() if len(images) else []


def penalty(l1: float) -> str:
    """Return λ₁ with as many digits as it takes, three at most: ``10⁻⁵`` and its halvings are short."""
    digits = next((n for n in (1, 2) if math.isclose(float(f"{l1:.{n - 1}e}"), l1, rel_tol=1e-9)), 3)
    return number(l1, digits)


def nines(sparsity: float) -> float:
    """Return −log₁₀(1 − η), which tells very sparse explanations apart."""
    return -math.log10(max(1 - sparsity, 1e-9))


def columns(rows: DataFrame) -> list[float]:
    """Return the λ₁ drawn of one image, rising: the chosen ones, and others that spread η evenly.

    Args:
        rows: Of one image and kind of block.
    """
    caso = rows[(rows["method"] == CASO) & ((rows["sparsity"] < SPARSEST) | rows["chosen"].astype(bool))]
    place = {float(row.lambda1): nines(row.sparsity) for row in caso.itertuples()}
    picked = [float(l1) for l1 in rows.loc[rows["chosen"].astype(bool), "lambda1"].unique() if l1 in place]
    while len(picked) < min(COLUMNS, len(place)):
        rest = [l1 for l1 in place if l1 not in picked]
        gaps = {l1: min((abs(place[l1] - place[p]) for p in picked), default=0.0) for l1 in rest}
        picked.append(max(rest, key=lambda l1: (gaps[l1], -l1)))
    return sorted(picked)


def scaled(values: np.ndarray) -> np.ndarray:
    """Return magnitudes [H, W] capped at their 99 % quantile, in [0, 1] (Singla et al. 2019, App. D)."""
    cap = float(np.quantile(values, QUANTILE)) or float(values.max()) or 1.0
    return np.minimum(values / cap, 1.0)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(style.GRID)


def _panel(axes: Axes, values: np.ndarray, row: Any) -> None:
    """Draw one map with η below it; a box marks the one chosen."""
    axes.imshow(scaled(values), cmap=_MAP, vmin=0, vmax=1)
    boxed = bool(row.chosen) and row.method != CLIPPED
    digits = 3 if row.sparsity < 0.9995 else 4
    axes.set_xlabel(
        f"η = {row.sparsity:.{digits}f}" + (" ✓" if boxed else ""),
        fontsize=7.5,
        fontweight="bold" if boxed else "normal",
        color=CHOSEN if boxed else style.INK,
        labelpad=2,
    )
    if boxed:
        axes.spines[:].set_color(CHOSEN)
        axes.spines[:].set_linewidth(2.2)


def _image(grid: np.ndarray, tables: Tables, rows: DataFrame, image_id: str, narrow: bool) -> None:
    """Draw one image into ``grid``: [methods, 1 + λ₁], the photograph in the first column."""
    found = entry(tables["sparsity_maps"], image_id)
    pixels = picture(tables, image_id)
    of_image = rows[rows["image_id"] == image_id]
    grid[0, 0].imshow(pixels, cmap="gray", vmin=0, vmax=255)
    grid[0, 0].set_visible(True)
    first = next(of_image.itertuples())
    text = style.literal(textwrap.fill(said(tables, first), 16 if narrow else 20))
    below = grid[0, 0].text(
        0.5, -0.03, f"{text}\n{confidence(first.confidence)}",
        fontsize=7.5, ha="center", va="top", transform=grid[0, 0].transAxes,
    )  # fmt: skip
    # On a page there is room below; the rows of maps need not make any.
    below.set_in_layout(narrow)
    for place, l1 in enumerate(columns(of_image), 1):
        stored = int(np.nanargmin(np.abs(found["lambda1"] - l1)))
        for number_, method in enumerate(METHODS):
            axes = grid[number_, place]
            axes.set_visible(True)
            row = of_image[(of_image["method"] == method) & (of_image["lambda1"] == l1)].iloc[0]
            _panel(axes, found["path"][number_, stored], row)
        if narrow:
            grid[0, place].set_ylabel(f"λ₁ = {penalty(l1)}", fontsize=7.5, labelpad=3)
        else:
            grid[0, place].set_title(f"λ₁ = {penalty(l1)}", fontsize=8, loc="center", pad=4)
    for number_, method in enumerate(METHODS):
        if narrow:
            grid[number_, 1].set_title(_LABELS[method], fontsize=8, loc="center", pad=4)
        else:
            grid[number_, 1].set_ylabel(_LABELS[method], fontsize=8.5, fontweight="bold", labelpad=4)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw a method a row and λ₁ a column on a page; the other way round on a telephone."""
    from matplotlib.figure import Figure

    rows = rows_of(tables)
    images = shown(rows)
    if not images:
        figure, axes = style.panels(layout, 1)
        style.empty(axes[0], "no image was computed")
        return figure
    wanted = [1 + len(columns(rows[rows["image_id"] == one])) for one in images]
    across, size = max(wanted), layout.width / (len(METHODS) if layout.narrow else max(wanted))
    tall = (across * (size + 0.22) + 0.3) if layout.narrow else (len(METHODS) * (size + 0.2) + 0.35)
    figure = Figure(figsize=(layout.width, tall * len(images)), layout="constrained")
    parts = figure.subfigures(len(images), 1, squeeze=False).ravel()
    for part, image_id in zip(parts, images, strict=True):
        shape = (across, len(METHODS)) if layout.narrow else (len(METHODS), across)
        grid = part.subplots(*shape, squeeze=False)
        for axes in grid.ravel():
            _bare(axes)
            axes.set_visible(False)
        _image(grid.T if layout.narrow else grid, tables, rows, image_id, layout.narrow)
    return figure


def chosen(rows: DataFrame, method: str) -> DataFrame:
    """Return the rows of the explanations chosen, one an image."""
    found: DataFrame = rows[rows["chosen"].astype(bool) & (rows["method"] == method)]
    return found


def _median(values: Any) -> float:
    return float(values.astype(float).median())


def finding(tables: Tables) -> str:
    """Say how sparse the explanations chosen are, and how they differ from a clipped gradient."""
    rows = rows_of(tables)
    if rows.empty:
        return ""
    caso, cafo = chosen(rows, CASO), chosen(rows, CAFO)
    overlap = _median(caso["jaccard_gradient"])
    own, theirs = caso["isolated"].astype(float), caso["isolated_gradient"].astype(float)
    if own.isna().all():
        return f"No λ₁ was found by sparsity: every one leaves nothing or too much (n = {len(caso)})."
    fewer, more = int((own < theirs).sum()), int((own > theirs).sum())
    claim = (
        "Sparse explanations are cleaner than a clipped gradient"
        if fewer > 2 * more
        else "Sparse explanations are no cleaner than a clipped gradient"
        if more >= fewer
        else "Sparse explanations are hardly cleaner than a clipped gradient"
    )
    return (
        f"{claim}: at equal sparsity {percent(_median(own))} of CASO's pixels have no neighbour, against "
        f"{percent(_median(theirs))} of the clipped gradient's (medians; fewer in {fewer}, more in {more} of "
        f"{count(len(caso), 'image')}); the Jaccard index of their pixels is {number(overlap)}; λ₁ chosen by "
        f"sparsity leaves a median η of {_eta(caso)} to CASO and {_eta(cafo)} to CAFO."
    )


def _eta(rows: DataFrame) -> str:
    return f"{_median(rows['sparsity']):.3f}"


def _walks(rows: DataFrame) -> str:
    """Say how often the powers of ten sufficed, and how often nothing was found."""
    caso = rows[rows["method"] == CASO]
    fine = chosen(rows, CASO)
    walked = caso[caso["step"].notna()]
    ends = walked.loc[walked.groupby("image_id")["step"].idxmax()]
    powers = int((ends["block_sparsity"] == 1).sum())
    missed = int((~fine["satisfied"].astype(bool)).sum())
    return sentences(
        f"For CASO the powers of ten suffice in {powers} of {count(len(fine), 'image')}, after a median of "
        f"{_median(walked.groupby('image_id').size()):.0f} values of λ₁;",
        f"in {missed} no λ₁ was found." if missed else "all have a λ₁ in the range.",
    )


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = rows_of(tables)
    if rows.empty:
        return "No image was computed."
    caso = chosen(rows, CASO)
    path = rows[rows["method"] == CASO]
    return sentences(
        finding(tables),
        _walks(rows),
        f"Support of CASO against CAFO of as many pixels: Jaccard index "
        f"{number(_median(caso['jaccard_cafo']), 3)} "
        "(median).",
        f"Each path of {_median(path.groupby('image_id').size()):.0f} λ₁ was solved together in "
        f"{_median(caso['products']):.0f} Hessian-vector products (medians), to a KKT residual of "
        f"{number(path['kkt_residual'].astype(float).max())} at worst.",
        "Drawn: magnitudes summed over channels, capped at their 99% quantile, black the largest; η is the "
        "share of zero pixels; the box and ✓ mark the λ₁ chosen; the clipped gradient keeps the pixels of "
        "largest magnitude, as many as CASO has.",
        f"{count(len(shown(rows)), 'image')} of {rows['image_id'].nunique()}, the surest first.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = rows_of(tables)
    if rows.empty:
        return "No image was computed."
    parts = []
    for image_id in shown(rows):
        of_image = rows[rows["image_id"] == image_id]
        l1s = columns(of_image)
        etas = of_image[(of_image["method"] == CASO) & of_image["lambda1"].isin(l1s)]["sparsity"]
        told = listing(
            f"{method} at λ₁ = {penalty(row.lambda1)} with η = {row.sparsity:.3f}"
            for method in (CAFO, CASO)
            for row in chosen(of_image, method).itertuples()
        )
        parts.append(
            f"{said(tables, next(of_image.itertuples()))}: maps that thin out from η = {etas.min():.3f} to "
            f"{etas.max():.4f} over {count(len(l1s), 'value')} of λ₁; chosen {told}"
        )
    return f"Rows of CAFO, CASO and clipped-gradient maps. {'; '.join(parts)}."


register(
    FigureSpec(
        name="sparsity_path",
        tables=("sparsity", "sparsity_maps", "images"),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        suffix=".png",
        rank=34,
    )
)
