"""A gallery written once from a made-up run, for the tests that read it and the test that opens it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import report_world as world

from curvelens.reporting import gallery
from curvelens.summaries.competing import COMPETING

TEMPLATE = Path(__file__).resolve().parents[1] / "report" / "template"
TEMPLATES = {
    "style": TEMPLATE / "curvelens" / "style.css",
    "gallery": TEMPLATE / "gallery" / "style.css",
    "script": TEMPLATE / "gallery" / "filter.js",
}
CLASSES = [world.HOSTILE, "one & one", *"23456789"]


def files(folder: Path, n: int = 9) -> dict[str, list[Path]]:
    """Write what the pages of an experiment are made from: nine images, two misclassified, three methods."""
    found = world.explanations(folder / "maps", n)
    index = pd.concat([pd.read_parquet(path) for path in found["explanations"]], ignore_index=True)
    index = index.assign(
        trust_radius=1.5, trust_low=1.0, trust_high=2.0, trust_censored="", forward_calls=0, calls_alone=16
    )
    tables = folder / "tables"
    tables.mkdir()
    index.to_parquet(tables / "explanations.parquet")
    world.distances(20).to_parquet(tables / "distances.parquet")
    world.fidelity().to_parquet(tables / "fidelity.parquet")
    model = world.write_json(folder / "models" / "relu" / "model.json", {"class_names": CLASSES})
    return {
        "tables": sorted(tables.glob("*.parquet")),
        "maps": found["maps"],
        "images": found["images"],
        "models": [model],
    }


def competing(folder: Path, found: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Add maps of two classes: of an image that other methods explained, and of a scene that none did."""
    rng = np.random.default_rng(1)
    ids, names = ["digits/00002", f"scene/{world.HOSTILE}"], (f"cat {world.HOSTILE}", "dog & co")
    table = pd.DataFrame(
        {
            "image_id": ids, "label": [2, -1], "prediction": [2, 1], "confidence": 0.6,
            "part": ["unsure", "scene"], "method": "gradient", "name_a": names[0], "name_b": names[1],
            "status": "ok", "error": "",
        }
    )  # fmt: skip
    table = table.reindex(columns=[*COMPETING.columns])  # the others are not looked at here
    table.to_parquet(folder / "tables" / "competing.parquet")
    path = folder / "competing.npz"
    np.savez(
        path,
        ids=np.array(ids),
        maps=rng.normal(size=(2, 2, 3, 8, 8)).astype(np.float32),
        pixels=rng.integers(0, 255, (2, 3, 8, 8), dtype=np.uint8),
        part=table["part"].to_numpy(np.str_),
        method=table["method"].to_numpy(np.str_),
    )
    tables = [*found["tables"], folder / "tables" / "competing.parquet"]
    return {**found, "tables": tables, "competing": [path]}


@functools.cache
def written() -> Path:
    """Write the gallery once a process and return its folder."""
    folder = Path(tempfile.mkdtemp(prefix="curvelens-gallery-"))
    one, other = files(folder / "one"), files(folder / "other", 3)
    other = competing(folder / "other", other)
    gallery.write(
        f"How far? {world.HOSTILE}", {"digits": one, "few": other}, TEMPLATES, folder / "gallery", 7
    )
    return folder / "gallery"
