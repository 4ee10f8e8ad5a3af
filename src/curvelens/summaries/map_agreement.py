"""What CAFO and CASO were computed with, and how far the maps of methods agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.store import load_explanations
from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

CONTEXT_AWARE = schema(
    "context_aware",
    "What context-aware explanations were computed with (Singla et al. 2019), by image and method.",
    {
        **IMAGE_COLUMNS,
        "method": Column(str, "Registered name: cafo, caso, smoothcafo or smoothcaso."),
        "lambda1": Column(float, "λ₁, the weight of ‖Δ‖₁.", unit="loss per pixel value", ge=0),
        "lambda1_share": Column(float, "λ₁ as a share of max|g|; from 1 on the map is zero.", ge=0),
        "lambda2": Column(float, "λ₂ = L/2 + c₁, the weight of ‖Δ‖².", gt=0),
        "largest_eigenvalue": Column(
            float, "L, largest eigenvalue of the Hessian of the loss, for smooth methods of its mean.", ge=0
        ),
        "largest_eigenvalue_error": Column(
            float, "How far L may be off: an eigenvalue lies within this distance; 0 where it is exact.", ge=0
        ),
        "kkt_residual": Column(float, "Relative violation of the optimality conditions.", ge=0),
        "iterations": Column(int, "Iterations of the solver; 0 for a closed form.", ge=0),
        "sparsity": Column(
            float, "η, share of pixels of the map that are zero in every channel.", ge=0, le=1
        ),
        "loss": Column(float, "Loss at the image changed by Δ.", unit="nat", ge=0),
        **RUN_COLUMNS,
    },
    keys=("method", "image_id"),
)

MAP_AGREEMENT = schema(
    "map_agreement",
    "How far the maps of two methods agree: one row per image and pair of methods, failed maps left out.",
    {
        **IMAGE_COLUMNS,
        "first": Column(str, "Registered name of a method."),
        "second": Column(str, "Registered name of another, later in the alphabet."),
        "cosine": Column(
            float,
            "Cosine of the angle between the maps, all channels; missing where one is zero.",
            nullable=True,
            ge=-1 - 1e-9,
            le=1 + 1e-9,
        ),
        "rank_correlation": Column(
            float,
            "Spearman's rank correlation over pixels of the magnitudes summed over channels, which is what "
            "pictures of maps show; missing where one map is constant.",
            nullable=True,
            ge=-1 - 1e-9,
            le=1 + 1e-9,
        ),
    },
    keys=("first", "second", "image_id"),
)

Maps = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
"""Arrays by method, image id and name."""

_NUMBERS = [name for name in CONTEXT_AWARE.columns if name not in (*IMAGE_COLUMNS, *RUN_COLUMNS, "method")]


def compare(index: pd.DataFrame, paths: Iterable[str | Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what context-aware maps were computed with, and how far the maps of methods agree.

    Args:
        index: The table :data:`~curvelens.summaries.explanations.EXPLANATIONS`.
        paths: Stored explanations, ``{method}/{shard}.npz``. One shard at a time is held in memory.

    Returns:
        The tables :data:`CONTEXT_AWARE` and :data:`MAP_AGREEMENT`.

    Raises:
        DataError: A file is missing or damaged.
    """
    shards: dict[str, list[Path]] = {}
    for path in map(Path, paths):
        shards.setdefault(path.stem, []).append(path)
    beside: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    rows: list[dict[str, Any]] = []
    for files in shards.values():
        maps = load(files)
        rows += _pairs(index, maps)
        for method, images in maps.items():
            beside.setdefault(method, {}).update({name: _numbers(found) for name, found in images.items()})
    rows.sort(key=lambda row: (row["image_id"], row["first"], row["second"]))
    return numbers(index, beside), frame(rows, MAP_AGREEMENT)


def _numbers(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in arrays.items() if array.ndim == 0}


def load(paths: Iterable[str | Path]) -> Maps:
    """Read stored explanations.

    Args:
        paths: ``{method}/{shard}.npz``.

    Raises:
        DataError: A file is missing or damaged.
    """
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for path in map(Path, paths):
        arrays, ids = load_explanations(path)
        of_method = found.setdefault(path.parent.name, {})
        for place, image_id in enumerate(ids):
            of_method[image_id] = {name: array[place] for name, array in arrays.items()}
    return found


def numbers(index: pd.DataFrame, maps: Maps) -> pd.DataFrame:
    """Gather the numbers stored beside context-aware maps.

    Args:
        index: The table :data:`~curvelens.summaries.explanations.EXPLANATIONS`.
        maps: Arrays by method; those without a ``lambda1`` are not context-aware.

    Returns:
        The table :data:`CONTEXT_AWARE`.
    """
    aware = [name for name, images in maps.items() if any("lambda1" in found for found in images.values())]
    rows = []
    for row in index[index["method"].isin(aware)].to_dict("records"):
        made = {name: row[name] for name in (*IMAGE_COLUMNS, *RUN_COLUMNS, "method")}
        if row["status"] == OK:
            arrays = maps[row["method"]][row["image_id"]]
            made |= {name: float(arrays[name]) for name in _NUMBERS}
        rows.append(made)
    return frame(rows, CONTEXT_AWARE)


def _pairs(index: pd.DataFrame, maps: Maps) -> list[dict[str, Any]]:
    """Return a row of :data:`MAP_AGREEMENT` for every two methods of an image, failed maps left out."""
    here = {image_id for images in maps.values() for image_id in images}
    fine = index[(index["status"] == OK) & index["image_id"].isin(here)]
    rows = []
    for image_id, group in fine.groupby("image_id"):
        head = group.iloc[0][list(IMAGE_COLUMNS)].to_dict()
        seen = {
            name: _prepared(maps[name][image_id]["attribution"])
            for name in sorted(group["method"])
            if image_id in maps.get(name, ())
        }
        for first, second in combinations(seen, 2):
            a, b = seen[first], seen[second]
            cosine, rank_correlation = _product(a[0], b[0]), _product(a[1], b[1])
            rows.append(
                head
                | {"first": first, "second": second}
                | {"cosine": cosine, "rank_correlation": rank_correlation}
            )
    return rows


def _prepared(attribution: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the map ``[C, H, W]`` of unit length, and the centred ranks of its pixels of unit length."""
    from scipy.stats import rankdata

    magnitude = np.abs(attribution.astype(np.float64)).sum(0)
    ranks = rankdata(magnitude.ravel())
    return _unit(attribution.astype(np.float64).ravel()), _unit(ranks - ranks.mean())


def _unit(vector: np.ndarray) -> np.ndarray | None:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else None


def _product(a: np.ndarray | None, b: np.ndarray | None) -> Any:
    return None if a is None or b is None else float(a @ b)
