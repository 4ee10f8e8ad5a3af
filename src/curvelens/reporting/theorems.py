"""The report's tables of theorems, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures.convergence import reached
from curvelens.figures.wording import MISSING, number, plain
from curvelens.reporting.html import Html, table

if TYPE_CHECKING:
    from pandas import DataFrame

GOAL = 1e-6


def facts(rows: DataFrame) -> Html:
    """Return eigenvalues and ranks of the Hessian, a row for each number of classes.

    Args:
        rows: The table ``hessian_facts``.
    """
    header = ["classes c", "networks", "smallest eigenvalue/L", "rank", "c − 1", "‖(diag p − ppᵀ)1‖"]
    body = []
    for classes, part in rows.groupby("classes"):
        ranks = sorted({int(rank) for rank in part["rank"]})
        body.append(
            [
                f"{int(classes):,}",
                f"{len(part):,}",
                number((part["smallest_eigenvalue"] / part["largest_eigenvalue"]).min()),
                ", ".join(str(rank) for rank in ranks),
                f"{int(classes) - 1:,}",
                number(part["kernel"].max()),
                number(part["difference"].max()),
            ]
        )
    negative = int((rows["smallest_eigenvalue"] < -rows["rounding"]).sum())
    beyond = int((rows["rank"] > rows["bound"]).sum())
    text = (
        f"Hessians of {len(rows):,} random ReLU networks with {int(rows['features'].max())} inputs, by "
        f"automatic differentiation: {_none(negative)} a negative eigenvalue beyond rounding (Theorem 2), "
        f"{_none(beyond)} a rank above c − 1. The rank is bounded by c − 1, not by c: diag p − ppᵀ is "
        "singular, since it maps the vector of ones to 0, as the sixth column shows. Last: relative "
        "difference of the closed form."
    )
    return table([[*header, "closed form"]], body, text)


def _none(count: int) -> str:
    return "none has" if count == 0 else f"{count:,} have"


def concavity(rows: DataFrame) -> Html:
    """Return CASO's objective on both sides of λ₂ = L/2, a row for each multiple.

    Args:
        rows: The table ``concavity``.
    """
    body = []
    for multiple, part in rows.groupby("multiple"):
        growth = part["value_doubled"] / part["value"]
        deviation = (part["measured_modulus"] - part["modulus"]).abs() / part["l2"]
        short = 1 - part["value"] / part["optimum"]
        body.append(
            [
                plain(float(multiple)),
                number((part["modulus"] / part["l2"]).median()),
                number(deviation.max()),
                number(growth.median()),
                MISSING if part["optimum"].isna().all() else number(max(0.0, short.median())),
            ]
        )
    steps = int(rows["steps"].max())
    below = rows[rows["multiple"] < 1]
    grown = int((below["value_doubled"] > below["value"]).sum())
    text = (
        "CASO on both sides of λ₂ = L/2 (Theorem 3): modulus of concavity 2λ₂ − L over λ₂, its deviation "
        f"from the measured one, the factor by which the objective grows from {steps} to {2 * steps} "
        f"proximal gradient steps, and the share of the maximum that is missing after {steps}. Below the "
        "border there is no maximum: the objective is unbounded along the leading eigenvector, and kept "
        f"growing in {grown:,} of {len(below):,} cases."
    )
    header = ["λ₂/(L/2)", "modulus/λ₂", "deviation", f"growth, {steps} → {2 * steps}", "missing"]
    return table([header], body, text)


def steps(rows: DataFrame) -> Html:
    """Return iterations and time to an error of 10⁻⁶, a row for each L, λ₁ and solver.

    Args:
        rows: The table ``convergence``.
    """
    from curvelens.summaries.theorems import METHODS

    header: list[list[object]] = [["", ""], ["λ₁/max|g|", "solver"]]
    curvatures = sorted(rows["curvature"].unique())
    for curvature in curvatures:
        header[0].append((f"L = {plain(curvature)}", 2))
        header[1] += ["iterations", "ms"]
    body = []
    for share in sorted(rows["l1"].unique()):
        for method in METHODS:
            if not ((rows["l1"] == share) & (rows["method"] == method)).any():
                continue
            cells: list[object] = [plain(share), method]
            for curvature in curvatures:
                found = reached({"convergence": rows}, share, curvature, method, GOAL)
                cells += [MISSING, MISSING] if found.empty else _cost(found)
            body.append(cells)
    text = (
        "Iterations and time to within 10⁻⁶ of the exact solution, among the numbers of iterations tried (up "
        f"to {int(rows['iterations'].max()):,}; a dash where none sufficed). Medians, on this machine."
    )
    return table(header, body, text)


def _cost(found: DataFrame) -> list[object]:
    return [f"{int(found['made'].iloc[0]):,}", number(1000 * found["seconds"].iloc[0])]
