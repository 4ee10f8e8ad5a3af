"""The stage that explains images: shared gradient calls, trust radii in the index, failures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from curvelens import methods
from curvelens.errors import ConfigError
from curvelens.experiments import explanations
from curvelens.reporting import trust as reported
from curvelens.store import ImageSet
from curvelens.summaries.explanations import ALL, EXPLANATIONS, share
from curvelens.trust import trust_radius

COPIES = {"sigma": 0.1, "samples": 40}
REQUESTS = {"gradient": {}, "smoothgrad": COPIES, "vargrad": COPIES, "smoothhess": COPIES}
TRUST = {"threshold": 0.9, "samples": 300, "smallest": 0.05, "largest": 16.0}


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
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3)
    )


@pytest.fixture(scope="module")
def images() -> ImageSet:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, size=(4, 1, 4, 4)).astype(np.uint8)
    return ImageSet(pixels, random.integers(0, 3, 4), [f"tiny/{i}" for i in range(4)])


@pytest.fixture(scope="module")
def explained(model, images):
    return explanations.explain_images(model, images, REQUESTS, trust=TRUST, seed=3)


@pytest.fixture(scope="module")
def index(explained) -> pd.DataFrame:
    return EXPLANATIONS.validate(pd.concat([table for _, table in explained.values()]))


def test_every_method_has_its_arrays_and_its_rows(explained, images):
    assert list(explained) == list(REQUESTS)
    for name, (arrays, table) in explained.items():
        assert arrays["attribution"].shape == (4, 1, 4, 4)
        assert np.isfinite(arrays["attribution"]).all()
        assert set(table["method"]) == {name}
        assert sorted(table["image_id"]) == sorted(images.ids)
        assert (table["status"] == "ok").all()
    arrays = {name: found for name, (found, _) in explained.items()}
    np.testing.assert_array_equal(arrays["smoothhess"]["smoothgrad"], arrays["smoothgrad"]["attribution"])
    np.testing.assert_array_equal(arrays["smoothhess"]["vargrad"], arrays["vargrad"]["attribution"])
    assert arrays["smoothhess"]["eigenvectors"].shape == (4, 4, 1, 4, 4)


def test_each_call_is_counted_once(index):
    shared = share(index).set_index("method")
    assert shared["calls"].to_dict() == {
        ALL: 4 * 41, "gradient": 4, "smoothgrad": 4 * 40, "vargrad": 0, "smoothhess": 0,
    }  # fmt: skip
    assert shared.loc[ALL, "calls_alone"] == 4 * (1 + 3 * 40)
    assert shared.loc[ALL, "saved"] == pytest.approx(1 - 41 / 121)
    told = "".join(str(block) for block in reported.shared_calls(shared.reset_index()))
    assert "took 164 gradient calls where 484 would have been made" in told
    assert "66% are shared" in told


def test_without_common_copies_nothing_is_shared(model, images):
    requests = {"smoothgrad": COPIES, "vargrad": COPIES | {"sigma": 0.2}}
    found = explanations.explain_images(model, images.subset([0]), requests)
    shared = share(pd.concat([table for _, table in found.values()]))
    assert (shared["saved"] == 0).all()
    assert "none is shared" in str(reported.shared_calls(shared)[0])


def test_other_methods_change_no_map(explained, model, images):
    alone = explanations.explain_images(model, images.subset([2]), {"vargrad": COPIES}, seed=3)
    np.testing.assert_allclose(
        alone["vargrad"][0]["attribution"][0], explained["vargrad"][0]["attribution"][2], rtol=1e-5
    )


def test_trust_radius_is_that_of_the_stored_map(explained, index, model, images):
    """The stored map, read back, as a plane through the score: other points must agree with the column."""
    for name in ("gradient", "smoothgrad"):
        row = index[(index["method"] == name) & (index["image_id"] == "tiny/1")].iloc[0]
        x = torch.from_numpy(images.images[1]).double() / 255
        g = torch.from_numpy(explained[name][0]["attribution"][1]).double()
        network = nn.Sequential(model).double()
        k = int(row["target"])
        value = network(x[None])[0, k].item()

        def plane(delta, value=value, g=g):
            return value + (delta * g).sum((1, 2, 3))

        found = trust_radius(
            lambda z, network=network, k=k: network(z)[:, k], plane, x, samples=4000, smallest=0.05, seed=7
        )
        model.float()
        assert row["trust_low"] < found.high
        assert found.low < row["trust_high"]


def test_a_map_that_predicts_nothing_has_no_radius(index):
    radius = index.groupby("method")["trust_radius"]
    assert radius.count().to_dict() == {"gradient": 4, "smoothgrad": 4, "smoothhess": 4, "vargrad": 0}
    told = str(reported.of_maps(index))
    assert "smoothhess" in told
    assert "vargrad" not in told


def test_trust_can_be_left_out(model, images):
    found = explanations.explain_images(model, images.subset([0]), {"gradient": {}})
    assert found["gradient"][1]["trust_radius"].isna().all()
    assert str(reported.of_maps(found["gradient"][1])) == ""


def test_a_method_that_fails_spoils_its_own_row(model, images, monkeypatch):
    real = methods.SharedWork.explain

    def explain(self, name):
        if name == "vargrad" and bool((self.x.flatten()[0] * 255).round() == images.images[1].flat[0]):
            raise RuntimeError("no\nluck")
        return real(self, name)

    monkeypatch.setattr(methods.SharedWork, "explain", explain)
    found = explanations.explain_images(model, images, REQUESTS, trust=TRUST, seed=3)
    bad = found["vargrad"][1].set_index("image_id")
    assert bad["status"].to_dict() == {i: "failed" if i == "tiny/1" else "ok" for i in images.ids}
    assert bad.loc["tiny/1", "error"] == "RuntimeError: no luck"
    assert np.isnan(found["vargrad"][0]["attribution"][1]).all()
    assert (found["smoothgrad"][1]["status"] == "ok").all()
    assert (found["smoothhess"][1]["status"] == "ok").all()


def test_an_image_that_cannot_be_classified_fails_for_every_method(model, images):
    class Broken(nn.Module):
        def forward(self, x):
            if torch.isclose(x.flatten(1)[0, 0], x.new_tensor(images.images[1].flat[0] / 255)):
                raise RuntimeError("unreadable")
            return model(x)

    found = explanations.explain_images(Broken(), images, REQUESTS)
    for name, (arrays, table) in found.items():
        failed = table[table["status"] == "failed"]
        assert failed["image_id"].tolist() == ["tiny/1"]
        assert failed["method"].tolist() == [name]
        assert np.isnan(arrays["attribution"][1]).all()
        assert np.isfinite(arrays["attribution"][[0, 2, 3]]).all()


def test_an_unknown_method_stops_the_run(model, images):
    with pytest.raises(ConfigError, match="smoothgrad"):
        explanations.explain_images(model, images, {"smothgrad": {}})
