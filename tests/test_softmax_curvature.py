"""The closed-form softmax Hessian against numpy, double differentiation and its own bound."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curvelens import targets
from curvelens.derivatives import hessian
from curvelens.errors import ArgumentError
from curvelens.softmax_curvature import softmax_hessian


def linear_softmax(
    d: int, classes: int, scale: float, seed: int = 0
) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(d, classes)).double()
    net[1].weight.data.normal_().mul_(scale)
    net[1].bias.data.normal_().mul_(scale)
    return net, *(p.detach().numpy() for p in net.parameters())


def relu_network(classes: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(16, classes)
    ).double()


def softmax(y: np.ndarray) -> np.ndarray:
    e = np.exp(y - y.max())
    return e / e.sum()


def full(result) -> np.ndarray:
    return (result.factor @ result.factor.mT).numpy()


@settings(max_examples=15, deadline=None)
@given(
    d=st.integers(1, 8),
    classes=st.integers(2, 12),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    seed=st.integers(0, 99),
    chunk=st.sampled_from([None, 1, 5]),
)
def test_linear_softmax_model_against_numpy(d, classes, scale, seed, chunk):
    net, W, b = linear_softmax(d, classes, scale, seed)
    x = torch.linspace(-1, 1, d, dtype=torch.float64)
    p = softmax(W @ x.numpy() + b)
    result = softmax_hessian(net, x, chunk=chunk)
    H = W.T @ (np.diag(p) - np.outer(p, p)) @ W
    k = int(p.argmax())
    # Sums of at most 144 products of size scale^2 in float64.
    tolerance = {"rtol": 0, "atol": 1e-13 * scale**2}
    np.testing.assert_allclose(full(result), H, **tolerance)
    np.testing.assert_allclose(result.gradient.numpy(), W.T @ (p - np.eye(classes)[k]), **tolerance)
    np.testing.assert_allclose(result.probabilities.numpy(), p, rtol=1e-12)
    assert result.label == k
    assert result.classes.tolist() == sorted(range(classes), key=lambda i: -p[i])
    assert result.bound == 0.0
    assert result.calls == classes
    assert result.eigenvalues.shape == (min(d, classes),)
    np.testing.assert_allclose(result.largest_eigenvalue, np.linalg.eigvalsh(H)[-1], **tolerance)


@pytest.mark.parametrize("classes", [2, 3, 10, 40])
def test_relu_network_against_double_differentiation(classes):
    """Float64 on both sides; the entries are of order 0.01 to 1."""
    net = relu_network(classes)
    net.train()
    x = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    for label in (None, 1):
        result = softmax_hessian(net, x, label=label)
        y = torch.tensor([result.label])
        loss = lambda z: nn.functional.cross_entropy(net(z[None]), y)  # noqa: B023, E731 - used at once
        H = torch.autograd.functional.hessian(loss, x).reshape(32, 32)
        g = torch.autograd.functional.jacobian(loss, x)
        np.testing.assert_allclose(full(result), H.numpy(), rtol=0, atol=1e-14)
        np.testing.assert_allclose(result.gradient.numpy(), g.numpy(), rtol=0, atol=1e-14)
        assert result.label == (int(net(x[None]).argmax()) if label is None else 1)
        np.testing.assert_allclose(
            hessian(targets.loss(net, result.label), x).numpy(), full(result), atol=1e-14
        )
    assert net.training


def test_two_classes_give_rank_one():
    """``H = p q (w_1 - w_2)(w_1 - w_2)^T``, whose only eigenvalue is ``p q |w_1 - w_2|^2``."""
    net, W, b = linear_softmax(6, 2, 1.0)
    x = torch.ones(6, dtype=torch.float64) / 3
    p = softmax(W @ x.numpy() + b)
    difference = W[0] - W[1]
    result = softmax_hessian(net, x)
    np.testing.assert_allclose(full(result), p[0] * p[1] * np.outer(difference, difference), rtol=1e-12)
    np.testing.assert_allclose(result.largest_eigenvalue, p[0] * p[1] * difference @ difference, rtol=1e-12)
    assert result.eigenvalues[1] < 1e-15 * result.eigenvalues[0]


@pytest.mark.parametrize("lead", [0.0, 10.0, 30.0, 80.0])
def test_confident_predictions_keep_their_digits_in_single_precision(lead):
    """At a lead of 80, ``1 - p`` is about 1e-34: far below the rounding of p, yet H is not lost.

    Integer weights and inputs make the logits exact in float32, so that only the closed form itself rounds;
    its products of single-precision numbers may lose a few times 6e-8 each.
    """
    W = np.array([[1.0, 2.0, -1.0], [0.0, 1.0, 3.0], [2.0, -2.0, 1.0], [-1.0, 0.0, 2.0]])
    b = np.array([lead, 0.0, 1.0, -2.0])
    net = nn.Linear(3, 4)
    net.weight.data, net.bias.data = torch.tensor(W).float(), torch.tensor(b).float()
    x = np.array([1.0, -1.0, 2.0])
    y = W @ x + b
    k = int(y.argmax())
    odds = np.exp(y - y[k])
    p = odds / odds.sum()
    others = np.delete(odds, k).sum() / odds.sum()
    V = W - W[k]  # H is unchanged by a shift of all rows, and in this form nothing cancels
    u = np.delete(p, k) @ np.delete(V, k, axis=0)
    H = np.einsum("c,ci,cj->ij", np.delete(p, k), np.delete(V, k, 0), np.delete(V, k, 0)) - np.outer(u, u)
    result = softmax_hessian(net, torch.tensor(x).float())
    assert others > 0
    assert np.abs(full(result) - H).max() <= 2e-6 * np.abs(H).max()
    assert np.abs(result.gradient.numpy() - u).max() <= 2e-6 * np.abs(u).max()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), tail=st.sampled_from([1e-3, 0.02, 0.3, 0.9]))
def test_what_the_tail_loses_is_positive_and_within_the_bound(seed, tail):
    """The lost part is ``t Cov_S(w)``, computed here from the rows that the library did not compute."""
    classes = 60
    net, W, b = linear_softmax(9, classes, 1.0, seed)
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)
    p = softmax(W @ x.numpy() + b)
    exact = W.T @ (np.diag(p) - np.outer(p, p)) @ W
    result = softmax_hessian(net, x, tail=tail, label=int(p.argmin()))
    kept = result.classes.tolist()
    dropped = sorted(set(range(classes)) - set(kept))
    lost = exact - full(result)
    if not dropped:
        assert result.bound == result.dropped == 0.0
        np.testing.assert_allclose(lost, 0.0, atol=1e-13)
        return
    share = p[dropped] / p[dropped].sum()
    centred = W[dropped] - share @ W[dropped]
    covariance = p[dropped].sum() * centred.T @ np.diag(share) @ centred
    np.testing.assert_allclose(lost, covariance, rtol=0, atol=1e-12)
    norm = np.linalg.norm(covariance, 2)
    assert norm <= result.bound <= 1000 * norm
    assert 0 < result.dropped <= tail
    np.testing.assert_allclose(result.dropped, p[dropped].sum(), rtol=1e-12)
    assert int(p.argmin()) in kept
    assert p[dropped].max() <= np.delete(p[kept], kept.index(int(p.argmin()))).min()
    assert result.factor.shape == (9, len(kept) + 1)
    assert result.calls == len(kept) + 1 + 16
    g = W.T @ (p - np.eye(classes)[int(p.argmin())])
    np.testing.assert_allclose(result.gradient.numpy(), g, rtol=0, atol=1e-12)
    largest = np.linalg.eigvalsh(exact)[-1]
    assert result.largest_eigenvalue - 1e-12 <= largest <= result.largest_eigenvalue + result.bound


def test_a_confident_prediction_of_many_classes_costs_few_reverse_passes():
    net, _, _ = linear_softmax(5, 1000, 0.3)
    net[1].bias.data[17] += 25.0
    result = softmax_hessian(net, torch.zeros(5, dtype=torch.float64), tail=1e-6)
    assert result.classes.tolist()[0] == result.label == 17
    assert result.calls < 20
    repeated = softmax_hessian(net, torch.zeros(5, dtype=torch.float64), tail=1e-6)
    assert repeated.bound == result.bound
    other = softmax_hessian(net, torch.zeros(5, dtype=torch.float64), tail=1e-6, seed=1)
    assert other.bound != result.bound


def test_few_improbable_classes_are_not_worth_dropping():
    net, _, _ = linear_softmax(5, 15, 5.0)
    result = softmax_hessian(net, torch.ones(5, dtype=torch.float64), tail=0.5)
    assert len(result.classes) == 15
    assert result.bound == 0.0


def test_probabilities_that_underflow_lose_nothing():
    net, _, _ = linear_softmax(5, 40, 1.0)
    net[1].bias.data[3] += 2000.0
    result = softmax_hessian(net, torch.ones(5, dtype=torch.float64), tail=0.1)
    assert result.bound == 0.0
    assert torch.isfinite(result.factor).all()
    assert torch.isfinite(result.gradient).all()
    assert result.largest_eigenvalue == 0.0


def test_the_low_rank_form_is_the_same_matrix():
    net = relu_network(5)
    x = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = softmax_hessian(net, x)
    v = torch.rand(32, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    np.testing.assert_allclose(result.low_rank().apply(v).numpy(), full(result) @ v.numpy(), rtol=1e-12)


def test_smooth_networks_are_refused_unless_the_gauss_newton_part_is_wanted():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.rand(4, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="gauss_newton"):
        softmax_hessian(net, x)
    W0, b0, W1, b1 = (p.detach().numpy() for p in net.parameters())
    a = np.tanh(W0 @ x.numpy() + b0)
    J = W1 @ np.diag(1 - a**2) @ W0
    p = softmax(W1 @ a + b1)
    found = full(softmax_hessian(net, x, gauss_newton=True))
    np.testing.assert_allclose(found, J.T @ (np.diag(p) - np.outer(p, p)) @ J, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "arguments",
    [{"tail": -0.1}, {"tail": 1.0}, {"tail": float("nan")}, {"label": 5}, {"label": -1}, {"chunk": 0}],
    ids=str,
)
def test_bad_arguments_stop_with_one_line(arguments):
    with pytest.raises(ArgumentError) as caught:
        softmax_hessian(relu_network(5), torch.rand(2, 4, 4, dtype=torch.float64), **arguments)
    assert "\n" not in str(caught.value)


def test_one_class_has_no_cross_entropy():
    with pytest.raises(ArgumentError, match="one class"):
        softmax_hessian(nn.Linear(4, 1), torch.rand(4))
