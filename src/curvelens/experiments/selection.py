"""Which images an experiment looks at: the same ones whatever the number of shards, cores or machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curvelens.errors import ConfigError
from curvelens.experiments.rows import classify

if TYPE_CHECKING:
    import torch

    from curvelens.store import ImageSet


def take(images: ImageSet, count: int, eligible: np.ndarray | None = None) -> ImageSet:
    """Return the first ``count`` images; a split is ordered so that they represent its classes evenly.

    Args:
        images: The split to choose from.
        count: Number of images.
        eligible: bool ``[N]``; only these may be chosen. All by default.

    Raises:
        ConfigError: If fewer than ``count`` images are eligible.
    """
    candidates = np.flatnonzero(np.ones(len(images), bool) if eligible is None else eligible)
    if count > len(candidates):
        what = "images" if eligible is None else "images that qualify (correctly classified, say)"
        raise ConfigError(
            f"{count} images were asked for, but the split has {len(candidates)} {what}; ask for fewer"
        )
    return images.subset(candidates[:count])


def correctly_classified(
    model: torch.nn.Module, images: ImageSet, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Return bool ``[N]``: whether the model predicts each image's label; not where it gives NaN.

    Args:
        model: Classifier on ``device``.
        images: N images.
        device: Device of the model.
    """
    found, usable = classify(model, images, device)
    return usable & (found.prediction.cpu().numpy() == images.labels)
