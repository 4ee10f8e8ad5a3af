"""A small run of the stage `competing` for the tests of the report: a linear model of hostile classes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import report_world as world
import torch
from torch import nn

from curvelens.experiments.competing import Described, competing
from curvelens.sections.competing import Competing
from curvelens.store import ImageSet, save_explanations

SIZE = 6


@cache
def _run() -> tuple[pd.DataFrame, dict[str, np.ndarray], list[str]]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 3))
    with torch.no_grad():
        model[1].weight.copy_(0.2 * torch.randn(model[1].weight.shape, generator=generator))
    pixels = np.random.default_rng(0).integers(0, 255, (8, 3, SIZE, SIZE), dtype=np.uint8)
    images = ImageSet(pixels, np.arange(8) % 3, [f"digits/{world.HOSTILE}{index}" for index in range(8)])
    settings = Competing(
        mistakes=3,
        scenes={world.HOSTILE: [images.ids[7]], "two of a kind": [images.ids[0]]},
        methods={"gradient": {}, "smoothgrad": {"samples": 4}, "vargrad": {"samples": 4}},
    )
    described = Described([world.HOSTILE, "cat", "dog"], {}, f"a place called {world.HOSTILE}")
    return competing(model.eval(), images, images, settings, described)


def table(failed: int = 0) -> pd.DataFrame:
    """Return the table; the first ``failed`` rows lose every number and get a status and an error."""
    found = _run()[0].copy()
    return world.tails(found, min(failed, len(found))) if failed else found


def maps() -> dict[str, Any]:
    """Return the arrays as a figure reads them."""
    _, arrays, ids = _run()
    return {**arrays, "ids": np.array(ids), "folder": "digits"}


def write(folder: Path) -> dict[str, Path]:
    """Write table and maps; return figure inputs."""
    folder.mkdir(parents=True)
    made, arrays, ids = _run()
    made.to_parquet(folder / "competing.parquet")
    save_explanations(folder / "maps.npz", arrays, ids)
    return {"competing": folder / "competing.parquet", "competing_maps": folder / "maps.npz"}
