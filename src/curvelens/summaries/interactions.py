"""Tables of interactions at the origin of a function whose smoothed Hessian is known, and their summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curvelens.tables import Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

ELEMENTS = ("11", "12", "22")
"""Elements of a symmetric 2×2 Hessian."""

SMOOTHHESS, SOFTPLUS = "SmoothHess", "SoftPlus"

PUBLISHED: dict[str, tuple[int, float]] = {"four_quadrants": (40_000, 1e-4), "nested": (200_000, 1e-1)}
"""Updates and final mean squared error that Torop et al. 2023, App. E.1, state for each target."""

_UNIT = "target/feature²"

_LEVEL = (
    "How much is smoothed: σ² of SmoothHess, in squared units of the features; β of SoftPlus, in units of "
    "1 / pre-activation."
)
_MATCHED = (
    "σ² of the exact Hessian beside: that of SmoothHess; for SoftPlus, which has none, the σ² of the range "
    "whose exact Hessian is the nearest."
)
_DEVIATION = "Largest |h − exact| of the three elements, over the largest |exact| of the three."

INTERACTIONS = schema(
    "interactions",
    "The Hessian at the origin of a network of two features at one level of smoothing, and its target's.",
    {
        "smoother": Column(
            str,
            "SmoothHess: the network smoothed by a Gaussian; SoftPlus: each ReLU replaced by SoftPlus.",
            isin=(SMOOTHHESS, SOFTPLUS),
        ),
        "level": Column(float, _LEVEL, gt=0),
        **{f"h{e}": Column(float, f"Element {e} of the network's Hessian.", _UNIT) for e in ELEMENTS},
        **{
            f"stderr{e}": Column(
                float,
                f"Standard error of h{e} between independent estimates; 0 without sampling.",
                _UNIT,
                ge=0,
            )
            for e in ELEMENTS
        },
        **{
            f"exact{e}": Column(
                float, f"Element {e} of the exact Hessian of the smoothed target at σ² = matched.", _UNIT
            )
            for e in ELEMENTS
        },
        **{
            f"inside{e}": Column(
                float, f"The part of exact{e} that comes from within the data's square [−2, 2]².", _UNIT
            )
            for e in ELEMENTS
        },
        "matched": Column(float, _MATCHED, "feature²", gt=0),
        "deviation": Column(float, _DEVIATION, ge=0),
        "calls": Column(int, "Gradient calls made.", ge=0),
        "seconds": Column(float, "Wall time.", "s", ge=0),
    },
    keys=("smoother", "level"),
)

INTERACTIONS_NETWORK = schema(
    "interactions_network",
    "The network whose interactions are measured, and how well it fits its target.",
    {
        "target": Column(str, "The function that it was trained on.", isin=tuple(PUBLISHED)),
        "weights": Column(int, "Number of its weights and biases.", ge=1),
        "updates": Column(int, "Updates of its training.", ge=1),
        "mean_squared_error": Column(float, "Over every point of the training grid.", "target²", ge=0),
        "between_mean_squared_error": Column(
            float, "Over points between those of the grid, none of them trained on.", "target²", ge=0
        ),
        "paper_updates": Column(int, "Updates in Torop et al. 2023, App. E.1.", ge=1),
        "paper_mean_squared_error": Column(float, "Final error stated there.", "target²", ge=0),
    },
    keys=("target",),
)

INTERACTIONS_SUMMARY = schema(
    "interactions_summary",
    "How near one element of the Hessian, or all three, come to the exact Hessian over a range of smoothing.",
    {
        "smoother": INTERACTIONS.columns["smoother"],
        "element": Column(
            str,
            "Element of the Hessian, 11, 12 or 22; `all` takes the one that is furthest off.",
            isin=(*ELEMENTS, "all"),
        ),
        "levels": Column(int, "Levels of smoothing measured.", ge=1),
        "tolerance": Column(
            float,
            "Deviation, as a share of the largest exact element, up to which a level counts as near.",
            gt=0,
        ),
        "near": Column(int, "Levels that are near.", ge=0),
        "near_low": Column(
            float, "Lowest level of the longest unbroken run of near ones.", nullable=True, gt=0
        ),
        "near_high": Column(float, "Highest level of that run.", nullable=True, gt=0),
        "smallest": Column(float, "Smallest deviation.", ge=0),
        "smallest_level": Column(float, "The level at which it is reached.", gt=0),
        "median": Column(float, "Median deviation over the levels.", ge=0),
    },
    keys=("smoother", "element"),
)

INTERACTIONS_SURFACE = schema(
    "interactions_surface",
    "The network, and the network smoothed by a Gaussian, at one point of the plane.",
    {
        "sigma_squared": Column(
            float, "Variance of the Gaussian; 0 is the network itself.", "feature²", ge=0
        ),
        "x1": Column(float, "First feature.", "feature"),
        "x2": Column(float, "Second feature.", "feature"),
        "value": Column(float, "Value of the (smoothed) network.", "target"),
        "target": Column(float, "The function that the network was trained on.", "target"),
    },
    keys=("sigma_squared", "x1", "x2"),
)


def deviations(table: pd.DataFrame, element: str) -> pd.Series:
    """Return |h − exact| of an element over the largest |exact| of the three; of ``all`` the largest.

    Args:
        table: An :data:`INTERACTIONS` table.
        element: ``"11"``, ``"12"``, ``"22"`` or ``"all"``.
    """
    if element == "all":
        return table["deviation"]
    scale = table[[f"exact{e}" for e in ELEMENTS]].abs().max(axis=1)
    found: pd.Series = (table[f"h{element}"] - table[f"exact{element}"]).abs() / scale
    return found


def summarise(table: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """Say for each smoother and element over which levels it is near the exact Hessian.

    Args:
        table: An :data:`INTERACTIONS` table.
        tolerance: Share of the largest exact element, > 0.

    Returns:
        An :data:`INTERACTIONS_SUMMARY` table.
    """
    rows = []
    for smoother, part in table.groupby("smoother", sort=False):
        part = part.sort_values("level")
        for element in (*ELEMENTS, "all"):
            found = deviations(part, element)
            near = (found <= tolerance).tolist()
            low, high = _longest_run(near)
            rows.append(
                {
                    "smoother": smoother,
                    "element": element,
                    "levels": len(part),
                    "tolerance": tolerance,
                    "near": sum(near),
                    "near_low": part["level"].iloc[low] if high > low else None,
                    "near_high": part["level"].iloc[high - 1] if high > low else None,
                    "smallest": found.min(),
                    "smallest_level": part["level"].loc[found.idxmin()],
                    "median": found.median(),
                }
            )
    return frame(rows, INTERACTIONS_SUMMARY)


def network_row(description: dict[str, Any]) -> pd.DataFrame:
    """Return the :data:`INTERACTIONS_NETWORK` table of a network's ``model.json``."""
    updates, error = PUBLISHED[description["target"]]
    own = {name: description[name] for name in list(INTERACTIONS_NETWORK.columns)[:5]}
    return frame([{**own, "paper_updates": updates, "paper_mean_squared_error": error}], INTERACTIONS_NETWORK)


def _longest_run(flags: list[bool]) -> tuple[int, int]:
    """Return begin and end (exclusive) of the longest run of true values, (0, 0) where there is none."""
    best, begin = (0, 0), 0
    for index, flag in enumerate([*flags, False]):
        if not flag:
            best = max(best, (begin, index), key=lambda run: run[1] - run[0])
            begin = index + 1
    return best if best[1] > best[0] else (0, 0)
