"""Exact minimum of a quadratic over a ball: the trust-region subproblem ``min g·s + ½ sᵀHs, ‖s‖ ≤ radius``.

The global minimiser is characterised by a multiplier ``λ ≥ 0`` with ``(H + λI)s = −g``, ``H + λI ⪰ 0`` and
``λ(radius − ‖s‖) = 0`` (Moré & Sorensen 1983, Computing a trust region step, Lemmas 2.1 and 2.3). Given the
eigenpairs of H, λ is the root of one scalar equation, so every radius costs a few vector operations once the
factorisation is there. Without a factorisation the same problem is solved in a Krylov subspace (Gould,
Lucidi, Roma & Toint 1999, Solving the trust-region subproblem using the Lanczos method).
"""

from __future__ import annotations

from curvelens.trust_region.certificate import TrustRegionStep
from curvelens.trust_region.krylov import solve_matrix_free
from curvelens.trust_region.secular import solve
from curvelens.trust_region.truncated import leading, truncated_paper_step

__all__ = ["TrustRegionStep", "leading", "solve", "solve_matrix_free", "truncated_paper_step"]
