"""Made-up paths of sparsity along λ₁ for given images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

METHODS = ("CAFO", "CASO", "clipped gradient")
BLOCKS = ("values", "patches")
L1S = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
ETAS = (0.0, 0.3, 0.8, 0.9, 1.0)
CHOSEN = 2


def write(folder: Path, images: Path, n: int = 3, isolated: float = 0.3) -> dict[str, Any]:
    """Write a table and arrays for the first n images; return the figures' inputs."""
    rng = np.random.default_rng(6)
    with np.load(images) as stored:
        ids, shape = stored["ids"][:n], stored["images"].shape[2:]
    labels = np.indices(shape) * 2 // np.array(shape)[:, None, None]
    labels = np.stack([np.arange(np.prod(shape)).reshape(shape), 2 * labels[0] + labels[1]])
    values = rng.random((n, len(METHODS), 1, *shape))
    order = values.reshape(n, len(METHODS), 1, -1).argsort(-1).argsort(-1).reshape(values.shape)
    kept = order >= np.array(ETAS)[:, None, None] * np.prod(shape)
    path = values * kept
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.repeat(path[:, None, :, CHOSEN], len(BLOCKS), 1)
    np.savez(
        folder / "0.npz",
        ids=ids,
        blocks=np.array([BLOCKS] * n),
        lambda1=np.tile(L1S, (n, 1)),
        path=path,
        chosen=chosen,
        labels=np.broadcast_to(labels, (n, *labels.shape)),
    )
    table([str(image_id) for image_id in ids], isolated).to_parquet(folder / "sparsity.parquet")
    return {"sparsity": folder / "sparsity.parquet", "sparsity_maps": [folder / "0.npz"]}


def table(ids: Sequence[str] = ("a/0", "a/1", "a/2"), isolated: float = 0.3) -> pd.DataFrame:
    """Return paths of the images named; the clipped gradient has a share of 0.2 isolated pixels."""
    rows = [
        _row(image_id, place, block, method, step, isolated)
        for place, image_id in enumerate(ids)
        for block in BLOCKS
        for method in METHODS
        for step in range(len(L1S))
    ]
    return pd.DataFrame(rows)


def _row(image_id: str, place: int, block: str, method: str, step: int, isolated: float) -> dict[str, Any]:
    own, empty = method != METHODS[2], ETAS[step] == 1
    return {
        "image_id": image_id,
        "label": 0,
        "prediction": place,
        "confidence": 0.9 - 0.1 * place,
        "block": block,
        "method": method,
        "lambda1": L1S[step],
        "lambda2": 12.0,
        "step": float(step - 1) if own and step else np.nan,
        "chosen": step == CHOSEN,
        "satisfied": True,
        "least": 0.75,
        "blocks": 64 if block == "values" else 4,
        "sparsity": ETAS[step],
        "block_sparsity": ETAS[step],
        "loss": 2.0 - step / 4,
        "objective": 0.1 if own else np.nan,
        "kkt_residual": 1e-7 if own else np.nan,
        "iterations": 3.0 if own else np.nan,
        "precision": "float32",
        "products": 9 if method == "CASO" else 0,
        "cosine": np.nan if empty else 0.9,
        "jaccard_gradient": np.nan if empty else 0.7,
        "jaccard_cafo": np.nan if empty else 0.95,
        "isolated": np.nan if empty else isolated,
        "isolated_gradient": np.nan if empty else 0.2,
        "seconds": 0.1,
        "calls": 1,
        "status": "ok",
        "error": "",
    }
