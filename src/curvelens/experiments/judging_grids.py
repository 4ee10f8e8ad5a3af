"""Pictures put together from several images of different classes (the grid pointing game)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from curvelens.errors import ConfigError
from curvelens.experiments.rows import classify, predict
from curvelens.seeds import derive
from curvelens.store import ImageSet

if TYPE_CHECKING:
    from torch import nn

    from curvelens.sections.judging import Grids


_CANDIDATES = 256  # no more are classified to find some that are classified well


@dataclass(frozen=True)
class GridSet:
    """Grids and where the image of the explained class lies in each.

    Attributes:
        images: The grids; their labels are the explained classes.
        cells: bool ``[N, H, W]``, the cell of that class.
        parts: Ids of the images of each grid, row by row.
    """

    images: ImageSet
    cells: np.ndarray
    parts: list[list[str]]

    def shard(self, index: int, count: int) -> GridSet:
        """Return every ``count``-th grid from ``index`` on; there may be fewer grids than shards."""
        places = range(index, len(self.images), count)
        return GridSet(
            self.images.subset(list(places)),
            self.cells[list(places)],
            [self.parts[place] for place in places],
        )


def grids(
    model: nn.Module, images: ImageSet, settings: Grids, seed: int = 0, device: torch.device | str = "cpu"
) -> GridSet:
    """Put images together that are classified correctly and surely, each class once (Böhle et al. 2021).

    The cells are as large as the images, so that the network sees each as it does alone; it has to take
    pictures of another size than those that it was trained on, as networks do that end in global pooling.

    Args:
        model: Classifier on ``device``.
        images: Images to choose from, the first 256.
        settings: Number and shape of the grids, and how sure a prediction has to be.
        seed: Seed of the choice. A grid's explained image is another one as long as there are some.
        device: Device of the model.

    Raises:
        ConfigError: There are too few such images, or the network takes pictures of one size only.
    """
    rows, columns = settings.shape
    images = images.subset(slice(_CANDIDATES))
    found, usable = classify(model, images, device, chunk=64)
    right = usable & (found.prediction.cpu().numpy() == images.labels)
    sure: list[int] = np.flatnonzero(right & (found.confidence.cpu().numpy() > settings.confidence)).tolist()
    if len(set(images.labels[sure])) < rows * columns:
        raise ConfigError(
            f"judging.grids: {rows * columns} cells need as many classes, and {len(sure)} images of "
            f"{len(set(images.labels[sure]))} classes are classified correctly with a confidence above "
            f"{settings.confidence:g}; make shape or confidence smaller, or leave grids out"
        )
    order = sorted(sure, key=lambda place: derive(seed, "grid order", images.ids[place]))
    pictures, cells, parts, labels = [], [], [], []
    for number in range(settings.count):
        first = order[number % len(order)]
        others = sorted(order, key=lambda place: derive(seed, "grid", number, images.ids[place]))
        chosen = _different([first, *others], images.labels, rows * columns)
        place = derive(seed, "cell", number) % len(chosen)
        chosen[0], chosen[place] = chosen[place], chosen[0]
        pictures.append(_joined(images.images[chosen], rows, columns))
        cell = np.zeros((len(chosen), *images.shape[1:]), bool)
        cell[place] = True
        cells.append(_joined(cell[:, None], rows, columns)[0])
        parts.append([images.ids[one] for one in chosen])
        labels.append(images.labels[first])
    ids = [f"grid/{number}" for number in range(settings.count)]
    made = ImageSet(np.stack(pictures), np.array(labels, np.int64), ids)
    _check(model, made, device)
    return GridSet(made, np.stack(cells), parts)


def _different(places: list[int], labels: np.ndarray, count: int) -> list[int]:
    """Return the first ``count`` places whose labels differ."""
    firsts = {labels[place]: place for place in reversed(places)}  # the earlier one stays
    return [place for place in dict.fromkeys(places) if firsts[labels[place]] == place][:count]


def _joined(pictures: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Lay pictures ``[rows·columns, C, H, W]`` out as one ``[C, rows·H, columns·W]``."""
    _, channels, height, width = pictures.shape
    laid = pictures.reshape(rows, columns, channels, height, width).transpose(2, 0, 3, 1, 4)
    return laid.reshape(channels, rows * height, columns * width)


def _check(model: nn.Module, made: ImageSet, device: torch.device | str) -> None:
    try:
        predict(model, made.tensor([0]).to(device))
    except RuntimeError as error:
        raise ConfigError(
            f"judging.grids: the network takes pictures of one size only ({type(error).__name__} at "
            f"{list(made.shape)}); leave grids out"
        ) from error
