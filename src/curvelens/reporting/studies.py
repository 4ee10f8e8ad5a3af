"""Tables of the report that belong to studies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures import complexity as figure
from curvelens.figures.wording import MISSING, percent
from curvelens.reporting.html import Html, element, table

if TYPE_CHECKING:
    from pandas import DataFrame


def complexity(rates: DataFrame) -> list[Html]:
    """Return calls for an error of 10 % and the slope of the error, one table a function.

    Args:
        rates: The table ``complexity_rates``.
    """
    rows = rates[(rates["norm"] == "frobenius") & (rates["against"] == "calls")]
    groups = rows.groupby(["function", "width"], dropna=False, sort=True)
    return [_of_function(part, str(function), float(width)) for (function, width), part in groups]


def _of_function(rows: DataFrame, function: str, width: float) -> Html:
    dimensions = sorted(rows["at"].unique())
    head: list[list[object]] = [["", *((f"d = {d}", 2) for d in dimensions)]]
    head.append(["estimator", *["calls", "slope"] * len(dimensions)])
    body = []
    for estimator in [name for name in figure.MARKS if name in set(rows["estimator"])]:
        of_estimator = rows[rows["estimator"] == estimator].set_index("at")
        cells: list[object] = [element("b", estimator)]
        for d in dimensions:
            row = of_estimator.loc[d]
            needed = row["calls_needed"]
            calls = MISSING if needed != needed else figure.rounded(needed)
            beyond = element("small", "extrapolated") if row["extrapolated"] else ""
            cells += [element("td", calls, beyond), element("td", figure.slope(row))]
        body.append(cells)
    text = (
        f"Gradient calls for a relative Frobenius error of {percent(figure.TARGET)}, and the slope of log "
        "error against log calls with half its 95% interval over "
        f"{int(rows['repeats'].max())} random functions: {figure.function_name(function, width)}. Theorem 1 "
        "of Torop et al. (2023) bounds the error of “plain” by a multiple of √(d/n), a slope of −1/2."
    )
    return table(head, body, text)
