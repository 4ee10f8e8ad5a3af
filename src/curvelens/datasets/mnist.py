"""MNIST: 70,000 handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens.datasets import REGISTRY
from curvelens.datasets._idx import IdxFile, downloads, load_idx_dataset
from curvelens.registry import NoParameters

if TYPE_CHECKING:
    from curvelens.datasets import RawDataset

_FILES = {
    "train_images": IdxFile(
        "train-images-idx3-ubyte",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        9_912_422,
    ),
    "train_labels": IdxFile(
        "train-labels-idx1-ubyte",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        28_881,
    ),
    "test_images": IdxFile(
        "t10k-images-idx3-ubyte",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        1_648_877,
    ),
    "test_labels": IdxFile(
        "t10k-labels-idx1-ubyte",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        4_542,
    ),
}
_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)


@REGISTRY.register(
    "mnist",
    reference="LeCun, Bottou, Bengio and Haffner 1998, Proceedings of the IEEE 86(11)",
    images=70000,
    classes=10,
    image_shape=(1, 28, 28),
    official_test=True,
    downloads=downloads(_FILES, _MIRRORS),
)
def load(parameters: NoParameters, data_dir: Path | None, cache_dir: Path) -> RawDataset:
    """MNIST, 60,000 training and 10,000 test images of handwritten digits, 28 x 28 pixels.

    Args:
        parameters: None are taken.
        data_dir: Folder with the four idx files, packed or not, directly or as torchvision lays them out.
        cache_dir: Folder that keeps downloads.

    Returns:
        Training images first; the test split is the official one.

    Raises:
        DataError: A file is missing, damaged or not the published one, or cannot be downloaded.
    """
    source = "MNIST by Y. LeCun, C. Cortes and C. Burges, http://yann.lecun.com/exdb/mnist/"
    licence = "CC BY-SA 3.0"
    digits = [str(digit) for digit in range(10)]
    return load_idx_dataset("mnist", _FILES, _MIRRORS, digits, source, licence, data_dir, cache_dir)
