"""Super-pixels and their interactions, and smoothed curvature along given directions, against brute force."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import curvelens as cl
from curvelens.errors import ArgumentError
from curvelens.quadratic import LocalQuadratic, LowRank, MatrixFree
from curvelens.smoothing import leading_eigenpairs, smooth_products
from curvelens.superpixels import (
    indicators,
    slic_segments,
    smooth_interactions,
    strongest_off_diagonal,
    strongest_pair,
    superpixel_interactions,
    with_interactions,
)


def picture(channels=3, size=32, seed=0):
    """Four coloured quarters with noise."""
    rng = np.random.default_rng(seed)
    quarter = np.kron(np.array([[40, 90], [160, 220]]), np.ones((size // 2, size // 2)))
    noise = rng.integers(-20, 20, (channels, size, size))
    return np.clip(quarter[None] + noise, 0, 255).astype(np.uint8)


def quadratic(size, seed=0):
    """A quadratic function of [3, 4, 5] images, with its gradient at zero and its Hessian."""
    generator = torch.Generator().manual_seed(seed)
    H = torch.randn(size, size, generator=generator, dtype=torch.float64)
    H, g = H + H.T, torch.randn(size, generator=generator, dtype=torch.float64)
    return (lambda x: x.flatten(1) @ g + ((x.flatten(1) @ H) * x.flatten(1)).sum(1) / 2), g, H


SEGMENTS = np.array([[0, 0, 1, 1, 1], [0, 2, 2, 1, 1], [3, 2, 2, 3, 3], [3, 3, 3, 3, 3]])


def brute_force(g, H, segments):
    """Sum over all pairs of features one by one."""
    numbers = np.broadcast_to(segments, (3, *segments.shape)).reshape(-1)
    count = segments.max() + 1
    second, first = np.zeros((count, count)), np.zeros(count)
    for i, a in enumerate(numbers):
        first[a] += g[i]
        for j, b in enumerate(numbers):
            second[a, b] += H[i, j]
    return second, first


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 32), (3, 48), (1, 28)])
def test_slic_gives_as_many_segments_as_asked_for(channels, size):
    found = slic_segments(picture(channels, size))
    count = found.max() + 1
    assert 20 <= count <= 25
    assert np.array_equal(np.unique(found), np.arange(count))
    assert np.array_equal(found, slic_segments(picture(channels, size)))
    few = slic_segments(picture(channels, size), (4, 6), compactness=10)
    assert 4 <= few.max() + 1 <= 6


def test_slic_says_when_it_cannot():
    with pytest.raises(ArgumentError, match="no division of the 4 x 4 image into 20 to 25"):
        slic_segments(picture(size=4))
    with pytest.raises(ArgumentError, match="2 <= fewest <= most"):
        slic_segments(picture(), (5, 4))
    with pytest.raises(ArgumentError, match="1 or 3 channels"):
        slic_segments(np.zeros((2, 8, 8), np.uint8))


def test_interactions_are_sums_over_pairs_of_features():
    _, g, H = quadratic(60)
    expected, sums = brute_force(g.numpy(), H.numpy(), SEGMENTS)
    values, vectors = torch.linalg.eigh(H)
    curvatures = {
        "dense": H,
        "low rank": LowRank(vectors, values),
        "products": MatrixFree(lambda v: H @ v, 60),
    }
    for name, curvature in curvatures.items():
        found = superpixel_interactions(LocalQuadratic(0.0, g.reshape(3, 4, 5), curvature), SEGMENTS)
        np.testing.assert_allclose(found.second.numpy(), expected, rtol=1e-9, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(found.first.numpy(), sums, rtol=1e-12)
        assert found.calls == (4 if name == "products" else 0)
    first_order = superpixel_interactions(LocalQuadratic(0.0, g.reshape(3, 4, 5)), SEGMENTS)
    assert not first_order.second.any()


def test_interactions_of_a_network_are_those_of_its_hessian():
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Flatten(), nn.Linear(60, 8), nn.Softplus(beta=3.0), nn.Linear(8, 3)).double().eval()
    )
    f = cl.targets.logit(model, 1)
    x = torch.rand(3, 4, 5, dtype=torch.float64)
    H, g = cl.hessian(f, x), cl.gradient(f, x[None])[0]
    q = LocalQuadratic(0.0, g, MatrixFree(lambda v: cl.hvp(f, x, v.T.reshape(-1, 3, 4, 5)).flatten(1).T, 60))
    expected, sums = brute_force(g.flatten().numpy(), H.numpy(), SEGMENTS)
    found = superpixel_interactions(q, SEGMENTS)
    np.testing.assert_allclose(found.second.numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.first.numpy(), sums, rtol=1e-12)


def test_segments_have_to_fit():
    x = torch.zeros(3, 4, 5)
    assert indicators(SEGMENTS, x).sum() == 60
    with pytest.raises(ArgumentError, match="do not cover"):
        indicators(SEGMENTS[:3], x)
    with pytest.raises(ArgumentError, match="without gaps"):
        indicators(SEGMENTS * 2, x)


# Sampling along given directions.


def test_products_are_exact_on_a_quadratic_from_one_block():
    f, _, H = quadratic(60)
    x = torch.rand(3, 4, 5, dtype=torch.float64)
    v = torch.randn(5, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for sigma in (
        0.1,
        torch.rand(3, 4, 5, dtype=torch.float64) + 0.1,
        torch.linalg.cholesky(_covariance(60)),
    ):
        found = smooth_products(f, x, v, sigma, calls=19, seed=2)
        assert found.calls == 10
        torch.testing.assert_close(found.products.flatten(1), v.flatten(1) @ H, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.within[0], v.flatten(1) @ H @ v.flatten(1).T, rtol=1e-9, atol=1e-9)


def _covariance(size):
    A = torch.randn(size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.eye(size, dtype=torch.float64) + A @ A.T / size


def test_products_of_a_relu_agree_with_the_closed_form():
    # h(x) = E relu(w·(x + σz)): with s = σ|w|, its Hessian is w wᵀ φ(w·x/s)/s.
    size, sigma = 12, 0.3
    generator = torch.Generator().manual_seed(4)
    w = torch.randn(size, generator=generator, dtype=torch.float64)
    x = 0.1 * torch.randn(size, generator=generator, dtype=torch.float64)
    v = torch.eye(size, dtype=torch.float64)[:3]
    scale = sigma * float(w.norm())
    density = math.exp(-0.5 * (float(w @ x) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))
    H = density * torch.outer(w, w)
    found = smooth_products(lambda y: (y @ w).relu(), x, v, sigma, calls=12_000, seed=0)
    stderr = found.within.std(0) / math.sqrt(len(found.within))
    torch.testing.assert_close(found.within.mean(0), found.products @ v.T, rtol=1e-9, atol=1e-12)
    # 9 entries at 4.5 standard errors: false alarms once in 16,000.
    assert ((found.products @ v.T - v @ H @ v.T).abs() < 4.5 * stderr).all()
    assert (stderr.norm() < 0.1 * H[:3, :3].norm()).all()
    slope = w * 0.5 * (1 + math.erf(float(w @ x) / scale / math.sqrt(2)))
    assert (found.gradient - slope).norm() < 0.05 * slope.norm()


def test_products_do_not_depend_on_what_else_is_drawn():
    f, _, _ = quadratic(60)
    x, v = torch.zeros(3, 4, 5), torch.eye(60)[:2].reshape(2, 3, 4, 5)
    g = lambda y: f(y.double()).float()  # noqa: E731
    one, more = (smooth_products(g, x, v, 0.1, calls, seed=1) for calls in (8, 16))
    torch.testing.assert_close(one.within, more.within[:2])
    assert one.products.dtype == torch.float32


def test_products_refuse_what_cannot_be():
    f, _, _ = quadratic(60)
    x = torch.zeros(3, 4, 5, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="too few"):
        smooth_products(f, x, torch.ones(3, *x.shape, dtype=x.dtype), 0.1, calls=5)
    with pytest.raises(ArgumentError, match="must be 1 to 60"):
        smooth_products(f, x, torch.ones(3, 4, 5, dtype=x.dtype), 0.1, calls=50)
    with pytest.raises(ArgumentError, match="not finite"):
        smooth_products(lambda y: f(y) * math.nan, x, x[None] + 1, 0.1, calls=5)


def test_smoothed_interactions_have_an_error_bar_that_holds():
    f, g, H = quadratic(60)
    exact, _ = brute_force(g.numpy(), H.numpy(), SEGMENTS)
    wave = torch.randn(60, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    # Its frequency is so high that nothing of the wave is left in the smoothed Hessian: e^(-ω²σ²/2) < 1e-21.
    wave = 100 * wave / wave.norm()

    def rough(x):
        return f(x) + 0.02 * torch.cos(x.flatten(1) @ wave)

    x = torch.zeros(3, 4, 5, dtype=torch.float64)
    smooth = smooth_interactions(f, x, SEGMENTS, 0.1, calls=16)
    np.testing.assert_allclose(smooth.second.numpy(), exact, rtol=1e-9, atol=1e-9)
    assert smooth.error < 1e-9
    deviations = []
    for seed in range(20):
        found = smooth_interactions(rough, x, SEGMENTS, 0.1, calls=160, seed=seed)
        assert found.calls == 160
        assert found.error > 1e-3
        deviations.append(((found.second.numpy() - exact) / found.stderr.numpy())[np.triu_indices(4)])
    # Student's t with 19 degrees of freedom has variance 19/17; 200 of them, 10 by 10 dependent.
    assert 0.6 < np.mean(np.square(deviations)) < 1.9


def test_a_local_model_takes_over_interactions():
    _, g, H = quadratic(60)
    exact, _ = brute_force(g.numpy(), H.numpy(), SEGMENTS)
    poor = LowRank(torch.ones(60, 1, dtype=torch.float64))
    q = LocalQuadratic(1.0, g.reshape(3, 4, 5), poor, calls=7, error=0.5)
    better = with_interactions(q, SEGMENTS, torch.as_tensor(exact))
    np.testing.assert_allclose(superpixel_interactions(better, SEGMENTS).second.numpy(), exact, rtol=1e-9)
    S = indicators(SEGMENTS, q.gradient).flatten(1)
    outside = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outside -= S.T @ torch.linalg.lstsq(S.T, outside[:, None]).solution[:, 0]
    both = [model.hvp(outside.reshape(1, 3, 4, 5)) for model in (q, better)]
    torch.testing.assert_close(both[0], both[1], rtol=1e-9, atol=1e-9)  # nothing else has changed
    dense = LocalQuadratic(1.0, g.reshape(3, 4, 5), torch.ones(60, 60, dtype=torch.float64))
    torch.testing.assert_close(
        with_interactions(dense, SEGMENTS, torch.as_tensor(exact)).hessian(), better.hessian()
    )


def test_the_strongest_pair_follows_its_rule():
    second = torch.tensor([[9.0, 1.0, -2.0], [1.0, 9.0, 0.5], [-2.0, 0.5, 9.0]])
    assert strongest_pair(second, torch.tensor([-3.0, 1.0, 2.0])) == (2, 0)
    assert strongest_off_diagonal(second, 2) == (0, -2.0)


# Leading eigenpairs.


def test_eigenvalues_are_corrected_on_a_quadratic_with_noise():
    size, sigma = 400, 0.1
    generator = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(size, 3, generator=generator, dtype=torch.float64))[0]
    H = (U * torch.tensor([5.0, -4.0, 3.0], dtype=torch.float64)) @ U.T
    waves = torch.randn(300, size, generator=generator, dtype=torch.float64) * 2
    phases = 6.28 * torch.rand(300, generator=generator, dtype=torch.float64)

    def f(x):  # the waves are gone from the smoothed Hessian: |w| = 40, e^(-σ²|w|²/2) = 3e-4
        return ((x @ H) * x).sum(1) / 2 + 0.005 * torch.cos(x @ waves.T + phases).sum(1)

    x = torch.zeros(size, dtype=torch.float64)
    inflation, deviations = [], []
    for seed in range(8):
        found = leading_eigenpairs(f, x, sigma, 4, 240, seed=seed)
        assert found.calls <= 240
        gram = found.eigenvectors @ found.eigenvectors.T
        torch.testing.assert_close(gram, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-9)
        along = ((found.eigenvectors @ H) * found.eigenvectors).sum(1)
        inflation.append(float(found.inflated.abs().sum() / along.abs().sum()))
        deviations.append(((found.eigenvalues - along) / found.stderr).numpy())
    assert min(inflation) > 1.1
    deviations = np.concatenate(deviations)
    # Unbiased: the mean of 32 t-distributed numbers (14 degrees of freedom) has a standard deviation of 0.19.
    assert abs(deviations.mean()) < 0.76
    assert 0.4 < np.mean(deviations**2) < 2.5
    with pytest.raises(ArgumentError, match="ask for k >= 1"):
        leading_eigenpairs(f, x, sigma, 4, 15)
