"""The table of what context-aware explanations were computed with, set for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures.maps import NAMES
from curvelens.figures.wording import number, percent
from curvelens.reporting.html import Html, details, element, table

if TYPE_CHECKING:
    from pandas import DataFrame


def table_of(rows: DataFrame) -> Html:
    """Return a row for each method: medians over the images, and the worst residual.

    Args:
        rows: The table ``context_aware``.
    """
    fine = rows[rows["status"] == "ok"]
    body: list[list[object]] = []
    for name in [name for name in NAMES if name in set(fine["method"])]:
        of_method = fine[fine["method"] == name]
        numbers = {column: of_method[column].astype(float) for column in of_method if column in _NUMBERS}
        body.append(
            [
                element("b", NAMES[name]),
                number(numbers["lambda1"].median()),
                percent(numbers["lambda1_share"].median()),
                percent(numbers["sparsity"].median(), 1),
                number(numbers["largest_eigenvalue"].median()),
                number(numbers["kkt_residual"].max(), 1),
                f"{len(of_method):,}",
            ]
        )
    head = [["method", "λ₁", "λ₁/max|g|", "η", "L", "largest KKT residual", "images"]]
    text = (
        "Medians over the images of λ₁, of its share of the gradient's largest entry, of the share of zero "
        "pixels η and of the Hessian's largest eigenvalue L, and the largest violation of the optimality "
        "conditions. The table context_aware has them for each image."
    )
    return details("What context-aware explanations were computed with", table(head, body, text))


_NUMBERS = ("lambda1", "lambda1_share", "sparsity", "largest_eigenvalue", "kkt_residual")
