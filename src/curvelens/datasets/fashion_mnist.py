"""Fashion-MNIST: 70,000 pictures of clothes in the layout of MNIST."""

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
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        26_421_880,
    ),
    "train_labels": IdxFile(
        "train-labels-idx1-ubyte",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        29_515,
    ),
    "test_images": IdxFile(
        "t10k-images-idx3-ubyte",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        4_422_102,
    ),
    "test_labels": IdxFile(
        "t10k-labels-idx1-ubyte",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        5_148,
    ),
}
_MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)


@REGISTRY.register(
    "fashion_mnist",
    reference="Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747",
    images=70000,
    classes=10,
    image_shape=(1, 28, 28),
    official_test=True,
    downloads=downloads(_FILES, _MIRRORS),
)
def load(parameters: NoParameters, data_dir: Path | None, cache_dir: Path) -> RawDataset:
    """Fashion-MNIST, 60,000 training and 10,000 test images of clothes, 28 x 28 pixels.

    Args:
        parameters: None are taken.
        data_dir: Folder with the four idx files, packed or not, directly or as torchvision lays them out.
        cache_dir: Folder that keeps downloads.

    Returns:
        Training images first; the test split is the official one.

    Raises:
        DataError: A file is missing, damaged or not the published one, or cannot be downloaded.
    """
    clothes = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
    names = (*clothes, "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    source = "Fashion-MNIST by Zalando Research, https://github.com/zalandoresearch/fashion-mnist"
    return load_idx_dataset("fashion_mnist", _FILES, _MIRRORS, names, source, "MIT", data_dir, cache_dir)
