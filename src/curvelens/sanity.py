"""Whether a map goes when the network does: the sanity check of Adebayo et al. (2018)."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from curvelens import seeds
from curvelens.errors import ArgumentError


def randomized(model: nn.Module, stages: int, seed: int) -> Iterator[tuple[float, nn.Module]]:
    """Randomise a network from its output down, more and more of its layers (Adebayo et al. 2018, Sec. 3.1).

    A layer's weights are shuffled among themselves: they keep their distribution and so the scale of what
    passes through, but nothing of what was learnt. Fresh weights from an initialisation would let the signal
    of a deep network fade whose normalisation layers are folded into the weights.

    Args:
        model: Any network; it is left alone.
        stages: Networks to give, >= 1: with 1 only the last, whose layers are all randomised; the first of
            several has a random output layer alone, the rest lie evenly between.
        seed: Seed of the weights.

    Yields:
        Share of the layers that are randomised and the network, the same object each time.

    Raises:
        ArgumentError: The network has no weights, or ``stages < 1``.
    """
    changed = copy.deepcopy(model)
    layers = [
        (name, module)
        for name, module in changed.named_modules()
        if any(True for _ in module.parameters(False))
    ][::-1]
    if not layers or stages < 1:
        raise ArgumentError(
            f"randomized: {len(layers)} layers with weights in {stages} stages; give one at least"
        )
    counts = (
        [len(layers)] if stages == 1 else np.rint(np.linspace(1, len(layers), stages)).astype(int).tolist()
    )
    done = 0
    for count in dict.fromkeys(counts):
        for name, module in layers[done:count]:
            _shuffle(module, name, seed)
        done = count
        yield count / len(layers), changed


def _shuffle(module: nn.Module, name: str, seed: int) -> None:
    for own, parameter in module.named_parameters(recurse=False):
        random = seeds.generator(seed, "random weights", name, own)
        order = torch.randperm(parameter.numel(), generator=random).to(parameter.device)
        with torch.no_grad():
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two maps' importance, as Quantus' MPRT compares magnitudes.

    Args:
        first: ``[H, W]``.
        second: The same.

    Returns:
        In [-1, 1]; NaN where one of them does not vary.
    """
    from scipy.stats import spearmanr

    a, b = first.reshape(-1), second.reshape(-1)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
