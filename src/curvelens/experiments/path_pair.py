"""Which two images a path joins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from curvelens.errors import ConfigError
from curvelens.experiments.inner_neurons import class_index
from curvelens.experiments.selection import correctly_classified

if TYPE_CHECKING:
    import torch

    from curvelens.store import ImageSet


def choose_pair(
    model: torch.nn.Module,
    images: ImageSet,
    classes: tuple[int | str, int | str] | None = None,
    device: torch.device | str = "cpu",
    *,
    ids: tuple[str, str] | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[int, int]:
    """Return the positions of the start and the end of a path.

    Args:
        model: Classifier on ``device``.
        images: Where to choose from.
        classes: Classes of the start and the end, by index or name: of each the first image that is
            classified correctly is taken. By default that of the first correctly classified image, and of the
            first one of another class.
        device: Device of the model.
        ids: Names of the two images, instead of all that; how they are classified does not matter.
        class_names: Name of each class, where ``classes`` has names.

    Returns:
        Positions of start and end.

    Raises:
        ConfigError: No such image or class, the two are the same, or a class has no correctly classified
            image.
    """
    if ids is not None:
        return _named(images, ids)
    if classes is None:
        wanted = None
    elif class_names is None:
        wanted = (int(classes[0]), int(classes[1]))
    else:
        start, end = (class_index(wanted, class_names, "path.classes") for wanted in classes)
        wanted = (start, end)
    if wanted is not None and wanted[0] == wanted[1]:
        raise ConfigError(f"path: start and end are both of class {classes}; name two different classes")
    right = correctly_classified(model, images, device)
    start_class = int(images.labels[_first(right, "any class")]) if wanted is None else wanted[0]
    start = _first(right & (images.labels == start_class), f"class {start_class}")
    end_class = f"a class other than {start_class}" if wanted is None else f"class {wanted[1]}"
    eligible = images.labels != start_class if wanted is None else images.labels == wanted[1]
    return start, _first(right & eligible, end_class)


def _named(images: ImageSet, ids: tuple[str, str]) -> tuple[int, int]:
    for name in ids:
        if name not in images.ids:
            raise ConfigError(
                f"path.ends: no test image is called {name!r}; names are {images.ids[0]!r} and the like"
            )
    if ids[0] == ids[1]:
        raise ConfigError(f"path.ends: start and end are both {ids[0]!r}; name two different images")
    return images.ids.index(ids[0]), images.ids.index(ids[1])


def _first(eligible: np.ndarray, what: str) -> int:
    if not eligible.any():
        raise ConfigError(
            f"path: no correctly classified image of {what}; choose other classes, more images or a better "
            "model"
        )
    return int(np.flatnonzero(eligible)[0])
