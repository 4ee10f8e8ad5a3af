"""What figures of single images have in common: their pixels, their maps, and how they are called."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from curvelens.errors import DataError
from curvelens.figures import Tables


def picture(tables: Tables, image_id: str) -> np.ndarray:
    """Return an image, ``[H, W]`` or ``[H, W, 3]``, 0 to 255.

    Raises:
        DataError: No input ``images`` holds it.
    """
    for images in tables["images"]:
        place = np.flatnonzero(images["ids"] == image_id)
        if place.size:
            return np.moveaxis(images["images"][place[0]], 0, -1).squeeze()
    raise DataError(
        f"image {image_id!r} was explained but is not in the images given to the figure; add its split"
    )


def attribution(tables: Tables, image_id: str, method: str) -> np.ndarray:
    """Return a method's map of an image, ``[C, H, W]``.

    Raises:
        DataError: No input ``maps`` holds it.
    """
    for shard in tables["maps"]:
        place = np.flatnonzero(shard["ids"] == image_id) if shard["folder"] == method else np.zeros(0)
        if place.size:
            found: np.ndarray = shard["attribution"][place[0]]
            return found
    raise DataError(
        f"image {image_id!r} is in the index of {method} but not among its maps; give every shard to the "
        "figure"
    )


def class_name(tables: Tables, index: int) -> str:
    """Return the name of a class where the network's description has it, else its number."""
    names: list[object] = next(
        (model["class_names"] for model in tables.get("models", []) if "class_names" in model), []
    )
    return str(names[int(index)]) if 0 <= int(index) < len(names) else str(int(index))


def said(tables: Tables, row: Any) -> str:
    """Return what a network says of an image: a class, or ``cat taken for dog``.

    Args:
        tables: Inputs of the figure.
        row: With ``label`` (-1 where unknown) and ``prediction``.
    """
    prediction = class_name(tables, row.prediction)
    known = row.label >= 0 and row.label != row.prediction
    return f"{class_name(tables, row.label)} taken for {prediction}" if known else prediction


def confidence(value: float) -> str:
    """Return a probability cut, not rounded, so that 0.99996 does not read as certainty."""
    digits = 4 if value > 0.999 else 3
    return "p > 0.9999" if value > 0.9999 else f"p = {math.floor(value * 10**digits) / 10**digits}"
