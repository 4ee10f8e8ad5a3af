"""Made-up judgements of explanations, for the tests of figures and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import report_world as world

from curvelens.summaries import judging

METHODS = ("gradient", "smoothgrad", "integrated_gradients", "caso", "cam", "lime", "own_method")
GRIDS = 3
SIDE = 8
_ON_IMAGES = {
    "pointing": (None, 0.3), "energy": (None, 0.3), "pixel_auc": (None, 0.5), "iou": (0.5, np.nan),
    "deletion": (None, np.nan), "insertion": (None, np.nan), "unexplained": (0.1, 1.0), "pmse": (0.1, np.nan),
    "sensitivity": (None, np.nan), "randomization": (0.5, 0.0), "seconds": (None, np.nan),
    "memory": (None, np.nan), "calls": (None, np.nan),
}  # fmt: skip


def judgement_images(n: int = 8, failed: int = 0, seed: int = 0) -> pd.DataFrame:
    """Values that fall from method to method by every measure; a failed image has no number."""
    rng = np.random.default_rng(seed)
    scenes = {judging.IMAGE: (world.heads(n, rng), _ON_IMAGES)}
    grids = world.heads(GRIDS, rng, wrong=0).assign(image_id=[f"grid/{k}" for k in range(GRIDS)])
    scenes[judging.GRID] = (grids, {name: _ON_IMAGES[name] for name in ("pointing", "energy", "iou")})
    parts = []
    for scene, (heads, metrics) in scenes.items():
        for place, method in enumerate((*METHODS, judging.RANDOM)):
            for metric, (at, chance) in metrics.items():
                if method == judging.RANDOM and metric in ("seconds", "memory", "calls", "sensitivity"):
                    continue
                value = 0.9 - 0.1 * place + rng.uniform(-0.02, 0.02, len(heads))
                value = np.round(value) if metric == "pointing" else value
                parts.append(
                    heads.assign(
                        scene=scene, target=heads["prediction"], method=method, metric=metric, at=at,
                        value=value, stderr=np.nan, chance=chance,
                    )
                )  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    rows = table["image_id"].isin(sorted(table["image_id"].unique())[:failed])
    made = world.tails(table)
    made.loc[rows, ["value", "at", "stderr", "chance"]] = np.nan
    made.loc[rows, "status"], made.loc[rows, "error"] = "failed", f"RuntimeError: {world.HOSTILE}"
    return made


def curve_parts(n: int = 4) -> pd.DataFrame:
    """Curves that fall and rise as a power of the share."""
    rows = []
    for image in range(n):
        for place, method in enumerate((*METHODS, judging.RANDOM)):
            for share in np.linspace(0, 1, 5):
                for curve, p in (
                    ("deletion", (1 - share) ** (3 - 0.3 * place)),
                    ("insertion", share ** (1 + place)),
                ):
                    rows.append(
                        {"image_id": str(image), "method": method, "curve": curve, "share": share,
                         "probability": 0.9 * p, "loss": -np.log(0.9 * p + 1e-3)}
                    )  # fmt: skip
    return pd.DataFrame(rows)


def tables(n: int = 8, failed: int = 0) -> dict[str, pd.DataFrame]:
    images = judgement_images(n, failed)
    parts = curve_parts().head(0) if failed > n else curve_parts()
    return {
        "judgement_images": images,
        "judgement": judging.summarise(images),
        "judgement_curves": judging.curves(parts),
    }


def grid_maps() -> dict[str, Any]:
    """Grids of two cells with a map a method."""
    rng = np.random.default_rng(1)
    cells = np.zeros((GRIDS, SIDE, 2 * SIDE), bool)
    cells[:, :, :SIDE] = True
    maps = {method: rng.random((GRIDS, SIDE, 2 * SIDE), dtype=np.float32) for method in METHODS}
    images = rng.integers(0, 255, (GRIDS, 3, SIDE, 2 * SIDE), dtype=np.uint8)
    return {"ids": np.array([f"grid/{k}" for k in range(GRIDS)]), "images": images, "cells": cells, **maps}


def write(folder: Path) -> dict[str, Any]:
    """Write tables and maps; return the inputs of the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "0.npz", **grid_maps())
    found: dict[str, Any] = {"grid_maps": [folder / "0.npz"]}
    for name, table in tables().items():
        found[name] = folder / f"{name}.parquet"
        table.to_parquet(found[name])
    return found
