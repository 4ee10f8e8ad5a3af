"""How far a piecewise-linear network's gradient stays what it is, against the radii that are asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.spectra import smooth_name
from curvelens.figures.wording import count, number, percent, plain, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


def relu_rows(tables: Tables) -> DataFrame:
    """Return the rows of piecewise-linear networks, which alone have linear regions."""
    rows = succeeded(tables["spectra"])
    return rows[rows["activation"] == "relu"]


def asked_radii(tables: Tables) -> list[float]:
    """Return the radii that P_MSE is measured at, ascending; empty without that table."""
    summary = tables.get("fidelity")
    return [] if summary is None else sorted(summary["radius"].dropna().unique().tolist())


def panel(axes: Axes, tables: Tables) -> None:
    """Draw the distribution of the distance to the border of the linear region into ``axes``."""
    radius = np.sort(relu_rows(tables)["region_radius"].dropna().to_numpy(float))
    radius = radius[radius > 0]
    axes.set_xlabel("L2 distance to the border of the linear region\n(pixels in [0, 1], log scale)")
    axes.set_ylabel("share of images whose\nregion ends closer")
    if not radius.size:
        style.empty(axes, "no image with a region radius")
        return
    axes.set_xscale("log")
    share = np.arange(1, radius.size + 1) / radius.size
    axes.step(np.r_[radius[0], radius], np.r_[0, share], where="post", color=style.RELU)
    axes.plot(radius, share, "o", color=style.RELU, markersize=3)
    asked = asked_radii(tables)
    for value in asked:
        axes.axvline(value, color=style.QUIET, linestyle=":", linewidth=1.2)
    low, high = radius.min(), max([radius.max(), *asked])
    axes.set_xlim(low / 1.6, high * 1.6)
    axes.set_ylim(0, 1.04)
    if asked:
        text = "radii ε of the\nquestions below "
        axes.text(asked[0], 0.04, text, ha="right", va="bottom", fontsize=8.5, color=style.QUIET)


def _crossings(axes: Axes, rows: DataFrame) -> None:
    both = rows[["regions_crossed", "gradient_change"]].dropna().to_numpy(float)
    axes.set_xlabel("borders of linear regions\non the segment")
    axes.set_ylabel("change of the gradient\n(share of its norm)")
    axes.set_title("Borders crossed, ReLU")
    if not len(both):
        style.empty(axes, "no segment was followed")
        return
    axes.plot(both[:, 0], both[:, 1], "o", color=style.RELU, markerfacecolor="none")
    axes.set_xlim(0, both[:, 0].max() * 1.1 + 1)
    axes.set_ylim(0, both[:, 1].max() * 1.15 or 1)
    style.integers(axes.xaxis)


def _changes(axes: Axes, tables: Tables) -> None:
    rows = succeeded(tables["spectra"])
    curved = rows[rows["activation"] != "relu"]
    name_of_curved = smooth_name(curved)
    networks = {"ReLU": rows[rows["activation"] == "relu"], name_of_curved: curved}
    axes.set_xlabel("change of the gradient\non the segment (share of its norm)")
    axes.set_ylabel("share of images with less")
    axes.set_title(f"ReLU against {name_of_curved}")
    drawn = False
    for (name, part), colour in zip(networks.items(), (style.RELU, style.SOFTPLUS), strict=True):
        change = np.sort(part["gradient_change"].dropna().to_numpy(float))
        if change.size:
            share = np.arange(1, change.size + 1) / change.size
            line = "-" if name == "ReLU" else "--"
            axes.step(
                np.r_[0, change], np.r_[0, share], where="post", color=colour, linestyle=line, label=name
            )
            drawn = True
    if not drawn:
        style.empty(axes, "no segment was followed")
        return
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.04)
    axes.legend(loc="lower right")


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw region radius, borders crossed, and how far the gradient changes on the way."""
    figure, axes = style.panels(layout, 3, height=3.0)
    panel(axes[0], tables)
    axes[0].set_title("Region radius, ReLU")
    _crossings(axes[1], relu_rows(tables))
    _changes(axes[2], tables)
    return figure


def headline(tables: Tables) -> str:
    """Return a few words for the first page's panel."""
    median = relu_rows(tables)["region_radius"].median()
    return f"The ReLU gradient is constant within {number(median)}" if median == median else "Linear regions"


def finding(tables: Tables) -> str:
    """Say how the linear region compares with the smallest radius that is asked about."""
    radius = relu_rows(tables)["region_radius"].dropna()
    if radius.empty:
        return ""
    asked = asked_radii(tables)
    median = number(radius.median())
    if not asked:
        return (
            f"A ReLU gradient is exact nearby: within a median L2 distance of {median} (n = {len(radius)})."
        )
    smallest = f"the smallest radius at which local models are compared, {plain(asked[0])}"
    if radius.median() < asked[0]:
        return (
            f"A ReLU gradient is exact only very near the image: within a median L2 distance of {median}, "
            f"{number(asked[0] / radius.median())} times less than {smallest} (n = {len(radius)})."
        )
    inside = percent((radius >= asked[0]).mean())
    return (
        f"A ReLU gradient is exact as far as it is used: within a median L2 distance of {median}, and beyond "
        f"{smallest}, for {inside} of the images (n = {len(radius)})."
    )


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = relu_rows(tables)
    return sentences(
        finding(tables) or "No image gave a region radius.",
        _walk(tables),
        "First panel: cumulative share of images by exact distance to the border of their linear region.",
        "Then: change of the gradient from one end of a segment in a random direction to the other,",
        "against the borders it crosses, and for both networks.",
        f"ReLU network, {count(len(rows), 'image')}.",
    )


def _walk(tables: Tables) -> str:
    """Say what happens to the gradient along the segment, in each network."""
    rows = relu_rows(tables)
    crossed, change = rows["regions_crossed"].median(), rows["gradient_change"].median()
    if crossed != crossed or change != change:
        return ""
    jump = (rows["largest_gradient_jump"] / rows["gradient_norm"]).median()
    told = (
        f"Along the segment the ReLU network crosses a median of {plain(crossed)} borders and its "
        "gradient "
        f"changes by {percent(change)} of its norm, by at most {percent(jump)} at one border"
    )
    smooth = succeeded(tables["spectra"])
    smooth = smooth[smooth["activation"] != "relu"]
    bend = smooth["gradient_change"].median()
    other = "with SoftPlus it" if smooth_name(smooth) == "SoftPlus" else "the curved network's"
    return f"{told}; {other} changes by {percent(bend)}." if bend == bend else f"{told}."


def alt(tables: Tables) -> str:
    """Describe the picture."""
    radius = relu_rows(tables)["region_radius"].dropna()
    if radius.empty:
        return "Empty panels: no image gave a region radius."
    return sentences(
        f"Three panels. Distances to the region border run from {number(radius.min())}",
        f"to {number(radius.max())} with median {number(radius.median())}.",
        _walk(tables),
    )


register(
    FigureSpec(
        name="regions",
        tables=("spectra",),
        optional=("fidelity",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=20,
    )
)
