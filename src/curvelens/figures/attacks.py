"""Which attacks work: post-hoc accuracy against attack size, and whether a local model keeps its promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import count, listing, number, percent, plain, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series


BOUND = "PGD"
TRUNCATED = " truncated"


def _rows(tables: Tables) -> DataFrame:
    """Return the summary but for truncated steps, which have a figure of their own."""
    rows = tables["attacks"].dropna(subset=["post_hoc_accuracy"])
    return rows[~rows["method"].str.endswith(TRUNCATED)]


def panel(axes: Axes, tables: Tables, legend: bool = False) -> None:
    """Draw post-hoc accuracy with its 95% intervals, one line a method, into ``axes``."""
    rows = _rows(tables)
    axes.set_xlabel("attack size ε (L2, pixels in [0, 1])")
    axes.set_ylabel("predictions unchanged")
    if rows.empty:
        style.empty(axes, "no attack was run")
        return
    methods = style.order(rows["method"])
    width = rows["epsilon"].max() * 0.008
    for place, method in enumerate(methods):
        line = rows[rows["method"] == method].sort_values("epsilon")
        accuracy = line["post_hoc_accuracy"]
        bars = [
            (accuracy - line["ci_low"]).clip(lower=0).fillna(0),
            (line["ci_high"] - accuracy).clip(lower=0).fillna(0),
        ]
        shift = (place - (len(methods) - 1) / 2) * width
        axes.errorbar(
            line["epsilon"] + shift,
            accuracy,
            yerr=bars,
            label=method,
            elinewidth=0.8,
            capsize=1.5,
            **style.mark(method, methods).arguments(),
        )
    _accuracy_axis(axes)
    if legend:
        axes.legend(loc="lower left")


def _accuracy_axis(axes: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_ylim(-0.02, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlim(left=0)


def _published(axes: Axes, rows: DataFrame) -> None:
    for method in style.order(rows["method"]):
        line = rows[rows["method"] == method].sort_values("epsilon")
        axes.plot(
            line["epsilon"],
            line["paper_accuracy"],
            label=method,
            **style.mark(method, rows["method"]).arguments(),
        )
    axes.set_xlabel("attack size ε (L2, pixels in [0, 1])")
    axes.set_ylabel("predictions unchanged")
    style.title(axes, "Torop et al. 2023")
    _accuracy_axis(axes)


def kept(tables: Tables) -> DataFrame:
    """Return the median share of the promised decrease that came true, by method and size.

    Returns:
        Columns method, epsilon, kept, images. Rows that promise nothing (random directions) are left out.
    """
    rows = succeeded(tables["attacks_images"])
    if "split" in rows:
        rows = rows[rows["split"] == "test"]
    rows = rows[(rows["predicted_decrease"] > 0) & ~rows["method"].astype(str).str.endswith(TRUNCATED)]
    rows = rows.assign(kept=rows["actual_decrease"] / rows["predicted_decrease"])
    grouped = rows.groupby(["method", "epsilon"], as_index=False)["kept"]
    return grouped.agg("median").assign(images=grouped.agg("count")["kept"])


def _promises(axes: Axes, tables: Tables) -> None:
    rows = kept(tables)
    axes.set_xlabel("attack size ε (L2, pixels in [0, 1])")
    axes.set_ylabel("decrease achieved ÷ predicted\n(median over images)")
    axes.set_title("Is the promise kept?")
    if rows.empty:
        style.empty(axes, "no prediction to compare")
        return
    axes.axhline(1, color=style.QUIET, linestyle=":", linewidth=1.2)
    for method in style.order(rows["method"]):
        line = rows[rows["method"] == method].sort_values("epsilon")
        axes.plot(line["epsilon"], line["kept"], **style.mark(method, rows["method"]).arguments())
    axes.set_xlim(left=0)
    if rows["kept"].min() <= 0:  # some came as an increase
        axes.set_yscale("symlog", linthresh=0.1, linscale=0.5)
    elif rows["kept"].max() > 10:
        axes.set_yscale("log")


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw our accuracies, the paper's, and how much of the predicted decrease came true."""
    rows = _rows(tables)
    published = rows.dropna(subset=["paper_accuracy"])
    parts = 1 + bool(len(published)) + ("attacks_images" in tables)
    figure, axes = style.panels(layout, parts, height=3.1)
    panel(axes[0], tables)
    axes[0].set_title("This network")
    if len(published):
        _published(axes[1], published)
    if "attacks_images" in tables:
        _promises(axes[-1], tables)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3 if layout.narrow else 8)
    return figure


def decisive(tables: Tables) -> DataFrame:
    """Return the rows of the attack size at which local models differ most, the strongest first."""
    rows = _rows(tables)
    rows = rows[~rows["method"].isin(["Random", BOUND])]
    if rows.empty:
        return rows
    accuracy = rows.groupby("epsilon")["post_hoc_accuracy"]
    return rows[rows["epsilon"] == (accuracy.max() - accuracy.min()).idxmax()].sort_values(
        "post_hoc_accuracy", kind="stable"
    )


def headline(tables: Tables) -> str:
    """Return a few words for the first page's panel."""
    rows = decisive(tables)
    if rows.empty:
        return "Attacks from local models"
    best = rows.iloc[0]
    unchanged, epsilon = percent(best["post_hoc_accuracy"]), plain(best["epsilon"])
    return f"{best['method']} attacks best: {unchanged} unchanged at ε = {epsilon}"


def finding(tables: Tables) -> str:
    """Say which attack is the strongest, and whether n suffices to tell it from the plain gradient."""
    rows = decisive(tables)
    if rows.empty:
        return ""
    best, epsilon = rows.iloc[0], rows.iloc[0]["epsilon"]
    tied = rows[rows["post_hoc_accuracy"] <= best["post_hoc_accuracy"]]["method"].tolist()
    who = listing(style.order(tied))
    verb = "share the strongest attack" if len(tied) > 1 else "gives the strongest attack"
    stand = percent(best["post_hoc_accuracy"])
    start = f"{who} {verb}: at ε = {plain(epsilon)}, where methods differ most, {stand} of predictions stand"
    everything = _rows(tables)
    rivals = everything[(everything["epsilon"] == epsilon) & everything["method"].isin([*_RIVALS])]
    rivals = rivals[~rivals["method"].isin(tied)]
    against = listing(
        f"{percent(row.post_hoc_accuracy)} for {_RIVALS[row.method]}"
        for row in rivals.sort_values("post_hoc_accuracy").itertuples()
    )
    verdict = _verdict(tables, best, rivals)
    return f"{start}{', against ' + against if against else ''}{verdict} (n = {int(best['images'])})."


_RIVALS = {"G": "the gradient", "Random": "a random direction", BOUND: "PGD, the bound"}


def _verdict(tables: Tables, best: Series, rivals: DataFrame) -> str:
    """Say whether n suffices to tell the strongest from the gradient: in pairs where that was computed."""
    gradient = rivals[rivals["method"] == "G"]
    if gradient.empty:
        return ""
    if "attacks_paired" in tables:
        pairs = tables["attacks_paired"].set_index(["method", "other", "epsilon"])
        key = (best["method"], "G", best["epsilon"])
        if key in pairs.index:
            row = pairs.loc[key]
            return (
                f"; on the same images it beats the gradient by {points(row['difference'])}, 95% interval "
                f"{points(row['ci_low'], unit=False)} to {points(row['ci_high'])}"
            )
    apart = gradient.iloc[0]["ci_low"] > best["ci_high"]
    lie = "lie apart" if apart else "overlap"
    return f"; the 95% intervals of the strongest and of the gradient {lie}"


def points(difference: float, unit: bool = True) -> str:
    """Return a difference of two shares in percentage points: ``15 points``, ``−0.4 points``."""
    digits = 0 if abs(difference) >= 0.0195 else 1
    text = f"{100 * difference:.{digits}f}".replace("-", "−")
    text = text.removeprefix("−") if not text.strip("−0.") else text
    return f"{text} points" if unit else text


def _promise(tables: Tables) -> str:
    """Say how much of the decrease that the local models predicted came true at the decisive size."""
    strongest = decisive(tables)
    if strongest.empty or "attacks_images" not in tables:
        return ""
    size, rows = strongest["epsilon"].iloc[0], kept(tables)
    rows = rows[rows["epsilon"] == size].set_index("method")
    if rows.empty:
        return ""
    told = listing(f"{number(rows.loc[name, 'kept'])} for {name}" for name in style.order(rows.index))
    return (
        "Last panel: decrease in probability achieved over that predicted by the local model, 1 being a "
        f"promise kept; at ε = {plain(size)} the medians are {told}."
    )


def _bound(tables: Tables) -> str:
    """Say what the bound is made of and where a local model got further."""
    rows = _rows(tables)
    rows = rows[rows["method"] == BOUND]
    if rows.empty:
        return ""
    calls = listing(f"{int(n):,}" for n in sorted(rows["calls"].unique()))
    told = (
        "PGD climbs the margin of the logits, not the probability, without clipping pixels either, with "
        f"{calls} gradient calls for each image and size."
    )
    if "attacks_paired" not in tables:
        return told
    pairs = tables["attacks_paired"]
    beaten = pairs[(pairs["other"] == BOUND) & ~pairs["method"].str.endswith(TRUNCATED)]["only_method"].max()
    return sentences(
        told,
        "No local model changed a prediction that it did not."
        if not beaten > 0
        else f"A local model succeeded where it failed on up to {count(int(beaten), 'image')} of a size.",
    )


def _their_images(rows: DataFrame) -> str:
    if "paper_images" not in rows:
        return "400"
    numbers = rows.dropna(subset=["paper_accuracy"])["paper_images"].unique()
    return listing(f"{int(n)}" for n in sorted(numbers))


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = _rows(tables)
    if rows.empty:
        return "No attack was run."
    published = (
        "Beside it the percentages printed by Torop et al. (2023, Table 8) for another network and "
        f"{_their_images(rows)} images."
        if rows["paper_accuracy"].notna().any()
        else ""
    )
    sizes = listing(f"{int(n):,}" for n in sorted(rows["images"].unique()))
    return sentences(
        finding(tables),
        "Share of predictions that the attack did not change, with Wilson 95% intervals;",
        "lower is a stronger attack.",
        _bound(tables),
        published,
        _promise(tables),
        f"{sizes} test images; σ and β chosen on validation images.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = decisive(tables)
    if rows.empty:
        return "Empty panel: no attack was run."
    told = listing(f"{row.method} {percent(row.post_hoc_accuracy)}" for row in rows.itertuples())
    return (
        "Lines of post-hoc accuracy falling with attack size. Where the methods differ most, at size "
        f"{plain(rows.iloc[0]['epsilon'])}, the share of unchanged predictions is: {told}."
    )


register(
    FigureSpec(
        name="attacks",
        tables=("attacks",),
        optional=("attacks_images", "attacks_paired"),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=50,
    )
)
