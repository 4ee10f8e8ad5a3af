"""The film of a path: file, frames, scales and texts."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest

from curvelens.errors import ArgumentError
from curvelens.figures.film import Content, picture, render_frames, scale, write_film


def film_content(frames: int = 26, channels: int = 1) -> Content:
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, frames)
    jumps = np.zeros(frames, bool)
    jumps[frames // 2] = True
    return Content(
        images=rng.random((frames, channels, 6, 6)),
        maps={
            "gradient": rng.standard_normal((frames, channels, 6, 6)),
            "vargrad": rng.random((frames, channels, 6, 6)),
        },
        t=t,
        curves={"cat": 1 - t, "dog": t},
        changes={"gradient": np.r_[np.nan, rng.random(frames - 1)], "vargrad": np.full(frames, np.nan)},
        jumps={"gradient": jumps, "vargrad": np.zeros(frames, bool)},
    )


def test_film_can_be_read_back(tmp_path):
    from moviepy import VideoFileClip

    content = film_content()._replace(titles=[f"step {i}, $" for i in range(26)])
    poster = tmp_path / "path.png"
    output = write_film(tmp_path / "path.mp4", content, poster=poster, poster_frame=7)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["path.mp4", "path.png"]
    with VideoFileClip(str(output)) as clip:
        assert clip.duration == pytest.approx(5.0, abs=0.05)
        assert clip.fps >= 5
        assert clip.size == [960, 540]
        first = clip.get_frame(0).astype(float)
    frames = list(render_frames(content))
    rendered = frames[0].astype(float)
    # Compression and halved colour resolution: on average a few of 255 levels.
    assert np.abs(first - rendered).mean() < 6
    shown = (matplotlib.image.imread(poster)[..., :3] * 255).round()
    # Drawn twice: the rounding of an edge may differ.
    np.testing.assert_allclose(shown, frames[7], atol=1)


def test_colour_scale_is_one_over_the_film():
    content = film_content(3)._replace(titles=["same"] * 3)
    for values in content.maps.values():
        values[1] = 10 * values[0]
        values[2] = values[0]
    content.images[:] = 0.5
    frames = list(render_frames(content))
    upper = [frame[:250] for frame in frames]  # images and maps
    assert np.array_equal(upper[0], upper[2])
    assert not np.array_equal(upper[0], upper[1])


def test_curves_grow():
    frames = list(render_frames(film_content(6)))
    blue = [
        (np.abs(frame[340:, :480].astype(int) - np.array([0x00, 0x72, 0xB2])).sum(-1) < 40).sum()
        for frame in frames
    ]
    assert (np.diff(blue) > 0).all()


def test_impossible_films_are_refused_in_one_line(tmp_path):
    content = film_content()
    for change, name in (
        ({"t": np.linspace(0, 1, 25)}, "a.mp4"),
        ({}, "a.avi"),
        ({"titles": ["too few"]}, "a.mp4"),
    ):
        with pytest.raises(ArgumentError) as caught:
            write_film(tmp_path / name, content._replace(**change))
        assert "\n" not in str(caught.value)
    with pytest.raises(ArgumentError, match="too few for 6 s"):
        write_film(tmp_path / "a.mp4", content, seconds=6.0)
    assert not list(tmp_path.iterdir())


def test_colours_are_those_of_the_image():
    """A photograph with a red, a green and a blue half shows these colours, channels in their order."""
    content = film_content(2, channels=3)
    content.images[:] = np.array([1.0, 0.0, 0.2])[:, None, None]
    frame = next(render_frames(content)).astype(int)
    reddish = (np.abs(frame - np.array([255, 0, 51])).sum(-1) <= 3).mean()
    # The image takes about a fifth of the width and two fifths of the height.
    assert reddish > 0.06
    np.testing.assert_array_equal(picture(content.images)[0, 0, 0], [1, 0, 0.2])
    assert picture(content.images[:, :1]).shape == (2, 6, 6)


def test_scale_is_signed_where_values_are():
    values = np.linspace(-1, 3, 401).reshape(1, 1, -1)
    assert scale(values) == ("RdBu_r", pytest.approx(-2.96), pytest.approx(2.96))
    assert scale(np.abs(values))[:2] == ("Purples", 0)
    assert scale(np.zeros((2, 3, 3)))[2] == 1
