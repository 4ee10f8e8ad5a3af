"""The tables of sparsity along λ₁, set for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures.blocks import NAMES
from curvelens.figures.sparsity_path import penalty
from curvelens.figures.wording import MISSING, number, percent
from curvelens.reporting.html import Html, details, element, table
from curvelens.summaries.sparsity import CAFO, CASO

if TYPE_CHECKING:
    from pandas import DataFrame

_PAPER_L1, _PAPER_ETA = "0 to 0.05", "0.75 to 1"


def summary(rows: DataFrame) -> Html:
    """Return what is chosen for each kind of block, by CAFO and by CASO, beside the paper's settings.

    Args:
        rows: The table ``sparsity_summary``.
    """
    columns = ["block", "method", "λ₁ chosen", "η", "within range", "shared with clipped gradient"]
    columns += ["isolated pixels", "clipped gradient's", "λ₁ looked at", "products", "KKT residual"]
    head: list[list[object]] = [[*columns]]
    body: list[list[object]] = []
    order = {name: place for place, name in enumerate(NAMES)}
    for row in sorted(rows.itertuples(), key=lambda row: (order[row.block], row.method)):
        spread = element("small", f" {penalty(row.lambda1_low)} to {penalty(row.lambda1_high)}")
        body.append(
            [
                NAMES[row.block],
                row.method,
                element("td", number(row.lambda1), spread),
                f"{row.block_sparsity:.3f}",
                percent(row.satisfied),
                percent(row.jaccard_gradient),
                percent(row.isolated),
                percent(row.isolated_gradient),
                number(row.steps),
                number(row.products) if row.method == CASO else MISSING,
                number(row.kkt_residual),
            ]
        )
    body.append(["Singla", f"{CAFO}, {CASO}", _PAPER_L1, _PAPER_ETA, *[MISSING] * 7])
    text = (
        f"λ₁ chosen by sparsity (Sec. 4.1), medians over {int(rows['images'].max())} images; η counts zero "
        "pixels for single values, else zero blocks. Shared: Jaccard index with the gradient clipped to as "
        "many blocks. Isolated: pixels none of whose 8 neighbours is kept. Hessian-vector products are of a "
        "whole path. “Singla”: the λ₁ of Table 2 in Singla et al. 2019 and the η asked for; their solver "
        "stops after 10 steps, of which no residual is given."
    )
    return table(head, body, text)


def walks(rows: DataFrame) -> Html:
    """Return every step to each λ₁ chosen for CASO, folded away.

    Args:
        rows: The table ``sparsity``.
    """
    fine = rows[(rows["status"] == "ok") & (rows["method"] == CASO) & rows["step"].notna()]
    head: list[list[object]] = [["image", "block", "step", "λ₁", "η", "loss at x + Δ", "chosen"]]
    body: list[list[object]] = [
        [
            str(row.image_id),
            NAMES[row.block],
            int(row.step) + 1,
            penalty(row.lambda1),
            f"{row.block_sparsity:.4f}",
            number(row.loss, 3),
            "✓" if row.chosen else "",
        ]
        for row in fine.sort_values(["image_id", "block", "step"]).itertuples()
    ]
    text = "The λ₁ looked at for CASO, in order; the highest loss among those with η in the range is chosen."
    return details("Every step of the choice", table(head, body, text))
