"""Gradient and Hessian of the cross-entropy at one image, held in the form that costs fewest passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curvelens import targets
from curvelens.errors import ConfigError
from curvelens.experiments.local_models import build
from curvelens.quadratic import LocalQuadratic, MatrixFree
from curvelens.softmax_curvature import SoftmaxHessian, softmax_hessian
from curvelens.softmax_products import SoftmaxProducts, softmax_products
from curvelens.summaries.distances import FORMS

if TYPE_CHECKING:
    import torch

AFFORDABLE_CLASSES = 32
"""Up to here the whole Jacobian of the logits, one batch of reverse passes, costs less than products do: some
8 of them, each a forward-mode and a reverse pass one after the other."""

L_ERROR = 1e-4  # of 2c₁: what an error of L does to an explanation, relatively


@dataclass(frozen=True, eq=False)
class LossCurvature:
    """Gradient and Hessian of the loss.

    Attributes:
        gradient: g, ``[*shape]``; in double precision where no further products are taken.
        hessian: H, as :func:`curvelens.context_aware.caso` takes it.
        smallest, largest: Bounds ≤ 0 and ≥ 0 of the eigenvalues of H.
        largest_error: How far the largest eigenvalue may be off.
        form: How H is held, one of :data:`~curvelens.summaries.distances.FORMS` but ``auto``.
        full_calls: Reverse passes that the whole Hessian would take: one a class, or one a feature.
    """

    gradient: torch.Tensor
    hessian: SoftmaxHessian | SoftmaxProducts | LocalQuadratic
    smallest: float
    largest: float
    largest_error: float
    form: str
    full_calls: int
    _calls: int

    @property
    def calls(self) -> int:
        """Reverse passes made so far; a Hessian-vector product counts as one."""
        return self.hessian.calls if isinstance(self.hessian, SoftmaxProducts) else self._calls


def loss_curvature(
    model: torch.nn.Module,
    x: torch.Tensor,
    label: int,
    *,
    form: str = "auto",
    c1: float = 10.0,
    seed: int = 0,
) -> LossCurvature:
    """Return gradient and Hessian of the cross-entropy.

    A piecewise-linear network has a closed form (Singla et al. 2019, Proposition 1): by its factor, one
    reverse pass a class (``factor``), or by products alone (``products``). Any other network is
    differentiated twice (``differentiation``).

    Args:
        model: Classifier ``[B, *shape] -> [B, c]``.
        x: ``[*shape]``.
        label: Label of the loss.
        form: One of the above, or ``auto``: the closed form where there is one, by products if there are more
            than :data:`AFFORDABLE_CLASSES` classes.
        c1: λ₂ = L/2 + c₁, against which the error of L is measured.
        seed: Seed of random first directions.

    Raises:
        ConfigError: The form does not exist.
        ArgumentError: The network is not known to be piecewise linear, but the form asks for it.
    """
    if form not in FORMS:
        raise ConfigError(f"distances.curvature: {form!r} does not exist; choose from {', '.join(FORMS)}")
    scores = targets.logits(model)
    if form == "auto":
        form = _cheapest(scores, x)
    if form == "factor":
        factor = softmax_hessian(model, x, label=label)
        largest = factor.largest_eigenvalue
        return LossCurvature(
            factor.gradient.double(), factor, 0.0, largest, 0.0, form, len(factor.probabilities), factor.calls
        )
    if form == "products":
        products = softmax_products(model, x, label)
        found = products.largest_eigenvalue(L_ERROR * 2 * c1, seed)
        classes = products.probabilities.shape[1]
        return LossCurvature(products.gradient, products, 0.0, found.value, found.error, form, classes, 0)
    q = build("plain", model, lambda network: targets.loss(network, label), x)["H+G"]
    smallest, largest, made = extreme_eigenvalues(q)
    gradient = q.gradient if isinstance(q.curvature, MatrixFree) else q.gradient.double()
    low, high = min(0.0, smallest), max(0.0, largest)
    return LossCurvature(gradient, q, low, high, 0.0, form, x.numel(), q.calls + made)


def _cheapest(scores: targets.Logits, x: torch.Tensor) -> str:
    """Return the form that takes fewest passes for a network."""
    if not scores.piecewise_linear:
        return "differentiation"
    import torch

    with torch.no_grad():
        classes = scores(x[None]).shape[1]
    return "factor" if classes <= AFFORDABLE_CLASSES else "products"


def extreme_eigenvalues(q: LocalQuadratic) -> tuple[float, float, int]:
    """Return the smallest and the largest eigenvalue of a local model's curvature.

    Args:
        q: Local model; a matrix-free curvature is searched by Lanczos' method, first for the eigenvalue of
            largest magnitude and then, shifted by it, for the one furthest from it.

    Returns:
        Smallest, largest, and the number of products made.
    """
    if not isinstance(q.curvature, MatrixFree):
        values, _ = q.eigh()
        found = [float(value) for value in values] if len(values) == q.size else [0.0, *values.tolist()]
        return min(found), max(found), 0
    products = 0
    matvec, size = q.curvature.matvec, q.size

    def shifted(columns: torch.Tensor, shift: float) -> torch.Tensor:
        nonlocal products
        products += columns.shape[1]
        return matvec(columns) - shift * columns

    first = float(MatrixFree(lambda v: shifted(v, 0.0), size).eigh(1, q.gradient)[0])
    other = first + float(MatrixFree(lambda v: shifted(v, first), size).eigh(1, q.gradient)[0])
    return min(first, other), max(first, other), products
