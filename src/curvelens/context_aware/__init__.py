"""Context-aware explanations: the change of the input that a penalised Taylor expansion of the loss rewards
most.

CAFO and CASO (Singla et al. 2019, Definitions 2 and 3) maximise

    gᵀΔ + ½ ΔᵀHΔ − λ₁‖Δ‖₁ − λ₂‖Δ‖₂²

with g and H the gradient and Hessian of the loss with respect to the input; CAFO drops H. The objective is
strongly concave where λ₂ > L/2, L being the largest eigenvalue of H (Theorem 3). In this convention λ₂ is
half of the one in the authors' code: their λ₂ = L + 20 is λ₂ = L/2 + 10 here, the c₁ = 10 of their text.
"""

from __future__ import annotations

from curvelens.context_aware.blocks import BLOCKS, block_labels
from curvelens.context_aware.choice import PathPoint, SparsityChoice, choose_l1, l1_grid
from curvelens.context_aware.comparison import angle, distance, kantorovich_distance, normalise, sparsity
from curvelens.context_aware.explanation import ContextAware, ConvergenceWarning, cafo, caso, caso_path
from curvelens.context_aware.penalties import choose_l2

__all__ = [
    "BLOCKS",
    "ContextAware",
    "ConvergenceWarning",
    "PathPoint",
    "SparsityChoice",
    "angle",
    "block_labels",
    "cafo",
    "caso",
    "caso_path",
    "choose_l1",
    "choose_l2",
    "distance",
    "kantorovich_distance",
    "l1_grid",
    "normalise",
    "sparsity",
]
