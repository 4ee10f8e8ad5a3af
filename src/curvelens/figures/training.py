"""How the networks were trained: loss and accuracy by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.wording import count, listing, number, percent, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_COLOURS = (style.VERMILLION, style.BLUE, style.GREEN, style.PURPLE, style.ORANGE)


def _networks(tables: Tables) -> list[tuple[str, DataFrame]]:
    return [
        (str(name), rows.sort_values("epoch"))
        for name, rows in tables["history"].groupby("model", sort=False)
    ]


def _curves(axes: Axes, tables: Tables, column: str) -> None:
    for (name, rows), colour in zip(_networks(tables), _COLOURS * 9, strict=False):
        axes.plot(rows["epoch"], rows[f"validation_{column}"], color=colour, label=f"{name}, validation")
        axes.plot(rows["epoch"], rows[column], color=colour, linestyle=":", label=f"{name}, training")
    axes.set_xlabel("epoch")
    style.integers(axes.xaxis)


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw loss and accuracy of every network."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = style.panels(layout, 2, height=2.7)
    _curves(axes[0], tables, "loss")
    axes[0].set_ylabel("mean cross-entropy (nat)")
    positive = tables["history"][["loss", "validation_loss"]].min().min() > 0
    axes[0].set_yscale("log" if positive else "linear")
    _curves(axes[1], tables, "accuracy")
    axes[1].set_ylabel("images classified correctly")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 if layout.narrow else 4)
    return figure


def caption(tables: Tables) -> str:
    """Return how training ended, and what is drawn."""
    ends = [(name, rows.iloc[-1]) for name, rows in _networks(tables)]
    told = listing(
        f"{name} ends at {percent(end['validation_accuracy'], 1)} of validation images right after "
        f"{count(int(end['epoch']), 'epoch')} (cross-entropy {number(end['validation_loss'])}, in training "
        f"{number(end['loss'])})"
        for name, end in ends
    )
    return sentences(
        f"{told}.",
        "Training curves (dotted) are measured on each batch before its update,",
        "validation curves (solid) after each epoch.",
        f"{count(len(ends), 'network')}, one run each.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    told = (
        f"{name}: validation loss from {number(rows['validation_loss'].iloc[0])} to "
        f"{number(rows['validation_loss'].iloc[-1])}, "
        f"accuracy from {percent(rows['validation_accuracy'].iloc[0], 1)} to "
        f"{percent(rows['validation_accuracy'].iloc[-1], 1)}"
        for name, rows in _networks(tables)
    )
    return f"Two panels of curves over epochs, loss and accuracy. {'; '.join(told)}."


register(FigureSpec(name="training", tables=("history",), draw=draw, caption=caption, alt=alt, rank=70))
