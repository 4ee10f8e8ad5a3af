"""How far apart two intervals of an exhalation interact, with wide and with narrow convolution kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import count, number, percent, plain, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

NETWORKS = ("wide", "narrow")
_COLOURS = {"wide": style.BLUE, "narrow": style.VERMILLION}
_LINES = {"wide": "-", "narrow": "--"}
_MARGIN = 0.1  # shares that differ by less are called equal


def matrix(tables: Tables, curve: str, network: str) -> np.ndarray:
    """Return the interactions of a curve's intervals, [m, m], in 1/L."""
    found = tables["spirometry_interactions"]
    rows = found[(found["image_id"] == curve) & (found["network"] == network)]
    if rows.empty:
        return np.zeros((0, 0))
    size = int(rows["second"].max()) + 1
    values = np.zeros((size, size))
    first, second = rows["first"].to_numpy(int), rows["second"].to_numpy(int)
    values[first, second] = values[second, first] = rows["interaction"]
    return values


def _explained(tables: Tables) -> DataFrame:
    return succeeded(tables["spirometry_explanations"])


def shown(tables: Tables) -> str:
    """Return the curve that is drawn: the first with an early cough, else the first; "" if there is none."""
    rows = _explained(tables)
    coughing = rows[rows["group"] == "early cough"]
    chosen = coughing if len(coughing) else rows
    return "" if chosen.empty else str(chosen["image_id"].iloc[0])


def _width(tables: Tables, network: str) -> str:
    rows = tables["spirometry_networks"]
    widths = rows.loc[rows["predictor"] == network, "kernel_width"].dropna()
    return "" if widths.empty else str(int(widths.iloc[0]))


def _heat_map(axes: Axes, tables: Tables, network: str) -> None:
    values = matrix(tables, shown(tables), network)
    style.title(axes, f"{network.capitalize()} kernels, {_width(tables, network)} samples")
    if not values.size:
        style.empty(axes, "not explained")
        return
    # A few large entries would leave the rest white.
    top = float(np.quantile(np.abs(values), 0.99)) or 1.0
    end = 0.5 * len(values)
    image = axes.imshow(
        values, cmap="RdBu_r", vmin=-top, vmax=top, origin="lower", extent=(0, end, 0, end), aspect="equal"
    )
    axes.grid(visible=False)
    axes.set(xlabel="time (s)", ylabel="time (s)")
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.colorbar(image, ax=axes, label="interaction (1/L)", extend="both", shrink=0.75)


def within(tables: Tables, network: str) -> np.ndarray:
    """Return the share of |interaction| at a distance of at most 0, 0.5, 1 … s, [curves, m]."""
    shares = []
    for curve in dict.fromkeys(_explained(tables)["image_id"]):
        size = np.abs(matrix(tables, curve, network))
        if size.size:
            shares.append(_cumulated(size))
    return np.array(shares) if shares else np.zeros((0, 0))


def _cumulated(size: np.ndarray) -> np.ndarray:
    """Return the share of a matrix's sum at a distance of at most 0, 1 … from its diagonal."""
    apart = np.abs(np.subtract.outer(np.arange(len(size)), np.arange(len(size))))
    return np.cumsum(np.bincount(apart.ravel(), size.ravel())) / (size.sum() or 1.0)


def _distances(axes: Axes, tables: Tables) -> None:
    axes.set(xlabel="distance, at most (s)", ylabel="share of |interaction|", ylim=(0, 1.03))
    style.title(axes, "Nearness of all pairs")
    found = {network: within(tables, network) for network in NETWORKS}
    found = {network: shares for network, shares in found.items() if shares.size}
    if not found:
        style.empty(axes, "no curve was explained")
        return
    for network, shares in found.items():
        time = 0.5 * np.arange(shares.shape[1])
        axes.plot(time, shares.T, color=_COLOURS[network], alpha=0.3, linewidth=0.8)
        axes.plot(time, shares.mean(0), _LINES[network], color=_COLOURS[network], label=network)
    axes.plot(
        time, _cumulated(np.ones((len(time), len(time)))), ":", color=style.QUIET, label="evenly spread"
    )
    rows = _explained(tables)
    axes.axvline(float(rows["near"].iloc[0]), color=style.QUIET, linewidth=0.8)
    axes.legend(loc="lower right")


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw both heat maps of one curve, and over all curves how far interactions reach."""
    figure, axes = style.panels(layout, 3, height=3.2)
    for each, network in zip(axes, NETWORKS, strict=False):
        _heat_map(each, tables, network)
    _distances(axes[2], tables)
    return figure


def _mean(tables: Tables, network: str, column: str) -> float:
    rows = _explained(tables)
    return float(rows.loc[rows["network"] == network, column].astype(float).mean())


def finding(tables: Tables) -> str:
    """Say whether narrow kernels keep interactions local."""
    rows = _explained(tables)
    if set(rows["network"]) != set(NETWORKS):
        return ""
    narrow, wide = (_mean(tables, name, "near_energy") for name in ("narrow", "wide"))
    if np.isnan(narrow) or np.isnan(wide):
        return ""
    verdict = (
        "Narrow kernels keep interactions local"
        if narrow > wide + _MARGIN
        else "Narrow kernels do not keep interactions more local than wide ones"
    )
    return (
        f"{verdict}: {percent(narrow)} of the squared interactions between intervals of an exhalation lie "
        f"within {plain(float(rows['near'].iloc[0]))} s of each other with kernels of "
        f"{_width(tables, 'narrow')} samples, {percent(wide)} with kernels of {_width(tables, 'wide')} "
        f"(n = {count(rows['image_id'].nunique(), 'curve')}, mean distance "
        f"{number(_mean(tables, 'narrow', 'energy_distance'))} s against "
        f"{number(_mean(tables, 'wide', 'energy_distance'))} s)."
    )


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = _explained(tables)
    if rows.empty:
        return "No curve was explained."
    near = plain(float(rows["near"].iloc[0]))
    shares = {name: percent(_mean(tables, name, "near_share")) for name in NETWORKS}
    errors = ", ".join(f"{name} {percent(_mean(tables, name, 'interaction_error'))}" for name in NETWORKS)
    return sentences(
        finding(tables),
        f"Samples further apart than {near} s cannot interact through the narrow kernels: exact is 100%,",
        "and what lies beyond in the picture is noise. Squares are estimated from independent repeats, where",
        f"noise cancels; of |interaction|, where it does not, {shares['narrow']} and {shares['wide']} lie",
        "within. SmoothHess summed over pairs of intervals of 0.5 s, of the same curve in both maps; colours",
        f"end at the 99th percentile of each. Standard error over size: {errors}. Last panel: thin lines are",
        f"curves, bold ones their mean, the vertical line {near} s;",
        f"{count(rows['image_id'].nunique(), 'curve')}. After Torop et al. (2023), Fig. 4, which does not",
        "state the narrow width.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = _explained(tables)
    if rows.empty:
        return "Empty panels: no curve was explained."
    return (
        "Two heat maps of interactions between half seconds of one exhalation, and the share of interaction "
        f"against distance. Mean distance {number(_mean(tables, 'wide', 'mean_distance'))} s with wide and "
        f"{number(_mean(tables, 'narrow', 'mean_distance'))} s with narrow kernels."
    )


register(
    FigureSpec(
        name="spirometry_interactions",
        tables=("spirometry_explanations", "spirometry_interactions", "spirometry_networks"),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=71,
    )
)
