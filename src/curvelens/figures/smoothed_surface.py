"""The surface of a network of two features before and after smoothing (Torop et al. 2023, Fig. 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.interactions import target_of
from curvelens.figures.wording import count, listing, number, plain, sentences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Surface = tuple[float, np.ndarray, np.ndarray]


def _surfaces(tables: Tables) -> list[Surface]:
    """Return variance, coordinates ``[n]`` and values ``[n, n]`` (x₁ first) of each, the network first."""
    found = []
    for variance, part in tables["interactions_surface"].groupby("sigma_squared", sort=True):
        part = part.sort_values(["x1", "x2"])
        axis = np.unique(part["x1"].to_numpy(float))
        found.append((float(variance), axis, part["value"].to_numpy(float).reshape(len(axis), len(axis))))
    return found


def _name(variance: float) -> str:
    return "network" if variance == 0 else f"smoothed, σ² = {plain(variance)}"


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one surface for each σ², all on one scale."""
    surfaces = _surfaces(tables)
    figure, axes = style.panels(layout, len(surfaces), height=2.9, subplot_kw={"projection": "3d"})
    every = np.concatenate([values.ravel() for _, _, values in surfaces])
    limit = float(np.abs(every).max())
    panel: Any
    for panel, (variance, axis, values) in zip(axes, surfaces, strict=True):
        x1, x2 = np.meshgrid(axis, axis, indexing="ij")
        panel.plot_surface(
            x1,
            x2,
            values,
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            rcount=60,
            ccount=60,
            edgecolor=(0, 0, 0, 0.25),
            linewidth=0.2,
        )
        panel.set(xlabel="x₁", ylabel="x₂", zlabel="target", zlim=(every.min(), every.max()))
        panel.view_init(elev=28, azim=-60)
        panel.set_box_aspect(None, zoom=0.82)
        panel.locator_params(nbins=5)
        panel.set_title(_name(variance))
    return figure


def _crease(axis: np.ndarray, values: np.ndarray) -> float:
    """Return the largest second difference along x₁ or x₂, per squared unit: the sharpest crease."""
    bends = [np.abs(np.diff(values, 2, axis=along)).max() for along in (0, 1)]
    return float(max(bends) / (axis[1] - axis[0]) ** 2)


def _creases(tables: Tables) -> str:
    surfaces = _surfaces(tables)
    told = listing(
        f"{number(_crease(axis, values))} ({_name(variance)})" for variance, axis, values in surfaces
    )
    return f"The sharpest crease of the {target_of(tables)} surface, as a second difference: {told}."


def caption(tables: Tables) -> str:
    """Return what smoothing does to the surface, and what is drawn."""
    _, axis, _ = _surfaces(tables)[0]
    step = number(float(axis[1] - axis[0]))
    return sentences(
        _creases(tables),
        "A piecewise-linear network of two features, whose Hessian is zero wherever it exists, and the same",
        "network convolved with a Gaussian, which has a Hessian everywhere; all on one scale.",
        f"n = {count(len(axis) ** 2, 'point')} a surface, {step} apart; second differences along a feature,",
        "over that distance, per squared unit.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    told = listing(
        f"{_name(variance)}, from {number(float(values.min()))} to {number(float(values.max()))}"
        for variance, _, values in _surfaces(tables)
    )
    return f"Surfaces over [−2, 2]²: {told}. {_creases(tables)}"


register(
    FigureSpec(
        name="smoothed_surface",
        tables=("interactions_surface", "interactions_network"),
        draw=draw,
        caption=caption,
        alt=alt,
        suffix=".png",
    )
)
