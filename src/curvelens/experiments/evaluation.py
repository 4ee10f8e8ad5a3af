"""What a network says of each image, beside what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from curvelens.errors import DataError
from curvelens.experiments.rows import Item, per_image
from curvelens.summaries.evaluation import PREDICTIONS
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from curvelens.store import ImageSet


def predictions(
    model: torch.nn.Module,
    images: ImageSet,
    *,
    origins: Mapping[str, str] | None = None,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Classify every image.

    Args:
        model: Classifier on ``device``, in float32.
        images: The images; -1 is the label of those whose class is not known.
        origins: Source and terms of single images, by id.
        device: Device of the model.

    Returns:
        The table :data:`~curvelens.summaries.evaluation.PREDICTIONS`; an image that fails becomes a failed
        row.
    """
    known = origins or {}

    def tell(item: Item) -> dict[str, Any]:
        log_probabilities = item.logits.double().log_softmax(0)
        entropy = -(log_probabilities.exp() * log_probabilities).nansum()
        row = {"entropy": max(0.0, float(entropy)), "origin": known.get(item.image_id)}
        if item.label < 0:
            return row
        if item.label >= len(item.logits):
            raise DataError(
                f"label {item.label} is beyond the network's {len(item.logits)} classes; correct it, or "
                "the data set's class names"
            )
        loss = -float(log_probabilities[item.label])
        return row | {"correct": item.label == item.prediction, "loss": max(0.0, loss)}

    return frame(per_image(images, model, tell, description="predictions", device=device), PREDICTIONS)
