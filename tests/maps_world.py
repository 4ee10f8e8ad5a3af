"""Made-up tables and maps of context-aware explanations, for the tests of the report."""

from pathlib import Path

import numpy as np
import pandas as pd
import report_world as world


def tables(n: int = 9) -> dict[str, pd.DataFrame]:
    """Return what maps were computed with and how far they agree."""
    head = world.heads(n, np.random.default_rng(3), wrong=2)
    numbers = {
        "lambda1": 0.01,
        "lambda1_share": 0.25,
        "lambda2": 15.0,
        "largest_eigenvalue": 10.0,
        "largest_eigenvalue_error": 0.0,
        "kkt_residual": 1e-6,
        "iterations": 3,
        "sparsity": 0.9,
        "loss": 2.0,
    }
    aware = [world.tails(head.assign(method=name, **numbers)) for name in ("cafo", "caso")]
    pairs = [
        head.assign(first="cafo", second=second, cosine=cosine, rank_correlation=0.5)
        for second, cosine in (("caso", 0.98), ("gradient", 0.2), ("smoothcafo", -0.1))
    ]
    return {
        "context_aware": pd.concat(aware, ignore_index=True),
        "map_agreement": pd.concat(pairs, ignore_index=True),
    }


def examples(folder: Path, distances: pd.DataFrame, images: Path) -> Path:
    """Write the maps of two images at either end of a table of distances."""
    with np.load(images) as stored:
        known, shape = stored["ids"], stored["images"].shape[1:]
    fine = distances[(distances["status"] == "ok") & distances["image_id"].isin(known)]
    ids = fine.sort_values("distance")["image_id"].to_numpy(np.str_)[[0, 1, -2, -1]]
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "examples.npz",
        ids=ids,
        far=np.array([False, False, True, True]),
        cafo=random.normal(size=(4, *shape)).astype(np.float32),
        caso=random.normal(size=(4, *shape)).astype(np.float32),
    )
    return folder / "examples.npz"
