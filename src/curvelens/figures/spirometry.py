"""What FEV1 is read from: attributions of intervals, and their interactions with the first half second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures import FigureSpec, Tables, register, style
from curvelens.figures.inputs import succeeded
from curvelens.figures.wording import count, number, percent, plain, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

GROUPS = {
    "early cough": "Simulated, a cough within 4 s",
    "twin without cough": "The same effort without its coughs",
    "no early cough": "Simulated, no cough within 4 s",
    "recorded": "Recorded",
}
NETWORK = "wide"  # the paper's kernel width
_SHOWN = 15.0  # s
_WIDTH = 0.2  # s, of a bar


def explained(tables: Tables, network: str = NETWORK) -> DataFrame:
    """Return the curves that were explained for a network."""
    rows = succeeded(tables["spirometry_explanations"])
    return rows[rows["network"] == network]


def shown(tables: Tables) -> DataFrame:
    """Return the first explained curve of each group, in the order of the groups."""
    rows = explained(tables).drop_duplicates("group")
    return (
        rows.set_index("group").reindex([name for name in GROUPS if name in set(rows["group"])]).reset_index()
    )


def intervals(tables: Tables, row: Series) -> DataFrame:
    """Return the intervals of an explained curve."""
    found = tables["spirometry_intervals"]
    chosen = (found["image_id"] == row["image_id"]) & (found["network"] == row["network"])
    return found[chosen].sort_values("start")


def _panel(axes: Axes, tables: Tables, row: Series) -> None:
    parts, samples = intervals(tables, row), tables["spirometry_samples"]
    curve = samples[samples["image_id"] == row["image_id"]].sort_values("time")
    bars = axes.twinx()
    marked = parts["plateau"].fillna(0) * (row["group"] != "twin without cough")
    for start, share in zip(parts["start"], marked, strict=True):
        if share > 0:
            bars.axvspan(start, start + 0.5, color=style.GRID, zorder=0, linewidth=0)
    axes.plot(curve["time"], curve["volume"], color=style.BLUE, zorder=4)
    axes.set(xlabel="time after the start (s)", ylabel="volume (L)", xlim=(0, _SHOWN), ylim=(0, None))
    axes.yaxis.label.set_color(style.BLUE)
    axes.grid(visible=False)
    bars.spines["right"].set_visible(True)
    bars.set(ylim=(-1.25, 1.25), ylabel="share of the largest bar")
    bars.axhline(0, color=style.QUIET, linewidth=0.6)
    for side, name, colour in ((0.25, "attribution", style.GREEN), (0.75, "interaction", style.VERMILLION)):
        scale = parts[name].abs().max() or 1.0
        places = parts["start"] + 0.5 * side
        bars.bar(places, parts[name] / scale, _WIDTH, color=colour, alpha=0.85, linewidth=0)
        bars.errorbar(
            places, parts[name] / scale, 2 * parts[f"{name}_error"] / scale,
            fmt="none", ecolor=style.INK, elinewidth=0.6, capsize=0,
        )  # fmt: skip
    bars.annotate(
        "", xy=(float(row["strongest"]) + 0.25, 1.05), xytext=(0.25, 1.05),
        arrowprops={"arrowstyle": "->", "color": style.VERMILLION, "connectionstyle": "arc3,rad=-0.05"},
    )  # fmt: skip
    axes.set_zorder(bars.get_zorder() + 1)
    axes.patch.set_visible(False)
    style.title(
        axes, f"{GROUPS[row['group']]}: predicted {row['prediction']:.2f} L, true {row['fev1']:.2f} L"
    )


def draw(tables: Tables, layout: style.Layout) -> Figure:
    """Draw one curve of each group with its attributions and interactions."""
    from matplotlib.patches import Patch

    rows = shown(tables)
    figure, axes = style.panels(layout, max(1, len(rows)), height=3.0, columns=1)
    if rows.empty:
        style.empty(axes[0], "no curve was explained")
        return figure
    for each, (_, row) in zip(axes, rows.iterrows(), strict=True):
        _panel(each, tables, row)
    handles = [
        Patch(color=style.BLUE, label="volume"),
        Patch(color=style.GREEN, label="attribution (SmoothGrad)"),
        Patch(color=style.VERMILLION, label="interaction with 0–0.5 s (SmoothHess)"),
        Patch(color=style.GRID, label="intervals with a plateau"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=1 if layout.narrow else 4)
    return figure


def finding(tables: Tables) -> str:
    """Say whether the strongest interaction lies at a cough's plateau more often than without the cough."""
    rows = explained(tables)
    rows = rows[rows["strongest_in_plateau"].notna()]
    hits = {name: of_group["strongest_in_plateau"].astype(bool) for name, of_group in rows.groupby("group")}
    if not {"early cough", "twin without cough"} <= set(hits):
        return ""
    coughing, twins = hits["early cough"], hits["twin without cough"]
    chance = float(rows.loc[rows["group"] == "early cough", "plateau_share"].mean())
    verdict = (
        "A cough's plateau draws interactions to itself"
        if coughing.sum() > twins.sum() and coughing.mean() > chance
        else "There is no sign that a cough's plateau draws interactions to itself"
    )
    return (
        f"{verdict}: the interval that interacts most with the first half second overlaps a plateau in "
        f"{int(coughing.sum())} of {count(len(coughing), 'simulated effort')} with an early cough, the same "
        f"place in {int(twins.sum())} of {len(twins)} without the coughs; chance gives {percent(chance)}."
    )


def _first_interval(tables: Tables) -> str:
    rows = explained(tables)
    parts = [
        f"{percent(float(of_group['first_share'].mean()))} ({name}, n = {len(of_group)})"
        for name in GROUPS
        if len(of_group := rows[rows["group"] == name])
    ]
    return f"The first half second has {', '.join(parts)} of |attribution|." if parts else ""


def caption(tables: Tables) -> str:
    """Return the finding, what is drawn, and the n."""
    rows = shown(tables)
    if rows.empty:
        return "No curve was explained."
    scales = "; ".join(
        f"{row['group']} {number(parts['attribution'].abs().max())} L/L and "
        f"{number(parts['interaction'].abs().max())} 1/L"
        for _, row in rows.iterrows()
        if len(parts := intervals(tables, row))
    )
    return sentences(
        finding(tables),
        _first_interval(tables),
        f"Bars are sums over intervals of 0.5 s at σ = {plain(float(rows['sigma'].iloc[0]))} L, with two",
        f"standard errors over {count(int(rows['repeats'].iloc[0]), 'independent estimate')}; the largest:",
        f"{scales}. The arrow leads from the first interval to the one that interacts with it most; grey",
        "intervals overlap a plateau. Network with wide kernels. After Torop et al. (2023), Fig. 3, whose",
        "efforts are not public: ours are simulated, but for those called recorded.",
    )


def alt(tables: Tables) -> str:
    """Describe the picture."""
    rows = shown(tables)
    if rows.empty:
        return "Empty panel: no curve was explained."
    told = "; ".join(
        f"{GROUPS[row['group']]}: strongest interaction with {row['strongest']:g} to "
        f"{row['strongest'] + 0.5:g} s"
        for _, row in rows.iterrows()
    )
    return f"Volume-time curves with bars of attribution and interaction for each half second. {told}."


register(
    FigureSpec(
        name="spirometry",
        tables=("spirometry_explanations", "spirometry_intervals", "spirometry_samples"),
        draw=draw,
        caption=caption,
        alt=alt,
        finding=finding,
        rank=70,
    )
)
