"""Surrogates against numpy formulas, and in the limit where they become the ReLU network again."""

import numpy as np
import pytest
import torch
from torch import nn

from curvelens import targets
from curvelens.derivatives import gradient, hessian
from curvelens.errors import ArgumentError
from curvelens.surrogates import softplus_surrogate, swish_surrogate

EXACT = {"rtol": 1e-12, "atol": 1e-14}  # float64 sums of a dozen terms of order one


def relu_network(activation: nn.Module) -> tuple[nn.Module, list[np.ndarray]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), activation, nn.Linear(8, 3)).double()
    return net, [p.detach().numpy() for p in net.parameters()]


X = torch.linspace(-6, 6, 24, dtype=torch.float64).reshape(4, 2, 3)


def softplus(z: np.ndarray, beta: float, threshold: float = 20.0) -> np.ndarray:
    return np.where(beta * z > threshold, z, np.log1p(np.exp(np.minimum(beta * z, threshold))) / beta)


def swish(z: np.ndarray, beta: float) -> np.ndarray:
    return z / (1 + np.exp(-beta * z))


@pytest.mark.parametrize("beta", [0.5, 3.0, 40.0])
@pytest.mark.parametrize(
    ("relu", "cap"), [(nn.ReLU(), None), (nn.ReLU(inplace=True), None), (nn.ReLU6(), 6.0)], ids=str
)
def test_values_are_those_of_the_formula(beta, relu, cap):
    net, W = relu_network(relu)
    z = X.numpy().reshape(4, 6) @ W[0].T + W[1]
    for surrogate, a in [(softplus_surrogate(net, beta), softplus), (swish_surrogate(net, beta), swish)]:
        hidden = a(z, beta) if cap is None else a(z, beta) - a(z - cap, beta)
        np.testing.assert_allclose(surrogate(X).detach().numpy(), hidden @ W[2].T + W[3], **EXACT)


def test_the_hessian_is_that_of_the_formula():
    net, W = relu_network(nn.ReLU())
    z = X.numpy().reshape(4, 6)[1] @ W[0].T + W[1]
    beta = 2.0
    s = 1 / (1 + np.exp(-beta * z))
    softplus_bend = beta * s * (1 - s)
    swish_bend = 2 * beta * s * (1 - s) + beta**2 * z * s * (1 - s) * (1 - 2 * s)
    for surrogate, bend in [
        (softplus_surrogate(net, beta), softplus_bend),
        (swish_surrogate(net, beta), swish_bend),
    ]:
        found = hessian(targets.logit(surrogate, 2), X[1]).numpy()
        np.testing.assert_allclose(found, W[0].T @ np.diag(bend * W[2][2]) @ W[0], **EXACT)


@pytest.mark.parametrize(("make", "slack"), [(softplus_surrogate, np.log(2)), (swish_surrogate, 0.2785)])
def test_surrogates_tend_to_the_network(make, slack):
    """``0 <= softplus - relu <= log(2)/beta`` and ``0 <= relu - swish <= 0.2785/beta`` for every unit."""
    net, W = relu_network(nn.ReLU())
    for beta in (1.0, 10.0, 100.0):
        bound = slack / beta * np.abs(W[2]).sum(1)
        assert (np.abs((make(net, beta)(X) - net(X)).detach().numpy()) <= bound + 1e-12).all()
    torch.testing.assert_close(
        gradient(targets.logit(make(net, 1e6), 1), X), gradient(targets.logit(net, 1), X)
    )


@pytest.mark.parametrize("make", [softplus_surrogate, swish_surrogate])
def test_large_beta_stays_finite_in_single_precision(make):
    net, _ = relu_network(nn.ReLU())
    x = 20 * X.float()
    for beta in (400.0, 5000.0):
        f = targets.logit(make(net.float(), beta), 0)
        assert torch.isfinite(gradient(f, x)).all()
        assert torch.isfinite(hessian(targets.loss(f.model, 0), x[0])).all()
    steep = softplus_surrogate(net, 5000.0, threshold=80.0)
    assert torch.isfinite(hessian(targets.loss(steep, 0), x[0])).all()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers:
            x = self.relu(layer(x))
        return x


def test_every_relu_is_replaced_and_the_model_is_untouched():
    shared = nn.ReLU()
    net = nn.Sequential(Block(), shared, nn.Sequential(nn.Linear(6, 6), shared), nn.Dropout(), nn.ReLU6())
    net.train()
    net[3].eval()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    surrogate = softplus_surrogate(net, 3.0)
    assert not any(isinstance(module, (nn.ReLU, nn.ReLU6)) for module in surrogate.modules())
    assert surrogate[1] is surrogate[2][1]  # what was shared still is
    assert [m.training for m in surrogate] == [True, True, True, False, True]
    assert sum(isinstance(module, (nn.ReLU, nn.ReLU6)) for module in net.modules()) == 3
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    with torch.no_grad():
        next(surrogate.parameters()).add_(1.0)
    assert torch.equal(state["0.layers.0.weight"], net[0].layers[0].weight)


def test_a_lone_activation_is_a_model_too():
    z = torch.linspace(-3, 9, 7)
    np.testing.assert_allclose(softplus_surrogate(nn.ReLU(), 2.0)(z), softplus(z.numpy(), 2.0), rtol=1e-5)


class FunctionalReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.relu = nn.Linear(6, 6), nn.ReLU()

    def forward(self, x):
        return torch.relu(self.relu(self.layer(x.flatten(1))))


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (lambda net: softplus_surrogate(net, 0.0), "positive"),
        (lambda net: softplus_surrogate(net, float("nan")), "positive"),
        (lambda net: swish_surrogate(net, float("inf")), "positive"),
        (lambda net: softplus_surrogate(net, 1.0, threshold=0.0), "threshold"),
        (lambda net: softplus_surrogate(net, 1.0, threshold=100.0), "threshold"),
        (lambda net: softplus_surrogate(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), 1.0), "no nn.ReLU"),
        (lambda net: swish_surrogate(FunctionalReLU(), 1.0), "as a function"),
    ],
)
def test_bad_arguments_stop_with_one_line(call, remedy):
    with pytest.raises(ArgumentError, match=remedy) as caught:
        call(relu_network(nn.ReLU())[0])
    assert "\n" not in str(caught.value)
