"""The report's table of trust radii."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures import style
from curvelens.figures import trust as trust_figure
from curvelens.figures.wording import MISSING, number, plain
from curvelens.reporting.html import Html, best, element, table
from curvelens.reporting.summaries import symbol

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


def _range(low: float, high: float) -> str:
    return f"{number(low)}–{number(high)}" if low == low and low is not None else MISSING


def _interval(row: Series) -> Html | str:
    value, low, high = (row[f"confidence_spearman{end}"] for end in ("", "_low", "_high"))
    if value != value or value is None:
        return MISSING
    return Html(number(value), element("small", f"{number(low)} to {number(high)}"))
