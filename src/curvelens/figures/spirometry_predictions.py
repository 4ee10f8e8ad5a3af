"""How well networks predict FEV1 from exhalations that coughs disturbed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.wording import count, number, percent, sentences

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

NETWORKS = ("wide", "narrow")
READING = "volume at 1 s"
_SPLITS = {"test": (style.BLUE, "o", "simulated"), "recorded": (style.VERMILLION, "X", "recorded")}


def quality(tables: Tables, split: str) -> DataFrame:
    """Return how well each predictor does on a split, by predictor."""
    rows = tables["spirometry_networks"]
    return rows[rows["split"] == split].set_index("predictor")


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw predicted against true FEV1, one panel a network."""
    found = tables["spirometry_predictions"]
    figure, axes = style.panels(layout, 2, height=3.2)
    values = found.loc[found["split"].isin(list(_SPLITS)), ["fev1", "prediction"]]
    top = 1.05 * float(values.to_numpy(float).max()) if len(values) else 1.0
    for each, network in zip(axes, NETWORKS, strict=True):
        style.title(each, f"{network.capitalize()} kernels")
        each.set(xlabel="true FEV1 (L)", ylabel="predicted FEV1 (L)")
        of_network = found[found["network"] == network]
        if of_network.empty:
            style.empty(each, "nothing was predicted")
            continue
        each.plot([0, top], [0, top], ":", color=style.QUIET)
        for split, (colour, marker, label) in _SPLITS.items():
            rows = of_network[of_network["split"] == split]
            if len(rows):
                each.plot(
                    rows["fev1"], rows["prediction"], marker, color=colour, label=label,
                    markersize=3.5 if split == "test" else 6, alpha=0.6, markeredgewidth=0,
                )  # fmt: skip
        each.set(xlim=(0, top), ylim=(0, top))
        each.legend(loc="upper left")
    return figure


def finding(tables: Tables) -> str:
    """Say how far off the network is, beside reading the disturbed curve off."""
    rows = quality(tables, "test")
    if not {"wide", READING} <= set(rows.index):
        return ""
    error, reading = (float(rows["mean_absolute_error"][name]) for name in ("wide", READING))
    verdict = (
        "A network sees through coughs"
        if error < 0.9 * reading
        else "The network does no better than reading the disturbed curve off"
    )
    return (
        f"{verdict}: on {count(int(rows['curves']['wide']), 'simulated effort')} it misses FEV1 by "
        f"{number(error)} L on average, against {number(reading)} L for the volume at 1 s."
    )


def _recorded(tables: Tables) -> str:
    rows = quality(tables, "recorded")
    if "wide" not in rows.index:
        return ""
    told = ", ".join(
        f"{name} {number(float(rows['mean_absolute_error'][name]))} L"
        for name in NETWORKS
        if name in rows.index
    )
    return (
        f"On {count(int(rows['curves']['wide']), 'recorded curve')} the mean absolute error is {told}: there "
        "the truth is the curve's own FEV1, while the networks have learnt that an effort is rarely the best "
        "one."
    )


def caption(tables: Tables) -> str:
    """Return the finding, the quality on every split, and the n."""
    rows = quality(tables, "test")
    if rows.empty:
        return "Nothing was predicted."
    told = "; ".join(
        f"{name}: {number(float(rows['mean_absolute_error'][name]))} ± "
        f"{number(float(rows['standard_error'][name]), 1)} L, "
        f"{percent(float(rows['explained_variance'][name]))} of the variance"
        for name in NETWORKS
        if name in rows.index
    )
    return sentences(
        finding(tables),
        f"Mean absolute error on simulated test efforts, with its standard error — {told}.",
        _recorded(tables),
        "The truth of a simulated effort is the FEV1 of the patient's best, undisturbed one.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = quality(tables, "test")
    if rows.empty:
        return "Empty panels: nothing was predicted."
    told = ", ".join(
        f"{name} {number(float(rows['mean_absolute_error'][name]))} L"
        for name in NETWORKS
        if name in rows.index
    )
    return f"Predicted against true FEV1, points near the diagonal. Mean absolute error: {told}."


register(
    FigureSpec(
        name="spirometry_predictions",
        tables=("spirometry_predictions", "spirometry_networks"),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=69,
    )
)
