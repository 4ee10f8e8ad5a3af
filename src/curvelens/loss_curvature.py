"""Gradient and Hessian of the cross-entropy, at one image or in the mean over noisy copies of it, held in the
form that costs fewest passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from curvelens import derivatives, targets
from curvelens.errors import ArgumentError
from curvelens.quadratic import LocalQuadratic, MatrixFree
from curvelens.smoothing import gaussian_copies
from curvelens.softmax_curvature import SoftmaxHessian, softmax_hessian
from curvelens.softmax_products import SoftmaxProducts, softmax_products
from curvelens.taylor import taylor

AFFORDABLE_CLASSES = 32
"""Up to here the whole Jacobian of the logits, one batch of reverse passes, costs less than products do: some
8 of them, each a forward-mode and a reverse pass one after the other."""

L_ERROR = 1e-4  # of 2c₁: what an error of L does to an explanation, relatively
SMOOTH_L_ERROR = (
    1e-3  # in the mean over copies, where each product takes many passes and sampling errs by more
)


@dataclass(frozen=True, eq=False)
class LossCurvature:
    """Gradient and Hessian of the loss.

    Attributes:
        gradient: g, ``[*shape]``; in double precision where no further products are taken.
        hessian: H, as :func:`curvelens.context_aware.caso` takes it.
        smallest, largest: Bounds ≤ 0 and ≥ 0 of the eigenvalues of H.
        largest_error: How far the largest eigenvalue may be off.
        form: How H is held: ``factor``, ``products`` or ``differentiation``.
        full_calls: Reverse passes that the whole Hessian would take: one a class, or one a feature, for each
            copy.
    """

    gradient: torch.Tensor
    hessian: SoftmaxHessian | SoftmaxProducts | LocalQuadratic
    smallest: float
    largest: float
    largest_error: float
    form: str
    full_calls: int
    _count: Callable[[], int]

    @property
    def calls(self) -> int:
        """Reverse passes made so far; a Hessian-vector product counts as one, at each copy."""
        return self.hessian.calls if isinstance(self.hessian, SoftmaxProducts) else self._count()

    def fork(self) -> LossCurvature:
        """Return the same, such that what one of the two learns from its products stays unknown to the other.

        An explanation then does not depend on what else was computed from the same work.
        """
        if isinstance(self.hessian, SoftmaxProducts):
            return replace(self, hessian=self.hessian.fork())
        return self


def loss_curvature(
    model: torch.nn.Module,
    x: torch.Tensor,
    label: int,
    *,
    form: str = "auto",
    c1: float = 10.0,
    seed: int = 0,
    classes: int | None = None,
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
        classes: For the form ``factor``: keep the gradients of the most probable ones alone and merge the
            others; None keeps all.

    Raises:
        ArgumentError: The form does not exist, or is a closed one and the network is not known to be
            piecewise linear.
    """
    if form == "auto":
        form = _cheapest(targets.logits(model), x)
    if form == "factor":
        return _by_factor(model, x, label, classes)
    if form == "products":
        return _by_products(softmax_products(model, x, label), L_ERROR * 2 * c1, seed)
    if form == "differentiation":
        return _by_differentiation(taylor(targets.loss(model, label), x)["H+G"], 1, x.numel())
    raise ArgumentError(
        f"loss_curvature: form {form!r} is unknown; choose auto, factor, products or differentiation"
    )


def smooth_loss_curvature(
    model: torch.nn.Module,
    x: torch.Tensor,
    label: int,
    *,
    sigma: float = 0.15,
    samples: int = 50,
    c1: float = 10.0,
    seed: int = 0,
) -> LossCurvature:
    """Return means of gradient and Hessian of the cross-entropy over noisy copies of an image.

    They are what SmoothCAFO and SmoothCASO start from (Singla et al. 2019, Definition 4): the means of the
    derivatives at ``z = x + N(0, σ²I)``, with the label fixed. For a piecewise-linear network that is not the
    Hessian of the smoothed loss (SmoothHess), which the jumps of the gradient between linear regions add to.

    Args:
        model: Classifier ``[B, *shape] -> [B, c]``.
        x: ``[*shape]``.
        label: Label of the loss at every copy.
        sigma: Standard deviation of the noise, > 0.
        samples: Number n of copies, in pairs x ± noise, see :func:`curvelens.smoothing.gaussian_copies`.
        c1: λ₂ = L/2 + c₁, against which the error of L is measured.
        seed: Seed of the noise and of random first directions.

    Raises:
        ArgumentError: σ or n is out of range.
    """
    copies = gaussian_copies(x, sigma, samples, seed)
    if targets.logits(model).piecewise_linear:
        products = softmax_products(model, copies, label, copies=True)
        return _by_products(products, SMOOTH_L_ERROR * 2 * c1, seed)
    loss = targets.loss(model, label)

    def mean(columns: torch.Tensor) -> torch.Tensor:
        v = columns.T.reshape(-1, *x.shape)
        total = torch.zeros_like(v, dtype=torch.float64)
        for copy in copies:
            total += derivatives.hvp(loss, copy, v)
        return (total / len(copies)).to(columns).flatten(1).T

    gradient = derivatives.gradient(loss, copies).double().mean(0).to(x)
    value, H = derivatives.value(loss, copies).mean(), MatrixFree(mean, x.numel())
    q = LocalQuadratic(value, gradient, H, calls=len(copies))
    return _by_differentiation(q, len(copies), len(copies) * x.numel())


def _by_factor(model: torch.nn.Module, x: torch.Tensor, label: int, classes: int | None) -> LossCurvature:
    H = softmax_hessian(model, x, 0.0 if classes is None else tail_of(model, x, classes), label=label)
    full = len(H.probabilities)
    return LossCurvature(
        H.gradient.double(), H, 0.0, H.largest_eigenvalue, H.bound, "factor", full, lambda: H.calls
    )


def tail_of(model: torch.nn.Module, x: torch.Tensor, classes: int) -> float:
    """Return the probability of all but the most probable classes, as ``softmax_hessian`` takes it.

    Args:
        model: Classifier ``[B, *shape] -> [B, c]``.
        x: ``[*shape]``.
        classes: Classes to keep.
    """
    with torch.no_grad():
        p = targets.logits(model)(x[None])[0].double().softmax(0).sort().values
    dropped = p[: max(0, len(p) - classes)]
    return float(dropped.sum()) * (1 + 1e-12) if len(dropped) else 0.0


def _by_products(products: SoftmaxProducts, tolerance: float, seed: int) -> LossCurvature:
    found = products.largest_eigenvalue(tolerance, seed)
    full = products.probabilities.numel()
    return LossCurvature(
        products.gradient, products, 0.0, found.value, found.error, "products", full, lambda: products.calls
    )


def _by_differentiation(q: LocalQuadratic, copies: int, full_calls: int) -> LossCurvature:
    if not isinstance(q.curvature, MatrixFree):
        smallest, largest = extreme_eigenvalues(q)
        return LossCurvature(
            q.gradient.double(), q, smallest, largest, 0.0, "differentiation", full_calls, lambda: q.calls
        )
    matvec, products = q.curvature.matvec, [0]

    def counted(columns: torch.Tensor) -> torch.Tensor:
        products[0] += columns.shape[1]
        return matvec(columns)

    known = LocalQuadratic(q.value, q.gradient, MatrixFree(counted, q.size), calls=q.calls)
    smallest, largest = extreme_eigenvalues(known)

    def count() -> int:
        return q.calls + copies * products[0]

    return LossCurvature(q.gradient, known, smallest, largest, 0.0, "differentiation", full_calls, count)


def _cheapest(scores: targets.Logits, x: torch.Tensor) -> str:
    """Return the form that takes fewest passes for a network."""
    if not scores.piecewise_linear:
        return "differentiation"
    with torch.no_grad():
        classes = scores(x[None]).shape[1]
    return "factor" if classes <= AFFORDABLE_CLASSES else "products"


def extreme_eigenvalues(q: LocalQuadratic) -> tuple[float, float]:
    """Return bounds ≤ 0 and ≥ 0 of the eigenvalues of a local model's curvature, the tightest with these
    signs.

    Args:
        q: Local model; a matrix-free curvature is searched by Lanczos' method, first for the eigenvalue of
            largest magnitude and then, shifted by it, for the one furthest from it.
    """
    if not isinstance(q.curvature, MatrixFree):
        found = [0.0, *(float(value) for value in q.eigh()[0])]
        return min(found), max(found)
    matvec, size = q.curvature.matvec, q.size
    first = float(q.curvature.eigh(1, q.gradient)[0])
    shifted = MatrixFree(lambda columns: matvec(columns) - first * columns, size)
    other = first + float(shifted.eigh(1, q.gradient)[0])
    return min(0.0, first, other), max(0.0, first, other)
