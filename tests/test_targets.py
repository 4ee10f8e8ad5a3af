"""Scalars against numpy, and the promise to leave the model as it was found."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from curvelens import targets
from curvelens.derivatives import value
from curvelens.errors import ArgumentError
from curvelens.targets import evaluation_mode

# Both sides are float64 and sum a dozen terms of order one, so they agree to a few units of 1e-16.
EXACT = {"rtol": 1e-13, "atol": 1e-14}


@pytest.fixture
def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 4


def numpy_logits(linear: nn.Module, x: torch.Tensor) -> np.ndarray:
    W, b = (p.detach().numpy() for p in linear.parameters())
    return x.numpy().reshape(len(x), -1) @ W.T + b


def numpy_softmax(y: np.ndarray) -> np.ndarray:
    e = np.exp(y - y.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_values_are_those_of_numpy(linear, x):
    y = numpy_logits(linear, x)
    p = numpy_softmax(y)
    rivals = np.delete(y, 2, axis=1).max(1)
    expected = {
        targets.logit(linear, 2): y[:, 2],
        targets.probability(linear, 2): p[:, 2],
        targets.log_probability(linear, 2): np.log(p[:, 2]),
        targets.loss(linear, 2): -np.log(p[:, 2]),
        targets.margin(linear, 2): y[:, 2] - rivals,
        targets.margin(linear, 2, 0): y[:, 2] - y[:, 0],
        targets.max_logit(linear): y.max(1),
        targets.neuron(linear, "1", 3): y[:, 3],
        targets.regression(linear, 1): y[:, 1],
    }
    for f, values in expected.items():
        np.testing.assert_allclose(f(x).detach().numpy(), values, **EXACT, err_msg=f.name)
    np.testing.assert_allclose(targets.logits(linear)(x).detach().numpy(), y, **EXACT)


def test_names_say_what_is_explained(linear):
    names = [
        targets.logit(linear, 3).name,
        targets.margin(linear, 2, 0).name,
        targets.neuron(linear, "1", 3).name,
        targets.logit(linear, torch.zeros(5, dtype=torch.long)).name,
    ]
    assert names == ["logit[3]", "margin[2-0]", "neuron[1][3]", "logit[per row]"]


MAKERS = [
    targets.logit,
    targets.probability,
    targets.log_probability,
    targets.loss,
    targets.margin,
    targets.regression,
    lambda model, k: targets.neuron(model, "1", k),
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_class_per_row_is_the_class_of_that_row(linear, x, make):
    k = torch.tensor([0, 3, 1, 2, 3])
    one_by_one = torch.stack([make(linear, int(k[i]))(x[i : i + 1])[0] for i in range(5)])
    torch.testing.assert_close(make(linear, k)(x), one_by_one, **EXACT)
    torch.testing.assert_close(value(make(linear, k), x, chunk=2), one_by_one.detach(), **EXACT)


def test_margin_with_a_rival_per_row(linear, x):
    y = numpy_logits(linear, x)
    rival = torch.tensor([1, 2, 3, 1, 2])
    expected = y[:, 0] - y[np.arange(5), rival.numpy()]
    np.testing.assert_allclose(targets.margin(linear, 0, rival)(x).detach().numpy(), expected, **EXACT)


def test_indices_of_numpy_are_accepted(linear, x):
    torch.testing.assert_close(targets.logit(linear, np.int64(2))(x), targets.logit(linear, 2)(x))
    torch.testing.assert_close(targets.logit(linear, torch.tensor(2))(x), targets.logit(linear, 2)(x))


class Volume(nn.Module):
    def forward(self, x):
        return x


BAD_CALLS = {
    "class too large": lambda m, x: targets.logit(m, 4)(x),
    "class negative": lambda m, x: targets.probability(m, -1)(x),
    "class per row too large": lambda m, x: targets.loss(m, torch.tensor([0, 1, 2, 3, 4]))(x),
    "wrong number of rows": lambda m, x: targets.logit(m, torch.tensor([0, 1]))(x),
    "too many rows for a chunk": lambda m, x: value(targets.logit(m, torch.zeros(7, dtype=torch.long)), x, 5),
    "floating-point classes": lambda m, x: targets.logit(m, torch.zeros(5)),
    "no index": lambda m, x: targets.logit(m, "three"),
    "fractional class": lambda m, x: targets.logit(m, 1.5),
    "same class twice": lambda m, x: targets.margin(m, 1, 1),
    "same class twice in a row": lambda m, x: targets.margin(m, torch.tensor([0, 1]), 1),
    "no such submodule": lambda m, x: targets.neuron(m, "layer7", 0),
    "no such unit": lambda m, x: targets.neuron(m, "1", 4)(x),
    "output that is no table": lambda m, x: targets.logit(Volume(), 0)(x),
    "one class": lambda m, x: targets.probability(nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).double(), 0)(
        x
    ),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_bad_arguments_stop_with_one_line(linear, x, call):
    with pytest.raises(ArgumentError) as caught:
        call(linear, x)
    assert "targets." in str(caught.value)
    assert "\n" not in str(caught.value)


class Exploding(nn.Module):
    def forward(self, x):
        raise RuntimeError("this layer must not run")


def test_neuron_is_read_before_an_activation_that_overwrites_it(x):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(inplace=True), Exploding()).double()
    W, b = (p.detach().numpy() for p in net[1].parameters())
    z = x.numpy().reshape(5, -1) @ W.T + b
    assert (z < 0).any()
    for unit in range(6):
        found = targets.neuron(net, "1", unit)(x).detach().numpy()
        np.testing.assert_allclose(found, z[:, unit], **EXACT)
    assert not net[1]._forward_hooks


def test_neuron_that_never_runs(linear, x):
    linear.unused = nn.Linear(2, 2)
    linear.forward = lambda z: linear[1](z.flatten(1))
    with pytest.raises(ArgumentError, match="never runs"):
        targets.neuron(linear, "unused", 0)(x)
    assert not linear.unused._forward_hooks


class Slow(nn.Module):
    def forward(self, x):
        time.sleep(0.01)
        return x


def test_threads_do_not_see_each_others_neurons(linear, x):
    net = nn.Sequential(Slow(), linear, Slow(), nn.Linear(4, 4).double())
    whole = net(x).detach()
    wrong: list[str] = []

    def look(name: str, expected: torch.Tensor) -> None:
        f = targets.neuron(net, name, 1)
        wrong.extend(name for _ in range(10) if not torch.equal(f(x).detach(), expected[:, 1]))

    threads = [
        threading.Thread(target=look, args=arguments)
        for arguments in [("1", linear(x).detach()), ("3", whole)] * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_evaluation_mode_restores_every_flag_even_after_an_error(x):
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Dropout(), nn.BatchNorm1d(4)).double()
    net.train()
    net[3].eval()
    before = [module.training for module in net.modules()]
    inside: list[bool] = []

    def fail() -> None:
        with evaluation_mode(net):
            inside.extend(module.training for module in net.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [False] * len(before)
    assert [module.training for module in net.modules()] == before


def test_models_in_training_mode_are_evaluated_without_noise_or_update(x):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)
    ).double()
    net.train()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first, second = targets.logit(net, 1)(x), targets.logit(net, 1)(x)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert net.training
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        x = (x.flatten(1) - 0.5) / self.scale
        y = nn.functional.relu(self.layer(x)) * self.scale
        y += x
        return torch.cat([y, -y], dim=1)


class Square(nn.Module):
    def forward(self, x):
        x = x.flatten(1)
        return x * x


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, x):
        x = x.flatten(1)
        return self.a(x) * self.b(x)


class Ratio(nn.Module):
    def forward(self, x):
        return 1.0 / x.flatten(1)


class Branching(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else x.flatten(1).exp()


class HiddenTanh(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, x):
        return torch.tanh(self.layer(x.flatten(1)))


def flat(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4), *layers)


PIECEWISE_LINEAR = {
    "relu": flat(nn.ReLU(), nn.Linear(4, 3)),
    "convolution, pooling, normalisation": nn.Sequential(
        nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.MaxPool2d(1), nn.Dropout(), nn.Flatten()
    ),
    "residual with functions": Residual(),
}
CURVED = {
    "softplus": flat(nn.Softplus()),
    "softmax layer": flat(nn.Softmax(1)),
    "layer normalisation": flat(nn.LayerNorm(4)),
    "normalisation by the batch's own statistics": flat(nn.BatchNorm1d(4, track_running_stats=False)),
    "hard swish": flat(nn.Hardswish()),
    "square": Square(),
    "product of two layers": Gate(),
    "quotient": Ratio(),
    "control flow": Branching(),
    "tanh as a function": HiddenTanh(),
}


@pytest.mark.parametrize("model", PIECEWISE_LINEAR.values(), ids=PIECEWISE_LINEAR.keys())
def test_piecewise_linear_models_are_recognised_and_have_no_curvature(model):
    assert targets.logit(model, 0).piecewise_linear
    assert targets.margin(model, 0).piecewise_linear
    assert targets.max_logit(model).piecewise_linear
    assert targets.logits(model).piecewise_linear
    assert not targets.probability(model, 0).piecewise_linear
    assert not targets.loss(model, 0).piecewise_linear
    # Second differences of a linear function vanish but for rounding; the step stays within a linear region.
    model = model.double().eval()
    x = torch.rand(20, 3, 2, 2, dtype=torch.float64)
    step = 1e-6 * torch.rand(3, 2, 2, dtype=torch.float64)
    f = targets.logit(model, 0)
    second = f(x + step) - 2 * f(x) + f(x - step)
    assert second.abs().max() < 1e-14


@pytest.mark.parametrize("model", CURVED.values(), ids=CURVED.keys())
def test_curved_models_are_not_called_piecewise_linear(model):
    assert not targets.logit(model, 0).piecewise_linear


def test_a_neuron_before_the_first_curve_is_piecewise_linear():
    net = nn.Sequential(Residual(), nn.Linear(24, 3), nn.Softplus(), nn.Linear(3, 2))
    assert targets.neuron(net, "1", 0).piecewise_linear
    assert not targets.neuron(net, "3", 0).piecewise_linear


def test_replacing_an_activation_changes_the_answer():
    net = nn.Sequential(Residual(), nn.ReLU())
    assert targets.logit(net, 0).piecewise_linear
    net[1] = nn.Softplus()
    assert not targets.logit(net, 0).piecewise_linear


def test_inner_neuron_is_the_one_with_the_largest_mean_preactivation():
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)
    )
    net.double().train()
    images = torch.rand(60, 3, 2, 2, dtype=torch.float64) * 6 - 3
    W = [p.detach().numpy() for p in net.parameters()]
    h = np.maximum(images.numpy().reshape(60, -1) @ W[0].T + W[1], 0)
    z = h @ W[2].T + W[3]
    predicted = (np.maximum(z, 0) @ W[4].T + W[5]).argmax(1)
    for k in set(predicted):
        expected = int(z[predicted == k].mean(0).argmax())
        assert targets.inner_neuron(net, int(k), images, chunk=7) == ("3", expected)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_inner_neuron_follows_the_order_of_execution():
    net = nn.Sequential(nn.Conv2d(3, 5, 2), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5, 2))
    images = torch.rand(8, 3, 2, 2)
    k = int(net.eval()(images).argmax(1)[0])
    assert targets.inner_neuron(net, k, images)[0] == "1"  # the normalisation puts out the pre-activation


def test_inner_neuron_refuses_what_it_cannot_answer(linear, x):
    with pytest.raises(ArgumentError, match="no hidden layer"):
        targets.inner_neuron(linear, 0, x)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    net[3].bias.data[:] = torch.tensor([100.0, 0.0, 0.0])
    with pytest.raises(ArgumentError, match="none of 5 images"):
        targets.inner_neuron(net, 1, x)
    with pytest.raises(ArgumentError, match="out of range"):
        targets.inner_neuron(net, 3, x)


def test_regression_models_may_return_a_vector():
    class Sum(nn.Module):
        def forward(self, x):
            return x.flatten(1).sum(1)

    x = torch.rand(4, 3)
    torch.testing.assert_close(targets.regression(Sum())(x), x.sum(1))
    with pytest.raises(ArgumentError):
        targets.regression(Sum(), 1)(x)
