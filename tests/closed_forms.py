"""Networks with one hidden layer, whose derivatives are written out in numpy."""

import numpy as np
import torch
from torch import nn

# Float64 sums of up to a few hundred terms of order one, in another order on each side.
EXACT = {"rtol": 1e-11, "atol": 1e-13}

ACTIVATIONS = {
    "softplus": (
        lambda: nn.Softplus(beta=2.0),
        lambda z: np.log1p(np.exp(2 * z)) / 2,
        lambda z: 1 / (1 + np.exp(-2 * z)),
        lambda z: 2 / (1 + np.exp(-2 * z)) / (1 + np.exp(2 * z)),
    ),
    "tanh": (
        nn.Tanh,
        np.tanh,
        lambda z: 1 - np.tanh(z) ** 2,
        lambda z: -2 * np.tanh(z) * (1 - np.tanh(z) ** 2),
    ),
    "sigmoid": (
        nn.Sigmoid,
        lambda z: 1 / (1 + np.exp(-z)),
        lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2,
        lambda z: np.exp(-z) * (np.exp(-z) - 1) / (1 + np.exp(-z)) ** 3,
    ),
}


def one_hidden_layer(activation: str, d: int, hidden: int, classes: int, seed: int) -> tuple[nn.Module, list]:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(d, hidden), ACTIVATIONS[activation][0](), nn.Linear(hidden, classes)
    )
    return net.double(), [p.detach().numpy() for p in net.parameters()]


def closed_form(activation: str, W: list, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, gradient and Hessian of logit k, ``v^T a(Wx + b) + c``, at each row of x."""
    _, a, slope, bend = ACTIVATIONS[activation]
    z = x @ W[0].T + W[1]
    v = W[2][k]
    return (
        a(z) @ v + W[3][k],
        (slope(z) * v) @ W[0],
        np.einsum("bh,hi,hj->bij", bend(z) * v, W[0], W[0]),
    )


def random(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4 - 2
