"""The stage of super-pixel interactions: its table, its arrays, its figure and its place in the report."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

import curvelens as cl
from curvelens import config, figures, models, store, tables
from curvelens.errors import ConfigError
from curvelens.experiments.superpixels import superpixels, touching
from curvelens.figures import style
from curvelens.figures import superpixels as figure
from curvelens.figures.inputs import load
from curvelens.reporting.superpixels import table_of
from curvelens.store import ImageSet
from curvelens.summaries.superpixels import SUPERPIXELS
from curvelens.superpixels import superpixel_interactions, with_interactions

SIZE = 12


def images(count=3, channels=3):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 200, (count, channels, 3, 3))
    pixels = np.kron(blocks, np.ones((4, 4), int)) + rng.integers(0, 30, (count, channels, SIZE, SIZE))
    return ImageSet(pixels.astype(np.uint8), np.array([0, 1, -1][:count]), [f"own/{i}" for i in range(count)])


def network(channels=3):
    return models.build("mlp", {"hidden": [16, 12]}, 3, (channels, SIZE, SIZE), seed=3).double()


def settings(**changes):
    chosen = {
        "segments": (6, 10),
        "calls": 2000,
        "samples": 50,
        "radius": 1.0,
        "beta": 30.0,
        "swish_beta": 30.0,
    }
    return config.Superpixels(**(chosen | changes))


@pytest.fixture(scope="module")
def computed():
    table, arrays = superpixels(network(), images(), settings(interaction_calls=400), dtype=torch.float64)
    return table, arrays


def test_the_table_says_what_the_arrays_hold(computed):
    table, arrays = computed
    assert len(table) == 9
    assert arrays["segments"].shape == (3, SIZE, SIZE)
    for row in table.itertuples():
        place = int(row.image_id[-1])
        method = arrays["methods"][place].tolist().index(row.method)
        found = arrays["interactions"][place, method]
        assert np.isfinite(found[: row.superpixels, : row.superpixels]).all()
        assert np.isnan(found[row.superpixels :]).all()
        assert 6 <= row.superpixels == arrays["segments"][place].max() + 1 <= 10
        others = [b for b in range(row.superpixels) if b != row.shown]
        assert row.partner == max(others, key=lambda b: abs(found[row.shown, b]))
        assert row.interaction == pytest.approx(found[row.shown, row.partner])
        assert row.touching == touching(arrays["segments"][place])[row.shown, row.partner]
        first = arrays["interactions"][place, 0]
        slopes = np.abs(arrays["slopes"][place, 0, : row.superpixels])
        assert row.object == slopes.argmax()
        others = [b for b in range(row.superpixels) if b != row.object]
        assert row.shown == max(others, key=lambda b: abs(first[row.object, b]))
    of_surrogates = table[table["method"] != "SH+SG"]
    assert (of_surrogates["relative_error"] == 0).all()
    assert (table.loc[table["method"] == "SH+SG", "agreement"] > 1 - 1e-9).all()


def test_interactions_of_a_surrogate_are_those_of_its_dense_hessian(computed):
    _, arrays = computed
    x = images().tensor(0).double()
    model = network()
    with torch.no_grad():
        k = int(model(x[None]).argmax())
    H = cl.hessian(cl.targets.logit(cl.softplus_surrogate(model, 30.0), k), x).reshape(3, SIZE**2, 3, SIZE**2)
    H = H.sum((0, 2)).numpy()
    S = np.stack([arrays["segments"][0].ravel() == a for a in range(arrays["segments"][0].max() + 1)]) * 1.0
    count = len(S)
    np.testing.assert_allclose(
        arrays["interactions"][0, 1, :count, :count], S @ H @ S.T, rtol=1e-6, atol=1e-9
    )


def test_both_ways_to_smoothed_interactions_agree(computed):
    _, sampled = computed
    table, own = superpixels(
        network(), images(), settings(calls=20_000, methods=["SH+SG"]), dtype=torch.float64
    )
    errors = sampled["errors"][:, 0]
    difference = sampled["interactions"][:, 0] - own["interactions"][:, 0]
    known = np.isfinite(difference)
    # The one has the errors stated, the other is nearly exact; the rms of some 150 dependent deviations.
    assert 0.5 < np.sqrt(np.mean((difference[known] / errors[known]) ** 2)) < 1.6
    assert table["relative_error"].isna().all()


def test_the_local_model_measured_is_the_one_drawn():
    x = images().tensor(0).double()
    f = cl.targets.logit(network(), 0)
    q = cl.smooth_quadratic(f, x, 0.05, calls=200, matrix_free=True)
    segments = np.arange(SIZE**2).reshape(SIZE, SIZE) // 36
    wanted = torch.diag(torch.arange(1.0, 5.0, dtype=torch.float64))
    found = superpixel_interactions(with_interactions(q, segments, wanted), segments)
    torch.testing.assert_close(found.second, wanted, rtol=1e-9, atol=1e-9)


def test_results_do_not_depend_on_what_else_is_computed(computed):
    table, arrays = computed
    part, own = superpixels(
        network(), images().subset([2]), settings(interaction_calls=400), dtype=torch.float64
    )
    np.testing.assert_allclose(own["interactions"][0], arrays["interactions"][2], rtol=1e-9, equal_nan=True)
    columns = ["method", "pmse", "interaction", "calls"]
    expected = table[table["image_id"] == "own/2"][columns].reset_index(drop=True)
    for column in columns[1:]:
        np.testing.assert_allclose(part[column].astype(float), expected[column].astype(float), rtol=1e-9)


def test_a_picture_without_enough_superpixels_fails_alone():
    table, arrays = superpixels(network(1), images(2, 1), settings(segments=(200, 210), samples=2))
    assert (table["status"] == "failed").all()
    assert table["error"].str.contains("no division").all()
    assert (arrays["segments"] == -1).all()


def test_settings_that_make_no_sense_are_refused():
    raw = {
        "datasets": {"d": {"source": "sklearn_digits"}},
        "models": {"m": {"dataset": "d"}},
        "experiments": {"e": {"model": "m", "superpixels": {"segments": [5, 4]}}},
    }
    with pytest.raises(ConfigError, match="segments = 5 to 4 are impossible"):
        config.load(raw)
    raw["experiments"]["e"]["superpixels"] = {"interaction_calls": 99}
    with pytest.raises(ConfigError, match="give at least 200, or null"):
        config.load(raw)


# The figure.


def written(folder: Path, table, arrays, some) -> dict[str, Path | list[Path]]:
    tables.write(table, SUPERPIXELS, folder / "superpixels.parquet")
    store.save_explanations(folder / "0.npz", arrays, some.ids)
    store.save_image_set(folder / "test.npz", some)
    (folder / "model.json").write_text(json.dumps({"class_names": ["$a$", "<b>", "c"]}))
    return {
        "superpixels": folder / "superpixels.parquet",
        "superpixel_maps": [folder / "0.npz"],
        "images": [folder / "test.npz"],
        "models": [folder / "model.json"],
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", ["all", "shared", "one method", "failed", "grey"])
def test_the_figure_draws_whatever_there_is(case, computed, tmp_path):
    table, arrays = computed
    some = images()
    if case == "shared":
        table = table.assign(shared_scale=True)
    elif case == "one method":
        table = table[table["method"] == "SP H+G"]
    elif case == "failed":
        model = network()
        table, arrays = superpixels(model, some, settings(segments=(200, 210)), dtype=torch.float64)
    elif case == "grey":
        some = images(1, 1)
        table, arrays = superpixels(network(1), some, settings(methods=["SH+SG"]), dtype=torch.float64)
    inputs = load(written(tmp_path, table, arrays, some))
    with matplotlib.rc_context(style.RC):
        for layout in (style.WIDE, style.NARROW):
            drawn = figure.draw(inputs, layout)
            drawn.draw_without_rendering()
    texts = (figure.caption(inputs), figure.alt(inputs), figure.finding(inputs))
    assert not any(word in text for text in texts for word in ("nan", "None", "  "))
    if case == "failed":
        assert texts == ("No image was computed.", "No image was computed.", "")


def test_maps_without_any_interaction_are_drawn(computed, tmp_path):
    """As of a network of ReLUs that is linear as far as it is looked at."""
    table, arrays = computed
    arrays = arrays | {"interactions": np.zeros_like(arrays["interactions"])}
    drawn = figure.draw(load(written(tmp_path, table, arrays, images())), style.WIDE)
    drawn.savefig(tmp_path / "drawn.png")


def test_every_map_has_its_own_scale_unless_told_otherwise(computed, tmp_path):
    table, arrays = computed
    for shared in (False, True):
        inputs = load(written(tmp_path, table.assign(shared_scale=shared), arrays, images()))
        drawn = figure.draw(inputs, style.WIDE)
        maps = [image for axes in drawn.axes for image in axes.images if image.cmap.name == "RdBu_r"]
        assert len(maps) == 9
        for place in range(3):
            limits = [(one.norm.vmin, one.norm.vmax) for one in maps[3 * place : 3 * place + 3]]
            shown = int(table["shown"].iloc[3 * place])
            rows = np.delete(arrays["interactions"][place][:, shown], shown, -1)
            ends = np.stack([np.nanmin(rows, -1), np.nanmax(rows, -1)], -1).astype(np.float32)
            ends = np.broadcast_to([ends.min(), ends.max()], (3, 2)) if shared else ends
            for (low, high), (least, largest) in zip(limits, ends, strict=True):
                assert low == pytest.approx(least, rel=1e-5) or least > -1e-3 * (high - low)
                assert high == pytest.approx(largest, rel=1e-5) or largest < 1e-3 * (high - low)


def test_the_outlined_superpixel_is_not_painted(computed):
    _, arrays = computed
    found = {name: array[0] for name, array in arrays.items()}
    painted = figure.map_of(found, 1, 2)
    assert np.array_equal(np.isnan(painted), found["segments"] == 2)
    y, x = np.argwhere(found["segments"] == 3)[0]
    assert painted[y, x] == found["interactions"][1, 2, 3]


def test_the_words_follow_from_the_table(computed, tmp_path):
    table, arrays = computed
    smooth = table["method"] == "SH+SG"
    near = table.assign(touching=True, relative_error=np.where(smooth, 0.25, 0.0))
    near["pmse"] = np.where(smooth, 1.0, 2.0)
    read = load(written(tmp_path, near, arrays, images()))
    told = figure.finding(read)
    assert "with a neighbour in 3 of 3 images" in told
    assert "median relative error of 25%" in told
    assert "lowest P_MSE (ε = 1) in 3 of 3" in told
    noisy = near.assign(relative_error=np.where(smooth, 1.5, 0.0), pmse=np.where(smooth, 3.0, 2.0))
    told = figure.finding(load(written(tmp_path, noisy, arrays, images())))
    assert "too few to tell" in told
    assert "150%" in told
    assert "in 0 of 3" in told


def test_the_report_has_a_row_for_each_image_and_method(computed):
    page = str(table_of(computed[0]))
    assert page.count("<tr") == 10
    assert "SoftPlus Hessian" in page
    hostile = computed[0].assign(image_id="<script>")
    assert "<script>" not in str(table_of(hostile.drop_duplicates("method")))


def test_the_figure_is_found_by_its_name(computed, tmp_path):
    table, arrays = computed
    paths = written(tmp_path, table, arrays, images())
    files = figures.draw("superpixels", paths, tmp_path / "drawn" / "superpixels.png")
    assert all(file.is_file() for file in files)


# ImageNet's size.

_CHILD = """
import resource, sys, math, torch
import curvelens as cl
from curvelens import models
from curvelens.smoothing import leading_eigenpairs
torch.set_num_threads(1)
model = models.build("efficientnet_lite0", None, 1000, (3, 224, 224))
x = torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(0))
f = cl.targets.logit(model, 0)
cl.gradient(f, x[None])
unit = 2**20 if sys.platform == "darwin" else 2**10
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
q = cl.smooth_quadratic(f, x, 5e-4, calls=128)
q.minimize([0.25, 1.0])
q.eigh(3)
leading_eigenpairs(f, x, 5e-4, 2, 32)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit, q.size, q.calls)
"""


@pytest.mark.slow
def test_a_photograph_takes_less_than_two_gigabytes_beyond_the_network():
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True)
    used, size, calls = map(float, done.stdout.split())
    assert (size, calls) == (150_528, 128)
    assert used < 2 * 1024
