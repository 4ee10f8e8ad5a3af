"""Tables of the report that belong to studies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures import complexity as figure
from curvelens.figures import interactions as interactions_figure
from curvelens.figures.wording import MISSING, number, percent
from curvelens.reporting.html import Html, details, element, table
from curvelens.summaries.interactions import ELEMENTS, SMOOTHHESS, SOFTPLUS

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


def interactions(measured: DataFrame, summary: DataFrame, network: DataFrame) -> list[Html]:
    """Return how well the network fits, how near each element comes to the exact one, and every level.

    Args:
        measured: The table ``interactions``.
        summary: The table ``interactions_summary``.
        network: The table ``interactions_network``.
    """
    levels = [
        details(f"{smoother} at every level", _levels(measured[measured["smoother"] == smoother], smoother))
        for smoother in (SMOOTHHESS, SOFTPLUS)
    ]
    return [_fit(network), _nearness(summary), *levels]


def _fit(network: DataFrame) -> Html:
    head: list[list[object]] = [["", "weights", "updates", "mean squared error", "between the grid's points"]]
    body: list[list[object]] = []
    for _, row in network.iterrows():
        errors = [number(row[f"{name}mean_squared_error"]) for name in ("", "between_")]
        theirs = f"≈ {number(row['paper_mean_squared_error'], 1)}"
        body.append(["ours", f"{row['weights']:,}", f"{row['updates']:,}", *errors])
        body.append(["Torop", MISSING, f"{row['paper_updates']:,}", theirs, MISSING])
    return table(
        head,
        body,
        "The network on its training grid. “Torop”: Torop et al. 2023, App. E.1, widths not stated.",
    )


def _nearness(summary: DataFrame) -> Html:
    head: list[list[object]] = [["smoother", "element", "near", "smallest deviation", "median deviation"]]
    names = {**interactions_figure.FEATURES, "all": "all three"}
    body: list[list[object]] = []
    for smoother in (SMOOTHHESS, SOFTPLUS):
        for element_name in names:
            row = summary[(summary["smoother"] == smoother) & (summary["element"] == element_name)].iloc[0]
            level = f"{interactions_figure.SYMBOLS[smoother]} = {number(row['smallest_level'])}"
            smallest = element("td", percent(row["smallest"], 1), element("small", f" at {level}"))
            near = interactions_figure.nearness(row)
            body.append([smoother, names[element_name], near, smallest, percent(row["median"])])
    text = (
        "Deviation of a Hessian element from that of the smoothed target, as a share of the largest exact "
        f"element; near: at most {percent(summary['tolerance'].iloc[0])}. SoftPlus is compared with the "
        "exact Hessian of the σ² that suits it best."
    )
    return table(head, body, text)


def _levels(rows: DataFrame, smoother: str) -> Html:
    symbol = interactions_figure.SYMBOLS[smoother]
    features = interactions_figure.FEATURES
    head: list[list[object]] = [[symbol]]
    for element_name in ELEMENTS:
        head[0] += [features[element_name], "exact"]
    body: list[list[object]] = []
    for _, row in rows.sort_values("level").iterrows():
        cells: list[object] = [number(row["level"])]
        for name in ELEMENTS:
            bar = element("small", f" ± {number(row[f'stderr{name}'], 1)}") if smoother == SMOOTHHESS else ""
            cells += [element("td", number(row[f"h{name}"], 3), bar), number(row[f"exact{name}"], 3)]
        body.append(cells)
    beside = "" if smoother == SMOOTHHESS else " at the σ² whose exact Hessian is nearest"
    text = (
        f"Hessian elements of the network, with the standard error where sampled, and of its target{beside}."
    )
    return table(head, body, text)


def spirometry(networks: DataFrame) -> Html:
    """Return how well FEV1 is predicted, networks and rules by split, the paper's errors beside ours.

    Args:
        networks: The table ``spirometry_networks``.
    """
    names = {"train": "training", "test": "test", "recorded": "recorded"}
    splits = [name for name in names if name in set(networks["split"])]
    head: list[list[object]] = [["", *((names[name], 3) for name in splits)]]
    head.append(["predictor", *["MAE (L)", "MSE (L²)", "Torop"] * len(splits)])
    body = []
    for predictor in ("wide", "narrow", "volume at 1 s", "mean of training"):
        rows = networks[networks["predictor"] == predictor].set_index("split")
        width = rows["kernel_width"].dropna()
        label = f"{predictor} kernels ({int(width.iloc[0])})" if len(width) else predictor
        cells: list[object] = [element("b", label)]
        for split in splits:
            row = rows.loc[split]
            error = element("small", f"± {number(row['standard_error'], 1)}")
            cells += [element("td", number(row["mean_absolute_error"]), error)]
            cells += [number(row["mean_squared_error"])]
            cells += [element("td", number(row["paper_mse"]), class_="paper")]
        body.append(cells)
    counts = networks.drop_duplicates("split").set_index("split")["curves"]
    told = ", ".join(f"{names[name]} {int(counts[name]):,}" for name in splits)
    text = (
        f"Mean absolute error of FEV1 with its standard error, and mean squared error (curves: {told}). "
        "Training and test curves are simulated. “Torop”: mean squared error of Torop et al. 2023, App. E.1, "
        "on 8,721 efforts of the UK Biobank, which are not public, in a unit that is not stated: the two "
        "cannot be compared."
    )
    return table(head, body, text)
