"""Linear regions against geometry by hand, numpy's own forward pass, and brute-force sampling of lines."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from curvelens import regions, targets
from curvelens.errors import ArgumentError, CurvelensError, ModelError
from curvelens.regions import region_border, region_radius, regions_along

# Positions and distances are quotients of float64 numbers of order one.
EXACT = {"rtol": 1e-10, "atol": 1e-11}


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), dtype=torch.float64)
    layer.weight.data = torch.tensor(weight, dtype=torch.float64)
    layer.bias.data = torch.tensor(bias, dtype=torch.float64)
    return layer


def corner_network() -> nn.Sequential:
    """Borders x = 0, y = 0, relu(x) + relu(y) = 3; the output is the last unit."""
    first, second = linear([[1, 0], [0, 1]], [0, 0]), linear([[1, 1]], [-3])
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), linear([[2]], [0.5]))


def random_mlp(seed: int, sizes: tuple[int, ...]) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, dtype=torch.float64), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def numpy_pattern(model: nn.Sequential, points: np.ndarray) -> np.ndarray:
    """Signs of all pre-activations ``[n, units]``, by numpy."""
    values, signs = points, []
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    for layer in layers[:-1]:
        z = values @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        signs.append(z > 0)
        values = np.maximum(z, 0)
    return np.concatenate(signs, axis=1)


def conv_network() -> nn.Sequential:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(3, 4, 2),
        nn.LeakyReLU(0.1),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()
    model[1].running_mean.uniform_(-0.3, 0.3)
    model[1].running_var.uniform_(0.5, 2)
    return model.eval()


def conv_pattern(model: nn.Sequential, points: torch.Tensor) -> torch.Tensor:
    """Signs and pooling winners of :func:`conv_network`, by functional calls."""
    with torch.no_grad():
        z = model[1](model[0](points))
        pooled, first = functional.max_pool2d(z.relu(), 3, 2, 1, return_indices=True)
        y = model[4](pooled)
        _, second = functional.max_pool2d(functional.leaky_relu(y, 0.1), 2, 1, return_indices=True)
    # A window of zeros has no winner that matters: its entries are equal and constant.
    first = torch.where(pooled > 0, first, -1)
    return torch.cat([(z > 0).flatten(1), first.flatten(1), (y > 0).flatten(1), second.flatten(1)], dim=1)


@pytest.mark.parametrize(
    ("point", "distance", "direction"),
    [
        ((1.0, 1.0), 1 / np.sqrt(2), (1 / np.sqrt(2), 1 / np.sqrt(2))),
        ((1.0, -1.5), 1.0, (-1, 0)),
        ((2.8, -1.5), 0.2, (1, 0)),
        ((-2.0, -0.25), 0.25, (0, 1)),
        ((5.0, 0.125), 0.125, (0, -1)),
    ],
)
def test_radius_of_a_two_layer_network_by_geometry(point, distance, direction):
    border = region_border(corner_network(), torch.tensor(point, dtype=torch.float64))
    np.testing.assert_allclose(border.radius, distance, **EXACT)
    np.testing.assert_allclose(border.direction, direction, **EXACT)


def test_border_names_the_unit():
    x = torch.tensor([5.0, 0.125], dtype=torch.float64)
    border = region_border(corner_network(), x)
    assert (border.module, border.unit) == ("1", 1)
    border = region_border(corner_network(), torch.tensor([1.0, 1.0], dtype=torch.float64))
    assert (border.module, border.unit) == ("3", 0)


@given(seed=st.integers(0, 10**6), width=st.integers(1, 12), inputs=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_radius_of_one_hidden_layer_is_the_nearest_hyperplane(seed, width, inputs):
    model = random_mlp(seed, (inputs, width, 2))
    x = torch.randn(inputs, dtype=torch.float64)
    weight, bias = model[0].weight.detach().numpy(), model[0].bias.detach().numpy()
    expected = np.min(np.abs(weight @ x.numpy() + bias) / np.linalg.norm(weight, axis=1))
    np.testing.assert_allclose(region_radius(model, x), expected, **EXACT)


@given(seed=st.integers(0, 10**6), depth=st.integers(1, 4), width=st.integers(2, 10))
@settings(max_examples=25, deadline=None)
def test_pattern_is_constant_inside_the_radius_and_changes_at_it(seed, depth, width):
    model = random_mlp(seed, (4, *[width] * depth, 3))
    x = torch.randn(4, dtype=torch.float64)
    border = region_border(model, x)
    radius, here = float(border.radius), numpy_pattern(model, x.numpy()[None])
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((500, 4))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    inside = numpy_pattern(model, x.numpy() + 0.999 * radius * directions)
    assert (inside == here).all()
    before, after = (
        numpy_pattern(model, (x + factor * border.radius * border.direction).numpy()[None])
        for factor in (0.999, 1.001)
    )
    assert (before == here).all()
    assert (after != here).sum() >= 1


def test_conv_network_with_max_pooling():
    model = conv_network()
    torch.manual_seed(0)
    x = torch.rand(2, 6, 6, dtype=torch.float64)
    border = region_border(model, x)
    directions = torch.randn(2000, 2, 6, 6, dtype=torch.float64)
    directions /= directions.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    here = conv_pattern(model, x[None])
    assert (conv_pattern(model, x + 0.999 * border.radius * directions) == here).all()
    assert (conv_pattern(model, (x + 1.001 * border.radius * border.direction)[None]) != here).any()


@pytest.mark.parametrize(
    ("activation", "breakpoints"),
    [
        (nn.ReLU6(), (0, 6)),
        (nn.Hardtanh(-0.5, 0.75), (-0.5, 0.75)),
        (nn.LeakyReLU(0.2), (0,)),
        (nn.PReLU(3), (0,)),
        (nn.RReLU(), (0,)),
    ],
)
def test_breakpoints_of_other_activations(activation, breakpoints):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 3), activation, nn.Linear(3, 2)).double()
    weight, bias = model[0].weight.detach().numpy(), model[0].bias.detach().numpy()
    for x in 5 * torch.randn(20, 4, dtype=torch.float64):
        z = weight @ x.numpy() + bias
        gaps = np.min([np.abs(z - point) for point in breakpoints], axis=0)
        expected = np.min(gaps / np.linalg.norm(weight, axis=1))
        np.testing.assert_allclose(region_radius(model, x), expected, **EXACT)


def test_units_that_no_pixel_reaches_are_left_out():
    # The second unit of the second layer hangs on a dead unit only, so its value 1e-9 is constant.
    model = nn.Sequential(
        linear([[1.0], [1.0]], [0.5, -9]), nn.ReLU(), linear([[1, 0], [0, 1]], [2, 1e-9]), nn.ReLU()
    )
    np.testing.assert_allclose(region_radius(model, torch.zeros(1, dtype=torch.float64)), 0.5, **EXACT)


def test_network_without_units_is_one_region():
    model, a, b = nn.Sequential(nn.Linear(3, 2)), torch.zeros(3), torch.ones(3)
    border = region_border(model, a)
    assert torch.isinf(border.radius)
    assert (border.module, border.unit, float(border.direction.norm())) == ("", -1, 0.0)
    assert regions_along(model, a, b).count == 0


def test_network_that_is_one_unit():
    a, b = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0])
    np.testing.assert_allclose(region_radius(nn.ReLU(), a), 1.0)
    assert regions_along(nn.ReLU(), a, b).t.tolist() == [0.5]


def test_crossings_by_hand():
    found = regions_along(
        corner_network(),
        torch.tensor([-1.0, 4.0], dtype=torch.float64),
        torch.tensor([4.0, -1.0], dtype=torch.float64),
    )
    # x = 5t - 1 and y = 4 - 5t: x = 0 at 0.2; y = 0 at 0.8; relu(x) + relu(y) = 3 where y = 3 before 0.2
    # (no: y = 3 exactly at 0.2, when x starts to make up for it) and x = 3 at 0.8. In between the sum is 3.
    np.testing.assert_allclose(found.t, [0.2, 0.8], **EXACT)


def test_borders_that_meet_in_a_point_and_at_the_end_of_a_stretch():
    model = nn.Sequential(linear([[1, 0], [0, 1]], [0, 0]), nn.ReLU(), linear([[1, 1]], [-1]), nn.ReLU())
    for scale in (1.0, 0.7):  # 0.5 and 0.75 are ends of stretches; 0.5 / 0.7 is not
        a = torch.tensor([-scale, -scale], dtype=torch.float64)
        found = regions_along(model, a, torch.ones(2, dtype=torch.float64))
        middle = scale / (1 + scale)
        np.testing.assert_allclose(found.t, [middle, (scale + 0.5) / (1 + scale)], **EXACT)
        assert found.units.tolist() == [2, 1]
        assert found.jumps is None


def test_border_that_is_touched_is_not_crossed():
    # -|x| comes to zero at x = 0 and turns back, where the two units of the first layer change.
    model = nn.Sequential(linear([[1], [-1]], [0, 0]), nn.ReLU(), linear([[-1, -1]], [0]), nn.ReLU())
    found = regions_along(
        model, torch.tensor([-0.3], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    )
    np.testing.assert_allclose(found.t, [0.3 / 1.3], **EXACT)
    assert found.units.tolist() == [2]


@given(seed=st.integers(0, 10**6), depth=st.integers(1, 4), width=st.integers(2, 16))
@settings(max_examples=15, deadline=None)
def test_crossings_against_sampling_the_line(seed, depth, width):
    model = random_mlp(seed, (5, *[width] * depth, 3))
    a, b = 3 * torch.randn(2, 5, dtype=torch.float64)
    found = regions_along(model, a, b)
    # Between two crossings the pattern is constant (three probes), across each it differs.
    edges = np.concatenate([[0.0], found.t.numpy(), [1.0]])
    assert (np.diff(edges) > 0).all()
    for fraction in (0.02, 0.5, 0.98):
        t = edges[:-1] + fraction * np.diff(edges)
        probes = numpy_pattern(model, a.numpy() + t[:, None] * (b - a).numpy())
        if fraction == 0.02:
            reference = probes
        assert (probes == reference).all()
    assert ((reference[1:] != reference[:-1]).sum(1) == found.units.numpy()).all()
    # And a fine grid sees no change that was not found.
    grid = (np.arange(20000) + 0.5) / 20000
    pattern = numpy_pattern(model, a.numpy() + grid[:, None] * (b - a).numpy())
    changes = grid[1:][(pattern[1:] != pattern[:-1]).any(1)]
    nearest = np.abs(changes[:, None] - found.t.numpy()).min(1) if len(changes) else np.zeros(1)
    assert nearest.max() <= 1 / 20000


def test_crossings_of_a_conv_network_against_sampling_the_line():
    model = conv_network()
    torch.manual_seed(1)
    a, b = torch.rand(2, 2, 6, 6, dtype=torch.float64)
    found = regions_along(model, a, b)
    edges = torch.cat([torch.zeros(1), found.t, torch.ones(1)])
    low, high = ((edges[:-1] + f * edges.diff()).view(-1, 1, 1, 1) for f in (0.01, 0.99))
    left, right = conv_pattern(model, a + low * (b - a)), conv_pattern(model, a + high * (b - a))
    assert (left == right).all()
    assert found.count > 10
    assert (right[:-1] != left[1:]).any(1).float().mean() > 0.9  # the rest: windows that pool equal entries


def test_jump_of_a_logit_is_the_weight_that_switches():
    model = corner_network()
    a, b = torch.tensor([-1.0, 1.0], dtype=torch.float64), torch.tensor([3.0, 1.0], dtype=torch.float64)
    found = regions_along(targets.regression(model), a, b)
    # y = 1: x = 0 at t = 1/4, where the output is off; x = 2 at t = 3/4, where 2(x + y - 3) switches on.
    np.testing.assert_allclose(found.t, [0.25, 0.75], **EXACT)
    np.testing.assert_allclose(found.jumps, [0, 2 * np.sqrt(2)], **EXACT)


def test_jump_of_a_probability():
    # Logits (relu(x), 0): p = sigmoid(relu(x)) has slope 1/4 just right of zero and none on the left.
    model = nn.Sequential(linear([[1]], [0]), nn.ReLU(), linear([[1], [0]], [0, 0]))
    a, b = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    found = regions_along(targets.probability(model, 0), a, b)
    np.testing.assert_allclose(found.t, [1 / 3], **EXACT)
    # The slope is taken 1e-6 in t beside the border, 3e-6 in x, where it has fallen by (3e-6)^2 / 16.
    np.testing.assert_allclose(found.jumps, [0.25], atol=1e-11)


def test_gradient_is_constant_between_crossings():
    model = random_mlp(7, (6, 12, 12, 4))
    f = targets.logit(model, 2)
    torch.manual_seed(0)
    a, b = torch.randn(2, 6, dtype=torch.float64)
    found = regions_along(f, a, b)
    edges = np.concatenate([[0.0], found.t.numpy(), [1.0]])

    def difference_quotients(t: float) -> np.ndarray:
        x, step = a + t * (b - a), 1e-7
        shifts = torch.eye(6, dtype=torch.float64) * step
        return ((f(x + shifts) - f(x - shifts)) / (2 * step)).detach().numpy()

    slopes = [difference_quotients((low + high) / 2) for low, high in pairwise(edges)]
    expected = np.linalg.norm(np.diff(slopes, axis=0), axis=1)
    # Quotients of values near 1 over 2e-7 carry errors of about 1e-16 / 1e-7.
    np.testing.assert_allclose(found.jumps, expected, atol=2e-8)
    assert found.count >= 3


def test_batches_do_not_change_the_result(monkeypatch):
    model = random_mlp(5, (6, 20, 20, 4))
    torch.manual_seed(0)
    a, b = 2 * torch.randn(2, 6, dtype=torch.float64)
    reference, radius = regions_along(model, a, b), region_radius(model, a)
    for walkers, directions in ((1, 1), (7, 4)):
        monkeypatch.setattr(regions, "_WALKERS", walkers)
        monkeypatch.setattr(regions, "_DIRECTIONS", directions)
        np.testing.assert_allclose(regions_along(model, a, b).t, reference.t, **EXACT)
        np.testing.assert_allclose(region_radius(model, a), radius, **EXACT)


def test_single_precision_is_followed_but_not_suffered():
    model = random_mlp(2, (8, 30, 30, 3)).float()
    torch.manual_seed(0)
    a, b = torch.randn(2, 8)
    border = region_border(model, a)
    assert border.radius.dtype == border.direction.dtype == torch.float32
    exact = region_border(copy.deepcopy(model).double(), a.double())
    np.testing.assert_allclose(border.radius, exact.radius, rtol=1e-7)
    found, wanted = regions_along(model, a, b), regions_along(model.double(), a.double(), b.double())
    np.testing.assert_array_equal(found.t, wanted.t)


class Reused(nn.Module):
    """One ReLU called twice, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.relu(self.first(x))
        return self.relu(self.second(h) + x)


def test_module_that_is_used_twice_is_seen_twice():
    model = Reused()
    for x in torch.randn(10, 3, dtype=torch.float64):
        W1, W2 = (layer.weight.detach().numpy() for layer in (model.first, model.second))
        z1 = W1 @ x.numpy() + model.first.bias.detach().numpy()
        J2 = W2 @ np.diag(z1 > 0) @ W1 + np.eye(3)
        z2 = W2 @ np.maximum(z1, 0) + model.second.bias.detach().numpy() + x.numpy()
        distances = [np.abs(z1) / np.linalg.norm(W1, axis=1), np.abs(z2) / np.linalg.norm(J2, axis=1)]
        np.testing.assert_allclose(region_radius(model, x), np.min(distances), **EXACT)


class Functional(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.first, self.function = nn.Linear(3, 3), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.first(x))


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.Softplus()), "softplus"),
        (nn.Sequential(nn.Linear(3, 3), nn.SiLU()), "silu"),
        (nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Softmax(1)), "softmax"),
        (Functional(functional.relu), "relu"),
        (Functional(lambda h: h * h), "mul"),
        (Functional(lambda h: 1 / (1 + h)), "div"),
    ],
)
def test_what_is_not_piecewise_linear_is_refused_in_one_line(model, word):
    with pytest.raises(ModelError, match=word) as caught:
        region_radius(model, torch.zeros(3))
    assert "\n" not in str(caught.value)
    assert "nn.ReLU" in str(caught.value)
    with pytest.raises(ModelError):
        regions_along(model, torch.zeros(3), torch.ones(3))


def test_wrong_arguments_are_refused_in_one_line():
    model = random_mlp(0, (3, 4, 2))
    with pytest.raises(ArgumentError, match="same shape"):
        regions_along(model, torch.zeros(3), torch.zeros(4))
    with pytest.raises(CurvelensError, match="has no model"):
        regions_along(lambda x: x.sum(1), torch.zeros(3), torch.ones(3))


def test_model_is_left_as_it_was_found():
    model = conv_network().train()
    model[3].eval()
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    before, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    flags = [module.training for module in model.modules()]
    a, b = torch.rand(2, 2, 6, 6, dtype=torch.float64)
    region_border(model, a)
    regions_along(targets.logit(model, 1), a, b)
    assert list(model.modules()) == modules
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [
        False,
        *[True] * (len(list(model.parameters())) - 1),
    ]
    assert torch.equal(model[4].weight.grad, torch.ones_like(model[4].weight))
    assert model[0].bias.grad is None
