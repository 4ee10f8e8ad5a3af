"""Images beside their explanations, signed maps on a diverging scale and magnitudes on a sequential one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, pixels, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import count, listing, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

SHOWN = 6
QUANTILE = 0.99
NAMES = {
    "gradient": "gradient",
    "smoothgrad": "SmoothGrad",
    "vargrad": "VarGrad",
    "smoothhess": "SmoothHess",
    "integrated_gradients": "Integrated Gradients",
    "cafo": "CAFO",
    "caso": "CASO",
    "smoothcafo": "SmoothCAFO",
    "smoothcaso": "SmoothCASO",
    "cam": "CAM",
    "gradcam": "Grad-CAM",
    "gradcam_plus_plus": "Grad-CAM++",
    "lime": "LIME",
    "occlusion": "occlusion",
}
_LOSS = ("cafo", "caso", "smoothcafo", "smoothcaso")
_SIGNED, _MAGNITUDE = "RdBu_r", "Purples"


def methods_in(rows: DataFrame) -> list[str]:
    """Return the methods of an index, those known by name first."""
    present = rows["method"].unique().tolist()
    return [name for name in NAMES if name in present] + sorted(name for name in present if name not in NAMES)


def chosen(tables: Tables) -> DataFrame:
    """Return one row for each image shown: those that every method explained, the surest, the least sure, and
    errors.

    Returns:
        At most :data:`SHOWN` rows, by falling confidence; up to two are misclassified.
    """
    import pandas as pd

    rows = succeeded(tables["explanations"])
    complete = rows.groupby("image_id")["method"].nunique() == rows["method"].nunique()
    images = rows[rows["image_id"].isin(complete[complete].index)].drop_duplicates("image_id")
    images = images.sort_values(["confidence", "image_id"], ascending=[False, True])
    mistaken = misclassified(images)
    right, wrong = images[~mistaken], images[mistaken]
    wrong = wrong.head(max(2, SHOWN - len(right)))
    places = np.unique(
        np.linspace(0, len(right) - 1, min(SHOWN - len(wrong), len(right))).round().astype(int)
    )
    picked = pd.concat([right.iloc[places], wrong]) if len(wrong) else right.iloc[places]
    return picked.sort_values(["confidence", "image_id"], ascending=[False, True])


def misclassified(rows: DataFrame) -> Any:
    """Return for each row whether the true class is known and another one was predicted."""
    return (rows["label"] != rows["prediction"]) & (rows["label"] >= 0)


def _show(axes: Axes, values: np.ndarray) -> None:
    cap = float(np.quantile(np.abs(values), QUANTILE)) or float(np.abs(values).max()) or 1.0
    signed = bool((values < 0).any())
    axes.imshow(values, cmap=_SIGNED if signed else _MAGNITUDE, vmin=-cap if signed else 0, vmax=cap)


def _title(tables: Tables, row: Any) -> str:
    return f"{pixels.said(tables, row)}\n{pixels.confidence(row.confidence)}"


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one image a column on a page, one image a row on a telephone."""
    from matplotlib.figure import Figure

    images, methods = chosen(tables), methods_in(succeeded(tables["explanations"]))
    shape = (len(methods) + 1, max(len(images), 1))
    size = layout.width / (shape[1] + 0.6) if not layout.narrow else layout.width / (shape[0] + 0.4)
    height = size * (shape[1] if layout.narrow else shape[0]) * 1.04 + (0.3 if layout.narrow else 0.7)
    figure = Figure(figsize=(layout.width, height), layout="constrained")
    grid = figure.subplots(*(shape[::-1] if layout.narrow else shape), squeeze=False)
    grid = grid.T if layout.narrow else grid
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    if images.empty:
        style.empty(grid[0, 0], "no image was explained by every method")
        return figure
    for column, row in enumerate(images.itertuples()):
        grid[0, column].imshow(pixels.picture(tables, row.image_id), cmap="gray", vmin=0, vmax=255)
        text = {"fontsize": 8, "color": style.VERMILLION if 0 <= row.label != row.prediction else style.INK}
        if layout.narrow:
            grid[0, column].set_ylabel(
                style.literal(_title(tables, row)), rotation=0, ha="right", va="center", **text
            )
        else:
            grid[0, column].set_title(
                style.literal(_title(tables, row)), loc="center", fontweight="normal", **text
            )
        for place, method in enumerate(methods, 1):
            _show(grid[place, column], pixels.attribution(tables, row.image_id, method).sum(axis=0))
    for place, name in enumerate(["image", *(NAMES.get(method, method) for method in methods)]):
        if layout.narrow:
            grid[place, 0].set_title(name, loc="center", fontsize=8, fontweight="normal")
        else:
            grid[place, 0].set_ylabel(name, fontsize=9, fontweight="bold")
    return figure


def caption(tables: Tables) -> str:
    """Return what is drawn, how maps were processed, and the n."""
    rows = succeeded(tables["explanations"])
    images, methods = chosen(tables), methods_in(rows)
    wrong = int(misclassified(images).sum())
    scalars = listing(name.replace("_", " ") for name in rows["scalar"].unique())
    return sentences(
        f"Explanations of the {scalars} for {count(len(images), 'image')} from the surest to the least sure"
        + (f", {wrong} of them misclassified (red)." if wrong else "."),
        "Signed maps are shown red where a brighter pixel raises the score and blue where it lowers it"
        + (", VarGrad, which has no sign, from white to purple." if "vargrad" in methods else "."),
        "SmoothHess is the direction in which the slope changes most: pixels that act together."
        if "smoothhess" in methods
        else "",
        f"{listing(NAMES[name] for name in methods if name in _LOSS)} explain the loss of the class "
        "predicted: the change that raises it most, with its sign turned."
        if set(methods) & set(_LOSS)
        else "",
        f"Post-processing, the same for all: channels summed, each map capped at the {QUANTILE:.0%} "
        "quantile of its magnitudes "
        "and scaled by that cap; no smoothing, no multiplication by the image.",
        f"Chosen from {count(rows['image_id'].nunique(), 'explained test image')} by confidence alone.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    images = chosen(tables)
    rows = succeeded(tables["explanations"])
    told = "; ".join(_title(tables, row).replace("\n", ", ") for row in images.itertuples())
    names = listing(NAMES.get(method, method) for method in methods_in(rows))
    return f"Grid of {count(len(images), 'image')} with {names} maps. True class and confidence: {told}."


register(
    FigureSpec(
        name="explanations",
        tables=("explanations", "maps", "images"),
        optional=("models",),
        draw=draw,
        caption=caption,
        alt=alt,
        suffix=".png",
        rank=60,
    )
)
