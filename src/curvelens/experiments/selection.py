"""Which images an experiment looks at: the same ones whatever the number of shards, cores or machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curvelens import store
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
    what = "images" if eligible is None else "images that qualify (correctly classified, say)"
    _require(count, len(candidates), what)
    return images.subset(candidates[:count])


def shard(path: str | Path, count: int, index: int, shards: int) -> ImageSet:
    """Read part ``index`` of ``shards`` of the first ``count`` images of a stored split, and no others.

    Args:
        path: The split's image set.
        count: Images that the stage looks at.
        index: Which part.
        shards: Parts.

    Raises:
        ConfigError: The split has fewer images than that.
        DataError: The file is missing or damaged.
    """
    rows = store.shard_rows(count, index, shards)
    images = store.load_image_set(path, rows)
    if len(images) < rows.stop - rows.start:
        _require(count, len(store.load_image_set(path)), "images")
    return images


def _require(count: int, there: int, what: str) -> None:
    if count > there:
        raise ConfigError(f"{count} images were asked for, but the split has {there} {what}; ask for fewer")


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
