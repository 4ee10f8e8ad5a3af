"""CAFO and CASO of a network's loss, with the penalties chosen as the paper chooses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from curvelens.context_aware.choice import choose_l1
from curvelens.context_aware.comparison import sparsity
from curvelens.context_aware.explanation import ContextAware, cafo, caso
from curvelens.context_aware.penalties import choose_l2
from curvelens.derivatives import value
from curvelens.errors import ArgumentError

if TYPE_CHECKING:
    from curvelens.loss_curvature import LossCurvature
    from curvelens.targets import Function


@dataclass(frozen=True, eq=False)
class LossExplanation:
    """An explanation of the loss with all that it was made with.

    Attributes:
        explanation: Δ, its objective, residual and iterations.
        l1: λ₁.
        l1_share: λ₁/max|g|, from 1 on Δ is zero.
        l2: λ₂.
        sparsity: η, share of zero pixels, or of zero groups.
        loss: Loss at the perturbed input x + Δ.
        satisfied: Whether η lies in the range that λ₁ was chosen for; None where λ₁ was given.
        evaluations: Evaluations of the loss without a gradient.
    """

    explanation: ContextAware
    l1: float
    l1_share: float
    l2: float
    sparsity: float
    loss: float
    satisfied: bool | None
    evaluations: int


def explain_loss(
    curvature: LossCurvature,
    loss: Function,
    x: Tensor,
    *,
    second_order: bool = True,
    l1: float | None = None,
    l1_share: float | None = None,
    c1: float = 10.0,
    least: float = 0.75,
    tolerance: float = 1e-5,
    groups: Tensor | None = None,
) -> LossExplanation:
    """Return CASO or CAFO of a loss at λ₂ = L/2 + c₁.

    Args:
        curvature: Gradient and Hessian of the loss, at x or in the mean over copies of it.
        loss: Scalar function of inputs, ``[B, *shape] -> [B]``.
        x: The input, ``[*shape]``.
        second_order: CASO; else CAFO, at the same λ₂.
        l1: λ₁ ≥ 0.
        l1_share: λ₁ as a share of max|g|, ≥ 0, instead. Without either, λ₁ is chosen by sparsity (Singla et
            al. 2019, sec. 4.1), see :func:`~curvelens.context_aware.choose_l1`.
        c1: Distance of λ₂ from the border of concavity, > 0.
        least: Smallest η of a λ₁ that is chosen, in [0, 1).
        tolerance: Largest relative KKT residual, where rounding allows it.
        groups: As for :func:`~curvelens.context_aware.caso`.

    Raises:
        ArgumentError: An argument is out of range, λ₁ is given twice, or is to be chosen for a gradient
            that is zero.
    """
    g = curvature.gradient
    H = curvature.hessian if second_order else None
    l2 = choose_l2(curvature.largest, c1)
    top = float(g.abs().max())
    if l1 is not None and l1_share is not None:
        raise ArgumentError("explain_loss: l1 and l1_share are both given; give one of them")
    if l1_share is not None:
        l1 = l1_share * top
    if l1 is not None:
        made = (
            caso(g, H, l1, l2, tolerance=tolerance, groups=groups)
            if H is not None
            else cafo(g, l1, l2, groups=groups)
        )
        height = float(value(loss, (x + made.delta.to(x))[None]))
        share = l1 / top if top > 0 else 0.0
        return LossExplanation(made, l1, share, l2, sparsity(made.delta, groups), height, None, 1)
    chosen = choose_l1(g, H, l2, loss, x, least=least, tolerance=tolerance, groups=groups)
    share, evaluations = chosen.l1 / top, len(chosen.path)
    return LossExplanation(
        chosen.explanation,
        chosen.l1,
        share,
        l2,
        chosen.sparsity,
        chosen.loss,
        chosen.satisfied,
        evaluations,
    )
