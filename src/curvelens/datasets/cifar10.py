"""CIFAR-10: 60,000 colour pictures of ten classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens.datasets import REGISTRY
from curvelens.datasets._cifar import DOWNLOAD, load_cifar10
from curvelens.registry import NoParameters

if TYPE_CHECKING:
    from curvelens.datasets import RawDataset


@REGISTRY.register(
    "cifar10",
    reference="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
    images=60000,
    classes=10,
    image_shape=(3, 32, 32),
    official_test=True,
    downloads=(DOWNLOAD,),
)
def load(parameters: NoParameters, data_dir: Path | None, cache_dir: Path) -> RawDataset:
    """CIFAR-10, 50,000 training and 10,000 test images of animals and vehicles, 32 x 32 pixels, RGB.

    Args:
        parameters: None are taken.
        data_dir: Folder with ``cifar-10-python.tar.gz`` or ``cifar-10-batches-py/``, or the latter itself.
        cache_dir: Folder that keeps the download (170 MB).

    Returns:
        Training images first; the test split is the official one.

    Raises:
        DataError: A file is missing, damaged or not the published one, or cannot be downloaded.
    """
    return load_cifar10(data_dir, cache_dir)
