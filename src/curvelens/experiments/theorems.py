"""Definiteness, rank and concavity of the Hessian of the loss (Singla et al. 2019, Theorems 2 and 3)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from curvelens.jobs import progress
from curvelens.seeds import generator
from curvelens.summaries.theorems import CONCAVITY, HESSIAN_FACTS
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import Tensor, nn

L1_SHARE = 0.1
"""λ₁ of the steps across the border of concavity, as a share of the largest |gᵢ|."""


def facts(
    *,
    classes: Sequence[int],
    networks: int,
    features: int,
    multiples: Sequence[float],
    steps: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure the Hessians of random ReLU networks, and CASO's objective on both sides of λ₂ = L/2.

    Each network has two hidden layers; everything is computed in float64. Eigenvalues and rank are those of
    the Hessian by automatic differentiation, with which the closed form has nothing in common.

    Args:
        classes: Numbers of classes c, each at least 2.
        networks: Networks for each number.
        features: Input features d.
        multiples: λ₂ in multiples of L/2, each at least 0.5: below, steps of 1/(2λ₂) are too long.
        steps: Proximal gradient steps, at most 200; what diverges would overflow later.
        seed: Seed of the run.
        device: Where to compute.

    Returns:
        The tables :data:`~curvelens.summaries.theorems.HESSIAN_FACTS` and
        :data:`~curvelens.summaries.theorems.CONCAVITY`.
    """
    drawn = [(c, network) for c in classes for network in range(networks)]
    known: list[dict[str, Any]] = []
    stepped: list[dict[str, Any]] = []
    for c, network in progress(drawn, "Hessian facts", "networks"):
        head = {"classes": c, "network": network}
        model, x = random_classifier(features, c, seed, network)
        row, g, H = _facts(model.to(device), x.to(device))
        known.append(head | row)
        stepped += [head | one for one in _concavity(g, H, multiples, steps)]
    return frame(known, HESSIAN_FACTS), frame(stepped, CONCAVITY)


def random_classifier(features: int, classes: int, seed: int, index: int) -> tuple[nn.Module, Tensor]:
    """Return a random ReLU network in float64 and a standard normal input [d].

    Two hidden layers of twice as many units as features, so that about as many are active and do not limit
    the rank of the logits' Jacobian; Gaussian weights that give logits a standard deviation of about 2.

    Args:
        features: Input features d.
        classes: Classes c.
        seed: Seed of the run.
        index: Which network.
    """
    import torch
    from torch import nn

    source = generator(seed, f"random classifier {features} {classes}", index, "theorems")
    sizes = (features, 2 * features, 2 * features, classes)
    layers: list[nn.Module] = []
    for number, (wide, narrow) in enumerate(itertools.pairwise(sizes)):
        layer = nn.Linear(wide, narrow, dtype=torch.float64)
        gain = 2.0 if number == len(sizes) - 2 else math.sqrt(2.0)
        with torch.no_grad():
            weights = torch.randn(narrow, wide, generator=source, dtype=torch.float64)
            layer.weight.copy_(gain / math.sqrt(wide) * weights)
            layer.bias.copy_(0.1 * torch.randn(narrow, generator=source, dtype=torch.float64))
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]), torch.randn(features, generator=source, dtype=torch.float64)


def _facts(model: nn.Module, x: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Return a row, the gradient [d] and the Hessian [d, d] by automatic differentiation."""
    import torch

    from curvelens.softmax_curvature import softmax_hessian

    closed = softmax_hessian(model, x)
    label = torch.tensor(closed.label, device=x.device)

    def loss(point: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(model(point), label)

    g, H = torch.func.grad(loss)(x).detach(), torch.func.hessian(loss)(x).detach()
    values = torch.linalg.eigvalsh((H + H.T) / 2)
    p, largest = closed.probabilities, float(values[-1])
    rounding = len(x) * torch.finfo(torch.float64).eps * largest
    row = {
        "features": len(x),
        "confidence": float(p.max()),
        "smallest_eigenvalue": float(values[0]),
        "largest_eigenvalue": largest,
        "rounding": rounding,
        "rank": int((values > rounding).sum()),
        "bound": min(len(p) - 1, len(x)),
        "kernel": float((torch.diag(p) - torch.outer(p, p)).sum(1).norm()),
        "difference": float((closed.factor @ closed.factor.T - H).norm() / H.norm()),
    }
    return row, g, H


def _concavity(g: Tensor, H: Tensor, multiples: Sequence[float], steps: int) -> Iterator[dict[str, Any]]:
    import torch

    from curvelens.context_aware import caso

    values = torch.linalg.eigvalsh(H)
    largest, l1 = float(values[-1]), L1_SHARE * float(g.abs().max())
    for multiple in multiples:
        l2 = multiple * largest / 2
        shifted = 2 * l2 * torch.eye(len(g), dtype=g.dtype, device=g.device) - H
        first, second = _climb(g, shifted, l1, l2, steps)
        yield {
            "multiple": multiple,
            "l2": l2,
            "modulus": 2 * l2 - largest,
            "measured_modulus": float(torch.linalg.eigvalsh(shifted)[0]),
            "steps": steps,
            "value": first,
            "value_doubled": second,
            "optimum": caso(g, H, l1, l2, tolerance=1e-9).objective if 2 * l2 > largest else math.nan,
        }


def _climb(g: Tensor, shifted: Tensor, l1: float, l2: float, steps: int) -> tuple[float, float]:
    """Return the objective after ``steps`` proximal gradient steps, and after twice as many."""
    import torch

    from curvelens.context_aware.proximal import soft_threshold

    delta, told = torch.zeros_like(g), []
    for step in range(1, 2 * steps + 1):
        delta = soft_threshold(delta + (g - shifted @ delta) / (2 * l2), l1 / (2 * l2))
        if step % steps == 0:
            told.append(float(g @ delta - delta @ (shifted @ delta) / 2 - l1 * delta.abs().sum()))
    return told[0], told[1]
