"""How far a piecewise-linear network's gradient stays what it is, against the radii that are asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import count, number, percent, plain, ratio, sentences

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
    crossed = rows["regions_crossed"].dropna().to_numpy(float)
    axes.set_xlabel("linear regions crossed along a segment")
    axes.set_ylabel("images")
    if not crossed.size:
        style.empty(axes, "no segment was followed")
        return
    axes.hist(crossed, bins=min(12, max(3, crossed.size // 2)), color=style.RELU, edgecolor="white")
    style.integers(axes.yaxis)


def _jumps(axes: Axes, rows: DataFrame) -> None:
    both = rows[["gradient_norm", "largest_gradient_jump"]].dropna().to_numpy(float)
    axes.set_xlabel("gradient norm (logit per unit of L2)")
    axes.set_ylabel("largest jump of the gradient\nat one border (same unit)")
    if not len(both):
        style.empty(axes, "no border was crossed")
        return
    axes.plot(both[:, 0], both[:, 1], "o", color=style.RELU, markerfacecolor="none")
    axes.set_xlim(0, both[:, 0].max() * 1.08 or 1)
    axes.set_ylim(0, both[:, 1].max() * 1.12 or 1)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw region radius, regions crossed and jumps of the gradient."""
    rows = relu_rows(tables)
    figure, axes = style.panels(layout, 3, height=2.9)
    panel(axes[0], tables)
    _crossings(axes[1], rows)
    _jumps(axes[2], rows)
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
    outside = (radius < asked[0]).mean()
    if radius.median() < asked[0]:
        return (
            f"A ReLU gradient is exact only very near the image: within a median L2 distance of {median}, "
            f"{ratio(asked[0] / radius.median())} times less than the smallest radius asked about, "
            f"{plain(asked[0])} "
            f"(n = {len(radius)})."
        )
    return (
        f"A ReLU gradient is exact as far as it is asked about: within a median L2 distance of {median}, "
        "and beyond the smallest "
        f"radius, {plain(asked[0])}, for {percent(1 - outside)} of the images (n = {len(radius)})."
    )


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = relu_rows(tables)
    crossed, jump = (
        rows["regions_crossed"].median(),
        (rows["largest_gradient_jump"] / rows["gradient_norm"]).median(),
    )
    walk = (
        f"Along the segment followed from each image it crosses a median of {number(crossed, 3)} regions, "
        "and the largest "
        f"single jump is {percent(jump)} of the gradient's own norm."
        if crossed == crossed and jump == jump
        else ""
    )
    return sentences(
        finding(tables) or "No image gave a region radius.",
        walk,
        "First panel: cumulative share of images by exact distance to the nearest border of their linear "
        "region. "
        "Then: regions crossed along the segment, and the largest change of the gradient at one crossing.",
        f"ReLU network, {count(len(rows), 'image')}.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = relu_rows(tables)
    radius = rows["region_radius"].dropna()
    if radius.empty:
        return "Empty panels: no image gave a region radius."
    return (
        f"Three panels. Distances to the region border run from {number(radius.min())} to "
        f"{number(radius.max())} with median "
        f"{number(radius.median())}; regions crossed have median "
        f"{number(rows['regions_crossed'].median(), 3)}; gradient "
        f"jumps have median {number(rows['largest_gradient_jump'].median())} beside gradient norms of median "
        f"{number(rows['gradient_norm'].median())}."
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
