"""From a smooth network to nearly a ReLU network: what becomes of the Hessian as SoftPlus gets sharper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.spectra import SIGNS
from curvelens.figures.wording import count, number, percent, plain, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


def sharpness_rows(tables: Tables) -> DataFrame:
    """Return the rows of the series of growing sharpness, by beta."""
    rows = succeeded(tables["spectra_sweep"])
    return rows[rows["series"] == "sharpness"].sort_values(["beta", "image_id"])


def _beta(axes: Axes, rows: DataFrame, column: str, label: str, log: bool = True) -> None:
    """Draw each image's values thin and their median bold, over beta."""
    axes.set_xscale("log")
    if log:
        axes.set_yscale("symlog", linthresh=_least(rows[column].to_numpy(float)), linscale=0.3)
    for _, part in rows.groupby("image_id"):
        axes.plot(part["beta"], part[column], color=style.SOFTPLUS, linewidth=0.6, alpha=0.4)
    medians = rows.groupby("beta")[column].median()
    axes.plot(medians.index, medians, "o-", color=style.SOFTPLUS, linewidth=2.2, markersize=4)
    axes.set(xlabel="sharpness β of SoftPlus", ylabel=label)


def _least(values: np.ndarray) -> float:
    """Return where the axis turns linear, so that it has a zero: a power of ten below the lower quartile."""
    positive = values[values > 0]
    return float(10.0 ** np.floor(np.log10(np.quantile(positive, 0.25)))) if positive.size else 1.0


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw spectral radius, signs, effective rank and the distance of the gradient over the sharpness."""
    from matplotlib.ticker import PercentFormatter

    rows = sharpness_rows(tables)
    figure, axes = style.panels(layout, 4, height=2.7, columns=2)
    if rows.empty:
        for panel in axes:
            style.empty(panel, "no surrogate was compared")
        return figure
    _beta(axes[0], rows, "spectral_radius", "largest |λ|\n(logit per squared unit of L2)")
    axes[0].set_title("Curvature")
    means = rows.groupby("beta")[list(SIGNS)].mean()
    for (column, colour), marks in zip(SIGNS.items(), ("o-", "x:", "s--"), strict=True):
        label = column.removesuffix("_share").replace("_", " ")
        shade = style.QUIET if column == "near_zero_share" else colour
        axes[1].plot(means.index, means[column], marks, color=shade, label=label, markersize=4)
    axes[1].set_xscale("log")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[1].set(xlabel="sharpness β of SoftPlus", ylabel="share of eigenvalues, mean", ylim=(-0.03, 1.03))
    axes[1].set_title("Signs")
    axes[1].legend(loc="center right", frameon=True, framealpha=0.9, edgecolor="none")
    _beta(axes[2], rows, "effective_rank", "effective rank")
    axes[2].set_title("Directions that curve")
    _beta(axes[3], rows, "gradient_deviation", "distance from the ReLU gradient\n(share of its norm)")
    axes[3].set_title("Gradient")
    return figure


def course(rows: DataFrame) -> dict[str, float]:
    """Return how curvature runs from the smoothest to the sharpest surrogate.

    Args:
        rows: From :func:`sharpness_rows`, not empty.

    Returns:
        Medians over images: ``first`` and ``last`` spectral radius, ``top`` and ``at``, the largest and its
        beta; ``zero``: share of images whose Hessian is zero at the sharpest; effective ``rank`` there and
        ``first_rank``; ``deviation`` of the gradient there and ``first_deviation``.
    """
    medians = rows.groupby("beta")[["spectral_radius", "effective_rank", "gradient_deviation"]].median()
    radius = medians["spectral_radius"]
    largest = rows.groupby("image_id")["spectral_radius"].transform("max")
    gone = rows["spectral_radius"] <= 1e-6 * largest
    zero = gone[rows["beta"] == rows["beta"].max()].mean()
    return {
        "first": float(radius.iloc[0]), "last": float(radius.iloc[-1]), "top": float(radius.max()),
        "at": float(radius.idxmax()), "zero": float(zero), "rank": float(medians["effective_rank"].iloc[-1]),
        "first_rank": float(medians["effective_rank"].iloc[0]),
        "deviation": float(medians["gradient_deviation"].iloc[-1]),
        "first_deviation": float(medians["gradient_deviation"].iloc[0]),
    }  # fmt: skip


def near(share: float) -> str:
    """Return a small share as a percentage, ``less than 0.1%`` where it would read as none."""
    return "less than 0.1%" if share < 1e-3 else percent(share, 1 if share < 0.1 else 0)


def finding(tables: Tables) -> str:
    """Say whether curvature fades towards ReLU or grows first."""
    rows = sharpness_rows(tables)
    if rows.empty:
        return ""
    run, low, high = course(rows), rows["beta"].min(), rows["beta"].max()
    ends = f"from β = {plain(low)} to {plain(high)}"
    if run["top"] > 2 * max(run["first"], run["last"]):
        return (
            f"Curvature does not fade towards ReLU, it first concentrates: {ends} the median spectral radius "
            f"rises from {number(run['first'])} to {number(run['top'])} at β = {plain(run['at'])}, then "
            f"falls to {number(run['last'])}, while the effective rank goes from {number(run['first_rank'])} "
            f"to {number(run['rank'])}."
        )
    if run["last"] >= run["first"]:
        return (
            f"Curvature grows towards ReLU: {ends} the median spectral radius goes from "
            f"{number(run['first'])} to {number(run['last'])}; the limit, zero, lies beyond."
        )
    return (
        f"Curvature fades towards ReLU: {ends} the median spectral radius falls from {number(run['first'])} "
        f"to {number(run['last'])}."
    )


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = sharpness_rows(tables)
    if rows.empty:
        return "No surrogate was compared."
    run = course(rows)
    return sentences(
        finding(tables),
        f"At the sharpest the Hessian is zero to a millionth of its largest for {percent(run['zero'])} of "
        f"the images, and the gradient is {near(run['deviation'])} of its norm from that of the ReLU "
        f"network ({percent(run['first_deviation'])} at the smoothest).",
        "SoftPlus surrogates of the ReLU network; Hessian of the predicted class's logit; one thin line an "
        f"image, medians bold ({count(rows['image_id'].nunique(), 'image')}). The axes are logarithmic, "
        "linear near zero.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = sharpness_rows(tables)
    if rows.empty:
        return "Empty panels: no surrogate was compared."
    medians = rows.groupby("beta")["spectral_radius"].median()
    told = ", ".join(f"{number(value)} at β = {plain(beta)}" for beta, value in medians.items())
    return f"Four panels over the sharpness β. Median spectral radius: {told}."


register(
    FigureSpec(
        name="spectra_sharpness",
        tables=("spectra_sweep",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=22,
    )
)
