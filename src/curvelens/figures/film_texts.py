"""What the film of a path shows and what it says, from the path's table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures.film import QUANTILE, Content
from curvelens.figures.interpret_path import ends, name_of, switches
from curvelens.figures.wording import listing, number, percent, sentences
from curvelens.summaries.path import METHODS, RULE

if TYPE_CHECKING:
    import pandas as pd

SPOKEN = {"gradient": "the gradient", "smoothgrad": "SmoothGrad", "vargrad": "VarGrad"}


def contents(table: pd.DataFrame, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Content:
    """Return what the film shows.

    Args:
        table: ``curvelens.summaries.path.PATH`` of one path.
        arrays: ``t`` ``[T]``, ``images`` and maps ``[T, C, H, W]``.
        names: Class names.
    """
    start, end = (textwrap.shorten(name, 20, placeholder="…") for name in ends(table, names))
    curves = {
        start: table["start_probability"].to_numpy(float),
        end: table["end_probability"].to_numpy(float),
    }
    known = [int(table[column].iloc[0]) for column in ("start_class", "end_class")]
    if not table["prediction"].isin(known).all():
        curves["predicted class"] = table["confidence"].to_numpy(float)
    return Content(
        images=arrays["images"],
        maps={name: arrays[name] for name in METHODS},
        t=arrays["t"],
        curves=curves,
        changes={name: table[f"{name}_distance"].to_numpy(float) for name in METHODS},
        jumps={name: table[f"{name}_jump"].to_numpy(bool) for name in METHODS},
        titles=[
            f"t = {row.t:.2f}: {textwrap.shorten(name_of(row.prediction, names), 60, placeholder='…')} "
            f"({row.confidence:.0%})"
            for row in table.itertuples()
        ],
    )


def poster_frame(table: pd.DataFrame) -> int:
    """Return the frame that stands for the film: the first with another prediction, else the middle one."""
    changed = switches(table)
    return int(changed[0]) if len(changed) else len(table) // 2


def texts(table: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """Return caption and alternative text: where the prediction and the explanations jump on this path.

    Args:
        table: ``curvelens.summaries.path.PATH`` of one path.
        names: Class names.

    Returns:
        ``caption`` and ``alt``, plain text.
    """
    start, end = ends(table, names)
    t, changed = table["t"].to_numpy(float), switches(table)
    told = [
        f"to {name_of(table['prediction'].iloc[i], names)} between t = {t[i - 1]:.2f} and {t[i]:.2f}"
        for i in changed
    ]
    changes = f"The prediction changes {', then '.join(told)}." if told else "The prediction never changes."
    moves = [
        f"{SPOKEN[name]} by {percent(steps.median())} (at most {percent(steps.max())})"
        for name in METHODS
        if len(steps := table[f"{name}_distance"].dropna())
    ]
    found = [
        f"{SPOKEN[name]} at t = {listing(number(at) for at in t[table[f'{name}_jump'].to_numpy(bool)])}"
        for name in METHODS
        if table[f"{name}_jump"].any()
    ]
    summary = f"The straight path from an image of {start} to one of {end} in {len(t)} points. {changes}"
    caption = sentences(
        summary,
        f"From step to step each explanation changes by its median share of its L2 norm: {listing(moves)}."
        if moves
        else "",
        f"Jumps (rings): {'; '.join(found)}. A jump is {RULE}." if found else f"No step is a jump: {RULE}.",
        "Each explanation is of the predicted class's logit, with the same noise in every frame, its "
        "channels summed, and keeps one colour scale over the film, capped at the "
        f"{QUANTILE:.0%} quantile of the magnitudes of all frames.",
    )
    return {"caption": caption, "alt": f"Film: image, gradient, SmoothGrad and VarGrad. {summary}"}
