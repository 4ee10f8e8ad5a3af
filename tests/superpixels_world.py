"""Made-up interactions between super-pixels of given images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

METHODS = ("SH+SG", "SP H+G", "SW H+G")
COUNT = 4


def write(folder: Path, images: Path, n: int = 3) -> dict[str, Any]:
    """Write a table and arrays for the first n images, each in four quarters; return the figure's inputs."""
    rng = np.random.default_rng(5)
    with np.load(images) as stored:
        ids, shape = stored["ids"][:n], stored["images"].shape[2:]
    quarter = np.indices(shape) * 2 // np.array(shape)[:, None, None]
    values = rng.normal(size=(n, len(METHODS), COUNT, COUNT))
    values = values + values.transpose(0, 1, 3, 2)
    errors = np.where(np.arange(len(METHODS))[:, None, None] == 0, 0.5, 0.0) + np.zeros_like(values)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "0.npz",
        ids=ids,
        segments=np.broadcast_to(2 * quarter[0] + quarter[1], (n, *shape)),
        methods=np.array([METHODS] * n),
        interactions=values,
        errors=errors,
        slopes=rng.normal(size=(n, len(METHODS), COUNT)),
    )
    rows = [
        {
            "image_id": str(image_id),
            "label": 0,
            "prediction": place,
            "confidence": 0.9,
            "method": method,
            "parameter": "beta" if number else "sigma",
            "parameter_value": 10.0 if number else 0.01,
            "superpixels": COUNT,
            "object": 0,
            "shown": 1,
            "partner": 2,
            "interaction": values[place, number, 1, 2],
            "interaction_error": errors[place, number, 1, 2],
            "touching": place > 0,
            "relative_error": 0.0 if number else 0.3,
            "agreement": 0.5 if number else 1.0,
            "radius": 0.25,
            "law": "ball",
            "pmse": 1e-5 * (number + 1),
            "pmse_error": 1e-6,
            "shared_scale": False,
            "seconds": 2.5,
            "calls": 200,
            "status": "ok",
            "error": "",
        }
        for place, image_id in enumerate(ids)
        for number, method in enumerate(METHODS)
    ]
    pd.DataFrame(rows).to_parquet(folder / "superpixels.parquet")
    return {"superpixels": folder / "superpixels.parquet", "superpixel_maps": [folder / "0.npz"]}
