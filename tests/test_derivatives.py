"""Derivatives against closed forms in numpy, finite differences, and across chunk sizes."""

import warnings

import numpy as np
import pytest
import torch
from closed_forms import ACTIVATIONS, EXACT, closed_form, one_hidden_layer, random
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curvelens import chain, derivatives, products, targets
from curvelens.derivatives import ZeroHessianWarning, gradient, hessian, hessians, hvp, value, vjp
from curvelens.errors import ArgumentError, MemoryShortageError


@settings(max_examples=12, deadline=None)
@given(
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    shape=st.sampled_from([(1,), (7,), (2, 3), (1, 2, 2), (3, 2, 4)]),
    hidden=st.integers(1, 30),
    batch=st.integers(1, 4),
    chunk=st.sampled_from([None, 1, 3, 50]),
    seed=st.integers(0, 99),
)
def test_one_hidden_layer_has_the_closed_form(activation, shape, hidden, batch, chunk, seed):
    x = random(batch, *shape, seed=seed)
    d = x[0].numel()
    net, W = one_hidden_layer(activation, d, hidden, 3, seed)
    y, g, H = closed_form(activation, W, x.numpy().reshape(batch, d), 1)
    f = targets.logit(net, 1)
    v = random(6, *shape, seed=seed + 1)
    np.testing.assert_allclose(value(f, x, chunk), y, **EXACT)
    np.testing.assert_allclose(gradient(f, x, chunk).numpy(), g.reshape(x.shape), **EXACT)
    np.testing.assert_allclose(hessians(f, x, chunk).numpy(), H, **EXACT)
    np.testing.assert_allclose(hessian(f, x[0], chunk).numpy(), H[0], **EXACT)
    found = hvp(f, x[0], v, chunk).numpy().reshape(6, d)
    np.testing.assert_allclose(found, v.numpy().reshape(6, d) @ H[0], **EXACT)


@pytest.mark.parametrize("scalar", ["loss", "probability", "margin", "neuron"])
def test_other_scalars_follow_by_the_chain_rule(scalar):
    """``H_{g o f} = sum_i d_i g H_i + J^T (Hessian of g) J``, with g and its derivatives in numpy."""
    net, W = one_hidden_layer("tanh", 8, 9, 4, seed=2)
    x = random(1, 8)
    forms = [closed_form("tanh", W, x.numpy(), k) for k in range(4)]
    y, J, H = (np.stack([form[i][0] for form in forms]) for i in range(3))
    p = np.exp(y) / np.exp(y).sum()
    k, unit = 2, np.eye(4)[2]
    if scalar == "neuron":  # a pre-activation of the first layer is linear in x
        f, expected = targets.neuron(net, "2", 5), None
        z = x.numpy() @ W[0].T + W[1]
        expected = -2 * np.tanh(z[0, 5]) * (1 - np.tanh(z[0, 5]) ** 2) * np.outer(W[0][5], W[0][5])
    elif scalar == "loss":
        f, g, G = targets.loss(net, k), p - unit, np.diag(p) - np.outer(p, p)
    elif scalar == "probability":
        q = unit - p
        f, g, G = targets.probability(net, k), p[k] * q, p[k] * (np.outer(q, q) - np.diag(p) + np.outer(p, p))
    else:
        rival = int(np.argsort(np.where(unit > 0, -np.inf, y))[-1])
        f, g, G = targets.margin(net, k), unit - np.eye(4)[rival], np.zeros((4, 4))
    if scalar != "neuron":
        expected = np.einsum("c,cij->ij", g, H) + J.T @ G @ J
    np.testing.assert_allclose(hessian(f, x[0]).numpy(), expected, **EXACT)
    np.testing.assert_allclose(
        hessians(f, torch.cat([random(2, 8, seed=1), x]))[2].numpy(), expected, **EXACT
    )


def test_quadratic_and_product_functions_that_are_no_scalars_of_a_model():
    A = random(6, 6)
    A = A + A.T

    def quadratic(x):
        return ((x.flatten(1) @ A) * x.flatten(1)).sum(1) / 2

    x = random(3, 2, 3)
    np.testing.assert_allclose(hessians(quadratic, x).numpy(), A.expand(3, 6, 6).numpy(), **EXACT)
    np.testing.assert_allclose(
        gradient(quadratic, x).numpy().reshape(3, 6), x.numpy().reshape(3, 6) @ A.numpy()
    )

    def wave(x):
        return x[:, 0].sin() * x[:, 1].cos()

    a, b = 0.4, -1.1
    s, c = np.sin, np.cos
    expected = [[-s(a) * c(b), -c(a) * s(b)], [-c(a) * s(b), -s(a) * c(b)]]
    point = torch.tensor([a, b], dtype=torch.float64)
    np.testing.assert_allclose(hessian(wave, point).numpy(), expected, **EXACT)
    np.testing.assert_allclose(hvp(wave, point, torch.eye(2, dtype=torch.float64)).numpy(), expected, **EXACT)
    np.testing.assert_allclose(gradient(wave, point[None])[0].numpy(), [c(a) * c(b), -s(a) * s(b)], **EXACT)


def test_flattening_an_image_and_back():
    """Entry (i, j) of the Hessian belongs to pixels i and j of the flattened (3, 32, 32) image."""
    shape = (3, 32, 32)
    weights = random(*shape)
    x = random(*shape, seed=6)
    net, W = one_hidden_layer("tanh", 3072, 5, 2, seed=3)
    for parameter in net.parameters():
        parameter.data *= 0.1
    f = targets.logit(net, 0)
    _, g, H = closed_form("tanh", W, x.numpy().reshape(1, -1), 0)
    np.testing.assert_allclose(gradient(f, x[None])[0].numpy(), g.reshape(shape), **EXACT)
    found = hessian(f, x)
    np.testing.assert_allclose(found.numpy(), H[0], **EXACT)
    assert torch.equal(found, found.mT)
    np.testing.assert_allclose(
        hvp(f, x, weights[None])[0].numpy(), (H[0] @ weights.numpy().ravel()).reshape(shape), **EXACT
    )
    cubic = hvp(lambda z: (weights * z**3).flatten(1).sum(1) / 6, x, torch.ones_like(x)[None])
    np.testing.assert_allclose(cubic[0].numpy(), (weights * x).numpy(), **EXACT)


def convolutional_chain() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 2), nn.Softplus(), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.mark.parametrize("make", [targets.logit, targets.loss])
def test_chunks_and_batches_do_not_change_results(make):
    """Products of other sizes add in another order, hence the tolerance of a few roundings."""
    net = convolutional_chain()
    x = random(5, 2, 3, 3)
    k = torch.tensor([0, 2, 1, 1, 0])
    f = make(net, k)
    g, H = gradient(f, x), hessians(f, x)
    for i in range(5):
        single = make(net, int(k[i]))
        torch.testing.assert_close(gradient(single, x[i : i + 1])[0], g[i], **EXACT)
        torch.testing.assert_close(hessian(single, x[i]), H[i], **EXACT)
    for chunk in (1, 2, 3, 7, 18, 40, 1000):
        torch.testing.assert_close(gradient(f, x, chunk), g, **EXACT)
        torch.testing.assert_close(hessians(f, x, chunk), H, **EXACT)
        single = make(net, int(k[3]))
        torch.testing.assert_close(hessian(single, x[3], chunk), H[3], **EXACT)
        torch.testing.assert_close(hvp(single, x[3], x, chunk).flatten(1), x.flatten(1) @ H[3], **EXACT)


def test_the_model_and_the_input_are_left_as_they_were():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 2),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(12, 3),
        nn.Tanh(),
    ).double()
    net.train()
    net[3].eval()
    net[0].bias.requires_grad_(False)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 7.0) if parameter.requires_grad else None
    x = random(3, 2, 3, 3).requires_grad_()
    before = x.detach().clone()
    flags = [module.training for module in net.modules()]
    required = [parameter.requires_grad for parameter in net.parameters()]
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    generator = torch.get_rng_state()

    for f in (targets.loss(net, 1), targets.neuron(net, "6", 1), lambda z: targets.loss(net, 1)(z)):
        outputs = [
            value(f, x), gradient(f, x, 2), hvp(f, x[0], x), hessian(f, x[0]), hessians(f, x, 5)
        ]  # fmt: skip
        assert not any(output.requires_grad for output in outputs)
    assert not vjp(targets.logits(net), x[0], torch.eye(3, dtype=torch.float64)).requires_grad

    assert [module.training for module in net.modules()] == flags
    assert [parameter.requires_grad for parameter in net.parameters()] == required
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    assert all(p.grad is None or bool((p.grad == 7.0).all()) for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    assert x.grad is None
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_derivatives_inside_contexts_without_gradients(context):
    net, W = one_hidden_layer("softplus", 6, 5, 2, seed=4)
    f = targets.logit(net, 0)
    with context():
        x = random(2, 6)
        y, g, H = closed_form("softplus", W, x.numpy(), 0)
        np.testing.assert_allclose(value(f, x).numpy(), y, **EXACT)
        np.testing.assert_allclose(gradient(f, x).numpy(), g, **EXACT)
        np.testing.assert_allclose(hessian(f, x[1]).numpy(), H[1], **EXACT)
        for function in (f, lambda z: f(z)):
            np.testing.assert_allclose(hvp(function, x[1], x).numpy(), x.numpy() @ H[1], **EXACT)
        np.testing.assert_allclose(vjp(targets.logits(net), x[1], torch.eye(2)).numpy()[0], g[1], **EXACT)


def test_single_precision_follows_the_input():
    net, W = one_hidden_layer("softplus", 20, 30, 2, seed=4)
    x = random(20)
    y, g, H = closed_form("softplus", W, x.numpy()[None], 0)
    f = targets.logit(net.float(), 0)
    results = value(f, x.float()[None])[0], gradient(f, x.float()[None])[0], hessian(f, x.float())
    for found, expected in zip(results, (y[0], g[0], H[0]), strict=True):
        assert found.dtype == torch.float32
        # Sums of 30 float32 terms of order 0.1: 30 * 6e-8 * 0.1, with a margin of ten.
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-6)


def test_softplus_curvature_keeps_its_digits_where_it_is_nearly_linear():
    """At u = 15 the second derivative is s(u) s(-u) = 3.06e-7; s (1 - s) keeps one digit of it in float32."""
    net = nn.Sequential(nn.Linear(1, 1), nn.Softplus())
    net[0].weight.data[:] = 1.0
    net[0].bias.data[:] = 0.0
    found = hessian(targets.logit(net, 0), torch.tensor([15.0]))
    expected = np.exp(-15.0) / (1 + np.exp(-15.0)) ** 2
    np.testing.assert_allclose(found.item(), expected, rtol=1e-5)


def relu_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4)).double()


@pytest.mark.parametrize(
    "call",
    [
        lambda f, x: hessian(f, x[0]),
        lambda f, x: hessians(f, x),
        lambda f, x: hvp(f, x[0], x),
    ],
    ids=["hessian", "hessians", "hvp"],
)
@pytest.mark.parametrize("known", [True, False], ids=["recognised", "found to be zero"])
def test_zero_hessians_come_with_a_warning_that_names_the_remedies(call, known):
    f = targets.logit(relu_network(), 1)
    x = random(3, 3, 2, 2)
    with pytest.warns(
        ZeroHessianWarning, match=r"loss.*probability.*softplus_surrogate.*smooth_quadratic"
    ) as caught:
        result = call(f if known else (lambda z: f(z)), x)
    assert not result.any()
    assert [warning.filename for warning in caught] == [__file__]  # points at the caller's line


def test_curved_scalars_of_relu_networks_do_not_warn():
    x = random(2, 3, 2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hessian(targets.loss(relu_network(), 1), x[0]).any()
        assert not hvp(targets.loss(relu_network(), 1), x[0], torch.zeros_like(x)).any()


class Recorder:
    """A smooth scalar that records the rows it was given and refuses more than fit in its memory."""

    def __init__(self, memory: int = 10**9) -> None:
        self.rows: list[int] = []
        self.memory = memory

    def __call__(self, x):
        self.rows.append(len(x))
        if len(x) > self.memory:
            raise torch.OutOfMemoryError("too many rows")
        return (x**3).flatten(1).sum(1) / 6


def test_chunks_halve_when_memory_runs_out():
    x = random(20, 4)
    f = Recorder(memory=3)
    torch.testing.assert_close(gradient(f, x, chunk=20), x**2 / 2, **EXACT)
    assert max(f.rows[4:]) <= 3
    torch.testing.assert_close(value(Recorder(memory=3), x), (x**3).sum(1) / 6, **EXACT)
    with pytest.raises(MemoryShortageError, match=r"gradient: a single row \(4, float64\) does not fit"):
        gradient(Recorder(memory=0), x)


def test_memory_bounds_the_rows(monkeypatch):
    """A row of 1000 float64 numbers keeps at least itself, so 100,000 bytes hold fewer than 13 rows."""
    x = random(100, 1000)
    monkeypatch.setattr(derivatives, "memory_limit", lambda device: 100_000)
    f = Recorder()
    gradient(f, x)
    assert max(f.rows) < 13
    assert sum(f.rows) <= 100 + 3  # the graph is measured on one row and on two
    operator_rows: list[int] = []
    original = chain.ChainHessian.rows
    monkeypatch.setattr(
        chain.ChainHessian,
        "rows",
        lambda self, a, b: (operator_rows.append(b - a), original(self, a, b))[1],
    )
    net, W = one_hidden_layer("tanh", 300, 10, 2, seed=0)
    H = hessian(targets.logit(net, 0), x[0, :300])
    np.testing.assert_allclose(H.numpy(), closed_form("tanh", W, x[:1, :300].numpy(), 0)[2][0], **EXACT)
    assert max(operator_rows) * 300 * 8 < 100_000
    assert sum(operator_rows) == 300


def test_measuring_a_graph_leaves_no_memory_behind():
    from torch.profiler import ProfilerActivity, profile

    # exp and ReLU keep their own output for the backward pass.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        products.graph_bytes(lambda x: x.exp().relu().sum(1), torch.ones(2, 1000))
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert len(events) > 4
    assert sum(event.nbytes() for event in events) == 0


def test_the_measured_graph_is_that_of_a_row():
    """A hidden layer of 1000 keeps its input and its output for the backward pass, besides the parameters."""
    net, _ = one_hidden_layer("softplus", 4, 1000, 2, seed=0)
    numbers = products.graph_bytes(targets.logit(net, torch.tensor([1, 0, 1])), random(3, 4)) / 8
    assert 2000 <= numbers <= 3200


@pytest.mark.parametrize("wrap", [False, True], ids=["logits", "plain function"])
def test_vector_jacobian_products_are_those_of_numpy(wrap):
    net, W = one_hidden_layer("tanh", 12, 7, 4, seed=4)
    net.train()
    x = random(3, 2, 2)
    u = random(6, 4, seed=8)
    J = np.stack([closed_form("tanh", W, x.numpy().reshape(1, 12), k)[1][0] for k in range(4)])
    function = (lambda z: targets.logits(net)(z)) if wrap else targets.logits(net)
    for chunk in (None, 1, 4):
        found = vjp(function, x, u, chunk)
        np.testing.assert_allclose(found.numpy().reshape(6, 12), u.numpy() @ J, **EXACT)
    assert net.training


def test_empty_batches():
    net, _ = one_hidden_layer("tanh", 4, 3, 2, seed=0)
    f = targets.logit(net, 0)
    none = torch.zeros(0, 2, 2, dtype=torch.float64)
    assert value(f, none).shape == (0,)
    assert gradient(f, none).shape == (0, 2, 2)
    assert hessians(f, none).shape == (0, 4, 4)


NET = one_hidden_layer("tanh", 4, 3, 2, seed=0)[0]
BAD_CALLS = {
    "integers": lambda f, x: gradient(f, x.long()),
    "another shape than x": lambda f, x: hvp(f, x[0], torch.zeros(3, 5)),
    "no rows at a time": lambda f, x: gradient(f, x, 0),
    "no rows of the Hessian at a time": lambda f, x: hessian(f, x[0], 0),
    "negative chunk": lambda f, x: hvp(f, x[0], x, -1),
    "a column instead of a vector": lambda f, x: value(lambda z: z[:, :1], x),
    "one number for all rows": lambda f, x: gradient(lambda z: z.sum(), x),
    "constant": lambda f, x: gradient(lambda z: z.new_ones(len(z)), x),
    "detached": lambda f, x: gradient(lambda z: z.detach().sum(1), x),
    "no room for the matrix": lambda f, x: hessian(f, torch.zeros(3000, 3000)),
    "vectors that do not fit the output": lambda f, x: vjp(targets.logits(NET), x[0], torch.zeros(2, 3)),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_bad_arguments_stop_with_one_line(call):
    with pytest.raises(ArgumentError) as caught:
        call(targets.logit(NET, 0), random(3, 4))
    assert "\n" not in str(caught.value)


def test_an_error_of_the_model_itself_comes_through():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        hessian(targets.logit(NET, 0), random(7))
