"""How curved is the network: eigenvalues of the full input Hessian, SoftPlus against ReLU, and verdicts."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import count, listing, number, percent, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_PHRASES = {"flat": "nearly flat", "mixed": "curved both ways"}
SIGNS = {"positive_share": style.BLUE, "near_zero_share": "#c9ced6", "negative_share": style.VERMILLION}


def smooth_rows(tables: Tables) -> DataFrame:
    """Return the rows of smooth networks, the only ones with curvature inside a region."""
    rows = succeeded(tables["spectra"])
    return rows[rows["activation"] != "relu"]


def smooth_name(rows: DataFrame) -> str:
    """Name the networks of the rows of smooth ones: SoftPlus, or `curved` where they are not all of that."""
    return "SoftPlus" if set(rows["activation"]) <= {"softplus"} else "curved"


def relu_rows(tables: Tables) -> DataFrame:
    """Return the rows of piecewise-linear networks, whose Hessian is zero inside a linear region."""
    rows = succeeded(tables["spectra"])
    return rows[rows["activation"] == "relu"]


def _curves(tables: Tables, rows: DataFrame) -> np.ndarray:
    """Return eigenvalues [images, kept], largest first; the shortest spectrum sets the length."""
    values = tables["eigenvalues"].merge(
        rows[["image_id", "model"]].drop_duplicates(), on=["image_id", "model"]
    )
    spectra = [
        np.sort(group["eigenvalue"].to_numpy(float))[::-1]
        for _, group in values.groupby("image_id", sort=True)
    ]
    if not spectra:
        return np.zeros((0, 0))
    shortest = min(len(spectrum) for spectrum in spectra)
    return np.stack([spectrum[:shortest] for spectrum in spectra])


def panel(axes: Axes, tables: Tables) -> None:
    """Draw every image's spectrum and their median into ``axes``."""
    axes.set_xlabel("rank of the eigenvalue, largest first")
    axes.set_ylabel("eigenvalue of the Hessian\n(logit per squared unit of L2)")
    smooth, relu = _curves(tables, smooth_rows(tables)), _curves(tables, relu_rows(tables))
    if not smooth.size and not relu.size:
        style.empty(axes, "no image with a spectrum")
        return
    scale = float(np.abs(smooth).max()) if smooth.size else 0.0
    if smooth.size:
        rank = np.arange(1, smooth.shape[1] + 1)
        for spectrum in smooth:
            axes.plot(rank, spectrum, color=style.SOFTPLUS, linewidth=0.6, alpha=0.3)
        axes.plot(
            rank,
            np.median(smooth, axis=0),
            color=style.SOFTPLUS,
            linewidth=2.2,
            label=f"{smooth_name(smooth_rows(tables))} (median bold)",
        )
    if relu.size:
        rank = np.arange(1, relu.shape[1] + 1)
        axes.plot(
            rank, np.median(relu, axis=0), color=style.RELU, linestyle="--", linewidth=1.8, label="ReLU"
        )
    if scale > 0:
        axes.set_yscale("symlog", linthresh=_threshold(smooth, scale), linscale=0.5)
    axes.legend(loc="upper right")


def _threshold(spectra: np.ndarray, scale: float) -> float:
    """Return where the axis turns linear: a power of ten, at most five below the largest eigenvalue."""
    middle = float(np.median(np.abs(spectra)))
    return float(10.0 ** np.floor(np.log10(max(middle, scale * 1e-4))))


def _shares(axes: Axes, rows: DataFrame, name: str) -> None:
    from matplotlib.ticker import PercentFormatter

    rows = rows.sort_values("positive_share", ascending=False)
    bottom = np.zeros(len(rows))
    place = np.arange(1, len(rows) + 1)
    axes.set_xlabel("image, by share of positive eigenvalues")
    axes.set_ylabel("share of eigenvalues")
    if rows.empty:
        style.empty(axes, "no image with a spectrum")
        return
    for column, colour in SIGNS.items():
        values = rows[column].fillna(0).to_numpy(float)
        label = column.removesuffix("_share").replace("_", " ")
        axes.bar(
            place,
            values,
            bottom=bottom,
            width=1.0,
            color=colour,
            edgecolor="white",
            linewidth=0.4,
            label=label,
        )
        bottom += values
    axes.set_xlim(0.5, len(rows) + 0.5)
    axes.set_ylim(0, 1)
    style.integers(axes.xaxis)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(False)
    axes.set_title(f"Signs, {name}")
    axes.legend(loc="lower left", frameon=True, framealpha=0.9, edgecolor="none")


def verdicts(rows: DataFrame) -> dict[str, int]:
    """Return how often each verdict was given, the most frequent first."""
    return {str(verdict): int(n) for verdict, n in rows["verdict"].value_counts().items()}


def _verdicts(axes: Axes, tables: Tables) -> None:
    name = smooth_name(smooth_rows(tables))
    parts = ((name, style.SOFTPLUS, smooth_rows(tables)), ("ReLU", style.RELU, relu_rows(tables)))
    names = [(verdict, part) for part in parts for verdict in verdicts(part[2])][::-1]
    axes.set_xlabel("images")
    axes.set_title("Verdicts")
    if not names:
        style.empty(axes, "no verdict was given")
        return
    for place, (verdict, (network, colour, rows)) in enumerate(names):
        n = verdicts(rows)[verdict]
        bar = axes.barh(place, n, height=0.62, color=colour)
        axes.bar_label(bar, labels=[f"{n} {network}"], padding=3, fontsize=8.5)
    axes.set_yticks(range(len(names)), [textwrap.fill(verdict, 13) for verdict, _ in names])
    axes.set_ylim(-0.8, len(names) - 0.2)
    axes.grid(False, axis="y")
    axes.margins(x=0.5)
    style.integers(axes.xaxis)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw spectra, shares of signs and verdict counts."""
    figure, axes = style.panels(layout, 3, height=3.0)
    panel(axes[0], tables)
    axes[0].set_title("Spectra")
    _shares(axes[1], smooth_rows(tables), smooth_name(smooth_rows(tables)))
    _verdicts(axes[2], tables)
    return figure


def headline(tables: Tables) -> str:
    """Return a few words for the first page's panel."""
    rows = smooth_rows(tables)
    network = "With SoftPlus" if smooth_name(smooth_rows(tables)) == "SoftPlus" else "Curvature"
    return (
        f"{network}: {_PHRASES.get(first, first)}"
        if (first := next(iter(verdicts(rows)), ""))
        else "Curvature"
    )


def finding(tables: Tables) -> str:
    """Say what the local geometry looks like, and how much curvature there is beside the gradient."""
    rows = smooth_rows(tables)
    if rows.empty:
        return ""
    found = verdicts(rows)
    first, times = next(iter(found.items()))
    how = f"all {len(rows)}" if times == len(rows) else f"{times} of {len(rows)}"
    network = (
        "With SoftPlus the network"
        if smooth_name(smooth_rows(tables)) == "SoftPlus"
        else "The curved network"
    )
    start = f"{network} is {_PHRASES.get(first, first)}: around {how} images"
    rank, radius = rows["effective_rank"].median(), rows["spectral_radius"].median()
    positive = (rows["largest_eigenvalue"] > -rows["smallest_eigenvalue"]).mean()
    name, dominant = ("positive", positive) if positive >= 0.5 else ("negative", 1 - positive)
    sign = f"{name} for {'all' if dominant == 1 else percent(dominant)} of them"
    size = f"the Hessian's spectral radius has median {number(radius)}, its effective rank {number(rank)}"
    return f"{start}; {size}, and its dominant eigenvalue is {sign}."


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    smooth = smooth_rows(tables)
    relu = relu_rows(tables)
    zero = int((relu["spectral_radius"] == 0).sum())
    relu_text = (
        f"The ReLU network's Hessian is exactly zero at {'all' if zero == len(relu) else f'{zero} of'} "
        f"{count(len(relu), 'image')}: "
        "its instability comes from crossing linear regions instead."
        if len(relu)
        else ""
    )
    return sentences(
        finding(tables) or "No smooth network was measured.",
        relu_text,
        "Verdicts: flat where the slope changes by less than a tenth over the segment; else convex or",
        "concave where one sign has 95% of Σ|λ|; else strongly anisotropic where the largest |λ| is ten",
        "times the mean; else mixed.",
        "First panel: eigenvalues of the full input Hessian of the largest logit, one line an image. Then: "
        "share of positive, "
        "near-zero and negative eigenvalues, one bar an image, and the verdicts.",
        f"Correctly classified test images: {listing(_sizes(smooth, relu))}.",
    )


def _sizes(smooth: DataFrame, relu: DataFrame) -> list[str]:
    sizes = ((smooth_name(smooth), smooth["image_id"].nunique()), ("ReLU", relu["image_id"].nunique()))
    return [f"n = {n} ({name})" for name, n in sizes if n]


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = smooth_rows(tables)
    if rows.empty:
        return "No spectrum of a smooth network."
    means = {name: rows[f"{name}_share"].mean() for name in ("positive", "near_zero", "negative")}
    told = listing(f"{percent(share)} {name.replace('_', ' ')}" for name, share in means.items())
    return (
        f"Eigenvalue spectra fall steeply from at most {number(rows['largest_eigenvalue'].max())} to near "
        "zero and end at "
        f"{number(rows['smallest_eigenvalue'].min())}. On average {told}. Verdicts: "
        f"{listing(f'{name} {n}' for name, n in verdicts(rows).items())}."
    )


register(
    FigureSpec(
        name="spectra",
        tables=("spectra", "eigenvalues"),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=10,
    )
)
