"""The stage that measures trust radii: what is tried, chosen and reported, and what a failure spoils."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import report_world as world
import torch
from scipy.stats import binom
from torch import nn

from curvelens import config
from curvelens.errors import ConfigError, DataError
from curvelens.experiments import trust
from curvelens.figures import trust as figure
from curvelens.reporting import trust as reported
from curvelens.store import ImageSet
from curvelens.summaries import trust as summaries
from curvelens.trust import trust_radius

SETTINGS = {"smoothing_radii": [0.4, 0.8], "betas": [4.0], "calls": 64, "samples": 200, "largest": 8.0}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads only get in each other's way on arrays this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3)]
    return nn.Sequential(*layers).double()


@pytest.fixture(scope="module")
def images() -> ImageSet:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, size=(7, 1, 4, 4)).astype(np.uint8)
    return ImageSet(pixels, random.integers(0, 3, 7), [f"tiny/{i}" for i in range(7)])


def measured(model, images, split, **changes):
    return trust.measure(model, images, split=split, dtype=torch.float64, **(SETTINGS | changes))


@pytest.fixture(scope="module")
def table(model, images) -> pd.DataFrame:
    parts = [
        measured(model, images.subset([0, 1]), "validation"),
        measured(model, images.subset(range(2, 7)), "test"),
    ]
    return summaries.TRUST.validate(pd.concat(parts))


def test_every_model_of_every_image_has_a_row(table):
    assert (table["status"] == "ok").all()
    one = table[table["image_id"] == "tiny/3"]
    assert len(one) == 2 * 2 + 2 + 1  # two σ for two methods, one β for two, and G
    assert sorted(set(one.loc[one["method"] == "SG", "parameter_value"])) == pytest.approx(
        [0.1, 0.2]
    )  # ρ/√16
    assert len(set(one["evaluations"])) == 1
    assert len(set(one["region_radius"])) == 1
    assert (table["low"] <= table["trust_radius"]).all()
    assert (table["trust_radius"] <= table["high"].fillna(math.inf)).all()


def test_the_gradient_is_believed_as_far_as_the_library_says(model, images, table):
    """The same radius from other perturbations, of a gradient by torch alone: both intervals must meet."""
    x = torch.from_numpy(images.images[4]).double() / 255
    k = int(model(x[None]).argmax())
    leaf = x.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(model(leaf[None])[0, k], leaf)
    value = model(x[None])[0, k].item()

    def plane(delta):
        return value + (delta * g).sum((1, 2, 3))

    found = trust_radius(lambda z: model(z)[:, k], plane, x, samples=4000, seed=99)
    row = table[(table["image_id"] == "tiny/4") & (table["method"] == "G")].iloc[0]
    assert row["low"] < found.high
    assert found.low < row["high"]
    # Inside the linear region a gradient is exact: it holds at least that far.
    assert row["trust_radius"] > row["region_radius"]


def test_shards_and_thresholds_do_not_change_a_row(model, images, table):
    again = measured(model, images.subset([5]), "test", thresholds=[0.9, 0.5])
    same = again[again["threshold"] == 0.9]
    before = table[table["image_id"] == "tiny/5"]
    columns = ["trust_radius", "low", "high", "fidelity", "region_radius"]
    np.testing.assert_allclose(same[columns], before[columns], rtol=1e-9)
    wide = again[again["threshold"] == 0.5]
    assert (wide["trust_radius"].to_numpy() >= same["trust_radius"].to_numpy()).all()


def test_one_bad_image_spoils_one_row(model, images):
    class Broken(nn.Module):
        def forward(self, x):
            if torch.isclose(x.flatten(1)[0, 0], x.new_tensor(images.images[1].flat[0] / 255)):
                raise RuntimeError("no such\nimage")
            return model(x)

    table = measured(Broken(), images.subset([0, 1]), "test", methods=["G"])
    assert table.set_index("image_id")["status"].to_dict() == {"tiny/0": "ok", "tiny/1": "failed"}
    assert table["error"].tolist() == ["", "RuntimeError: no such image"]


def test_a_smooth_network_has_no_region(images):
    torch.manual_seed(1)
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    table = measured(smooth, images.subset([0]), "test", methods=["G"])
    assert table["region_radius"].isna().all()


def test_summary_of_known_numbers():
    raw = world.trust_images(12)
    found = summaries.summarise(summaries.TRUST.validate(raw)).set_index(["method", "parameter_value"])
    test = raw[(raw["split"] == "test") & (raw["method"] == "SG") & (raw["parameter_value"] == 0.05)]
    row = found.loc[("SG", 0.05)]
    assert row["median"] == pytest.approx(test["trust_radius"].median())
    assert row["lower_quartile"] == pytest.approx(test["trust_radius"].quantile(0.25))
    assert row["region_ratio"] == pytest.approx((test["trust_radius"] / test["region_radius"]).median())
    # Radii were made to grow with confidence.
    assert row["confidence_spearman"] == pytest.approx(1)
    assert (row["images"], row["below"], row["above"]) == (12, 0, 0)
    assert found["chosen"].groupby("method").sum().eq(1).all()
    assert found.loc[("SG", 0.05), "chosen"]
    assert found.loc[("G", slice(None)), "chosen"].all()


def test_validation_alone_chooses_and_failures_from_the_start_count():
    raw = world.trust_images(8)
    raw = raw[raw["method"] == "SG"].reset_index(drop=True)
    larger = (raw["split"] == "validation") & (raw["parameter_value"] == 0.1)
    raw.loc[larger, "trust_radius"] = 9.0
    assert summaries.summarise(raw).set_index("parameter_value")["chosen"].to_dict() == {
        0.05: False,
        0.1: True,
    }
    # Half of the images censored at 0.05 weigh more than a far radius on the others: √(0.05 · 9) = 0.67.
    half = raw.index[larger][:4]
    raw.loc[half, ["trust_radius", "low", "censored"]] = [0.05, 0.0, "below"]
    found = summaries.summarise(raw).set_index("parameter_value")
    assert found["chosen"].to_dict() == {0.05: True, 0.1: False}
    assert found.loc[0.1, "validation_mean"] == pytest.approx(math.sqrt(0.05 * 9))


def test_a_split_without_an_image_is_told():
    raw = world.trust_images(4)
    with pytest.raises(DataError, match="validation images"):
        summaries.summarise(raw[raw["split"] == "test"])


@pytest.mark.parametrize("n", [6, 9, 16, 41])
def test_interval_of_the_median_covers_it(n):
    low, high = summaries.median_interval(np.arange(1.0, n + 1))
    k = int(low)
    assert high == n - k + 1
    # The interval misses the median if fewer than k values lie below it, or above.
    assert 2 * binom.cdf(k - 1, n, 0.5) <= 0.05 < 2 * binom.cdf(k, n, 0.5)


def test_few_images_have_no_interval_of_the_median():
    assert all(math.isnan(end) for end in summaries.median_interval(np.arange(5.0)))


@pytest.mark.parametrize(("change", "word"), [
    ({"methods": []}, "methods"),
    ({"methods": ["H"]}, "'H'"),
    ({"thresholds": [1.0]}, "thresholds"),
    ({"scalar": "loss"}, "scalar"),
    ({"law": "sphere"}, "law"),
    ({"smallest": 9.0}, "smallest"),
    ({"betas": []}, "betas"),
])  # fmt: skip
def test_bad_requests_stop_the_run(model, images, change, word):
    with pytest.raises(ConfigError, match=word):
        measured(model, images, "test", **change)


def test_configuration_refuses_bounds_in_the_wrong_order():
    with pytest.raises(ValueError, match="not below"):
        config.Trust(smallest=2.0, largest=1.0)


@pytest.mark.parametrize("furthest", ["SH+SG", "SP H+G"])
def test_finding_follows_the_numbers(furthest):
    images = world.trust_images(10, furthest=furthest)
    tables = {"trust_images": images, "trust": summaries.summarise(images)}
    told = figure.finding(tables)
    assert "the gradient (G) predicts at least 90%" in told
    assert f"({furthest}) within" in told
    assert "border of its linear region" in told
    rows = tables["trust"].set_index("method")
    assert f"{rows.loc[furthest, 'median'].max():.2g}" in told
    smooth = world.trust_images(10, smooth=True)
    assert "linear region" not in figure.finding(
        {"trust_images": smooth, "trust": summaries.summarise(smooth)}
    )


def test_a_median_at_a_bound_is_called_a_bound():
    images = world.trust_images(10)
    gradient = images["method"] == "G"
    images.loc[gradient, ["trust_radius", "low", "high", "censored"]] = [16.0, 16.0, np.nan, "above"]
    tables = {"trust_images": images, "trust": summaries.summarise(images)}
    assert "median radius of at least 16" in figure.finding(tables)
    assert "G: 0% from below, 100% from above" in figure.caption(tables)
    assert "at least 16" in str(reported.table_of(tables["trust"]))
