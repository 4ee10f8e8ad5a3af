"""The CASO-against-CAFO experiment against dense linear algebra, two-class models and hand calculation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from curvelens.errors import ConfigError
from curvelens.experiments import distances
from curvelens.store import ImageSet
from curvelens.summaries import distances as summaries


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads only get in each other's way on arrays this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(classes: int, scale: float = 3.0) -> nn.Module:
    torch.manual_seed(2)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, classes)).double()
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter *= scale
    return layers


def image_set(count: int) -> ImageSet:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, size=(count, 1, 4, 4)).astype(np.uint8)
    return ImageSet(pixels, random.integers(0, 2, count), [f"tiny/{i}" for i in range(count)])


def without_time(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="seconds").reset_index(drop=True)


def test_against_dense_linear_algebra():
    model, images, c1 = network(6), image_set(5), 0.5
    table = distances.distances(model, images, c1=c1, dtype=torch.float64)
    assert (table["status"] == "ok").all()
    for row, i in zip(table.to_dict("records"), range(5), strict=True):
        x = torch.from_numpy(images.images[i]).double().flatten() / 255
        k = int(model(x[None]).argmax())

        def loss(z, k=k):
            return -model(z[None])[0].log_softmax(0)[k]

        g = torch.autograd.functional.jacobian(loss, x).numpy()
        H = torch.autograd.functional.hessian(loss, x).numpy()
        p = model(x[None])[0].softmax(0).detach().numpy()
        L = np.linalg.eigvalsh(H)[-1]
        l2 = L / 2 + c1
        step = np.linalg.solve(2 * l2 * np.eye(16) - H, g)
        cosine = step @ g / np.linalg.norm(step) / np.linalg.norm(g)
        assert (row["image_id"], row["prediction"]) == (f"tiny/{i}", k)
        assert row["confidence"] == pytest.approx(p[k])
        assert row["entropy"] == pytest.approx(-(p * np.log(p)).sum())
        assert row["effective_classes"] == pytest.approx(np.exp(-(p * np.log(p)).sum()))
        assert row["largest_eigenvalue"] == pytest.approx(L)
        assert row["lambda2"] == pytest.approx(l2)
        # √(2 − 2cos) loses half the digits: 1e-8 absolute.
        assert row["distance"] == pytest.approx(math.sqrt(max(0, 2 - 2 * cosine)), abs=1e-7)
        assert row["angle"] == pytest.approx(math.degrees(math.acos(min(1, cosine))), abs=1e-5)
        kappa = 2 * l2 / (2 * l2 - L)
        bound = math.sqrt(2 - 4 * math.sqrt(kappa) / (1 + kappa))
        assert row["kantorovich_bound"] == pytest.approx(bound, rel=1e-6)
        assert row["distance"] <= bound
        assert row["kkt_residual"] < 1e-12
        assert row["calls"] > 0
    assert table["distance"].max() > 0.01  # the comparison is not one of zeros


class Smooth(nn.Module):
    """A classifier that is not piecewise linear."""

    def __init__(self) -> None:
        super().__init__()
        self.model = network(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.model(x)) * 3


@pytest.mark.parametrize("dense", [True, False])
def test_networks_that_are_not_piecewise_linear(dense, monkeypatch):
    if not dense:
        monkeypatch.setattr("curvelens.taylor.DENSE_FEATURES", 1)
    model, images = Smooth(), image_set(4)
    table = distances.distances(model, images, c1=2.0, dtype=torch.float64)
    assert table["error"].tolist() == [""] * 4
    indefinite = False
    for row, i in zip(table.to_dict("records"), range(4), strict=True):
        x = torch.from_numpy(images.images[i]).double().flatten() / 255

        def loss(z, k=row["prediction"]):
            return -model(z[None])[0].log_softmax(0)[k]

        g = torch.autograd.functional.jacobian(loss, x).numpy()
        H = torch.autograd.functional.hessian(loss, x).numpy()
        values = np.linalg.eigvalsh(H)
        low, high = min(0, values[0]), max(0, values[-1])
        indefinite |= values[0] < -1e-3
        l2 = high / 2 + 2
        step = np.linalg.solve(2 * l2 * np.eye(16) - H, g)
        away = step / np.linalg.norm(step) - g / np.linalg.norm(g)
        # Lanczos and conjugate gradients stop at relative residuals of about 1e-6.
        assert row["largest_eigenvalue"] == pytest.approx(high, rel=1e-6, abs=1e-9)
        assert row["distance"] == pytest.approx(np.linalg.norm(away), rel=1e-5, abs=1e-5)
        kappa = (2 * l2 - low) / (2 * l2 - high)
        bound = (math.sqrt(kappa) - 1) * math.sqrt(2 / (1 + kappa))
        assert row["kantorovich_bound"] == pytest.approx(bound, rel=1e-4)
        assert row["distance"] <= bound * (1 + 1e-6)
        # A matrix is solved with directly; of products there are d at most, and one to certify the result.
        assert (row["solving_calls"] == 0) == dense
        assert row["solving_calls"] <= min(17, row["calls"])
    assert indefinite


def test_two_classes_have_no_distance():
    table = distances.distances(network(2), image_set(4), c1=0.1, dtype=torch.float64)
    assert (table["largest_eigenvalue"] > 1e-6).any()
    assert (table["distance"] < 1e-9).all()


def test_shards_give_the_same_rows():
    model, images = network(5), image_set(5)
    whole = distances.distances(model, images, dtype=torch.float64)
    parts = [distances.distances(model, images.shard(i, 2), dtype=torch.float64) for i in (1, 0)]
    joined = summaries.DISTANCES.validate(pd.concat(parts))
    pd.testing.assert_frame_equal(without_time(joined), without_time(whole), rtol=1e-12)


def test_confident_predictions_keep_their_accuracy_in_single_precision():
    # 1 − p is below 2⁻²⁴ here: a gradient from p_k − 1 in single precision would be off by its own size.
    model, images, c1 = network(6), image_set(8), 1e-11
    with torch.no_grad():
        model[3].bias[2] += 28
    double = distances.distances(model, images, c1=c1, dtype=torch.float64)
    single = distances.distances(model.float(), images, c1=c1)
    assert (1 - double["confidence"] < 2**-26).sum() >= 4
    assert (double["distance"] > 0.05).sum() >= 4
    # Relative errors of 2⁻²⁴ in factor and logits (of size 30), times the condition number, at most 1e2.
    np.testing.assert_allclose(single["largest_eigenvalue"], double["largest_eigenvalue"], rtol=1e-4)
    np.testing.assert_allclose(single["distance"], double["distance"], rtol=1e-2)


class Breaks(nn.Module):
    """Fails on images whose first pixel is white."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x[..., 0, 0] == 1).any()):
            raise RuntimeError("white")
        return self.model(x)


def test_one_bad_image_spoils_one_row():
    images = image_set(4)
    pixels = images.images.copy()
    pixels[:, 0, 0, 0] = [0, 0, 255, 0]
    broken = ImageSet(pixels, images.labels, images.ids)
    table = distances.distances(Breaks(network(4)), broken, dtype=torch.float64)
    assert table["status"].tolist() == ["ok", "ok", "failed", "ok"]
    assert table["error"].tolist() == ["", "", "RuntimeError: white", ""]
    assert summaries.summarise(table).loc[0, "images"] == 3


def test_c1_must_be_positive():
    with pytest.raises(ConfigError, match=r"distances\.c1"):
        distances.distances(network(3), image_set(1), c1=0.0, dtype=torch.float64)


def made(confidence: list[float], distance: list[float]) -> pd.DataFrame:
    count = len(confidence)
    return pd.DataFrame(
        {
            "image_id": [f"i{i:02d}" for i in range(count)],
            "confidence": confidence,
            "distance": distance,
            "angle": [10.0 * value for value in distance],
            "kantorovich_bound": [1.0] * count,
            "effective_classes": [1.0 + i for i in range(count)],
            "largest_eigenvalue": [2.0 * i for i in range(count)],
            "full_calls": [60] * count,
            "solving_calls": list(range(count)),
            "calls": [6 if i else 12 for i in range(count)],
            "kkt_residual": [1e-7 * i for i in range(count)],
            "seconds": [2.0] * count,
            "status": ["ok"] * count,
        }
    )


def test_summary_by_hand():
    table = made([0.9, 0.5, 0.7, 0.3, 0.99], [0.1, 0.5, 0.2, 0.4, 0.3])
    found = summaries.summarise(table, groups=2)
    assert found["group"].tolist() == [0, 1, 2]
    assert found["images"].tolist() == [5, 3, 2]  # 0.3, 0.5, 0.7 and 0.9, 0.99
    assert found["confidence_low"].tolist() == [0.3, 0.3, 0.9]
    assert found["confidence_high"].tolist() == [0.99, 0.7, 0.99]
    assert found["mean"].tolist() == pytest.approx([0.3, 1.1 / 3, 0.2])
    assert found["median"].tolist() == pytest.approx([0.3, 0.4, 0.2])
    assert found["mean_angle"].tolist() == pytest.approx([3.0, 11 / 3, 2.0])
    assert found["standard_deviation"][0] == pytest.approx(math.sqrt(0.1 / 4))
    # Ranks by confidence 1..5 meet distances of ranks 4, 5, 2, 1, 3: r = 1 − 6·(9 + 9 + 1 + 9 + 4)/(5·24)
    assert found["spearman"][0] == pytest.approx(1 - 6 * 32 / 120)
    assert found["spearman"][1:].isna().all()  # fewer than four images
    # Images in the order of confidence: i03, i01, i02 and i00, i04.
    assert found["effective_classes"].tolist() == [3.0, 3.0, 3.0]
    assert found["largest_eigenvalue"].tolist() == [4.0, 4.0, 4.0]
    assert found["calls"].tolist() == pytest.approx([36 / 5, 6, 9])
    assert found["saving"].tolist() == pytest.approx([45 / 5, 10, 7.5])
    assert found["solving_calls"].tolist() == [4, 3, 4]
    assert found["kkt_residual"].tolist() == pytest.approx([4e-7, 3e-7, 4e-7])


def test_interval_of_the_rank_correlation():
    random = np.random.default_rng(0)
    # Bonett and Wright: z = atanh r has standard error √((1 + r²/2)/(n − 3)).
    a = random.normal(size=50)
    b = a + random.normal(size=50)
    r, low, high = summaries.rank_correlation(a, b)
    half = 1.959964 * math.sqrt((1 + r * r / 2) / 47)
    assert (low, high) == pytest.approx((math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)))
    # Coverage for a bivariate normal with correlation ρ: Spearman's r estimates 6/π·asin(ρ/2).
    truth = 6 / math.pi * math.asin(0.6 / 2)
    hits = 0
    for _ in range(400):
        a = random.normal(size=60)
        b = 0.6 * a + 0.8 * random.normal(size=60)
        _, low, high = summaries.rank_correlation(a, b)
        hits += low <= truth <= high
    # 95 % of 400 are 380 ± 4.4; four standard errors and a little for the approximation.
    assert 360 <= hits <= 398


def test_rank_correlation_of_few_or_constant_values():
    assert all(math.isnan(value) for value in summaries.rank_correlation(np.arange(3.0), np.arange(3.0)))
    assert all(math.isnan(value) for value in summaries.rank_correlation(np.arange(9.0), np.ones(9)))
    assert summaries.rank_correlation(np.arange(9.0), -np.arange(9.0)) == (-1, -1, -1)


def test_more_groups_than_images():
    found = summaries.summarise(made([0.2, 0.4], [0.1, 0.3]), groups=5)
    assert found["images"].tolist() == [2, 1, 1]
    assert summaries.summarise(made([], [])).empty


def many_classes() -> nn.Module:
    return network(60, scale=1.5)


def test_many_classes_are_explained_by_products_and_alike():
    model, images = many_classes(), image_set(4)
    few = distances.distances(model, images, c1=0.5, dtype=torch.float64)
    full = distances.distances(model, images, c1=0.5, form="factor", dtype=torch.float64)
    assert set(few["curvature"]) == {"products"}
    assert set(full["curvature"]) == {"factor"}
    assert (few["full_calls"] == 60).all()
    assert (few["calls"] < 40).all()
    np.testing.assert_allclose(few["largest_eigenvalue"], full["largest_eigenvalue"], rtol=0, atol=1e-4)
    # L is sought to 1e-4 of 2c₁, which moves an explanation by as much, and its distance by no more.
    np.testing.assert_allclose(few["distance"], full["distance"], atol=2e-4)
    assert (few["kkt_residual"] < 1e-6).all()
    assert few["solving_calls"].between(1, 10).all()
    assert (full["solving_calls"] == 0).all()


def test_forms_agree_on_a_piecewise_linear_network():
    table = distances.compare_forms(many_classes(), image_set(3), c1=0.5, dtype=torch.float64)
    assert (table["status"] == "ok").all()
    forms = ["differentiation", "factor", "products", "factor"]
    assert sorted(table["curvature"]) == sorted(forms * 3)
    whole = table[table["classes"] == 60]
    assert whole["curvature"].tolist() == forms[:3] * 3
    assert (whole["difference"] < 1e-3).all()
    few = table[table["classes"] == 10].merge(whole[whole["curvature"] == "factor"], on="image_id")
    short = few["largest_eigenvalue_y"] - few["largest_eigenvalue_x"]
    assert (short > 0).all()
    assert (short <= few["largest_eigenvalue_error_x"]).all()
    assert (table.groupby("curvature")["calls"].mean() > 0).all()


def test_an_unknown_form_is_named():
    with pytest.raises(ConfigError, match="newton"):
        distances.distances(network(3), image_set(1), form="newton")


def test_large_curvature_is_solved_in_double_precision():
    # L near 1 against 2λ₂ − L = 0.002: rounding of HΔ, 6e-8 of it, is 500 times as much of what is left.
    model, images = network(60).float(), image_set(6)
    table = distances.distances(model, images, c1=1e-3)
    solved = table[table["precision"] == "float64"]
    assert len(solved)
    assert (table["kkt_residual"] <= distances.EXACT).all()
    assert table["solving_calls"].between(1, 2 * 10).all()
    exact = distances.distances(model.double(), images, c1=1e-3, dtype=torch.float64)
    assert set(exact["precision"]) == {"float64"}
    both = solved.merge(exact, on="image_id", suffixes=("", "_exact"))
    np.testing.assert_allclose(both["distance"], both["distance_exact"], rtol=1e-12)
    assert (both["calls"] > both["calls_exact"]).all()
