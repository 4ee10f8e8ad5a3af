"""P_MSE by a control variate against closed forms, the plain mean, and repetition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from curvelens import control_variate, targets
from curvelens.control_variate import ControlVariate, moments
from curvelens.fidelity import Perturbations
from curvelens.quadratic import LocalQuadratic, LowRank
from curvelens.rays import Rays

SETTINGS = [(0.5, "ball"), (0.5, "paper"), (1.5, "paper")]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads only get in each other's way on arrays this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model(d: int, seed: int, value: float = 0.3, rank: int | None = None) -> LocalQuadratic:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(d, d))
    g, H = torch.from_numpy(random.normal(size=d)), torch.from_numpy(matrix + matrix.T)
    if rank:
        return LocalQuadratic(value, g, LowRank(torch.from_numpy(matrix[:, :rank].copy())))
    return LocalQuadratic(value, g, H)


def smooth(z):
    """No polynomial: what quadratics leave of it is neither even nor odd."""
    return torch.exp(0.4 * z[:, 0]) * torch.cos(z[:, 1:].sum(1)) + 0.3 * z[:, 2].abs()


X = torch.tensor([0.2, -0.1, 0.05, 0.4], dtype=torch.float64)


def around(seed: int, samples: int = 800, f=smooth, x=X) -> Perturbations:
    return Perturbations(f, x, SETTINGS, samples=samples, seed=seed)


def taylor() -> LocalQuadratic:
    g = torch.autograd.functional.jacobian(lambda z: smooth(z[None])[0], X)
    H = torch.autograd.functional.hessian(lambda z: smooth(z[None])[0], X)
    return LocalQuadratic(smooth(X[None])[0], g, H)


def near(q: LocalQuadratic, size: float, seed: int) -> LocalQuadratic:
    other = model(q.size, seed)
    return LocalQuadratic(
        q.value + 0.1 * size, q.gradient + size * other.gradient, q.hessian() + size * other.hessian()
    )


@pytest.mark.parametrize("law", ["ball", "paper"])
def test_moments_are_those_of_the_lengths(law):
    u = (np.arange(200_000) + 0.5) / 200_000
    lengths = 0.7 * (u ** (1 / 6) if law == "ball" else u)
    assert moments(0.7, law, 6) == pytest.approx([np.mean(lengths**2), np.mean(lengths**4)], rel=1e-4)


@pytest.mark.parametrize("size", [0.05, 0.5])
def test_unbiased_with_the_standard_error_that_it_says(size):
    truth = near(taylor(), size, 1)
    long = around(10_000, samples=400_000).mse(truth)
    reference = near(taylor(), 0.1, 2)
    found = [ControlVariate(around(seed), [reference] * 3).mse(truth) for seed in range(120)]
    for place, exact in enumerate(long):
        means = np.array([one[place].mean for one in found])
        stderrs = np.array([one[place].stderr for one in found])
        error = math.hypot(means.std() / math.sqrt(len(means)), exact.stderr)
        assert abs(means.mean() - exact.mean) < 4 * error
        assert error < 0.05 * exact.mean  # so that the line above says something
        # The standard deviation of 120 numbers is known to 7 %; heavy tails widen that.
        assert np.sqrt(np.mean(stderrs**2)) == pytest.approx(means.std(), rel=0.35)


def test_same_as_the_plain_mean_where_all_is_exact():
    """With f itself a quadratic, r and c are quadratics, and the estimate of q₀ is its plain mean."""
    exact, reference = model(6, 1), model(6, 2)
    x = torch.zeros(6, dtype=torch.float64)
    held = around(3, f=lambda z: exact(z - x), x=x)
    control = ControlVariate(held, [reference] * 3)
    for a, b in zip(control.mse(reference), held.mse(reference), strict=True):
        assert a.mean == pytest.approx(b.mean, rel=1e-12)
        assert (a.radius, a.law, a.samples, a.variance) == (b.radius, b.law, b.samples, b.variance)
    other = model(6, 4, value=0.9)
    for a, (radius, law) in zip(control.mse(other), SETTINGS, strict=True):
        second, fourth = moments(radius, law, 6)
        offset, slope = 0.9 - 0.3, other.gradient - exact.gradient
        C = other.hessian() - exact.hessian()
        trace = float(C.trace())
        truth = offset**2 + (float(slope @ slope) + offset * trace) * second / 6
        truth += (2 * float((C @ C).trace()) + trace**2) / (4 * 6 * 8) * fourth
        assert a.mean == pytest.approx(truth, abs=4 * a.stderr)


def test_a_perfect_model_is_measured_plainly():
    """Where q is far better than q₀ the control variate would be noise about zero."""
    exact, x = model(5, 1), torch.zeros(5, dtype=torch.float64)
    held = around(3, f=lambda z: exact(z), x=x)
    found = ControlVariate(held, [model(5, 2)] * 3).mse(exact)
    assert all(0 <= one.mean < 1e-25 for one in found)


def test_references_settings_and_forms_of_curvature():
    held = around(5)
    several = ControlVariate(held, [taylor(), near(taylor(), 0.1, 3), taylor()])
    low, first = model(4, 8, rank=2), model(4, 9).first_order()
    dense = LocalQuadratic(low.value, low.gradient, low.hessian())
    for q in (low, first, near(taylor(), 0.3, 4)):
        for a, b in zip(several.mse(q), held.mse(q), strict=True):
            assert a.mean == pytest.approx(b.mean, abs=5 * math.hypot(a.stderr, b.stderr))
    assert several.mse(low)[1].mean == pytest.approx(several.mse(dense)[1].mean, rel=1e-10)
    assert several.mse(low, SETTINGS[1:2])[0] == several.mse(low)[1]


def test_a_thin_reference_changes_no_expectation(monkeypatch):
    monkeypatch.setattr(control_variate, "RANK", 4)
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(20, 20)))[0]
    H = torch.from_numpy(basis * 0.7 ** np.arange(20) @ basis.T)
    g, x = torch.from_numpy(random.normal(size=20)), torch.zeros(20, dtype=torch.float64)
    reference = LocalQuadratic(1.0, g, H)

    def f(z):
        return reference(z) + 0.05 * torch.sin(5 * z.sum(1))

    held = around(1, samples=4000, f=f, x=x)
    for a, b in zip(ControlVariate(held, [reference] * 3).mse(reference), held.mse(reference), strict=True):
        assert a.mean == pytest.approx(b.mean, abs=4 * math.hypot(a.stderr, b.stderr))


def network(inplace: bool = False) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(16, 12), nn.ReLU(inplace), nn.Linear(12, 8), nn.ReLU(inplace)]
    return nn.Sequential(*layers, nn.Linear(8, 3)).double()


class Opaque(nn.Module):
    """The same network, but no chain of layers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("wrap", [lambda net: net, Opaque])
def test_rays_give_the_values_of_the_scalars(wrap, inplace):
    net = wrap(network(inplace))
    name = "model.3" if isinstance(net, Opaque) else "3"
    functions = [targets.logit(net, 1), targets.neuron(net, name, 4)]
    random = torch.Generator().manual_seed(1)
    x = torch.rand(1, 4, 4, generator=random, dtype=torch.float64)
    u = torch.randn(30, 1, 4, 4, generator=random, dtype=torch.float64)
    lengths = [torch.rand(30, generator=random, dtype=torch.float64) * size for size in (0.1, 3.0)]
    found = Rays(functions, x, chunk=7).values(u, lengths)
    for s, values in zip(lengths, found, strict=True):
        for f, line in zip(functions, values, strict=True):
            with torch.no_grad():
                torch.testing.assert_close(line, f(x + s.reshape(-1, 1, 1, 1) * u), rtol=1e-12, atol=1e-13)
    joint = Perturbations.jointly(functions, x, SETTINGS, samples=50, seed=2)
    for f, one in zip(functions, joint, strict=True):
        alone = Perturbations(f, x, SETTINGS, samples=50, seed=2)
        torch.testing.assert_close(torch.stack(one.values), torch.stack(alone.values), rtol=1e-12, atol=1e-13)


def test_rays_read_from_the_beginning_itself():
    net = network()
    x, u = torch.zeros(1, 4, 4, dtype=torch.float64), torch.ones(2, 1, 4, 4, dtype=torch.float64)
    f = targets.neuron(net, "1", 3)
    (found,) = Rays([f], x).values(u, [torch.tensor([0.5, 2.0]).double()])
    with torch.no_grad():
        torch.testing.assert_close(found[0], f(torch.stack([0.5 * u[0], 2 * u[0]])))
