"""Tables of a study of interactions, made up without a network: near the exact values, and far from them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from curvelens import synthetic
from curvelens.summaries.interactions import ELEMENTS, SMOOTHHESS, SOFTPLUS, network_row, summarise


def measured(name: str = "nested", near: bool = True, levels: int = 9) -> pd.DataFrame:
    """SmoothHess 2 % above the exact values (or all zero), SoftPlus 50 % above them."""
    target, rows = synthetic.TARGETS[name](), []
    for smoother, ends in ((SMOOTHHESS, (1e-4, 1.0)), (SOFTPLUS, (0.1, 1e3))):
        for place, level in enumerate(np.geomspace(*ends, levels)):
            matched = level if smoother == SMOOTHHESS else 0.3
            factor = (1.02 if near else 0.0) if smoother == SMOOTHHESS else 1.5
            exact, inside = (part.smoothed_hessian(matched**0.5) for part in (target.plane, target.inside))
            row = {"smoother": smoother, "level": level, "matched": matched, "calls": 64, "seconds": 0.1}
            for element in ELEMENTS:
                i, j = int(element[0]) - 1, int(element[1]) - 1
                row[f"h{element}"] = factor * exact[i, j] * (100 if place == levels - 1 and i == j else 1)
                row[f"stderr{element}"] = 0.01 if smoother == SMOOTHHESS else 0.0
                row |= {f"exact{element}": exact[i, j], f"inside{element}": inside[i, j]}
            off = max(abs(row[f"h{e}"] - row[f"exact{e}"]) for e in ELEMENTS)
            rows.append({**row, "deviation": off / np.abs(exact).max()})
    return pd.DataFrame(rows)


def surface(points: int = 5) -> pd.DataFrame:
    """A saddle, flatter the more it is smoothed."""
    axis = np.linspace(-2, 2, points)
    return pd.DataFrame(
        [
            {"sigma_squared": variance, "x1": a, "x2": b, "value": a * b * (1 - variance), "target": a * b}
            for variance in (0.0, 0.3)
            for a in axis
            for b in axis
        ]
    )


def tables(name: str = "nested", near: bool = True, levels: int = 9) -> dict[str, pd.DataFrame]:
    """Every table of the study, by name."""
    table = measured(name, near, levels)
    network = {"target": name, "weights": 100, "updates": 7}
    errors = {"mean_squared_error": 0.5, "between_mean_squared_error": 0.75}
    return {
        "interactions": table,
        "interactions_summary": summarise(table, 0.1),
        "interactions_network": network_row(network | errors),
        "interactions_surface": surface(),
    }
