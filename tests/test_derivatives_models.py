"""Derivatives of every kind of layer and model, against finite differences and closed forms."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from closed_forms import EXACT, closed_form, one_hidden_layer, random
from torch import nn

from curvelens import targets
from curvelens.derivatives import gradient, hessian, hessians, hvp, value, vjp


class OldFunction(torch.autograd.Function):
    """Written for PyTorch 1, so that no function transform takes it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x / 2).exp()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x / 2).exp() / 2


class OldLayer(nn.Module):
    def forward(self, x):
        return OldFunction.apply(x)


class InPlaceLayer(nn.Module):
    def forward(self, x):
        x.sin_()
        x += 0.3
        y = x * 1.5
        y[:, 0] = x[:, 1] * x[:, 2]
        return y.exp_()


class ValueLayer(nn.Module):
    def forward(self, x):
        return torch.tanh(x) if x.abs().max().item() > 0 else x


class ResidualLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.relu = nn.Linear(9, 9), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.layer(self.relu(x))
        y += x
        return self.relu(y)


class AttentionLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, x):
        z = x.view(-1, 3, 3)
        return self.attention(z, z, z)[0].flatten(1)


class Normalise(nn.Module):
    def forward(self, x):
        return (x - 0.3) / 0.7


def batch_norm() -> nn.Module:
    layer = nn.BatchNorm1d(9)
    layer.running_mean.copy_(torch.linspace(-1, 1, 9))
    layer.running_var.copy_(torch.linspace(0.5, 2, 9))
    return layer


LAYERS = {
    "ReLU in place": lambda: nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6,
    "LeakyReLU": nn.LeakyReLU,
    "PReLU": nn.PReLU,
    "RReLU": nn.RReLU,
    "Hardtanh": lambda: nn.Hardtanh(inplace=True),
    "SiLU in place": lambda: nn.SiLU(inplace=True),
    "SoftPlus, mostly linear": lambda: nn.Softplus(30.0, 20.0),
    "GELU": nn.GELU,
    "ELU": nn.ELU,
    "CELU": nn.CELU,
    "SELU": nn.SELU,
    "Mish": nn.Mish,
    "LogSigmoid": nn.LogSigmoid,
    "Softsign": nn.Softsign,
    "Tanhshrink": nn.Tanhshrink,
    "Hardswish": nn.Hardswish,
    "Softmax": lambda: nn.Softmax(1),
    "LayerNorm": lambda: nn.LayerNorm(9, eps=0.1),
    "BatchNorm": batch_norm,
    "Dropout": nn.Dropout,
    "max pooling": lambda: nn.Sequential(nn.Unflatten(1, (1, 3, 3)), nn.MaxPool2d(2, 1), nn.Flatten()),
    "average pooling": lambda: nn.Sequential(nn.Unflatten(1, (1, 3, 3)), nn.AvgPool2d(2, 1), nn.Flatten()),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 3, 3)), nn.Conv2d(1, 4, 2, stride=2, padding=1), nn.Tanh(), nn.Flatten()
    ),
    "convolution of the same size": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 9)), nn.Conv1d(1, 2, 3, padding="same"), nn.Tanh(), nn.Flatten()
    ),
    "circular convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 9)),
        nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular"),
        nn.Tanh(),
        nn.Flatten(),
    ),
    "normalisation of one's own": Normalise,
    "function without transforms": OldLayer,
    "in-place writes": InPlaceLayer,
    "decision on values": ValueLayer,
    "residual block": ResidualLayer,
    "attention": AttentionLayer,
}


def differences(function, x: torch.Tensor, step: float) -> torch.Tensor:
    """Central differences of ``function[B, *shape] -> [B, ...]`` along each entry of one x."""
    basis = step * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    return (function(x + basis) - function(x - basis)) / (2 * step)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_every_kind_of_layer_against_finite_differences(make):
    """Gradients against differences of values, Hessians against differences of those gradients.

    With steps of 1e-5 the truncation error is about 1e-10 times a third derivative of order ten, and the
    rounding error about 1e-16 / 1e-5.
    """
    torch.manual_seed(1)
    layer = make()
    width = layer(torch.rand(2, 9)).shape[1]
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 9), layer, nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, 4)
    )
    net.double().train()
    x = random(2, 3, 2, 2)
    f = targets.loss(net, 2)
    plain = lambda z: targets.loss(net, 2)(z)  # noqa: E731 - a function that is no Scalar takes the other ways
    tolerance = {"rtol": 0, "atol": 2e-8}
    g, H = gradient(f, x), hessians(f, x)
    v = random(5, 3, 2, 2, seed=7)
    for i in range(2):
        torch.testing.assert_close(
            g[i].flatten(), differences(lambda z: value(f, z), x[i], 1e-5), **tolerance
        )
        torch.testing.assert_close(
            H[i], differences(lambda z: gradient(f, z).flatten(1), x[i], 1e-5), **tolerance
        )
    assert torch.equal(H, H.mT)
    torch.testing.assert_close(hessian(plain, x[1]), H[1], **EXACT)
    for function in (f, plain):
        torch.testing.assert_close(hvp(function, x[1], v).flatten(1), v.flatten(1) @ H[1], **EXACT)
    assert net.training


class Wrapped(nn.Module):
    """A model that is no chain of layers, with an inner neuron behind a curved layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        h = self.second(torch.tanh(self.first(x)))
        return self.third(torch.relu_(h))


def test_inner_neurons_of_models_that_are_no_chain():
    torch.manual_seed(0)
    net = Wrapped().double()
    x = random(3, 4)
    W = [p.detach().numpy() for p in net.parameters()]
    for unit in range(5):
        y, g, H = closed_form("tanh", W[:4], x.numpy(), unit)
        f = targets.neuron(net, "second", unit)
        np.testing.assert_allclose(value(f, x).numpy(), y, **EXACT)
        np.testing.assert_allclose(gradient(f, x).numpy(), g, **EXACT)
        np.testing.assert_allclose(hessians(f, x).numpy(), H, **EXACT)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_layer_used_twice_counts_twice():
    torch.manual_seed(0)
    square, bend = nn.Linear(4, 4), nn.Tanh()
    shared = nn.Sequential(square, bend, square, bend, nn.Linear(4, 2)).double()
    x = random(4)
    unrolled = nn.Sequential(*(shared[i] for i in range(5)))
    expected = differences(lambda z: gradient(lambda u: unrolled(u)[:, 1], z), x, 1e-5)
    torch.testing.assert_close(hessian(targets.logit(shared, 1), x), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("before", [False, True], ids=["after the layer", "before the layer"])
def test_hooks_of_the_user_are_respected(before):
    """A hook that triples the first layer's output, or its input, acts like other weights."""
    net, W = one_hidden_layer("tanh", 6, 5, 2, seed=4)
    x = random(6)
    if before:
        net[1].register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))
    else:
        net[1].register_forward_hook(lambda module, inputs, output: 3 * output)
    tripled = [3 * W[0], W[1] if before else 3 * W[1], *W[2:]]
    _, _, H = closed_form("tanh", tripled, x.numpy()[None], 0)
    np.testing.assert_allclose(hessian(targets.logit(net, 0), x).numpy(), H[0], **EXACT)


def test_parametrised_weights_are_the_ones_in_use():
    net, W = one_hidden_layer("tanh", 6, 5, 2, seed=4)
    doubled = [2 * W[0], *W[1:]]
    nn.utils.parametrizations.weight_norm(net[1])
    net[1].parametrizations.weight.original0.data *= 2  # the norms of the rows
    x = random(6)
    _, _, H = closed_form("tanh", doubled, x.numpy()[None], 0)
    np.testing.assert_allclose(hessian(targets.logit(net, 0), x).numpy(), H[0], **EXACT)


def test_vector_jacobian_products_where_nothing_can_be_batched():
    def function(x):
        return OldFunction.apply(x) if x.sum().item() != 0 else x

    x = random(5)
    u = random(3, 5, seed=8)
    np.testing.assert_allclose(vjp(function, x, u).numpy(), u.numpy() * np.exp(x.numpy() / 2) / 2, **EXACT)


def test_chains_of_layers_do_not_load_the_function_transforms():
    """They take seconds to import, which every job of a workflow would pay."""
    program = """
import sys, torch
import curvelens as cl
from torch import nn
net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Softplus(), nn.Flatten(), nn.Linear(8, 3))
x = torch.rand(1, 3, 3)
cl.hessian(cl.targets.loss(net, 1), x)
cl.hvp(cl.targets.logit(net, 1), x, torch.rand(2, 1, 3, 3))
cl.softmax_hessian(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), x)
print([name for name in ("sympy", "torch._dynamo") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
