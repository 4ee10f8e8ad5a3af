"""Closed-form Hessian of the cross-entropy of a piecewise-linear classifier, as a low-rank factor.

With W the Jacobian of the logits, one column ``w_i`` per class, and p the softmax probabilities, the Hessian
of the cross-entropy at any label is ``H = W (diag p - p p^T) W^T`` (Singla et al. 2019, Proposition 1): the
covariance of ``w_i`` under p. ``B = diag(sqrt p) - p sqrt(p)^T`` is an exact factor of the matrix in the
middle, so that ``H = C C^T`` with ``C = W B``; a Cholesky factorisation (their Appendix C) fails, since that
matrix is singular.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from curvelens.derivatives import vjp
from curvelens.errors import ArgumentError
from curvelens.quadratic import LowRank
from curvelens.seeds import generator
from curvelens.targets import Logits, logits

BOUND_FAILURE = 1e-9
_PROBES = 16


@dataclass(frozen=True, eq=False)
class SoftmaxHessian:
    """``H = C C^T``, exact or with the improbable classes merged.

    Attributes:
        factor: C, ``[d, r]``; a column per kept class, and one for all others together, if any.
        bound: Bound on ``||H - C C^T||_2`` with H the Hessian of all classes; ``H - C C^T`` is positive
            semidefinite. Exactly 0 when no class was dropped; otherwise it holds with probability
            ``1 - BOUND_FAILURE`` over random probes that do not depend on the model or on x.
        gradient: Gradient of the cross-entropy at the label, ``[*shape]``; exact.
        probabilities: Softmax probabilities of all classes, ``[c]``, float64.
        label: The label, by default the predicted class.
        classes: Kept classes by decreasing probability, ``[k]``.
        dropped: Total probability of the others.
        calls: Reverse passes made.
    """

    factor: Tensor
    bound: float
    gradient: Tensor
    probabilities: Tensor
    label: int
    classes: Tensor
    dropped: float
    calls: int

    @cached_property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of ``C C^T`` that may differ from zero, ``[min(r, d)]``, decreasing, float64."""
        C = self.factor.double()
        small = C.mT @ C if C.shape[1] <= C.shape[0] else C @ C.mT
        return torch.linalg.eigvalsh(small).flip(0).clamp_min(0.0)

    @property
    def largest_eigenvalue(self) -> float:
        """Largest eigenvalue of ``C C^T``; that of H exceeds it by at most ``bound``."""
        return float(self.eigenvalues[0])

    def low_rank(self) -> LowRank:
        """Return ``C C^T`` as the curvature of a local quadratic model."""
        return LowRank(self.factor)


def softmax_hessian(
    model: nn.Module,
    x: Tensor,
    tail: float = 0.0,
    label: int | None = None,
    *,
    gauss_newton: bool = False,
    seed: int = 0,
    chunk: int | None = None,
) -> SoftmaxHessian:
    """Return the Hessian of the cross-entropy in closed form (Singla et al. 2019, Proposition 1).

    It does not depend on the label. With ``tail > 0`` the least probable classes S, of total probability
    ``t <= tail``, are merged into one with their mean Jacobian row, which a single reverse pass gives. By the
    law of total covariance this leaves out exactly ``t Cov_S(w)``. That matrix is bounded without its rows:
    for ``y = A z`` with ``A A^T = t Cov_S(w)`` and ``z ~ N(0, I)``, ``sum_j |y_j|^2`` over q = 16 reverse
    passes is at least ``|A A^T|_2`` times a chi-squared variable with q degrees of freedom; divided by the
    1e-9 quantile of the latter it is the bound.

    Args:
        model: Piecewise-linear classifier, ``[B, *shape] -> [B, c]`` logits with ``c >= 2``.
        x: ``[*shape]`` with d entries, floating point.
        tail: Total probability of the classes that may be merged, in [0, 1).
        label: Label of the gradient; by default the predicted class. It is never merged.
        gauss_newton: Accept a model not known to be piecewise linear; the result is then the Gauss-Newton
            part of the Hessian, which leaves out ``sum_i (p_i - [i = label]) Hessian(logit_i)``.
        seed: Seed of the probes behind the bound.
        chunk: Reverse passes at once, >= 1; ``None`` chooses by memory.

    Returns:
        A :class:`SoftmaxHessian`.

    Raises:
        ArgumentError: ``tail`` or ``label`` is out of range, the model has fewer than two classes, or is not
            known to be piecewise linear.
    """
    function = _checked(model, tail, gauss_newton)
    p = _probabilities(function, x)
    label = int(p.argmax()) if label is None else label
    if not 0 <= label < len(p):
        raise ArgumentError(f"softmax_hessian: label {label} is out of range; classes are 0 to {len(p) - 1}")
    kept, rest = _split(p, tail, label)
    u = _cotangents(p, kept, rest, seed)
    rows = vjp(function, x, u, chunk).flatten(1)
    count = len(kept) + (len(rest) > 0)
    mass = p[rest].sum()
    middle, slope = _middle(torch.cat([p[kept], mass[None]])[:count], int((kept == label).nonzero()))
    W = rows[:count].mT
    return SoftmaxHessian(
        factor=W @ middle.to(W),
        bound=_bound(rows[count:], float(mass)) if len(rest) else 0.0,
        gradient=(W @ slope.to(W)).reshape(x.shape),
        probabilities=p,
        label=label,
        classes=kept,
        dropped=float(mass),
        calls=len(u),
    )


def _checked(model: nn.Module, tail: float, gauss_newton: bool) -> Logits:
    """Return the model's logits, if the closed form with this tail holds for them."""
    if not 0.0 <= tail < 1.0:
        raise ArgumentError(f"softmax_hessian: tail {tail} must be in [0, 1)")
    function = logits(model)
    if not gauss_newton and not function.piecewise_linear:
        raise ArgumentError(
            "softmax_hessian: the model is not known to be piecewise linear, so a part may be missing; "
            "use hessian(targets.loss(model, k), x), or gauss_newton=True"
        )
    return function


def _probabilities(function: Logits, x: Tensor) -> Tensor:
    """Return the softmax probabilities ``[c]`` at one x in double precision."""
    with torch.no_grad():
        y = function(x.detach()[None])[0].double()
    if len(y) < 2:
        raise ArgumentError("softmax_hessian: the model has one class, whose cross-entropy is constant")
    return y.softmax(0)


def _middle(p: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """Return ``diag(sqrt p) - p sqrt(p)^T`` and ``p - e_label``, with ``1 - p_i`` summed from the others.

    Taken as a difference, ``1 - p_i`` would lose all its digits at a confident prediction.
    """
    others = (1.0 - torch.eye(len(p), dtype=p.dtype, device=p.device)) @ p
    root = p.sqrt()
    middle = -p[:, None] * root
    middle.diagonal().copy_(root * others)
    slope = p.clone()
    slope[label] = -others[label]
    return middle, slope


def _split(p: Tensor, tail: float, label: int) -> tuple[Tensor, Tensor]:
    """Return the classes to keep and those to merge, each by decreasing probability."""
    order = p.argsort(stable=True)
    order = order[order != label]
    count = int((p[order].cumsum(0) <= tail).sum()) if tail > 0 else 0
    if count <= _PROBES + 1:  # their own rows cost no more than their mean and the probes
        count = 0
    rest = order[:count].flip(0)
    keep = torch.ones(len(p), dtype=torch.bool, device=p.device)
    keep[rest] = False
    kept = p.argsort(descending=True, stable=True)
    return kept[keep[kept]], rest


def _cotangents(p: Tensor, kept: Tensor, rest: Tensor, seed: int) -> Tensor:
    """Return the weights of the Jacobian rows to pull back: kept classes, mean of the rest, probes."""
    u = torch.zeros(len(kept), len(p), dtype=p.dtype, device=p.device)
    u[torch.arange(len(kept)), kept] = 1.0
    if len(rest) == 0:
        return u
    share = p[rest] / p[rest].sum().clamp_min(torch.finfo(p.dtype).tiny)
    z = torch.randn(_PROBES, len(rest), generator=generator(seed, "softmax tail"), dtype=p.dtype).to(p.device)
    more = torch.zeros(1 + _PROBES, len(p), dtype=p.dtype, device=p.device)
    more[0, rest] = share
    more[1:, rest] = share.sqrt() * z - (z @ share.sqrt())[:, None] * share
    return torch.cat([u, more])


def _bound(probes: Tensor, mass: float) -> float:
    """Return the bound on ``mass Cov_S(w)`` from the probes ``[q, d]``."""
    from scipy.special import gammaincinv

    quantile = 2.0 * float(gammaincinv(len(probes) / 2, BOUND_FAILURE))
    return mass * float(probes.double().square().sum()) / quantile
