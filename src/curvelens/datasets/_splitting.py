"""Which images are trained on, chosen with and reported on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from curvelens import seeds
from curvelens.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from curvelens.datasets import RawDataset
    from curvelens.store import ImageSet

SPLITS = ("train", "validation", "test")


def split(
    raw: RawDataset, validation: float | int = 0.15, test: float | int = 0.15, seed: int = 0
) -> dict[str, ImageSet]:
    """Split a data set class by class into training, validation and test images.

    Which images go where depends only on ``seed`` and the image ids. An official test split is kept whole.
    Each split is ordered so that its first images represent the classes evenly: of a balanced data set, each
    block of c consecutive images holds every class once. Images without a label come last.

    Args:
        raw: The data set.
        validation: Share (float in (0, 1)) or number (int) of the images outside an official test split.
        test: The same for test images; without effect where the source has an official test split, or where
            no image may be trained on: test images are then all that are not validation images.
        seed: Any integer.

    Returns:
        ``{"train": ..., "validation": ..., "test": ...}``; no training images where none may be trained on.

    Raises:
        ConfigError: Nothing would be left for one of the splits.
    """
    import numpy as np

    everything = raw.image_set()
    official = np.zeros(len(everything), dtype=bool)
    if raw.test is not None:
        official[raw.test] = True
    pool = np.flatnonzero(~official)
    rank = {index: seeds.derive(seed, "split", raw.ids[index]) for index in range(len(everything))}
    rest = "train" if raw.trainable else "test"
    wanted = {"validation": validation}
    if raw.test is None and raw.trainable:
        wanted["test"] = test
    parts = {name: _stratified_count(name, share, len(pool), raw.trainable) for name, share in wanted.items()}
    taken = sum(parts.values())
    if taken >= len(pool):
        raise ConfigError(
            f"split: {taken} of {len(pool)} images leave none to {'train on' if raw.trainable else 'test'}; "
            "take fewer"
        )
    queues = {
        int(label): sorted(pool[raw.labels[pool] == label], key=rank.__getitem__)
        for label in np.unique(raw.labels[pool])
    }
    chosen: dict[str, list[int]] = {name: [] for name in SPLITS}
    for name, count in parts.items():
        chosen[name] = _take(queues, count, len(pool))
    chosen["test"] += list(np.flatnonzero(official))
    chosen[rest] += [index for queue in queues.values() for index in queue]
    return {name: everything.subset(_interleave(chosen[name], raw.labels, rank)) for name in SPLITS}


def _stratified_count(name: str, share: float | int, images: int, needed: bool) -> int:
    count = share if isinstance(share, int) else round(share * images)
    if count < needed or count >= images or (isinstance(share, float) and not 0 < share < 1):
        raise ConfigError(
            f"split.{name}: {share} of {images} images cannot be taken; "
            "give a share between 0 and 1, or a smaller number of images"
        )
    return count


def _take(queues: dict[int, list[int]], count: int, pool: int) -> list[int]:
    """Remove ``count`` images from the queues, from each in proportion (largest remainders) to its class."""
    available = sum(len(queue) for queue in queues.values())
    exact = {label: len(queue) * count / available for label, queue in queues.items()}
    numbers = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (numbers[label] - exact[label], label))
    for label in by_remainder[: count - sum(numbers.values())]:
        numbers[label] += 1
    taken = [index for label, queue in queues.items() for index in queue[: numbers[label]]]
    for label, queue in queues.items():
        queues[label] = queue[numbers[label] :]
    return taken


def _interleave(indices: list[int], labels: np.ndarray, rank: Mapping[int, int]) -> list[int]:
    """Order images so that every prefix holds the classes in nearly the proportions of the whole.

    Images without a label come last: what is looked at first can then be right or wrong.
    """
    by_class: dict[int, list[int]] = {}
    for index in sorted(indices, key=rank.__getitem__):
        by_class.setdefault(int(labels[index]), []).append(index)
    place = {
        index: (position + 0.5) / len(members)
        for members in by_class.values()
        for position, index in enumerate(members)
    }
    return sorted(indices, key=lambda index: (labels[index] < 0, place[index], rank[index]))
