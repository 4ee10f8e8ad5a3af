"""Deletion, insertion and maps as slopes: closed forms for linear functions, Quantus, what chance gives."""

import numpy as np
import pytest
import quantus
import torch
from torch import nn

from curvelens import targets
from curvelens.errors import ArgumentError
from curvelens.faithfulness import Curves, baseline, map_errors, removal_curves, removal_order
from curvelens.fidelity import Perturbations, perturbation_mse
from curvelens.quadratic import LocalQuadratic

SHAPE = (2, 4, 3)
D = 24


def picture(seed=0, shape=SHAPE):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(seed=1):
    return torch.randn(*SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(w):
    return lambda x: (x * w).flatten(1).sum(1)


def test_curves_of_a_linear_function_are_sums():
    x, w = picture(), weights()
    black = torch.zeros_like(x)
    effect = (x * w).sum(0).reshape(-1).numpy()  # of all channels of a pixel
    order = removal_order(np.arange(12.0).reshape(4, 3), seed=0)
    assert order.tolist() == list(range(12))[::-1]
    found = removal_curves([linear(w)], x, black, order, steps=4)
    np.testing.assert_array_equal(found.shares, [0, 0.25, 0.5, 0.75, 1])
    gone = np.array([effect[order[:k]].sum() for k in (0, 3, 6, 9, 12)])
    np.testing.assert_allclose(found.deletion[0], effect.sum() - gone, atol=1e-12)
    np.testing.assert_allclose(found.insertion[0], gone, atol=1e-12)


def test_the_area_is_the_trapezium_rule_by_hand():
    shares = np.array([0, 0.5, 1.0])
    np.testing.assert_allclose(Curves.area(shares, np.array([[1.0, 0.5, 0.0], [2, 2, 2]])), [0.5, 2])


def test_the_exact_effect_deletes_and_inserts_best():
    x, w = picture(), weights()
    black = torch.zeros_like(x)
    effect = (x * w).sum(0).numpy()
    best = removal_curves([linear(w)], x, black, removal_order(effect, 0), 12)
    for seed in range(20):
        other = np.random.default_rng(seed).random((4, 3))
        found = removal_curves([linear(w)], x, black, removal_order(other, 0), 12)
        assert (found.deletion >= best.deletion - 1e-12).all()
        assert (found.insertion <= best.insertion + 1e-12).all()


def test_quantus_deletes_the_same_pixels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    x = picture(shape=(1, 4, 3))
    pixels = np.random.default_rng(3).random((4, 3))
    ours = removal_curves(
        [targets.probability(model, 1)], x, torch.zeros_like(x), removal_order(pixels, 0), 6
    )
    # Not "black", which is the darkest pixel of the image there.
    metric = quantus.PixelFlipping(features_in_step=2, perturb_baseline=0.0, disable_warnings=True)
    theirs = metric(
        model=model.float(),
        x_batch=x[None].float().numpy(),
        y_batch=np.array([1]),
        a_batch=pixels[None, None].astype(np.float32),
        channel_first=True,
        softmax=True,
    )
    # Quantus leaves out the whole image and computes in single precision.
    np.testing.assert_allclose(ours.deletion[0, 1:], theirs[0], atol=1e-6)


def test_equal_pixels_come_in_random_order_and_before_less_important_ones():
    pixels = np.zeros((6, 6))
    pixels[0] = 1
    orders = [removal_order(pixels, seed) for seed in (0, 0, 1)]
    assert orders[0].tolist() == orders[1].tolist() != orders[2].tolist()
    assert all(sorted(order[:6].tolist()) == list(range(6)) for order in orders)


def test_baselines():
    x = picture(shape=(3, 20, 24))
    assert torch.equal(baseline(x, "black"), torch.zeros_like(x))
    torch.testing.assert_close(baseline(x, "mean")[1], x[1].mean().expand(20, 24))
    flat = torch.full_like(x, 0.3)
    torch.testing.assert_close(baseline(flat, "blur"), flat)
    # A Gaussian of one pixel: an impulse far from the border becomes its density, which sums to 1.
    impulse = torch.zeros(1, 21, 21, dtype=torch.float64)
    impulse[0, 10, 10] = 1
    blurred = baseline(impulse, "blur", blur=1 / 21)
    grid = torch.arange(-4, 5, dtype=torch.float64)
    density = (-(grid**2) / 2).exp()
    density = density / density.sum()
    torch.testing.assert_close(blurred[0, 6:15, 6:15], density[:, None] * density)


@pytest.mark.parametrize("kind", ["white", "Blur"])
def test_an_unknown_baseline_is_refused(kind):
    with pytest.raises(ArgumentError, match="blur, mean, black"):
        baseline(picture(), kind)


def test_shapes_must_fit():
    with pytest.raises(ArgumentError, match="do not fit"):
        removal_curves([linear(weights())], picture(), torch.zeros(2, 4, 4), np.arange(12))


def around(f, x, radius=0.5, samples=4000):
    return Perturbations(f, x, [(radius, "ball")], samples=samples, seed=5)


def test_the_slope_of_a_linear_function_explains_all_whatever_its_factor():
    x, w = picture(), weights()
    found = map_errors(around(linear(w), x, samples=64), float((x * w).sum()), {"map": -3 * w})["map"][0]
    assert found.unexplained < 1e-24
    assert found.scale == pytest.approx(-1 / 3)


def test_another_direction_explains_the_square_of_the_cosine():
    # The best factor leaves 1 - cos² of E (w·δ)² = |w|² E δ²/d, because directions are uniform.
    x, w = picture(), weights()
    other = w + 1.5 * weights(2)
    cosine = float((w * other).sum() / w.norm() / other.norm())
    found = map_errors(around(linear(w), x), float((x * w).sum()), {"map": other})["map"][0]
    # 2,000 squares of standard deviation √2: 3 % each for numerator and denominator; three of their sum.
    assert found.unexplained == pytest.approx(1 - cosine**2, rel=0.13)
    length = 0.5**2 * D / (D + 2)  # E |δ|² in the ball
    assert found.mean == pytest.approx((1 - cosine**2) * float(w.square().sum()) * length / D, rel=0.13)


def test_a_map_that_knows_nothing_explains_nothing():
    x, w = picture(), weights()
    other = weights(7)
    other = other - w * (w * other).sum() / w.square().sum()
    found = map_errors(around(linear(w), x), float((x * w).sum()), {"map": other})["map"][0]
    # The fitted factor has variance 1/m of its own: a share of about 1/2000 beyond 1.
    assert found.unexplained == pytest.approx(1, abs=0.01)


def test_the_error_is_that_of_the_local_model():
    x, w = picture(), weights()

    def f(z):
        return (z * w).flatten(1).sum(1) + z.flatten(1).square().sum(1)

    points = around(f, x, samples=400)
    value = float(f(x[None])[0])
    found = map_errors(points, value, {"map": w})["map"][0]
    model = LocalQuadratic(torch.tensor(value, dtype=torch.float64), found.scale * w)
    # The same model over all the perturbations; ours is over the second half of them.
    whole = perturbation_mse(f, model, x, 0.5, samples=400, seed=5)
    assert found.mean == pytest.approx(whole.mean, abs=4 * whole.stderr)
    assert found.stderr == pytest.approx(whole.stderr * 2**0.5, rel=0.3)


def test_a_flat_function_has_no_share():
    found = map_errors(around(lambda z: 0 * z.flatten(1).sum(1), picture()), 0.0, {"map": weights()})
    assert np.isnan(found["map"][0].unexplained)
    assert found["map"][0].mean == 0
