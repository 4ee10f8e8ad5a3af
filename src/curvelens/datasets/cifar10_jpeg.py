"""CIFAR-10 as JPEG copies: the pictures and the split of the original, the pixels approximately."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens.datasets import REGISTRY
from curvelens.datasets._cifar import CLASSES
from curvelens.registry import NoParameters

if TYPE_CHECKING:
    from curvelens.datasets import RawDataset


@REGISTRY.register(
    "cifar10_jpeg",
    reference="Krizhevsky 2009; copies of the pictures, compressed with loss",
    images=60000,
    classes=10,
    image_shape=(3, 32, 32),
    official_test=True,
    archive=True,
)
def load(parameters: NoParameters, data_dir: Path | None, cache_dir: Path) -> RawDataset:
    """CIFAR-10 as JPEG files, one folder for each class, in `data_dir`. JPEG loses detail, so pixels differ
    from the published ones, no published checksum can match, and networks trained on the originals lose
    accuracy.

    Args:
        parameters: None are taken.
        data_dir: Folder with ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``, or an archive of them
            (``.tar``, ``.tar.gz``, ``.tar.xz``), or a folder with one archive.
        cache_dir: Not used: nothing is downloaded.

    Returns:
        Training images first; the folder ``test`` is the test split.

    Raises:
        DataError: There are no such files, they are damaged, or their classes are not those of CIFAR-10.
    """
    import numpy as np

    from curvelens.datasets import RawDataset
    from curvelens.datasets._pictures import read_pictures
    from curvelens.errors import DataError

    if data_dir is None:
        raise DataError(
            "cifar10_jpeg: is not downloaded; set data_dir to the folder with train/ and test/, or an archive"
        )
    pictures = read_pictures(data_dir)
    found = set(pictures.classes)
    if found != set(CLASSES):
        wrong = sorted(found.symmetric_difference(CLASSES))
        raise DataError(
            f"data_dir {data_dir}: its classes are not those of CIFAR-10 (unlike: {', '.join(wrong[:5])}); "
            "rename the folders, or add what is missing"
        )
    return RawDataset(
        images=pictures.images,
        labels=np.array([CLASSES.index(name) for name in pictures.classes], dtype=np.int64),
        ids=[f"cifar10_jpeg/{name}" for name in pictures.names],
        class_names=list(CLASSES),
        source="CIFAR-10 by A. Krizhevsky, V. Nair and G. Hinton, as JPEG copies compressed with loss",
        licence="none stated by the authors",
        sha256=pictures.sha256,
        test=np.arange(pictures.training, len(pictures.names)),
    )
