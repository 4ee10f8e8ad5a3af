"""The L0-L1 relaxation of CASO where every support can be tried (Singla et al. 2019, App. E)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from curvelens.jobs import progress
from curvelens.seeds import derive
from curvelens.summaries.theorems import RELAXATION
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor

    from curvelens.quadratic import LowRank

SAME = 1e-9
"""Relative distance below which two λ₁ are the same kink of the path."""


def relaxation(
    *,
    features: int,
    classes: int,
    curvatures: Sequence[float],
    sizes: Sequence[int],
    instances: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Compare the best k features of CASO with those met along the λ₁ path and with the largest of g.

    With at most k features changed, gᵀΔ + ½ΔᵀHΔ − λ₂‖Δ‖² is largest on the support S that maximises
    ½ g_Sᵀ(A_SS)⁻¹g_S, A = 2λ₂I − H: all are tried. Problems are those of random linear classifiers
    (:func:`curvelens.known.random_softmax`) with c₁ = 1, so λ₂ = L/2 + 1.

    Args:
        features: Input features d.
        classes: Classes of the linear classifier.
        curvatures: L/c₁.
        sizes: k, each below d.
        instances: Problems for each curvature.
        seed: Seed of the run.
        device: Where to compute.

    Returns:
        The table :data:`~curvelens.summaries.theorems.RELAXATION`.
    """
    from curvelens.known import random_softmax

    drawn = [(curvature, instance) for curvature in curvatures for instance in range(instances)]
    rows: list[dict[str, Any]] = []
    for curvature, instance in progress(drawn, "relaxation", "problems"):
        purpose = derive(seed, f"{curvature:g}", instance, "relaxation")
        g, H = random_softmax(features, classes, curvature, purpose, device)
        head = {"curvature": curvature, "instance": instance}
        rows += [head | row for row in _compare(g, H, curvature, sizes)]
    return frame(rows, RELAXATION)


def _compare(g: Tensor, H: LowRank, largest: float, sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    import torch

    d, l2 = len(g), largest / 2 + 1.0
    A = 2 * l2 * torch.eye(d, dtype=g.dtype, device=g.device) - H.dense(g)
    sums = (A.abs().sum(1) - A.diagonal().abs()) / A.diagonal()
    head = {
        "condition": 2 * l2 / (2 * l2 - largest),
        "off_diagonal": float(sums.max()),
        "restricted_eigenvalue": (l2 - largest / 2) / d,
    }
    met = path_supports(g, A)
    order = g.abs().argsort(descending=True).tolist()
    reached = 0.0
    for k in range(1, max(sizes) + 1):
        supports = torch.tensor(list(itertools.combinations(range(d), k)), device=g.device)
        gains = objectives(g, A, supports)
        names = dict(zip(map(tuple, supports.tolist()), gains.tolist(), strict=True))
        best = max(names, key=lambda support: names[support])
        on_path = [names[support] for support in met if len(support) == k]
        reached = max([reached, *on_path])  # a smaller support is one of at most k features
        steepest = tuple(sorted(order[:k]))
        if k in sizes:
            yield {
                **head,
                "size": k,
                "supports": len(supports),
                "optimum": names[best],
                "met": bool(on_path),
                "same": best in met,
                "loss": max(0.0, 1 - reached / names[best]),
                "gradient_same": best == steepest,
                "gradient_loss": max(0.0, 1 - names[steepest] / names[best]),
            }


def objectives(g: Tensor, A: Tensor, supports: Tensor) -> Tensor:
    """Return ½ g_Sᵀ(A_SS)⁻¹g_S, the largest gᵀΔ − ½ΔᵀAΔ on each support.

    Args:
        g: [d].
        A: Positive definite, [d, d].
        supports: Indices of features, [m, k].

    Returns:
        [m].
    """
    import torch

    parts = g[supports]
    blocks = A[supports[:, :, None], supports[:, None, :]]
    return (parts * torch.linalg.solve(blocks, parts[..., None])[..., 0]).sum(1) / 2


def path_supports(g: Tensor, A: Tensor) -> set[tuple[int, ...]]:
    """Return every support of CASO's solution as λ₁ falls from max|g| to 0, exactly.

    On a support S with signs s the solution is Δ_S = (A_SS)⁻¹(g_S − λ₁s), linear in λ₁, until an entry of it
    vanishes or a slope |g − AΔ|ⱼ outside S reaches λ₁ (the homotopy of Osborne et al. 2000).

    Args:
        g: [d].
        A: 2λ₂I − H, positive definite, [d, d].
    """
    import numpy as np

    slope, matrix = g.cpu().numpy(), A.cpu().numpy()
    changed = int(np.abs(slope).argmax())
    l1, signs = abs(float(slope[changed])), {changed: np.sign(slope[changed])}
    supports: set[tuple[int, ...]] = {(changed,)}
    while True:
        S = sorted(signs)
        pair = np.stack([slope[S], [signs[i] for i in S]], 1)
        at_zero, fall = np.linalg.solve(matrix[np.ix_(S, S)], pair).T
        rest, rise = slope - matrix[:, S] @ at_zero, matrix[:, S] @ fall
        events = [(at_zero[n] / fall[n], i, 0.0) for n, i in enumerate(S) if fall[n]]
        for j in set(range(len(slope))) - set(S):
            events += [(rest[j] / (1 - rise[j]), j, 1.0), (-rest[j] / (1 + rise[j]), j, -1.0)]
        # Where an entry has just come or gone, rounding must not undo it at the same λ₁.
        ahead = [each for each in events if 0 < each[0] < l1 * (1 - SAME * (each[1] == changed))]
        if not ahead:
            return supports
        l1, changed, sign = max(ahead)
        signs = {**signs, changed: sign} if sign else {i: s for i, s in signs.items() if i != changed}
        supports.add(tuple(sorted(signs)))
