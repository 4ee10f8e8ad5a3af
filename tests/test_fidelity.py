"""P_MSE against closed forms, quadrature and repetition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad

from curvelens.errors import ArgumentError
from curvelens.fidelity import Perturbations, perturbation_mse
from curvelens.quadratic import LocalQuadratic, LowRank, MatrixFree

LAWS = ("ball", "paper")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads only get in each other's way on arrays this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def moments(law: str, radius: float, d: int) -> tuple[float, float]:
    """E‖δ‖² and E‖δ‖⁴ for lengths ε·u^(1/d) in the ball and ε·u in the paper's code, u uniform in (0, 1)."""
    if law == "ball":
        return radius**2 * d / (d + 2), radius**4 * d / (d + 4)
    return radius**2 / 3, radius**4 / 5


def quadratic(d: int, seed: int) -> tuple[float, torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(d, d))
    return (
        float(random.normal()),
        torch.from_numpy(random.normal(size=d)),
        torch.from_numpy(matrix + matrix.T),
    )


def function(value, g, H, x):
    """f(z) for rows z, with value, gradient and Hessian given at x; written without the code under test."""

    def f(z):
        delta = (z - x).reshape(len(z), -1)
        return value + delta @ g + torch.einsum("bi,ij,bj->b", delta, H, delta) / 2

    return f


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3, 4)])
def test_wrong_model_of_a_quadratic_has_the_closed_form(law, shape):
    d, radius = math.prod(shape), 0.7
    value, g, H = quadratic(d, 1)
    _, g_wrong, H_wrong = quadratic(d, 2)
    x = torch.linspace(0, 1, d, dtype=torch.float64).reshape(shape)
    q = LocalQuadratic(value, g_wrong.reshape(shape), H_wrong)
    found = perturbation_mse(function(value, g, H, x), q, x, radius, law=law, samples=40_000)

    # For a random direction u: E(c·u)² = ‖c‖²/d and E(uᵀAu)² = (tr²A + 2 tr A²)/(d(d + 2)); odd terms vanish.
    second, fourth = moments(law, radius, d)
    c, A = g_wrong - g, (H_wrong - H) / 2
    form = (A.trace() ** 2 + 2 * (A @ A).trace()) / (d * (d + 2))
    truth = float(c @ c) / d * second + float(form) * fourth
    assert abs(found.mean - truth) < 4 * found.stderr
    assert found.stderr < 0.02 * truth  # so that the line above says something
    assert (found.radius, found.law, found.samples) == (radius, law, 40_000)


@pytest.mark.parametrize("law", LAWS)
def test_variance_is_that_of_the_function(law):
    d, radius = 5, 0.4
    _, g, _ = quadratic(d, 3)
    x = torch.zeros(d, dtype=torch.float64)
    f = function(1.0, g, torch.zeros(d, d, dtype=torch.float64), x)
    found = perturbation_mse(f, LocalQuadratic(1.0, 0 * g), x, radius, law=law, samples=40_000)
    truth = float(g @ g) / d * moments(law, radius, d)[0]
    # A constant model leaves f's own spread about f(x): E(g·δ)², also the variance because E g·δ = 0.
    assert found.mean == pytest.approx(truth, abs=4 * found.stderr)
    assert found.variance == pytest.approx(truth, abs=4 * found.stderr)


@pytest.mark.parametrize("law", LAWS)
def test_against_quadrature_for_a_function_that_is_no_polynomial(law):
    radius = 0.9
    x = torch.tensor([0.2, -0.1], dtype=torch.float64)

    def f(z):
        return torch.exp(z[:, 0]) * torch.cos(2 * z[:, 1])

    gradient = torch.tensor([math.exp(0.2) * math.cos(0.2), 2 * math.exp(0.2) * math.sin(0.2)]).double()
    q = LocalQuadratic(math.exp(0.2) * math.cos(0.2), gradient)
    found = perturbation_mse(f, q, x, radius, law=law, samples=60_000, seed=4)

    def squared(angle, r):
        a, b = r * math.cos(angle), r * math.sin(angle)
        model = float(q.value) + float(gradient[0]) * a + float(gradient[1]) * b
        return (model - math.exp(0.2 + a) * math.cos(2 * (b - 0.1))) ** 2

    # Density of the length: 2r/ε² in the disc, 1/ε in the paper's law.
    def weighted(angle, r):
        weight = 2 * r / radius**2 if law == "ball" else 1 / radius
        return squared(angle, r) * weight / (2 * math.pi)

    truth, _ = dblquad(weighted, 0, radius, 0, 2 * math.pi)
    assert found.mean == pytest.approx(truth, abs=4 * found.stderr)
    assert found.stderr < 0.02 * truth


def test_exact_model_has_no_error():
    value, g, H = quadratic(6, 5)
    x = torch.ones(6, dtype=torch.float64)
    found = perturbation_mse(function(value, g, H, x), LocalQuadratic(value, g, H), x, 0.5, samples=500)
    assert found.mean < 1e-28  # rounding of numbers of size 1, squared
    assert found.variance > 1e-3


def test_forms_of_curvature_and_plain_functions_agree():
    value, g, H = quadratic(4, 6)
    x = torch.zeros(2, 2, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(H)
    g = g.reshape(2, 2)
    models = [
        LocalQuadratic(value, g, H),
        LocalQuadratic(value, g, LowRank(vectors, values)),
        LocalQuadratic(value, g, MatrixFree(lambda v: H @ v, 4)),
        lambda delta: (
            value
            + (delta * g).sum((1, 2))
            + torch.einsum("bi,ij,bj->b", delta.flatten(1), H, delta.flatten(1)) / 2
        ),
    ]
    found = perturbation_mse(lambda z: z.sum((1, 2)).sin(), models, x, 0.3, samples=300)
    assert isinstance(found, list)
    for other in found[1:]:
        assert other.mean == pytest.approx(found[0].mean, rel=1e-12)


def test_chunks_and_number_of_models_change_nothing():
    value, g, H = quadratic(3, 7)
    x = torch.zeros(3, dtype=torch.float64)

    def f(z):
        return torch.relu(z @ g) + z[:, 0].square()

    q, first = LocalQuadratic(value, g, H), LocalQuadratic(value, g)
    whole = perturbation_mse(f, [q, first], x, 0.5, samples=5000)
    for chunk in (7, 1000):
        for model, expected in ((q, whole[0]), (first, whole[1])):
            found = perturbation_mse(f, model, x, 0.5, samples=5000, chunk=chunk)
            assert found.mean == pytest.approx(expected.mean, rel=1e-13)
            assert found.stderr == pytest.approx(expected.stderr, rel=1e-13)


def test_radii_share_directions():
    _, g, H = quadratic(5, 8)
    x = torch.zeros(5, dtype=torch.float64)
    constant = torch.zeros(5, dtype=torch.float64)

    def linear(z):
        return z @ g

    def square(z):
        return torch.einsum("bi,ij,bj->b", z, H, z)

    # A linear (quadratic) error grows exactly as ε² (ε⁴) if the perturbations differ by scale alone.
    for law in LAWS:
        for f, power in ((linear, 2), (square, 4)):
            q = LocalQuadratic(0.0, constant)
            small, large = (perturbation_mse(f, q, x, r, law=law, samples=50).mean for r in (0.25, 0.75))
            assert large / small == pytest.approx(3**power, rel=1e-12)


def test_function_is_evaluated_once_for_each_perturbation():
    evaluated = []

    def f(z):
        evaluated.append(z.clone())
        return z.sum(1)

    x = torch.zeros(3, dtype=torch.float64)
    models = [LocalQuadratic(0.0, torch.full((3,), float(i), dtype=torch.float64)) for i in range(4)]
    perturbations = Perturbations(f, x, [(0.5, "ball"), (1.0, "ball"), (1.0, "paper")], samples=100, chunk=64)
    assert [len(perturbations.mse(model)) for model in models] == [3] * 4
    points = torch.cat(evaluated)
    assert len(points) == 300
    small, large, paper = points.split(100)
    torch.testing.assert_close(large, 2 * small, rtol=1e-14, atol=0)
    for block, radius in ((small, 0.5), (large, 1.0), (paper, 1.0)):
        assert block.norm(dim=1).max() <= radius * (1 + 1e-12)
    # One half of u is below 1/2: that is the median length in the paper's law, (1/2)^(1/3) in the ball.
    assert paper.norm(dim=1).median() == pytest.approx(0.5, abs=0.15)
    assert large.norm(dim=1).median() == pytest.approx(0.5 ** (1 / 3), abs=0.08)


def test_fewer_samples_are_a_part_of_more():
    seen = []

    def f(z):
        seen.append(z.clone())
        return z.sum(1)

    x = torch.zeros(2, dtype=torch.float64)
    q = LocalQuadratic(0.0, x)
    perturbation_mse(f, q, x, 1.0, samples=9000, chunk=2000)
    many = torch.cat(seen)
    seen.clear()
    perturbation_mse(f, q, x, 1.0, samples=4500, chunk=2000)
    assert torch.equal(torch.cat(seen), many[:4500])
    assert len(torch.unique(many, dim=0)) == 9000  # blocks are not repeated


def test_directions_that_are_not_kept_are_drawn_again(monkeypatch):
    value, g, H = quadratic(3, 11)
    x = torch.zeros(3, dtype=torch.float64)
    settings = [(0.5, "ball"), (1.0, "paper")]
    q = LocalQuadratic(value, g, H)
    kept = Perturbations(lambda z: z.sum(1), x, settings, samples=5000).mse(q)
    monkeypatch.setattr("curvelens.fidelity.KEEP_BYTES", 0)
    assert Perturbations(lambda z: z.sum(1), x, settings, samples=5000).mse(q) == kept


def test_standard_error_agrees_with_repetition():
    d = 4
    _, g, H = quadratic(d, 9)
    x = torch.zeros(d, dtype=torch.float64)
    f = function(0.0, g, H, x)
    found = [
        perturbation_mse(f, LocalQuadratic(0.0, g), x, 1.0, samples=400, seed=seed) for seed in range(300)
    ]
    spread = float(np.std([one.mean for one in found], ddof=1))
    stated = float(np.sqrt(np.mean([one.stderr**2 for one in found])))
    # The standard deviation of 300 values is known to 1/√600 = 4 %; four times that.
    assert spread == pytest.approx(stated, rel=0.16)


def test_single_precision_follows_double():
    value, g, H = quadratic(6, 10)
    x = torch.full((6,), 0.3, dtype=torch.float64)

    def f(z):
        return (z.square().sum(1) + 1).log()

    single = perturbation_mse(f, LocalQuadratic(value, g.float(), H.float()), x.float(), 0.5, samples=2000)
    double = perturbation_mse(f, LocalQuadratic(value, g, H), x, 0.5, samples=2000)
    assert single.mean == pytest.approx(double.mean, rel=1e-5)  # same perturbations; 2⁻²³ times a few dozen


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"q": None}, "local model"),
        ({"q": []}, "local model"),
        ({"radius": 0.0}, "radius"),
        ({"radius": float("nan")}, "radius"),
        ({"law": "sphere"}, "ball"),
        ({"samples": 1}, "samples"),
        ({"q": LocalQuadratic(0.0, torch.zeros(4))}, "give the x"),
        ({"f": lambda z: z.sum(1) / 0}, "f gives numbers"),
        ({"x": torch.zeros(3, dtype=torch.int64)}, "floating"),
    ],
)
def test_errors_name_the_remedy(arguments, word):
    usual = {
        "f": lambda z: z.sum(1),
        "q": LocalQuadratic(0.0, torch.zeros(3)),
        "x": torch.zeros(3),
        "radius": 1.0,
        "samples": 10,
    }
    with pytest.raises(ArgumentError, match=word) as caught:
        perturbation_mse(**(usual | arguments))
    assert "\n" not in str(caught.value)
