"""The path between two images and its film, against linear and hand-computed cases."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from curvelens.errors import ArgumentError, ConfigError
from curvelens.experiments.path import METHODS, PATH, choose_pair, path
from curvelens.figures.film import render_frames, write_film, write_strip
from curvelens.regions import regions_along
from curvelens.store import ImageSet

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


def film_inputs(frames: int = 26) -> dict:
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, frames)
    return {
        "images": rng.random((frames, 1, 6, 6)),
        "maps": {
            "gradient": rng.standard_normal((frames, 1, 6, 6)),
            "vargrad": rng.random((frames, 1, 6, 6)),
        },
        "t": t,
        "curves": {"cat": 1 - t, "dog": t},
    }


def test_film_can_be_read_back(tmp_path):
    from moviepy import VideoFileClip

    inputs = film_inputs()
    output = write_film(tmp_path / "path.mp4", **inputs, titles=[f"step {i}, $" for i in range(26)])
    assert [file.name for file in tmp_path.iterdir()] == ["path.mp4"]
    with VideoFileClip(str(output)) as clip:
        assert clip.duration == pytest.approx(5.0, abs=0.05)
        assert clip.fps >= 5
        assert clip.size == [960, 540]
        first = clip.get_frame(0).astype(float)
    rendered = next(render_frames(**inputs, titles=[f"step {i}, $" for i in range(26)])).astype(float)
    # Compression and halved colour resolution: on average a few of 255 levels.
    assert np.abs(first - rendered).mean() < 6


def test_colour_scale_is_one_over_the_film():
    inputs = film_inputs(3)
    for values in inputs["maps"].values():
        values[1] = 10 * values[0]
        values[2] = values[0]
    inputs["images"][:] = 0.5
    frames = list(render_frames(**inputs, titles=["same"] * 3))
    upper = [frame[:250] for frame in frames]  # images and maps
    assert np.array_equal(upper[0], upper[2])
    assert not np.array_equal(upper[0], upper[1])


def test_curves_grow():
    frames = list(render_frames(**film_inputs(6)))
    blue = [
        (np.abs(frame[330:].astype(int) - np.array([0x00, 0x72, 0xB2])).sum(-1) < 40).sum()
        for frame in frames
    ]
    assert (np.diff(blue) > 0).all()


def test_strip_shows_first_middle_and_last_frame(tmp_path):
    import matplotlib.image

    frames = [np.full((4, 6, 3), level, np.uint8) for level in (0, 50, 100, 150, 250)]
    strip = matplotlib.image.imread(write_strip(tmp_path / "strip.png", frames))
    assert strip.shape == (12, 6, 4)
    assert (strip[::4, 0, 0] * 255).round().tolist() == [0, 100, 250]


def test_impossible_films_are_refused_in_one_line(tmp_path):
    inputs = film_inputs()
    for change, name in (
        ({"t": np.linspace(0, 1, 25)}, "a.mp4"),
        ({}, "a.avi"),
        ({"seconds": 6.0}, "a.mp4"),
    ):
        with pytest.raises(ArgumentError) as caught:
            write_film(tmp_path / name, **{**inputs, **change})
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
