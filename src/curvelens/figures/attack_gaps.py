"""Attacks in pairs on the same images: how far from the bound and each other, what truncation costs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.attacks import BOUND, TRUNCATED, points
from curvelens.figures.wording import count, listing, plain, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

REFERENCE = "SH+SG"
LABEL = "further predictions changed\n(95% interval)"


def _turned(rows: DataFrame) -> DataFrame:
    """Return rows with the two attacks exchanged."""
    return rows.assign(
        method=rows["other"], other=rows["method"], difference=-rows["difference"], ci_low=-rows["ci_high"],
        ci_high=-rows["ci_low"], only_method=rows["only_other"], only_other=rows["only_method"],
    )  # fmt: skip


def _pairs(tables: Tables, method: str) -> DataFrame:
    """Return ``method`` against every local model with the exact step."""
    rows = tables["attacks_paired"]
    both = [
        part for part in (rows[rows["method"] == method], _turned(rows[rows["other"] == method])) if len(part)
    ]
    if not both:
        return rows.head(0)
    import pandas as pd

    found = pd.concat(both, ignore_index=True)
    return found[~found["other"].isin(["Random", BOUND]) & ~found["other"].str.endswith(TRUNCATED)]


def bound(tables: Tables) -> DataFrame:
    """Return PGD against every local model: ``difference`` is what it changes beyond ``other``."""
    return _pairs(tables, BOUND)


def reference(tables: Tables) -> DataFrame:
    """Return SH+SG against every other local model."""
    return _pairs(tables, REFERENCE)


def truncation(tables: Tables) -> DataFrame:
    """Return every exact step against the truncated one of the same local model."""
    rows = tables["attacks_paired"]
    found = rows[rows["other"] == rows["method"] + TRUNCATED]
    return found.assign(other=found["method"])


PANELS = {
    "PGD beyond each local model": bound,
    "SH+SG beyond each other model": reference,
    "Exact beyond truncated step": truncation,
}


def _panel(axes: Axes, rows: DataFrame) -> None:
    methods = style.order(rows["other"])
    sizes = sorted(rows["epsilon"].unique())
    gap = min((b - a for a, b in pairwise(sizes)), default=sizes[0])
    axes.axhline(0, color=style.QUIET, linestyle=":", linewidth=1.2)
    for place, method in enumerate(methods):
        line = rows[rows["other"] == method].sort_values("epsilon")
        shift = (place - (len(methods) - 1) / 2) * gap * 0.12
        bars = [
            (line["difference"] - line["ci_low"]).clip(lower=0),
            (line["ci_high"] - line["difference"]).clip(lower=0),
        ]  # fmt: skip
        axes.errorbar(
            line["epsilon"] + shift, line["difference"], yerr=bars, label=method, elinewidth=0.9, capsize=1.5,
            **style.mark(method, methods).arguments(),
        )  # fmt: skip


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw the differences that there are."""
    from matplotlib.ticker import FuncFormatter

    shown = {title: rows for title, of in PANELS.items() if len(rows := of(tables))}
    figure, axes = style.panels(layout, max(1, len(shown)), height=3.0)
    if not shown:
        style.empty(axes[0], "no pair of attacks was compared")
        return figure
    handles: dict[str, Any] = {}
    for each, (title, rows) in zip(axes, shown.items(), strict=True):
        _panel(each, rows)
        style.title(each, title)
        each.set_xlabel("attack size ε (L2, pixels in [0, 1])")
        each.set_xlim(left=0)
        each.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}%".replace("-", "−")))
        drawn, labels = each.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    axes[0].set_ylabel(LABEL)
    if layout.narrow:
        for each in axes[1:]:
            each.set_ylabel(LABEL)
    names = style.order(handles)
    columns = 3 if layout.narrow else 7
    figure.legend([handles[name] for name in names], names, loc="outside lower center", ncols=columns)
    return figure


def _widest(rows: DataFrame) -> str:
    """Return the size of the largest difference, with its interval, in words."""
    row = rows.loc[rows["difference"].idxmax()]
    return (
        f"{points(row['difference'])} (95% interval {points(row['ci_low'], unit=False)} to "
        f"{points(row['ci_high'], unit=False)}) at ε = {plain(row['epsilon'])}"
    )


def finding(tables: Tables) -> str:
    """Say how far the strongest local model is from the bound."""
    rows = bound(tables)
    if rows.empty:
        return ""
    best = rows.groupby("other")["difference"].mean().idxmin()
    of_best = rows[rows["other"] == best]
    clear = of_best[of_best["ci_low"] > 0]["epsilon"]
    start = (
        f"Iterating still finds more than {best}, the local model that comes closest"
        if len(clear)
        else f"{best} attacks as well as iterating does, as far as this many images tell"
    )
    where = f"at ε = {listing(plain(size) for size in clear)}" if len(clear) else "at no size"
    return (
        f"{start}: what PGD changes beyond it is largest with {_widest(of_best)}, and beyond chance {where} "
        f"(n = {int(of_best['images'].min())})."
    )


def _against_others(tables: Tables) -> str:
    rows = reference(tables)
    stronger, weaker = rows[rows["ci_low"] > 0], rows[rows["ci_high"] < 0]
    if rows.empty:
        return ""
    if stronger.empty and weaker.empty:
        return f"Nothing tells {REFERENCE} from any other local model beyond chance."
    return sentences(*(
        f"{REFERENCE} is {word} beyond chance than {_where(part)}."
        for word, part in (("stronger", stronger), ("weaker", weaker)) if len(part)
    ))  # fmt: skip


def _where(rows: DataFrame) -> str:
    return listing(
        f"{name} at ε = {listing(plain(size) for size in sorted(rows[rows['other'] == name]['epsilon']))}"
        for name in style.order(rows["other"])
    )


def _cost(tables: Tables) -> str:
    rows = truncation(tables)
    if rows.empty:
        return ""
    parts = {name: rows[rows["other"] == name] for name in style.order(rows["other"])}
    costly = {name: part for name, part in parts.items() if part["difference"].max() > 0}
    told = [f"{name} at most {_widest(part)}" for name, part in costly.items()]
    free = [name for name in parts if name not in costly]
    if free:
        told.append(f"{listing(free)} nothing on these images")
    return f"Truncating the step to the leading eigenvectors costs {listing(told)}."


def caption(tables: Tables) -> str:
    """Return the finding, the other comparisons, what is drawn, and the n."""
    rows = tables["attacks_paired"]
    if rows.empty:
        return "No pair of attacks was compared."
    return sentences(
        finding(tables),
        _against_others(tables),
        _cost(tables),
        "Differences in the share of predictions changed, on the same images, with 95% intervals for paired",
        "proportions (Bonett and Price 2012), each for itself: of twenty, one may exclude zero by chance.",
        f"{count(int(rows['images'].max()), 'test image')}.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    told = [f"{title}: at most {_widest(rows)}" for title, of in PANELS.items() if len(rows := of(tables))]
    if not told:
        return "Empty panel: no pair of attacks was compared."
    return f"Differences between attacks against attack size, with error bars. {'; '.join(told)}."


register(
    FigureSpec(
        name="attack_gaps",
        tables=("attacks_paired",),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=52,
    )
)
