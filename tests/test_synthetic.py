"""Targets of two features: their exact smoothed Hessians against brute force, and the data made from them."""

from itertools import pairwise

import numpy as np
import pytest

from curvelens import synthetic
from curvelens.errors import ArgumentError
from curvelens.synthetic import Disc, PiecewiseQuadratic, Rectangle

TARGETS = sorted(synthetic.TARGETS)


def four_quadrants(x):
    """Torop et al. 2023, Sec. 5, written out."""
    right, up = x[:, 0] > 0, x[:, 1] > 0
    K = np.select([right & up, ~right & up, ~right & ~up], [5.0, 3.0, 12.0], -10.0)
    return K * x[:, 0] * x[:, 1]


def nested(x):
    """Torop et al. 2023, App. F.3, written out."""
    r2, product = (x**2).sum(1), x[:, 0] * x[:, 1]
    inner = 0.5 * x[:, 0] ** 2 + product
    return np.where(r2 < 0.36, inner, np.where(r2 < 1.44, product, -5 * product))


WRITTEN_OUT = {"four_quadrants": four_quadrants, "nested": nested}


def polar_quadrature(function, sigma, inside=False):
    """E y(σz)(zzᵀ − I)/σ² in polar coordinates.

    Radii between the jumps of either target and the border of the square get 64 Gauss-Legendre points each;
    angles are the midpoints of 2,048 equal arcs, whose borders include the axes. The integrand is smooth in
    both within each piece, except where a circle crosses the border of the square: that costs an arc's share.
    """
    edges = sorted({0.0, 0.6, 1.2, 2.0, 8.0**0.5, *np.linspace(0, 9 * sigma, 10)})
    edges = [edge for edge in edges if edge <= 9 * sigma]
    nodes, weights = np.polynomial.legendre.leggauss(64)
    total = np.zeros((2, 2))
    angle = (np.arange(2048) + 0.5) * (2 * np.pi / 2048)
    for low, high in pairwise(edges):
        r = (low + high) / 2 + (high - low) / 2 * nodes
        x = r[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)[None]
        y = function(x.reshape(-1, 2)).reshape(len(r), len(angle))
        if inside:
            y = np.where((np.abs(x) < 2).all(-1), y, 0)
        density = np.exp(-0.5 * (r / sigma) ** 2) / (2 * np.pi * sigma**2)
        weight = (high - low) / 2 * weights * r * density * (2 * np.pi / 2048)
        z = x / sigma
        total += np.einsum("r,ra,raij->ij", weight, y, z[..., :, None] * z[..., None, :] - np.eye(2))
    return total / sigma**2


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("variance", [1e-6, 1e-2, 0.09, 0.3, 1.0, 10.0])
def test_the_exact_hessian_agrees_with_quadrature(name, variance):
    target, sigma = synthetic.TARGETS[name](), variance**0.5
    found = target.plane.smoothed_hessian(sigma)
    # Midpoints of 2,048 arcs are exact for trigonometric polynomials but for the kinks at the axes of the
    # Four Quadrant target, which cost (2π/2048)²/24 of a second derivative of order 100: 4e-5.
    np.testing.assert_allclose(found, polar_quadrature(WRITTEN_OUT[name], sigma), rtol=0, atol=1e-4)
    inside = target.inside.smoothed_hessian(sigma)
    # Arcs that the border of the square cuts: 8 of 2,048 at each radius, of a mean of order 10: 8/2048·10 at
    # worst, with alternating signs as the radius moves.
    np.testing.assert_allclose(
        inside, polar_quadrature(WRITTEN_OUT[name], sigma, inside=True), rtol=0, atol=1e-2
    )


@pytest.mark.parametrize("name", TARGETS)
def test_the_exact_hessian_agrees_with_second_differences_of_the_smoothed_values(name):
    # h on a grid by a discrete convolution, then central differences: no moments, no Stein identity. For a
    # step s the differences are off by s²/12 times a fourth derivative, which is of order 10/σ²: 2e-3; a jump
    # of order 1 that is met only to within σ/60 costs about as much as ten of those.
    sigma, step = 0.4, 0.02
    axis = step * np.arange(-2, 3)
    h = synthetic.smoothed_values(WRITTEN_OUT[name], axis, sigma, per_sigma=60)
    first = (h[3, 2] - 2 * h[2, 2] + h[1, 2]) / step**2
    second = (h[2, 3] - 2 * h[2, 2] + h[2, 1]) / step**2
    mixed = (h[3, 3] - h[3, 1] - h[1, 3] + h[1, 1]) / (4 * step**2)
    exact = synthetic.TARGETS[name]().plane.smoothed_hessian(sigma)
    np.testing.assert_allclose([[first, mixed], [mixed, second]], exact, rtol=0, atol=0.03)


def test_four_quadrants_do_not_depend_on_sigma():
    # Mean of K off the diagonal; on it the creases along the axes: (5 − 3 + 12 + 10)/2π.
    for sigma in (1e-3, 1.0, 30.0):
        found = synthetic.four_quadrants().plane.smoothed_hessian(sigma)
        np.testing.assert_allclose(found, [[12 / np.pi, 2.5], [2.5, 12 / np.pi]], rtol=1e-12)


def test_nested_interactions_have_limits_and_a_second_feature_that_interacts_with_itself():
    target = synthetic.nested().plane
    np.testing.assert_allclose(target.smoothed_hessian(1e-3), [[1, 1], [1, 0]], atol=1e-12)
    np.testing.assert_allclose(target.smoothed_hessian(1e3), [[0, -5], [-5, 0]], atol=1e-5)
    # ½(F₆ − F₄) of χ² distributions is −e⁻ᵛv²/4 with v = 0.36/2σ²: lowest, −e⁻², at v = 2.
    lowest = min(target.smoothed_hessian(variance**0.5)[1, 1] for variance in np.linspace(0.02, 0.5, 481))
    assert lowest == pytest.approx(-np.exp(-2), rel=1e-4)
    assert target.smoothed_hessian(0.3)[1, 1] == pytest.approx(-np.exp(-2), rel=1e-12)


def test_moments_over_regions_agree_with_draws():
    z = np.random.default_rng(0).normal(size=(400_000, 2))
    sigma = 0.7
    regions = [Disc(0.9), Rectangle((-0.5, 1.0), (0.2, np.inf)), Rectangle((-np.inf, np.inf), (-np.inf, 0.0))]
    for region in regions:
        inside = region.contains(sigma * z)
        for p, q in ((0, 0), (1, 0), (1, 1), (2, 0), (2, 2), (4, 0), (3, 1)):
            drawn = z[:, 0] ** p * z[:, 1] ** q * inside
            # Five standard errors; 21 comparisons.
            bar = 5 * drawn.std() / len(z) ** 0.5 + 1e-12
            assert abs(region.moment(p, q, sigma) - drawn.mean()) < bar, (region, p, q)


def test_terms_add_up():
    A, B = np.array([[1.0, 2.0], [2.0, -1.0]]), np.array([[0.0, 1.0], [1.0, 4.0]])
    everywhere = Rectangle((-np.inf, np.inf), (-np.inf, np.inf))
    function = PiecewiseQuadratic([(A, everywhere), (B, everywhere)])
    np.testing.assert_allclose(function.smoothed_hessian(0.8), A + B, rtol=1e-12)
    x = np.array([[1.0, 2.0], [-0.5, 0.25]])
    np.testing.assert_allclose(function(x), [0.5 * row @ (A + B) @ row for row in x], rtol=1e-12)
    with pytest.raises(ArgumentError, match="sigma 0"):
        function.smoothed_hessian(0)


@pytest.mark.parametrize("name", TARGETS)
def test_the_grid_is_that_of_the_paper(name):
    target = synthetic.TARGETS[name]()
    examples = synthetic.grid(target, name)
    assert len(examples) == 501**2
    assert (examples.inputs.min(), examples.inputs.max()) == (-2, 2)
    first = examples.inputs.reshape(501, 501, 2)
    np.testing.assert_allclose(np.diff(first[:, 0, 0]), 0.008, atol=1e-6)
    chosen = np.random.default_rng(1).choice(len(examples), 5000, replace=False)
    x = examples.inputs[chosen].astype(float)
    # A grid point on a jump may fall on either side in float32.
    away = np.abs(np.hypot(*x.T)[:, None] - [0.6, 1.2]).min(1) > 1e-5
    np.testing.assert_allclose(examples.targets[chosen][away], WRITTEN_OUT[name](x)[away], atol=1e-5)


def test_points_between_are_on_no_point_of_the_grid():
    target = synthetic.nested()
    between = synthetic.between(target, "n", spacing=0.08, count=20)
    assert len(between) == 400
    steps = (between.inputs.astype(float) + 2) / 0.08
    np.testing.assert_allclose(steps - np.floor(steps), 0.5, atol=1e-4)
    assert not set(between.ids) & set(synthetic.grid(target, "n", 0.08).ids)
    assert len(synthetic.between(target, "n", spacing=1.0)) == 16
    with pytest.raises(ArgumentError, match="spacing 3"):
        synthetic.grid(target, "n", 3)


def test_smoothed_values_of_a_quadratic_and_of_a_crease():
    axis, sigma = np.linspace(-1, 1, 9), 0.3
    # E (x₁ + σz)² + x₁x₂ = x₁² + x₁x₂ + σ²; cut at 5σ loses 1e-5 of σ².
    found = synthetic.smoothed_values(lambda x: x[:, 0] ** 2 + x[:, 0] * x[:, 1], axis, sigma)
    np.testing.assert_allclose(found, axis[:, None] ** 2 + np.outer(axis, axis) + sigma**2, atol=1e-5)
    # E |σz| = σ√(2/π) at the crease; steps of σ/8 or finer: (σ/8)²/6 of the kink times the density there.
    found = synthetic.smoothed_values(lambda x: np.abs(x[:, 1]), axis, sigma)
    np.testing.assert_allclose(found[:, 4], sigma * (2 / np.pi) ** 0.5, atol=1.5e-3)
    np.testing.assert_array_equal(
        synthetic.smoothed_values(lambda x: x[:, 0] - 2 * x[:, 1], axis, 0.0),
        axis[:, None] - 2 * axis[None, :],
    )
