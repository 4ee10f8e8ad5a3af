"""The report's tables of trust radii, and of the gradient calls that explanations share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from curvelens.figures import style
from curvelens.figures import trust as trust_figure
from curvelens.figures.maps import NAMES
from curvelens.figures.wording import MISSING, count, number, percent, plain
from curvelens.reporting.html import Html, best, details, element, paragraph, table
from curvelens.reporting.summaries import symbol
from curvelens.summaries.explanations import ALL

if TYPE_CHECKING:
    from pandas import DataFrame, Series


def table_of(summary: DataFrame) -> Html:
    """Return trust radii, a row for each threshold, local model and value of its parameter, the chosen bold.

    Args:
        summary: The table ``trust``.
    """
    several = len(summary["threshold"].unique()) > 1
    columns = [
        "local model",
        "parameter",
        "median",
        "95% interval",
        "quartiles",
        "× region",
        "with confidence",
    ]
    body = []
    for threshold, rows in summary.groupby("threshold"):
        for method in style.order(rows["method"]):
            of_method = rows[rows["method"] == method].sort_values("parameter_value")
            for _, row in of_method.iterrows():
                median = trust_figure.bound(row)
                body.append(
                    [
                        element("b", method),
                        *([plain(threshold)] if several else []),
                        symbol(row["parameter"], row["parameter_value"]),
                        best(median) if row["chosen"] else element("td", median),
                        _range(row["median_low"], row["median_high"]),
                        _range(row["lower_quartile"], row["upper_quartile"]),
                        number(row["region_ratio"]),
                        _interval(row),
                    ]
                )
    if several:
        columns.insert(1, "threshold")
    images = ", ".join(str(int(n)) for n in sorted(summary["images"].unique()))
    text = (
        f"Median trust radius in L2 norm, pixels in [0, 1] (n = {images}); larger is better. In bold the "
        "value of σ or β with the best result on validation images: it is fixed before the radius is known, "
        "and too much smoothing is wrong from the start. “× region”: median of the radius over the distance "
        "to the border of the linear region. Last: Spearman's rank correlation with confidence and its 95% "
        "interval."
    )
    return table([columns], body, text)


def of_maps(index: DataFrame) -> Html:
    """Return how far the stored maps may be believed, by method.

    Args:
        index: The table ``explanations``.
    """
    fine = index[index["status"] == "ok"]
    fine = fine.assign(radius=fine["trust_radius"].astype(float))
    body = []
    for method, rows in fine.groupby("method"):
        radius = rows["radius"].dropna()
        if radius.empty:
            continue
        censored = rows["trust_censored"].isin(["below", "above"]).mean()
        ends = radius.quantile(0.25), radius.quantile(0.75)
        cells = [number(radius.median()), _range(*ends), percent(censored), f"{len(radius):,}"]
        body.append([element("b", str(method)), *cells])
    if not body:
        return Html()
    text = (
        "Trust radius of the stored maps, as local models of what they explain; the column “trust_radius” of "
        "the index of explanations has it for each image. A map that is no gradient predicts no change and "
        "has none."
    )
    return table([["map", "median", "quartiles", "censored", "images"]], body, text)


def shared_calls(shared: DataFrame) -> list[Html]:
    """Return how many gradient calls explanations share: a sentence, and the table folded away.

    Args:
        shared: The table ``shared_calls``.
    """
    rows = shared.set_index("method")
    total = rows.loc[ALL]
    alone, made = int(total["calls_alone"]), int(total["calls"])
    said = f"The explanations took {made:,} gradient calls"
    said += (
        f" where {alone:,} would have been made if each method were computed alone: "
        f"{percent(total['saved'])} are shared."
        if made < alone
        else "; no two methods look at the same noisy copies, so none is shared."
    )
    columns = ("images", "calls", "calls_alone", "forward_calls")
    body = [
        [element("b", method), *(f"{row[name]:,}" for name in columns)] for method, row in rows.iterrows()
    ]
    text = (
        "Gradient calls, of which shared ones count for the first method that needs them, and evaluations "
        "without a gradient."
    )
    shown = table([["method", "images", "made", "alone", "evaluations"]], body, text)
    return [paragraph(said), details("Calls of each method", shown)]


def completeness(index: DataFrame) -> list[Html]:
    """Return how nearly attributions sum to what they promise, a sentence for each method that promises it.

    Args:
        index: The table ``explanations``.
    """
    if "completeness_error" not in index:
        return []
    told = []
    for method, rows in index[index["completeness_error"].notna()].groupby("method"):
        error = rows["completeness_error"].astype(float).abs()
        change = rows["attributed_change"].astype(float).abs()
        told.append(
            paragraph(
                f"The attributions of {NAMES.get(str(method), str(method))} should sum to the change of the "
                f"score from the baseline. They miss it by {number(error.median())} in the median, "
                f"{percent(error.sum() / (change.sum() or math.nan), 1)} of the mean change, and by "
                f"{number(error.max())} at most ({count(len(rows), 'image')})."
            )
        )
    return told


def _range(low: float, high: float) -> str:
    return f"{number(low)}–{number(high)}" if low == low and low is not None else MISSING


def _interval(row: Series) -> Html | str:
    value, low, high = (row[f"confidence_spearman{end}"] for end in ("", "_low", "_high"))
    if value != value or value is None:
        return MISSING
    return Html(number(value), element("small", f"{number(low)} to {number(high)}"))
