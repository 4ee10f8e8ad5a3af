"""The images on which CASO and CAFO agree most and least, with both explanations (Singla et al. 2019, Fig. 2,
8 and 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curvelens import targets
from curvelens.context_aware.network import explain_loss
from curvelens.jobs import progress
from curvelens.loss_curvature import loss_curvature
from curvelens.seeds import derive
from curvelens.tables import OK

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from curvelens.store import ImageSet


def ends(table: pd.DataFrame, count: int) -> tuple[list[str], list[str]]:
    """Return the ids of the images of smallest and of largest distance, each by rising distance.

    Args:
        table: The table :data:`~curvelens.summaries.distances.DISTANCES`; failed rows are left out.
        count: Images at either end; fewer where the table does not have twice as many.
    """
    fine = table[table["status"] == OK].sort_values(["distance", "image_id"])
    ids = fine["image_id"].tolist()
    count = min(count, len(ids) // 2)
    return ids[:count], ids[len(ids) - count :]


def examples(
    model: torch.nn.Module,
    images: ImageSet,
    table: pd.DataFrame,
    count: int,
    *,
    c1: float = 10.0,
    form: str = "auto",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Explain the images at both ends of a table of distances, at λ₁ = 0.

    Args:
        model: Classifier on ``device``.
        images: The images, those of the table among them.
        table: The table :data:`~curvelens.summaries.distances.DISTANCES`.
        count: Images at either end.
        c1, form, seed: As the distances were computed with.
        device: Device of the model.

    Returns:
        ``cafo`` and ``caso`` ``[2 count, C, H, W]``, each explanation scaled to unit length, ``far``
        ``[2 count]``, whether the image is at the far end; and the image ids.
    """
    near, far = ends(table, count)
    ids = [*near, *far]
    predictions = table.set_index("image_id")["prediction"]
    found: dict[str, list[np.ndarray]] = {"cafo": [], "caso": []}
    for image_id in progress(ids, "examples", "images"):
        x = images.tensor(images.ids.index(image_id)).to(device)
        label = int(predictions[image_id])
        curvature = loss_curvature(
            model, x, label, form=form, c1=c1, seed=derive(seed, image_id, "largest eigenvalue")
        )
        loss = targets.loss(model, label)
        for name in found:
            second = name == "caso"
            made = explain_loss(curvature, loss, x, second_order=second, l1=0.0, c1=c1, tolerance=1e-6)
            delta = made.explanation.delta.double()
            found[name].append((delta / delta.norm()).cpu().numpy())
    shape = (len(ids), *images.shape)
    arrays = {name: np.array(maps).reshape(shape) for name, maps in found.items()}
    return {**arrays, "far": np.array([False] * len(near) + [True] * len(far))}, ids
