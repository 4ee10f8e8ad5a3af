"""The table of interactions between super-pixels, set for reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from curvelens.figures.superpixels import NAMES
from curvelens.figures.wording import MISSING, duration, number
from curvelens.reporting.html import Html, best, element, linked, table

if TYPE_CHECKING:
    from pandas import DataFrame


def table_of(rows: DataFrame, pages: Mapping[str, str] | None = None) -> Html:
    """Return one row for each image and method: the strongest pair, its interaction, P_MSE, cost.

    Args:
        rows: The table ``superpixels``.
        pages: Address of an image's page in the gallery, where it has one.
    """
    fine = rows[rows["status"] == "ok"]
    lowest = fine.groupby("image_id")["pmse"].min()
    head = [
        ["image", "local model", "parameter", "pair", "interaction", "agreement", "P_MSE", "calls", "time"]
    ]
    body: list[list[object]] = []
    for row in fine.itertuples():
        error = row.interaction_error
        shown = Html(
            number(row.interaction),
            element("small", f"± {number(error)}" if error == error and error else ""),
        )
        measured = Html(number(row.pmse), element("small", f"± {number(row.pmse_error)}"))
        symbol = "σ" if row.parameter == "sigma" else "β"
        body.append(
            [
                linked(str(row.image_id), pages or {}),
                NAMES.get(row.method, row.method),
                f"{symbol} = {row.parameter_value:.3g}",
                f"{row.shown}, {row.partner}",
                element("td", shown),
                number(row.agreement) if row.agreement == row.agreement else MISSING,
                best(measured) if row.pmse == lowest[row.image_id] else element("td", measured),
                f"{int(row.calls):,}",
                duration(float(row.seconds)),
            ]
        )
    text = (
        "The super-pixel shown and the one it interacts with most, by each local model; their interaction "
        "with its standard error where it is sampled; the correlation of all interactions with those of the "
        f"first local model; P_MSE, lowest in bold (n = {fine['image_id'].nunique()})."
    )
    return table(head, body, text)
