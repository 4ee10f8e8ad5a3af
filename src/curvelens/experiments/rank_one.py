"""How close the Hessian of the loss is to rank one (Singla et al. 2019, Theorems 4 and 5, Fig. 5 to 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curvelens.jobs import progress
from curvelens.seeds import generator
from curvelens.summaries.theorems import FAMILIES, RANK_ONE
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor


def rank_one(
    *,
    classes: Sequence[int],
    doubts: Sequence[float],
    features: int,
    length: float,
    c1: float,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Compare H = W(diag p − ppᵀ)Wᵀ with rank-one matrices, and CASO with CAFO, for one probable class.

    All is computed in float64 in an orthonormal basis of the span of W, where W is the Cholesky factor of its
    Gram matrix: nothing of size d × d is formed, and no norm or angle changes.

    Args:
        classes: Numbers of classes c, each at least 3.
        doubts: 1 − p₀ in (0, 0.5], p₀ being the probability of the predicted class.
        features: Input features d of the Gaussian model, at least c.
        length: Length of the columns of W, for Gaussian ones on average.
        c1: λ₂ − L/2 > 0.
        seed: Seed of the run.
        device: Where to compute.

    Returns:
        The table :data:`~curvelens.summaries.theorems.RANK_ONE`.
    """
    rows: list[dict[str, Any]] = []
    drawn = [(family, c) for family in FAMILIES for c in classes]
    for family, c in progress(drawn, "rank one", "models"):
        W = length * _columns(family, c, features, seed).to(device)
        for doubt in doubts:
            p, slope = probabilities(family, c, doubt)
            head = {"family": family, "classes": c, "doubt": doubt}
            rows.append(head | _exact(c, doubt) | _measure(W, p.to(W), slope.to(W), doubt, c1))
    return frame(rows, RANK_ONE)


def probabilities(family: str, c: int, doubt: float) -> tuple[Tensor, Tensor]:
    """Return p and p − y, [c] each, the first class being predicted with probability 1 − doubt.

    Args:
        family: ``zipf`` gives the i-th of the other classes a share ∝ 1/i of the doubt; else they are equal.
        c: Classes.
        doubt: 1 − p₀.
    """
    import torch

    others = torch.arange(1, c, dtype=torch.float64) if family == "zipf" else torch.ones(c - 1).double()
    others = others.reciprocal() / others.reciprocal().sum() * doubt
    # The first entry of p − y as given: 1 − (1 − doubt) would lose digits.
    first = torch.tensor([1 - doubt, -doubt], dtype=torch.float64)
    return torch.cat([first[:1], others]), torch.cat([first[1:], others])


def _columns(family: str, c: int, features: int, seed: int) -> Tensor:
    """Return W in an orthonormal basis of its span, [c, c], columns of unit length (on average)."""
    import torch

    if family != "gaussian":
        return torch.eye(c, dtype=torch.float64)
    source = generator(seed, "linear model", c, "theorems")
    W = torch.randn(features, c, generator=source, dtype=torch.float64) / math.sqrt(features)
    return torch.linalg.cholesky(W.T @ W).T


def _exact(c: int, doubt: float) -> dict[str, float]:
    """Return the closed forms for orthonormal W and equal others, ϵ = doubt/(c − 1) each.

    diag p − ppᵀ has the eigenvalues p₀cϵ (once, its vector p − y), ϵ (c − 2 times) and 0; ggᵀ/(ϵ(c − 1)) has
    cϵ instead of p₀cϵ on the same vector.
    """
    first, rest = (1 - doubt) * c, c - 2
    return {
        "exact_paper_error": math.sqrt(((c * doubt) ** 2 + rest) / (first**2 + rest)),
        "exact_best_error": math.sqrt(rest / (first**2 + rest)),
        "asymptote": math.sqrt(rest / ((c - 1) * (c + 2))),
    }


def _measure(W: Tensor, p: Tensor, slope: Tensor, doubt: float, c1: float) -> dict[str, float]:
    import torch

    from curvelens.context_aware import angle, cafo, caso, choose_l2, distance, kantorovich_distance

    mean = W @ p
    H = (W * p) @ W.T - torch.outer(mean, mean)
    g = W @ slope
    largest, leading = _top(H)
    size, l2 = float(H.norm()), choose_l2(largest, c1)
    turn = angle(g, leading)
    return {
        "largest_eigenvalue": largest,
        "paper_error": float((H - torch.outer(g, g) / doubt).norm()) / size,
        "best_error": float((H - largest * torch.outer(leading, leading)).norm()) / size,
        "angle": min(turn, 180 - turn),
        "distance": distance(caso(g, H, 0.0, l2).delta, cafo(g, 0.0, l2).delta),
        "kantorovich_bound": kantorovich_distance(largest, l2),
    }


def _top(H: Tensor) -> tuple[float, Tensor]:
    """Return the largest eigenvalue and its vector, by Lanczos: all of them would cost far more."""
    import torch
    from scipy.sparse.linalg import eigsh

    start = torch.randn(len(H), generator=generator(0, "Lanczos start"), dtype=torch.float64)
    values, vectors = eigsh(H.cpu().numpy(), k=1, which="LA", v0=start.numpy())
    return float(values[0]), torch.from_numpy(vectors[:, 0].copy()).to(H)
