"""What the film of a path shows and what it says, from the path's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_MAPS = ("gradient", "smoothgrad", "vargrad")
_SPOKEN = {"gradient": "the gradient", "smoothgrad": "SmoothGrad", "vargrad": "VarGrad"}


def contents(table: pd.DataFrame, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of ``film.write_film``.

    Args:
        table: ``curvelens.experiments.path.PATH`` of one path.
        arrays: ``t`` ``[T]``, ``images`` and maps ``[T, C, H, W]``.
        names: Class names.

    Returns:
        ``images``, ``maps``, ``t``, ``curves`` and ``titles``.
    """
    start, end = (names[int(table[column].iloc[0])] for column in ("start_class", "end_class"))
    return {
        "images": arrays["images"],
        "maps": {name: arrays[name] for name in _MAPS},
        "t": arrays["t"],
        "curves": {
            f"probability of {start}": table["start_probability"].to_numpy(float),
            f"probability of {end}": table["end_probability"].to_numpy(float),
        },
        "titles": [
            f"t = {row.t:.2f}: {names[int(row.prediction)]} ({row.confidence:.0%})"
            for row in table.itertuples()
        ],
    }


def texts(table: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """Return caption and alternative text: where the prediction and the explanations jump on this path.

    Args:
        table: ``curvelens.experiments.path.PATH`` of one path.
        names: Class names.

    Returns:
        ``caption`` and ``alt``, plain text.
    """
    start, end = (names[int(table[column].iloc[0])] for column in ("start_class", "end_class"))
    t = table["t"].to_numpy(float)
    prediction = table["prediction"].to_numpy(int)
    switches = np.flatnonzero(np.diff(prediction))
    told = [
        f"to {names[prediction[i + 1]]} between t = {t[i]:.2f} and {t[i + 1]:.2f}" for i in switches
    ]  # fmt: skip
    changes = f"The prediction changes {', then '.join(told)}." if told else "The prediction never changes."
    jumps = [
        f"{_SPOKEN[name]} turns by {_degrees(steps.median()):.0f}° (at most {_degrees(steps.max()):.0f}°)"
        for name in _MAPS
        if len(steps := table[f"{name}_change"].dropna())
    ]
    crossed = table["regions_crossed"].dropna()
    regions = f" The path crosses {int(crossed.sum())} borders of linear regions." if len(crossed) else ""
    summary = f"The straight path from an image of {start} to one of {end} in {len(t)} points. {changes}"
    caption = (
        f"{summary} From step to step {', '.join(jumps)}.{regions} Each explanation is of the predicted "
        "class's logit and keeps one colour scale over the film, capped at the 99 % quantile of all frames."
    )
    return {"caption": caption, "alt": f"Film: image, gradient, SmoothGrad and VarGrad. {summary}"}


def _degrees(change: float) -> float:
    """Angle of a change ``1 - cosine``."""
    return float(np.degrees(np.arccos(np.clip(1 - change, -1, 1))))
