"""One look for all figures: colours, widths, text sizes, and how a figure is written to a file.

Colours are those of Okabe and Ito, told apart with every common colour blindness; methods differ in marker
and line style as well, so that the figures survive a black-and-white print. Colour says which network is
smoothed and how; a solid line is a second-order model, a dashed line a first-order one.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#22272e"
QUIET = "#6b7480"
GRID = "#e3e6ea"
BLUE, ORANGE, GREEN, VERMILLION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY, YELLOW = "#cc79a7", "#56b4e9", "#f0e442"

RELU, SOFTPLUS = VERMILLION, BLUE

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "xtick.minor.visible": False,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "text.color": INK,
    "image.interpolation": "nearest",
    "svg.fonttype": "path",
    "svg.hashsalt": "curvelens",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Layout:
    """How much room a figure has.

    Attributes:
        name: ``wide`` for a page, ``narrow`` for a telephone (panels stand below each other).
        width: Inches.
        columns: Most panels beside each other.
    """

    name: str
    width: float
    columns: int

    @property
    def narrow(self) -> bool:
        """Whether the figure is for a telephone."""
        return self.name == "narrow"


WIDE = Layout("wide", 9.2, 3)
NARROW = Layout("narrow", 3.7, 1)


@dataclass(frozen=True)
class Mark:
    """How one method is drawn: colour, marker, line style, and whether the marker is filled."""

    colour: str
    marker: str
    line: str
    filled: bool

    def arguments(self) -> dict[str, Any]:
        """Return keyword arguments for ``Axes.plot`` and ``Axes.errorbar``."""
        face = self.colour if self.filled else "white"
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line, "markerfacecolor": face}


METHODS: dict[str, Mark] = {
    "SH+SG": Mark(BLUE, "o", "-", True),
    "SH+SG truncated": Mark(BLUE, "P", ":", True),
    "SG": Mark(BLUE, "o", "--", False),
    "SP H+G": Mark(VERMILLION, "s", "-", True),
    "SP H+G truncated": Mark(VERMILLION, "X", ":", True),
    "SP G": Mark(VERMILLION, "s", "--", False),
    "SW H+G": Mark(ORANGE, "D", "-", True),
    "SW G": Mark(ORANGE, "D", "--", False),
    "H+G": Mark(GREEN, "^", "-", True),
    "H+G truncated": Mark(GREEN, "v", ":", True),
    "G": Mark(GREEN, "^", "--", False),
    "Random": Mark(QUIET, "x", ":", True),
    "PGD": Mark(INK, "*", "-.", True),
}
_SPARE = [
    Mark(colour, marker, "-.", True)
    for colour, marker in zip((PURPLE, SKY, INK, YELLOW), "vP*X", strict=True)
]

METHOD_NAMES = {
    "SH+SG": "SmoothHess + SmoothGrad",
    "SG": "SmoothGrad",
    "SP H+G": "SoftPlus Hessian + gradient",
    "SP G": "SoftPlus gradient",
    "SW H+G": "Swish Hessian + gradient",
    "SW G": "Swish gradient",
    "H+G": "Hessian + gradient",
    "G": "gradient",
    "Random": "random direction",
    "PGD": "projected gradient descent",
}


def order(methods: Iterable[str]) -> list[str]:
    """Return the method names present, the known ones first and always in the same order."""
    present = list(dict.fromkeys(methods))
    return [name for name in METHODS if name in present] + sorted(
        name for name in present if name not in METHODS
    )


def mark(method: str, methods: Iterable[str]) -> Mark:
    """Return how ``method`` is drawn among ``methods``; unknown names get spare marks in order."""
    if method in METHODS:
        return METHODS[method]
    unknown = [name for name in order(methods) if name not in METHODS]
    return _SPARE[unknown.index(method) % len(_SPARE)]


def panels(
    layout: Layout, n: int, height: float = 2.9, columns: int | None = None, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``n`` panels, as many beside each other as the layout allows.

    Args:
        layout: The room.
        n: Panels, at least 1.
        height: Inches of one row of panels.
        columns: Panels beside each other on a wide page (default: all of them).
        kwargs: Passed to ``Figure.subplots`` (``sharey=True`` ...).

    Returns:
        The figure and its axes, row by row.
    """
    from matplotlib.figure import Figure

    across = 1 if layout.narrow else min(columns or n, n)
    down = math.ceil(n / across)
    figure = Figure(figsize=(layout.width, height * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, **kwargs).ravel().tolist()
    for spare in axes[n:]:
        spare.remove()
    return figure, axes[:n]


def title(axes: Axes, text: str) -> None:
    """Set a panel's title, broken into lines that fit the panel."""
    grid, figure = axes.get_gridspec(), axes.get_figure(root=True)
    inches = (figure.get_figwidth() if figure else WIDE.width) / (grid.ncols if grid else 1)
    # 0.8 inches are taken by the axis labels; a bold letter of 9.5 points is about 0.083 inches wide.
    axes.set_title(textwrap.fill(text, max(12, int((inches - 0.8) / 0.083))))


def integers(axis: Axis) -> None:
    """Put ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def literal(text: str) -> str:
    """Return text in which matplotlib sees no formula: a class may be called ``$5``.

    A space goes before an underscore that it begins with: legends leave such names out.
    """
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def empty(axes: Axes, message: str) -> None:
    """Say in an otherwise empty panel why there is nothing to see."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, message, ha="center", va="center", color=QUIET, transform=axes.transAxes, wrap=True)


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the same data give the same bytes.

    Args:
        figure: The figure.
        path: Ends in ``.svg`` or ``.png``.
    """
    metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    figure.savefig(path, dpi=160, metadata=metadata)
