"""The path between two images, against linear, quadratic and hand-computed cases."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from curvelens.errors import ConfigError
from curvelens.experiments.path import METHODS, PATH, choose_pair, path
from curvelens.patterns import activation_pattern, units_switched
from curvelens.regions import regions_along
from curvelens.store import ImageSet
from curvelens.summaries.path import LEAST, jumps

SHAPE, D = (1, 3, 3), 9


def image_set() -> ImageSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, *SHAPE), dtype=np.uint8)
    return ImageSet(images, np.array([0, 0, 1, 1, 2, 2]), [f"test/{i}" for i in range(6)])


def linear_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(D, 3))


def deep_network(activation: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(D, 20), activation, nn.Linear(20, 20), activation)
    return model.append(nn.Linear(20, 3))


def angle_change(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(float), b.ravel().astype(float)
    return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_linear_network_changes_only_where_the_prediction_does():
    model, images = linear_network(), image_set()
    start, end = (images.tensor(i).flatten() for i in (0, 2))
    model[1].weight.data[:2] = torch.stack([start - end, end - start])
    model[1].bias.data = (
        -model[1].weight.data @ (start + end) / 2
    )  # class 0 wins before t = 1/2, class 1 after
    table, arrays = path(model, images, 0, 2, steps=30)
    W, b = (p.detach().double().numpy() for p in model.parameters())
    ends = images.images[[0, 2]].reshape(2, D) / 255
    t = np.linspace(0, 1, 30)
    logits = ((1 - t)[:, None] * ends[0] + t[:, None] * ends[1]) @ W.T + b
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    classes = logits.argmax(1)
    np.testing.assert_array_equal(table["prediction"], classes)
    assert len(set(classes)) > 1  # or the test would see no change
    # Single precision, numbers of order one.
    np.testing.assert_allclose(table["t"], t, rtol=1e-12)
    np.testing.assert_allclose(table["start_probability"], p[:, 0], rtol=1e-5)
    np.testing.assert_allclose(table["end_probability"], p[:, 1], rtol=1e-5)
    np.testing.assert_allclose(table["confidence"], p.max(1), rtol=1e-5)
    np.testing.assert_allclose(table["value"], logits.max(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(table["gradient_norm"], np.linalg.norm(W[classes], axis=1), rtol=1e-5)
    np.testing.assert_allclose(arrays["smoothgrad"].reshape(30, D), W[classes], rtol=1e-5, atol=1e-6)
    expected = [angle_change(W[k], W[j]) for j, k in pairwise(classes)]
    for column in ("gradient_change", "smoothgrad_change"):
        assert np.isnan(table[column][0])
        np.testing.assert_allclose(table[column][1:], expected, atol=1e-5)
    assert (table["regions_crossed"][1:] == 0).all()
    assert pd.isna(table["regions_crossed"][0])


def test_ends_are_the_images():
    images = image_set()
    table, arrays = path(deep_network(nn.ReLU()), images, 4, 1, steps=3)
    np.testing.assert_allclose(arrays["images"][0], images.tensor(4))
    np.testing.assert_allclose(arrays["images"][2], images.tensor(1))
    np.testing.assert_allclose(arrays["images"][1], (images.tensor(4) + images.tensor(1)) / 2, rtol=1e-6)
    assert table[
        ["start_id", "end_id", "start_class", "end_class"]
    ].drop_duplicates().to_numpy().tolist() == [["test/4", "test/1", 2, 0]]


def test_changes_and_regions_of_a_relu_network():
    model, images = deep_network(nn.ReLU()), image_set()
    table, arrays = path(model, images, 0, 2, steps=8, parameters={"vargrad": {"samples": 16}})
    for name in METHODS:
        maps = arrays[name]
        assert maps.shape == (8, *SHAPE)
        expected = [angle_change(a, b) for a, b in pairwise(maps)]
        np.testing.assert_allclose(table[f"{name}_change"][1:], expected, atol=1e-9)
    crossings = regions_along(model, images.tensor(0), images.tensor(2)).t.numpy()
    expected = [((crossings >= k / 7) & (crossings < (k + 1) / 7)).sum() for k in range(7)]
    assert table["regions_crossed"][1:].tolist() == expected
    assert sum(expected) > 3
    assert (table["calls"] == 1 + 64 + 16).all()
    PATH.validate(table)


def test_smooth_network_has_no_regions():
    table, _ = path(deep_network(nn.Softplus()), image_set(), 0, 2, steps=4)
    assert table["regions_crossed"].isna().all()
    # Along a smooth path with the same noise at every point, explanations of one class change little.
    same = table["prediction"].diff().fillna(1) == 0
    assert (table.loc[same, "gradient_change"] < 0.2).all()


def test_same_seed_same_path_and_model_left_alone():
    model, images = deep_network(nn.ReLU()).train(), image_set()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    runs = [path(model, images, 0, 2, steps=3, seed=seed)[1] for seed in (0, 0, 1)]
    assert all(np.array_equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not np.allclose(runs[0]["smoothgrad"], runs[2]["smoothgrad"])
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Fixed(nn.Module):
    """Predicts the class written into an image's first pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot((x[:, 0, 0, 0] * 255).round().long(), 3).to(x)


def test_pair_is_the_first_that_is_right():
    images = image_set()
    images.images[:, 0, 0, 0] = [1, 0, 0, 1, 0, 2]  # wrong, right, wrong, right, wrong, right
    assert choose_pair(Fixed(), images) == (1, 3)
    assert choose_pair(Fixed(), images, (2, 0)) == (5, 1)
    with pytest.raises(ConfigError, match="two different classes"):
        choose_pair(Fixed(), images, (1, 1))
    assert choose_pair(Fixed(), images, ("Cat", "1"), class_names=["dog", "bird", "cat"]) == (5, 3)
    assert choose_pair(Fixed(), images, ids=("test/4", "test/0")) == (4, 0)
    with pytest.raises(ConfigError, match="cow"):
        choose_pair(Fixed(), images, ("cat", "cow"), class_names=["dog", "bird", "cat"])
    with pytest.raises(ConfigError, match="test/9"):
        choose_pair(Fixed(), images, ids=("test/4", "test/9"))
    images.images[5, 0, 0, 0] = 0
    with pytest.raises(ConfigError, match="class 2"):
        choose_pair(Fixed(), images, (0, 2))


def test_impossible_paths_are_refused_in_one_line():
    model, images = linear_network(), image_set()
    for arguments, options in (
        ((0, 2), {"steps": 1}),
        ((0, 1), {}),
        ((0, 2), {"parameters": {"smoothgrad": {"a": 1}}}),
    ):
        with pytest.raises(ConfigError) as caught:
            path(model, images, *arguments, **options)
        assert "\n" not in str(caught.value)


class Quadratic(nn.Module):
    """Logits ``xᵀA_k x / 2 + b_kᵀx`` with known Hessians."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(3)
        A = rng.standard_normal((3, D, D))
        self.A = nn.Parameter(torch.tensor(A + A.transpose(0, 2, 1)).float())
        self.b = nn.Parameter(torch.tensor(5 * rng.standard_normal((3, D))).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return torch.einsum("bi,kij,bj->bk", x, self.A, x) / 2 + x @ self.b.T


def test_curvature_along_the_path_of_a_quadratic_is_that_of_its_matrix():
    model, images, steps = Quadratic(), image_set(), 9
    table, _ = path(model, images, 0, 2, steps=steps, parameters={"smoothgrad": {"samples": 8}})
    A, b = (p.detach().double().numpy() for p in model.parameters())
    ends = images.images[[0, 2]].reshape(2, D) / 255
    v = ends[1] - ends[0]
    length = np.linalg.norm(v)
    u = v / length
    x = ends[0] + np.linspace(0, 1, steps)[:, None] * v
    slopes = np.einsum("kij,tj->tki", A, x) + b
    logits = np.einsum("ti,kij,tj->tk", x, A, x) / 2 + x @ b.T
    k, along = logits.argmax(1), slopes @ u
    bends = np.einsum("i,kij,j->k", u, A, u)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    # Of -log p_k: the mean bend less the k-th, plus the variance of the slopes under p.
    of_loss = p @ bends - bends[k] + (p * along**2).sum(1) - (p * along).sum(1) ** 2
    rows = np.arange(steps)
    assert len(set(k)) > 1
    # Single precision of numbers up to 100; second differences lose it by (1/step)^2.
    np.testing.assert_allclose(table["distance"], length * np.linspace(0, 1, steps), rtol=1e-6)
    np.testing.assert_allclose(table["slope"], along[rows, k], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(table["curvature"], bends[k], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(table["loss_curvature"], of_loss, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(table["step_curvature"][1:-1], bends[k][1:-1], rtol=1e-2, atol=2e-2)
    assert table["step_curvature"].isna().to_numpy()[[0, -1]].all()
    # With the same noise everywhere SmoothGrad of a quadratic moves by A times the step, without error.
    same = np.r_[False, k[1:] == k[:-1]]
    np.testing.assert_allclose(table["smoothed_curvature"][same], bends[k][same], rtol=1e-2, atol=2e-2)
    assert table["smoothed_curvature"][~same].isna().all()
    np.testing.assert_allclose(table["start_score"], logits[:, k[0]], rtol=1e-4, atol=1e-4)
    first_order = logits[0, k[0]] + along[0, k[0]] * length * np.linspace(0, 1, steps)
    np.testing.assert_allclose(table["start_score_from_gradient"], first_order, rtol=1e-4, atol=1e-4)
    expected = [abs(after - before).sum() / 2 for before, after in pairwise(p)]
    np.testing.assert_allclose(table["prediction_change"][1:], expected, atol=1e-5)
    assert table["units_switched"].isna().all()


def test_curvature_between_points_holds_the_jumps_that_are_not_at_them():
    """A logit c·max(s, 0) along the path has slope 0, then c: all its curvature lies in one point."""
    images = image_set()
    start, end = (images.tensor(i).flatten().double() for i in (0, 2))
    u = (end - start) / (end - start).norm()
    half = float((end - start).norm() / 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(D, 2), nn.ReLU(), nn.Linear(2, 3)).double()
    model[1].weight.data[:] = torch.stack([u, u])
    model[1].bias.data[:] = -float(u @ start) - half
    model[3].weight.data = torch.tensor([[0.0, 0], [7, 0], [0, 0]], dtype=torch.float64)
    model[3].bias.data = torch.tensor([-9.0, 0, -9], dtype=torch.float64)
    steps = 12  # the kink lies midway between the points 5 and 6
    table, _ = path(model.float(), images, 0, 2, steps=steps, parameters={"vargrad": {"samples": 4}})
    step = 2 * half / (steps - 1)
    assert (table["curvature"] == 0).all()
    expected = np.zeros(steps - 2)
    expected[[4, 5]] = 7 / 2 / step  # each of the two neighbours sees half of the kink's weight
    np.testing.assert_allclose(table["step_curvature"][1:-1], expected, atol=1e-3)
    assert table["gradient_jump"].sum() == 0  # from or to a zero map there is no relative change
    assert table["units_switched"][1:].tolist() == [0] * 5 + [2] + [0] * 5
    assert table["switched_share"].max() == 1
    assert table["regions_crossed"].sum() == 1


def test_jumps_are_outliers_that_matter():
    smooth = 0.3 + 0.02 * np.sin(np.arange(25))
    assert not jumps(smooth).any()
    smooth[[7, 20]] = 0.6
    assert np.flatnonzero(jumps(smooth)).tolist() == [7, 20]
    assert np.flatnonzero(jumps(np.r_[np.nan, smooth])).tolist() == [8, 21]
    # Outliers by any factor that are too small to be seen.
    assert not jumps(smooth * LEAST).any()
    assert not jumps([np.nan, np.nan]).any()
    # One value that all steps have is no outlier, however large.
    assert not jumps(np.ones(25)).any()


def test_patterns_count_units_of_every_kind():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 3), nn.SiLU()
    )
    model[0].weight.data[:] = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    a = torch.tensor([[[-1.0, 1.0], [2.0, 7.0]]])
    b = torch.tensor([[[1.0, 1.0], [5.0, 4.0]]])
    pattern = activation_pattern(model, a)
    assert [part.numel() for part in pattern] == [8, 2]
    assert pattern[0].flatten().tolist() == [0, 1, 1, 2, 1, 0, 0, 0]
    # ReLU6: -1 to 1 and 7 to 4 on the one channel, 1 to -1 on the other; pooling: the largest moves from 7 to
    # 5 on the one, from 1 to the first of equals on the other.
    assert units_switched(pattern, activation_pattern(model, b)) == 3 + 1
    assert units_switched(pattern, pattern) == 0
    assert activation_pattern(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), a) == []


def test_networks_with_too_many_units_are_not_walked(monkeypatch):
    monkeypatch.setattr("curvelens.experiments.path._WALKED_UNITS", 39)
    table, _ = path(deep_network(nn.ReLU()), image_set(), 0, 2, steps=4)
    assert table["regions_crossed"].isna().all()
    assert table["units_switched"][1:].notna().all()


def test_images_without_labels_take_the_predicted_classes():
    model, images = linear_network(), image_set()
    with torch.no_grad():
        model[1].bias.sub_(model(images.tensor()).mean(0))
        predicted = model(images.tensor()).argmax(1).tolist()
    other = next(i for i, k in enumerate(predicted) if k != predicted[0])
    unknown = ImageSet(images.images, np.full(6, -1), images.ids)
    table, _ = path(model, unknown, 0, other, steps=3)
    ends = table[["start_class", "end_class"]].drop_duplicates().to_numpy().tolist()
    assert ends == [[predicted[0], predicted[other]]]
