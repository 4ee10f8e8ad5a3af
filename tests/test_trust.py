"""The trust radius against closed forms, and its interval against repetition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from curvelens.errors import ArgumentError
from curvelens.fidelity import Perturbations
from curvelens.quadratic import LocalQuadratic, LowRank
from curvelens.trust import ABOVE, BELOW, FOUND, Rays, radius_grid, trust_radius

LAWS = ("ball", "paper")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads only get in each other's way on arrays this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def quadratic(d: int = 8, seed: int = 0):
    """f = g·δ + ½δᵀHδ about x, with g and H, written without the code under test."""
    random = np.random.default_rng(seed)
    g, H = torch.from_numpy(random.normal(size=d)), torch.from_numpy(random.normal(size=(d, d)))
    H, x = (H + H.T) / 2, torch.from_numpy(random.normal(size=d))

    def f(z):
        delta = z - x
        return 1.5 + delta @ g + torch.einsum("bi,ij,bj->b", delta, H, delta) / 2

    return f, x, g, H


def radius_of_the_gradient(g, H, law: str, threshold: float) -> float:
    """Where the share of the change of f that its gradient explains is the threshold, in closed form.

    For a random direction u: E(g·u)² = ‖g‖²/d, E(½uᵀHu)² = (tr²H + 2 tr H²)/(4d(d + 2)), and the cross term
    is odd. So 1 − R² = c₄ε⁴/(c₂ε² + c₄ε⁴) with the moments of the length in c₂ and c₄, and ε² = c₂(1 −
    t)/(c₄t).
    """
    d = len(g)
    second, fourth = (d / (d + 2), d / (d + 4)) if law == "ball" else (1 / 3, 1 / 5)
    c2 = float(g @ g) / d * second
    c4 = float(H.trace() ** 2 + 2 * (H @ H).trace()) / (4 * d * (d + 2)) * fourth
    return math.sqrt(c2 * (1 - threshold) / (c4 * threshold))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_gradient_of_a_quadratic_has_the_closed_form(law, threshold):
    f, x, g, H = quadratic()
    truth = radius_of_the_gradient(g, H, law, threshold)
    q = LocalQuadratic(1.5, g)
    found = trust_radius(
        f, q, x, threshold=threshold, law=law, samples=40_000, smallest=truth / 30, largest=9
    )
    stderr = (found.high - found.low) / (2 * 1.96)
    assert abs(found.radius - truth) < 4 * stderr
    assert stderr < 0.02 * truth  # so that the line above says something
    assert found.low < found.radius < found.high
    assert found.bracket[0] <= found.radius <= found.bracket[1]
    # Half an octave in sixteen parts.
    assert found.bracket[1] / found.bracket[0] == pytest.approx(2 ** (1 / 32), rel=0.1)
    assert (found.censored, found.threshold, found.law, found.samples) == (FOUND, threshold, law, 40_000)
    assert found.fidelity == pytest.approx(threshold, abs=0.01)


@pytest.mark.parametrize("threshold", [0.9, 0.99])
def test_ridge_ends_a_little_beyond_its_kink(threshold):
    """f = max(0, x), h to the right of the kink, in one dimension: all integrals are elementary.

    The model f(x) + δ is off by −h − δ left of the kink: mean square (ε − h)³/6ε. The change of f is δ right
    of it and −h left: mean square [(ε³ + h³)/3 + h²(ε − h)]/2ε.
    """
    h = 0.3

    def unexplained(radius: float) -> float:
        change = (radius**3 + h**3) / 3 + h**2 * (radius - h)
        return (radius - h) ** 3 / 3 / change

    truth = brentq(lambda radius: unexplained(radius) - (1 - threshold), h, 20)
    x, one = torch.tensor([h], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    found = trust_radius(
        lambda z: z[:, 0].relu(), LocalQuadratic(h, one), x, threshold=threshold, samples=60_000
    )
    assert abs(found.radius - truth) < 4 * (found.high - found.low) / (2 * 1.96)
    assert found.radius == pytest.approx(truth, rel=0.02)
    assert found.radius > h


def test_a_perfect_model_is_trusted_as_far_as_was_looked():
    f, x, g, H = quadratic()
    values, vectors = torch.linalg.eigh(H)
    for curvature in (H, LowRank(vectors, values)):
        found = trust_radius(f, LocalQuadratic(1.5, g, curvature), x, samples=200, largest=3.0)
        assert (found.censored, found.radius, found.low, found.high) == (ABOVE, 3.0, 3.0, math.inf)
        assert found.bracket == (3.0, math.inf)
        assert found.fidelity == pytest.approx(1)


def test_a_constant_model_has_fidelity_zero_and_is_trusted_nowhere():
    f, x, g, _ = quadratic()
    found = trust_radius(f, LocalQuadratic(1.5, 0 * g), x, samples=300, smallest=0.2)
    assert (found.censored, found.radius, found.low, found.high) == (BELOW, 0.2, 0.0, 0.2)
    assert found.bracket == (0.0, 0.2)
    assert abs(found.fidelity) < 1e-12
    assert found.stderr < 1e-12


def test_a_flat_function_is_explained_by_no_change_at_all():
    x = torch.zeros(3, dtype=torch.float64)
    flat = LocalQuadratic(1.0, x)
    assert trust_radius(lambda z: torch.ones(len(z)).double(), flat, x, samples=50).censored == ABOVE
    sloped = LocalQuadratic(1.0, torch.ones(3).double())
    assert trust_radius(lambda z: torch.ones(len(z)).double(), sloped, x, samples=50).censored == BELOW


def test_rounding_does_not_count_as_infidelity():
    """Within 1e-6 a value near 100 changes by a rounding of float32, of which a gradient knows nothing."""
    g = torch.full((4,), 0.3)
    x = torch.zeros(4)
    found = trust_radius(lambda z: 100 + z @ g, LocalQuadratic(100.0, g), x, smallest=1e-6, samples=200)
    assert found.censored == ABOVE


def test_the_first_crossing_counts():
    """A bump at |δ| in (0.5, 0.6) that a larger ball drowns: fidelity falls, and rises again."""
    x = torch.zeros(1, dtype=torch.float64)

    def f(z):
        size = z[:, 0].abs()
        return z[:, 0] + 1.0 * ((size > 0.5) & (size < 0.6))

    q = LocalQuadratic(0.0, torch.ones(1, dtype=torch.float64))
    rays = Rays(f, x, samples=20_000)
    curve = rays.curve(q)
    assert curve.at(0.4)[0] == pytest.approx(1)
    assert curve.at(0.6)[0] < 0.6
    assert curve.at(4.0)[0] > 0.95
    assert 0.5 < curve.radius(0.9, radius_grid(0.05, 8)).radius < 0.6


def test_fidelity_is_that_of_p_mse_on_the_same_perturbations():
    f, x, g, H = quadratic()
    q = LocalQuadratic(1.5, 0.8 * g, 0.5 * H)
    for law in LAWS:
        (mse,) = Perturbations(f, x, [(0.7, law)], samples=500, seed=3).mse(q)
        (none,) = Perturbations(f, x, [(0.7, law)], samples=500, seed=3).mse(LocalQuadratic(1.5, 0 * g))
        fidelity, _ = Rays(f, x, law=law, samples=500, seed=3).curve(q).at(0.7)
        assert fidelity == pytest.approx(1 - mse.mean / none.mean, rel=1e-10)


def test_interval_covers_the_truth_and_the_error_is_that_of_repetition():
    f, x, g, H = quadratic()
    truth = radius_of_the_gradient(g, H, "ball", 0.8)
    q, covered, at_truth = LocalQuadratic(1.5, g), 0, []
    for seed in range(200):
        curve = Rays(f, x, samples=300, seed=seed).curve(q)
        found = curve.radius(0.8, radius_grid(truth / 4, truth * 4))
        covered += found.low <= truth <= found.high
        at_truth.append(curve.at(truth))
    values, errors = np.array(at_truth).T
    # The standard deviation of 200 values is known to 1/√400 = 5 %; four times that.
    assert values.std(ddof=1) == pytest.approx(math.sqrt((errors**2).mean()), rel=0.2)
    # 95 % of 200: binomial standard deviation 3.1; the ratio's own skewness costs a little more.
    assert 177 <= covered <= 200


def test_models_share_the_evaluations():
    f, x, g, H = quadratic()
    counted = []

    def counting(z):
        if len(z) == 100:  # smaller batches measure how much memory a row takes
            counted.append(len(z))
        return f(z)

    models = [LocalQuadratic(1.5, g), LocalQuadratic(1.5, g, 0.9 * H), LocalQuadratic(1.5, 0.99 * g, H)]
    together = trust_radius(counting, models, x, samples=100)
    assert isinstance(together, list)
    assert together[-1].evaluations == sum(counted) + 1  # and f(x)
    shared = sum(counted)
    counted.clear()
    alone = [trust_radius(counting, model, x, samples=100) for model in models]
    assert [one.radius for one in alone] == [one.radius for one in together]
    assert shared < 0.75 * sum(counted)


def test_plain_functions_chunks_and_types_agree():
    f, x, g, H = quadratic()
    q = LocalQuadratic(1.5, g, 0.7 * H)
    whole = trust_radius(f, q, x, samples=400)
    assert trust_radius(f, lambda delta: q(delta), x, samples=400).radius == pytest.approx(
        whole.radius, rel=1e-9
    )
    assert trust_radius(f, q, x, samples=400, chunk=7).radius == pytest.approx(whole.radius, rel=1e-12)
    single = LocalQuadratic(1.5, g.float(), 0.7 * H.float())
    found = trust_radius(lambda z: f(z.double()).to(z.dtype), single, x.float(), samples=400)
    assert found.radius == pytest.approx(whole.radius, rel=1e-4)  # 2⁻²³ over the slope of the fidelity


def test_grid_has_equal_ratios_and_both_ends():
    grid = radius_grid(0.01, 16.0, 2)
    assert (grid[0], grid[-1]) == (0.01, 16.0)
    ratios = np.diff(np.log2(grid))
    assert ratios.max() <= 0.5
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"threshold": 1.0}, "between 0 and 1"),
        ({"smallest": 0.0}, "positive"),
        ({"smallest": 2.0, "largest": 1.0}, "ascending"),
        ({"per_octave": 0}, "per_octave"),
        ({"refinements": -1}, "refinements"),
        ({"law": "sphere"}, "ball"),
        ({"samples": 1}, "samples"),
        ({"q": None}, "local model"),
        ({"q": LocalQuadratic(0.0, torch.zeros(4))}, "inputs"),
        ({"f": lambda z: z.sum(1) / 0}, "f gives numbers"),
        ({"q": lambda delta: delta.sum(1) / 0}, "local model gives numbers"),
        ({"x": torch.zeros(3, dtype=torch.int64)}, "floating"),
    ],
)
def test_errors_name_the_remedy(arguments, word):
    usual = {"f": lambda z: z.sum(1), "q": LocalQuadratic(0.0, torch.zeros(3)), "x": torch.zeros(3)}
    with pytest.raises(ArgumentError, match=word) as caught:
        trust_radius(**({"samples": 10} | usual | arguments))
    assert "\n" not in str(caught.value)
