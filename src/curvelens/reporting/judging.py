"""The report's table of explanation methods by measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curvelens.figures import map_marks
from curvelens.figures.judging import SIGNIFICANT
from curvelens.figures.wording import MISSING, count, listing, number, plain
from curvelens.reporting.html import Html, details, element, table
from curvelens.summaries.judging import GRID, HIGHER, IMAGE, METRICS, RANDOM, REFERENCE

if TYPE_CHECKING:
    from pandas import DataFrame

_GROUPS = {
    "Does it point at the object?": (
        "pointing",
        "energy",
        "pixel_auc",
        "best_iou",
        "mean_iou",
        "localization_error",
    ),
    "… in a grid of images?": (
        "pointing",
        "energy",
        "pixel_auc",
        "best_iou",
        "mean_iou",
        "localization_error",
    ),
    "Does the network react as it says?": ("deletion", "insertion", "unexplained", "own_unexplained"),
    "Is it stable, and about this network?": ("sensitivity", "randomization"),
    "What does it cost?": ("seconds", "memory", "calls"),
}
_IN_GRIDS = "… in a grid of images?"


def table_of(summary: DataFrame) -> list[Html]:
    """Return one row a method and one column a measure; measures that are seldom asked for are folded away.

    Args:
        summary: The table ``judgement``.
    """
    groups = {
        name: _columns(summary, GRID if name == _IN_GRIDS else IMAGE, chosen)
        for name, chosen in _GROUPS.items()
    }
    groups = {name: columns for name, columns in groups.items() if columns}
    return [_table(summary, groups), details("Further measures", _table(summary, _further(summary)))]


def _further(summary: DataFrame) -> dict[str, list[DataFrame]]:
    """Return the measures of the loss and of single thresholds."""
    names = ("deletion_loss", "insertion_loss", "pmse", "max_sensitivity", "iou")
    groups = {METRICS[name].title: _columns(summary, IMAGE, (name,)) for name in names}
    groups["IoU in a grid"] = _columns(summary, GRID, ("iou",))
    return {name: columns for name, columns in groups.items() if columns}


def _columns(summary: DataFrame, scene: str, chosen: tuple[str, ...]) -> list[DataFrame]:
    """Return the rows of each measure and place, a column of the report's table each."""
    rows = summary[summary["scene"] == scene]
    found = []
    for metric in chosen:
        of_metric = rows[rows["metric"] == metric]
        found += [part for _, part in of_metric.groupby("at", dropna=False)]
    return found


def _table(summary: DataFrame, groups: dict[str, list[DataFrame]]) -> Html:
    columns = [part for parts in groups.values() for part in parts]
    header: list[list[object]] = [
        ["", *((name, len(parts)) for name, parts in groups.items())],
        ["method", *map(_heading, columns)],
    ]
    methods = map_marks.order({method for part in columns for method in part["method"]})
    body = [
        [element("b", map_marks.title(method)), *(_cell(part, method) for part in columns)]
        for method in methods
    ]
    images = listing(sorted({count(int(n), "image or grid", "images or grids") for n in summary["images"]}))
    reference = map_marks.title(REFERENCE)
    text = (
        f"Mean over {images} and its 95% interval; ↑: larger is better, ↓: smaller is better; the best in "
        f"bold. * differs from the {reference} on the same images (paired sign-flip test, p < "
        f"{SIGNIFICANT:g}, adjusted by Holm for the number of methods). “chance”: what a map that knows "
        "nothing is expected to get, where that is known."
    )
    return table(header, body, text)


def _heading(part: DataFrame) -> Html:
    row = part.iloc[0]
    metric = METRICS[row["metric"]]
    arrow = "↑" if metric.better == HIGHER else "↓"
    at = f"{metric.at} {plain(round(row['at'], 3))}" if row["at"] == row["at"] else ""
    chance = part["chance"].dropna()
    known = f"chance {number(float(chance.mean()))}" if len(chance) else ""
    small = "; ".join(filter(None, [at, known]))
    return Html(f"{metric.title} {arrow}", element("small", small) if small else "")


def _cell(part: DataFrame, method: str) -> Html:
    found = part[part["method"] == method]
    if found.empty:
        return element("td", MISSING)
    row = found.iloc[0]
    told = part[part["method"] != RANDOM]["mean"]
    leading = told.max() if row["better"] == HIGHER else told.min()
    value: Any = number(row["mean"]) + ("*" if row["p_holm"] < SIGNIFICANT else "")
    is_best = method != RANDOM and row["mean"] == leading
    ends = [row["low"], row["high"]]
    interval = (
        "" if any(end != end or end is None for end in ends) else f"{number(ends[0])} to {number(ends[1])}"
    )
    content = element("strong", value) if is_best else value
    return element(
        "td",
        content,
        element("small", f" {interval}") if interval else "",
        class_="best" if is_best else None,
    )
