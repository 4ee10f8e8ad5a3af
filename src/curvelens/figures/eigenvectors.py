"""Eigenvectors of the input Hessian as images: the directions in which the score bends most, up and down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.film import picture
from curvelens.figures.interpret_path import name_of
from curvelens.figures.path import class_names
from curvelens.figures.spectra import smooth_rows
from curvelens.figures.wording import count, listing, number, percent, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

SHOWN, QUANTILE = 5, 0.99


def chosen(tables: Tables) -> DataFrame:
    """Return the rows of the images shown: the first of each class, at most :data:`SHOWN` classes."""
    rows = smooth_rows(tables)
    have = {name for shard in tables["eigenvectors"] for name in shard["ids"].tolist()}
    rows = rows[rows["image_id"].isin(have)]
    first = rows.sort_values("image_id").drop_duplicates("label").sort_values("label")
    places = np.unique(np.linspace(0, len(first) - 1, min(SHOWN, len(first))).round().astype(int))
    return first.iloc[places] if len(first) else first


def pairs(tables: Tables, image_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an image's gradient ``[C, H, W]``, eigenvalues ``[2k]`` and eigenvectors ``[2k, C, H, W]``.

    The first half belongs to the largest eigenvalues, the second to the smallest. A vector's sign means
    nothing; it is turned so that the score rises along it.
    """
    for shard in tables["eigenvectors"]:
        place = np.flatnonzero(shard["ids"] == image_id)
        if place.size:
            gradient, values, vectors = (
                shard[name][place[0]] for name in ("gradient", "extreme_eigenvalues", "eigenvectors")
            )
            along = (vectors * gradient).sum((1, 2, 3), keepdims=True)
            return gradient, values, np.where(along < 0, -vectors, vectors)
    raise KeyError(image_id)


def _pixels(tables: Tables, image_id: str) -> np.ndarray:
    found = (images for images in tables["images"] if image_id in images["ids"])
    images = next(found)
    return picture(images["images"][np.flatnonzero(images["ids"] == image_id)[0]] / 255.0)


def _show(axes: Axes, values: np.ndarray, text: str) -> None:
    summed = values.sum(0)
    cap = float(np.quantile(np.abs(summed), QUANTILE)) or float(np.abs(summed).max()) or 1.0
    axes.imshow(summed, cmap="RdBu_r", vmin=-cap, vmax=cap)
    axes.set_xlabel(text, fontsize=7.5, labelpad=2)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one image a row: the image, its gradient, eigenvectors of either end with their eigenvalues."""
    from matplotlib.figure import Figure

    rows, names = chosen(tables), class_names(tables)
    kept = max((shard["extreme_eigenvalues"].shape[1] // 2 for shard in tables["eigenvectors"]), default=0)
    shown = min(kept, 1 if layout.narrow else 3)
    columns, down = 2 + 2 * shown, max(len(rows), 1)
    size = layout.width / (columns + 0.3)
    figure = Figure(figsize=(layout.width, down * size * 1.22 + 0.35), layout="constrained")
    grid = figure.subplots(down, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    if rows.empty:
        style.empty(grid[0, 0], "no spectrum")
        return figure
    heads = [
        "image",
        "gradient",
        *(f"up {i + 1}" for i in range(shown)),
        *(f"down {i + 1}" for i in range(shown)),
    ]
    for axes, head in zip(grid[0], heads, strict=True):
        axes.set_title(head, loc="center", fontsize=8.5)
    for line, row in zip(grid, rows.itertuples(), strict=True):
        gradient, values, vectors = pairs(tables, row.image_id)
        line[0].imshow(_pixels(tables, row.image_id), cmap="gray", vmin=0, vmax=1)
        name = name_of(row.label, names)[:12]
        line[0].set_xlabel(style.literal(name), fontsize=7.5, labelpad=2)
        _show(line[1], gradient, f"norm {number(float(np.linalg.norm(gradient)))}")
        half = len(values) // 2
        picked = [*range(shown), *range(half, half + shown)]
        for axes, place in zip(line[2:], picked, strict=True):
            _show(axes, vectors[place], f"λ = {number(float(values[place]))}")
    return figure


def alignment(tables: Tables) -> list[float]:
    """Return, for each image shown, the |cosine| of its gradient and its leading eigenvector."""
    found = []
    for image_id in chosen(tables)["image_id"]:
        gradient, values, vectors = pairs(tables, image_id)
        leading = vectors[int(np.abs(values).argmax())]
        size = float(np.linalg.norm(gradient))
        found.append(abs(float((gradient * leading).sum())) / size if size else 0.0)
    return found


def caption(tables: Tables) -> str:
    """Return what is drawn, how it was processed, and how the eigenvectors lie to the gradient."""
    rows = chosen(tables)
    if rows.empty:
        return "No eigenvector of a smooth network was kept."
    aligned = alignment(tables)
    how = (
        "The leading eigenvector points nearly along the gradient"
        if np.median(aligned) >= 0.9
        else "The leading eigenvector lies nearly across the gradient"
        if np.median(aligned) < 0.3
        else "The leading eigenvector shares part of its direction with the gradient"
    )
    return sentences(
        f"{how}: |cosine| {number(float(np.median(aligned)))} in the median, {number(min(aligned))} to "
        f"{number(max(aligned))} (n = {len(aligned)}).",
        f"{count(len(rows), 'image')} with the gradient of the predicted class's logit and eigenvectors of "
        "its Hessian in the smooth network: along “up” the score bends up most (largest eigenvalues), along "
        "“down” it bends down most (smallest).",
        "Each eigenvector has unit length and the sign along which the score rises. Post-processing, the "
        f"same for all: channels summed, capped at the {QUANTILE:.0%} quantile of its magnitudes and scaled "
        "by it.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    told: list[Any] = []
    names = class_names(tables)
    for row in chosen(tables).itertuples():
        _, values, _ = pairs(tables, row.image_id)
        name = name_of(row.label, names)
        told.append(f"{name}: λ from {number(float(values.max()))} to {number(float(values.min()))}")
    share = percent(float(np.mean(alignment(tables)))) if told else ""
    return (
        f"Grid of images with gradient and eigenvectors. {listing(told)}. Mean |cosine| of the leading "
        f"eigenvector with the gradient {share}."
        if told
        else "No eigenvector was kept."
    )


register(
    FigureSpec(
        name="eigenvectors",
        tables=("spectra", "eigenvectors", "images"),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        suffix=".png",
        rank=12,
    )
)
