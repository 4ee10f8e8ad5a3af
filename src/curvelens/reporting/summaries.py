"""Tables of the report: the numbers of the result tables, set for reading, the paper's beside ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures import fidelity as fidelity_figure
from curvelens.figures import style
from curvelens.figures.wording import MISSING, number, percent, plain
from curvelens.reporting.html import Html, best, details, element, table
from curvelens.summaries import published_fidelity

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_SYMBOLS = {"sigma": "σ", "sigma_squared": "σ²", "beta": "β"}


def fidelity(summary: DataFrame) -> list[Html]:
    """Return P_MSE, one table a scalar: methods by radius, both radius laws, and the paper's values.

    Args:
        summary: The table ``fidelity``.
    """
    summary = fidelity_figure.labelled(summary)
    return [
        _fidelity_of(summary[summary["scalar"] == scalar], scalar)
        for scalar in fidelity_figure.scalars(summary)
    ]


def fidelity_costs(summary: DataFrame) -> Html:
    """Return what each local model costs, and on how many images it is the best.

    Args:
        summary: The table ``fidelity``.
    """
    summary = fidelity_figure.labelled(summary)
    laws = [law for law in fidelity_figure.LAWS if (summary["law"] == law).any()]
    body: list[list[object]] = []
    for method in style.order(summary["method"]):
        rows = summary[summary["method"] == method]
        best_on = rows.groupby("law")["best_share"].mean()
        body.append(
            [
                element("b", method),
                f"{round(rows['calls'].mean()):,}",
                number(rows["seconds"].mean()),
                *(percent(best_on.get(law, float("nan"))) for law in laws),
            ]
        )
    head = [["local model", "gradient calls", "seconds", *(f"best on, {law}" for law in laws)]]
    text = (
        "Gradient calls (a Hessian-vector product is one) and wall time to make a local model of one image, "
        "and the share of images on which it has the lowest P_MSE of all, averaged over scalars and radii. "
        "SG comes from the calls of SH+SG."
    )
    return details("What local models cost, and how often each is the best", table(head, body, text))


def errata() -> Html:
    """Return the cells of the paper's tables of P_MSE that are not to be believed, with the evidence."""
    body = [
        [f"Table {error.table}, {error.cell}", error.printed, error.likely, error.evidence]
        for error in published_fidelity.ERRATA
    ]
    head = [["where", "printed", "probably meant", "evidence"]]
    return details(
        "Printed numbers that are not to be believed",
        table(head, body, "Torop et al. 2023, from the numbers that they print themselves."),
    )


def _head(first: str, groups: list[str], columns: list[str]) -> list[list[object]]:
    """Return the header of a table with the same columns in every group: one row for one column."""
    if len(columns) == 1:
        return [[first, *groups]]
    return [["", *((group, len(columns)) for group in groups)], [first, *columns * len(groups)]]


def _fidelity_of(rows: DataFrame, scalar: str) -> Html:
    radii = sorted(rows["radius"].unique())
    laws = [law for law in fidelity_figure.LAWS if (rows["law"] == law).any()]
    published = bool(rows["paper_mean"].notna().any())
    columns = [*laws, *(["Torop"] if published else [])]
    head = _head("method", [f"ε = {plain(radius)}" for radius in radii], columns)
    lowest = rows.groupby(["radius", "law"])["mean"].min()
    body = []
    for method in style.order(rows["method"]):
        cells: list[object] = [element("b", method)]
        for radius in radii:
            of_radius = rows[(rows["method"] == method) & (rows["radius"] == radius)].set_index("law")
            cells += [_mean(of_radius, law, lowest.get((radius, law), float("nan"))) for law in laws]
            if published:
                printed = of_radius["paper_mean"].dropna()
                cells.append(
                    element("td", number(printed.iloc[0]) if len(printed) else MISSING, class_="paper")
                )
        body.append(cells)
    images = ", ".join(str(int(n)) for n in sorted(rows["images"].unique()))
    beside = (
        " “Torop”: Torop et al. 2023, Tables 5 and 7: another network, other images, the radius law “paper”."
        if published
        else ""
    )
    text = (
        f"Mean P_MSE of the {fidelity_figure.scalar_name(scalar)} with its standard error over images in "
        f"percent (n = {images}); lower is better, "
        "best in bold. “ball”: ours, points uniform in the ball; “paper”: ours, radius uniform, as in the "
        f"published code.{beside}"
    )
    return table(head, body, text)


def _mean(of_radius: DataFrame, law: str, lowest: float) -> Html:
    if law not in of_radius.index:
        return element("td", MISSING)
    row = of_radius.loc[law]
    relative = row["standard_error"] / row["mean"] if row["mean"] else float("nan")
    shown = Html(
        number(row["mean"]), element("small", f"± {percent(relative)}" if relative == relative else "")
    )
    return best(shown) if row["mean"] == lowest else element("td", shown)


def chosen(summary: DataFrame, setting: str) -> Html:
    """Return the parameters chosen on validation images, with the cost of each local model.

    Args:
        summary: The table ``fidelity`` or ``attacks``.
        setting: The column that the choice was made for, ``radius`` or ``epsilon``.
    """
    summary = fidelity_figure.labelled(summary) if "covariance" in summary else summary
    keys = [key for key in ("scalar", "law") if key in summary]
    groups = summary.groupby(keys, sort=False) if keys else [((), summary)]
    sizes = sorted(summary[setting].unique())
    body = []
    for names, group in groups:
        where = ", ".join(fidelity_figure.scalar_name(str(name)) for name in names)
        for method in style.order(group["method"]):
            rows = group[group["method"] == method].set_index(setting)
            if rows["parameter"].replace("", None).notna().any():
                label = element("span", element("b", method), element("small", f" {where}" if where else ""))
                body.append([label, *(_parameter(rows, size) for size in sizes)])
    head = [["local model", *(f"ε = {plain(size)}" for size in sizes)]]
    text = (
        "σ or σ² of the Gaussian noise, β of SoftPlus and Swish: the values with the best result on "
        "validation images."
    )
    return details("Smoothing parameters chosen on validation images", table(head, body, text))


def _parameter(rows: DataFrame, size: float) -> str:
    if size not in rows.index:
        return MISSING
    row = rows.loc[size]
    if not row["parameter"]:
        return MISSING
    theirs = row.get("paper_parameter_value", float("nan"))
    return symbol(row["parameter"], row["parameter_value"]) + (
        f" (Torop: {theirs:.3g})" if theirs == theirs else ""
    )


def symbol(parameter: str, value: float) -> str:
    """Return a parameter and its value, such as ``σ = 0.02``."""
    if not parameter:
        return MISSING
    return f"{_SYMBOLS.get(parameter, parameter)} = {value:.3g}"


def attacks(summary: DataFrame) -> Html:
    """Return post-hoc accuracy, methods by attack size, with Wilson intervals and the paper's values.

    Args:
        summary: The table ``attacks``.
    """
    sizes = sorted(summary["epsilon"].unique())
    published = bool(summary["paper_accuracy"].notna().any())
    columns = ["ours", *(["Torop"] if published else [])]
    head = _head("attack", [f"ε = {plain(size)}" for size in sizes], columns)
    rows = summary
    lowest = rows[rows["method"] != "PGD"].groupby("epsilon")["post_hoc_accuracy"].min()
    body = []
    for method in style.order(rows["method"]):
        of_method = rows[rows["method"] == method].set_index("epsilon")
        cells: list[object] = [element("b", method)]
        for size in sizes:
            cells.append(_accuracy(of_method, size, lowest.get(size, float("nan"))))
            if published:
                value = of_method["paper_accuracy"].get(size, float("nan"))
                cells.append(element("td", percent(value, 1), class_="paper"))
        body.append(cells)
    images = ", ".join(str(int(n)) for n in sorted(summary["images"].unique()))
    theirs = ", ".join(str(int(n)) for n in sorted(summary["paper_images"].unique()) if n)
    beside = f" “Torop”: Torop et al. 2023, Table 8: another network, {theirs} images." if published else ""
    text = (
        f"Share of predictions unchanged, with Wilson 95% intervals (n = {images}); lower is stronger, "
        f"the best local model in bold.{_explained(summary)}{beside}"
    )
    return table(head, body, text)


def _explained(summary: DataFrame) -> str:
    """Say what the rows are that the paper does not have, where there are any."""
    told = []
    if summary["method"].str.endswith(" truncated").any():
        told.append(
            "“truncated”: the step within the leading eigenvectors, as published (and so beside the same "
            "printed number); the other second-order steps are exact."
        )
    calls = summary[summary["method"] == "PGD"]["calls"]
    if len(calls):
        told.append(
            "“PGD”: projected gradient descent on the margin of the logits, from several starts, "
            f"{int(calls.max()):,} gradient calls for each image and size (SH+SG: "
            f"{_calls(summary, 'SH+SG')} for all sizes): the bound."
        )
    return "".join(f" {sentence}" for sentence in told)


def _calls(summary: DataFrame, method: str) -> str:
    calls = summary[summary["method"] == method]["calls"]
    return f"{calls.max():,.0f}" if len(calls) else MISSING


def _accuracy(of_method: DataFrame, size: float, lowest: float) -> Html:
    if size not in of_method.index:
        return element("td", MISSING)
    row: Series = of_method.loc[size]
    interval = f"{percent(row['ci_low'])[:-1]}–{percent(row['ci_high'])}"
    shown = Html(percent(row["post_hoc_accuracy"]), element("small", interval))
    return best(shown) if row["post_hoc_accuracy"] == lowest else element("td", shown)
