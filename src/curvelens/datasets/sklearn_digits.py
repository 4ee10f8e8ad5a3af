"""The 8 x 8 digits that ship inside scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens.datasets import REGISTRY
from curvelens.registry import NoParameters

if TYPE_CHECKING:
    from curvelens.datasets import RawDataset


@REGISTRY.register(
    "sklearn_digits",
    reference="Alpaydin and Kaynak 1998, UCI Machine Learning Repository, doi:10.24432/C50P49",
    images=1797,
    classes=10,
    image_shape=(1, 8, 8),
    official_test=False,
)
def load(parameters: NoParameters, data_dir: Path | None, cache_dir: Path) -> RawDataset:
    """1,797 handwritten digits of 8 x 8 pixels that ship inside scikit-learn; values 0..16 scaled to 0..255.

    Args:
        parameters: None are taken.
        data_dir: Not used.
        cache_dir: Not used: nothing is downloaded.

    Returns:
        The digits in the package's order; there is no official test split.

    Raises:
        DataError: The package is missing or holds other digits.
    """
    import numpy as np

    from curvelens.datasets._packaged import packaged_dataset, read_table

    table = read_table("sklearn", "datasets/data/digits.csv.gz")
    images = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return packaged_dataset(
        "sklearn_digits",
        images,
        table[:, -1],
        "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382",
        "Optical Recognition of Handwritten Digits, UCI Repository, as shipped in scikit-learn",
        "CC BY 4.0",
    )
