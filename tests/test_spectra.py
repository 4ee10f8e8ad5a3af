"""Spectra against closed forms: quadratics, a one-hidden-layer SoftPlus network in numpy, and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn

from curvelens import derivatives, targets
from curvelens.errors import ConfigError, ModelError
from curvelens.experiments import spectra as module
from curvelens.experiments.spectra import Settings, Thresholds, read_spectrum, spectra
from curvelens.regions import region_radius, regions_along
from curvelens.store import ImageSet
from curvelens.summaries.spectra import EIGENVALUES, SPECTRA, SPECTRA_SUMMARY, summarise

SHAPE, D, CLASSES = (1, 3, 4), 12, 3


def network(activation: nn.Module, width: int = 16, depth: int = 1, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(D, width), activation]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), activation]
    model = nn.Sequential(*layers, nn.Linear(width, CLASSES))
    for parameter in model.parameters():
        parameter.data *= 2  # enough curvature for the verdicts to differ from flat
    return model


def image_set(n: int = 4) -> ImageSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    return ImageSet(images, rng.integers(0, CLASSES, n), [f"test/{i}" for i in range(n)])


def closed_form(model: nn.Sequential, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and Hessian of the largest logit of a one-hidden-layer SoftPlus network."""
    W, b, V, c = (p.detach().double().numpy() for p in model.parameters())
    z = W @ x.ravel() + b
    k = np.argmax(V @ np.logaddexp(0, z) + c)
    s = expit(z)
    return W.T @ (V[k] * s), (W.T * (V[k] * s * (1 - s))) @ W


def test_softplus_spectrum_is_the_closed_form():
    model, images = network(nn.Softplus()), image_set()
    table, eigenvalues, arrays = spectra(model, images, None, "smooth", "softplus")
    for i, image_id in enumerate(images.ids):
        g, H = closed_form(model, images.tensor(i).double().numpy())
        expected = np.linalg.eigvalsh(H)[::-1]
        row = table.set_index("image_id").loc[image_id]
        mine = eigenvalues[eigenvalues["image_id"] == image_id].sort_values("rank")["eigenvalue"]
        # Weights of order one: both sides carry rounding of about 1e-15 times the spectral radius.
        np.testing.assert_allclose(mine, expected, atol=1e-12 * row["spectral_radius"] + 1e-14)
        np.testing.assert_allclose(row["trace"], np.trace(H), atol=1e-12)
        np.testing.assert_allclose(row["gradient_norm"], np.linalg.norm(g), rtol=1e-12)
        np.testing.assert_allclose(arrays["gradient"][i].ravel(), g, atol=1e-12)
        for value, vector in zip(arrays["extreme_eigenvalues"][i], arrays["eigenvectors"][i], strict=True):
            np.testing.assert_allclose(H @ vector.ravel(), value * vector.ravel(), atol=1e-11)
            np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-12)
        ends = np.r_[expected[:3], expected[::-1][:3]]
        np.testing.assert_allclose(arrays["extreme_eigenvalues"][i], ends, atol=1e-12 * np.abs(ends).max())


def test_softplus_rows_have_checks_and_no_regions():
    table, _, _ = spectra(network(nn.Softplus(), depth=3), image_set(), None, "smooth", "softplus")
    # The error of a fourth-order term is at most a few times the step, 8e-3, relative to the third-order one.
    np.testing.assert_allclose(table["expansion_order"], 3, atol=0.1)
    # A central difference of step 1e-4: truncation of order 1e-8, rounding of order 1e-12.
    assert (table["curvature_error"] < 1e-5).all()
    assert table[["region_radius", "regions_crossed", "largest_gradient_jump"]].isna().all(axis=None)
    assert (table["status"] == "ok").all()
    assert (table["calls"] == D + 4).all()


def test_gradient_change_is_measured_at_the_end_of_the_segment():
    model, images = network(nn.Softplus()), image_set(2)
    lengths = (1e-3, 0.5)
    for length in lengths:
        table, _, _ = spectra(model, images, [1], "smooth", "softplus", settings=Settings(segment=length))
        row, x = table.iloc[0], images.tensor(1).double().numpy()
        g, H = closed_form(model, x)
        change, bound = (
            row["gradient_change"] * np.linalg.norm(g),
            np.abs(np.linalg.eigvalsh(H)).max() * length,
        )
        np.testing.assert_allclose(row["relative_curvature"], bound / np.linalg.norm(g), rtol=1e-10)
        assert 0 < change < 1.01 * bound if length == 1e-3 else change > 0


def test_relu_rows_have_regions_and_a_zero_hessian():
    model, images = network(nn.ReLU(), depth=2), image_set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table, eigenvalues, arrays = spectra(model, images, None, "plain", "relu")
    assert (table["verdict"] == "flat (piecewise linear)").all()
    assert (eigenvalues["eigenvalue"] == 0).all()
    assert len(eigenvalues) == len(images) * D
    assert (arrays["eigenvectors"] == 0).all()
    assert (table[["spectral_radius", "trace", "effective_rank", "relative_curvature"]] == 0).all(axis=None)
    assert (table["near_zero_share"] == 1).all()
    assert table[["expansion_order", "curvature_error", "positive_mass"]].isna().all(axis=None)
    assert table["regions_crossed"].sum() >= 4
    model = model.double()
    for _, row in table.iterrows():
        x = images.tensor(images.ids.index(row["image_id"])).double()
        np.testing.assert_allclose(row["region_radius"], region_radius(model, x), rtol=1e-12)
        # The jumps along the segment add up to at least the change between its ends.
        change, jump = row["gradient_change"] * row["gradient_norm"], row["largest_gradient_jump"]
        assert change <= row["regions_crossed"] * jump + 1e-12
        assert row["calls"] == 2 + 2 * row["regions_crossed"]


def test_segment_is_seeded_by_image_and_run(monkeypatch):
    model, images = network(nn.ReLU()), image_set()
    seen: list[torch.Tensor] = []

    def spy(f, a, b):
        seen.append(b - a)
        return regions_along(f, a, b)

    monkeypatch.setattr(module, "regions_along", spy)
    settings = Settings(segment=0.75)
    spectra(model, images, [0, 1], "plain", "relu", settings=settings)
    spectra(model, images, [1], "plain", "relu", settings=settings)
    spectra(model, images, [1], "plain", "relu", settings=Settings(segment=0.75, seed=1))
    first, second, alone, reseeded = seen
    for direction in seen:
        np.testing.assert_allclose(direction.norm(), 0.75, rtol=1e-12)
    assert torch.equal(second, alone)
    assert not torch.allclose(first, second)
    assert not torch.allclose(alone, reseeded)


@pytest.mark.parametrize(
    ("eigenvalues", "norm", "verdict"),
    [
        ([1, 1, 1, 1], 100, "flat"),  # relative change 0.01
        ([1, 0.5, 0, 0], 2, "convex"),
        ([-1, -0.5, 0, 0.01], 2, "concave"),
        ([3] + 99 * [-0.02], 2, "strongly anisotropic"),  # mass 0.6, anisotropy 3 / 0.0498
        ([1, -1, 0.5, -0.5], 2, "mixed"),
        ([1, -0.06], 2, "mixed"),  # 94.3 % positive
        ([1, -0.05], 2, "convex"),  # 95.2 % positive
        ([1.0, 1.0], 0.0, "convex"),  # no gradient: never flat
        ([0, 0], 0.0, "flat"),
    ],
)
def test_verdicts_by_hand(eigenvalues, norm, verdict):
    assert read_spectrum(np.array(eigenvalues), norm, segment=1.0)["verdict"] == verdict


def test_verdict_depends_on_segment_and_thresholds():
    values = np.array([1.0, -1.0])
    assert read_spectrum(values, 5.0, segment=0.4)["verdict"] == "flat"
    assert read_spectrum(values, 5.0, segment=0.6)["verdict"] == "mixed"
    assert read_spectrum(values, 5.0, 0.6, Thresholds(flat=0.2))["verdict"] == "flat"
    assert read_spectrum(values, 5.0, 0.6, Thresholds(anisotropic=1.0))["verdict"] == "strongly anisotropic"


def test_numbers_of_a_spectrum_by_hand():
    found = read_spectrum(np.array([0.001, -2.0, 4.0, 2.0, -0.01]), gradient_norm=8.0, segment=0.5)
    assert (found["positive_share"], found["negative_share"], found["near_zero_share"]) == (0.4, 0.4, 0.2)
    assert (found["largest_eigenvalue"], found["smallest_eigenvalue"], found["spectral_radius"]) == (4, -2, 4)
    np.testing.assert_allclose(found["trace"], 3.991)
    np.testing.assert_allclose(found["positive_mass"], 6.001 / 8.011)
    np.testing.assert_allclose(found["anisotropy"], 4 / (8.011 / 5))
    np.testing.assert_allclose(found["relative_curvature"], 0.25)


def test_effective_rank_counts_equal_directions():
    for rank in (1, 3, 10):
        values = np.concatenate([np.full(rank, -2.0), np.zeros(10 - rank)])
        found = read_spectrum(values, 1.0, 1.0)
        np.testing.assert_allclose(found["effective_rank"], rank)
        np.testing.assert_allclose(found["anisotropy"], 10 / rank)


class Quadratic(nn.Module):
    """Two 'logits': x'Ax/2 + 100, and 0."""

    def __init__(self, A: np.ndarray) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.tensor(A, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        y = ((flat @ self.A) * flat).sum(1) / 2 + 100
        return torch.stack([y, torch.zeros_like(y)], dim=1)


def test_quadratic_has_its_own_eigenvalues():
    rng = np.random.default_rng(1)
    Q = np.linalg.qr(rng.standard_normal((D, D)))[0]
    A = (Q * np.linspace(-2, 5, D)) @ Q.T
    A = ((A + A.T) / 2).astype(np.float32).astype(float)
    _, eigenvalues, _ = spectra(Quadratic(A), image_set(2), None, "quadratic", "other")
    for _, group in eigenvalues.groupby("image_id"):
        np.testing.assert_allclose(
            group.sort_values("rank")["eigenvalue"], np.linalg.eigvalsh(A)[::-1], atol=1e-12
        )


def test_one_bad_image_spoils_one_row():
    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(nn.Softplus())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) / (x.sum() != 0)

    images = image_set(3)
    images.images[1] = 0
    table, eigenvalues, arrays = spectra(Fragile(), images, None, "fragile", "softplus")
    assert table["status"].tolist() == ["ok", "failed", "ok"]
    assert set(eigenvalues["image_id"]) == {"test/0", "test/2"}
    assert np.isnan(arrays["gradient"][1]).all()
    assert np.isnan(arrays["eigenvectors"][1]).all()
    assert np.isfinite(arrays["eigenvectors"][[0, 2]]).all()
    assert summarise(table)["images"].tolist() == [2]


def test_summary_has_one_row_a_model():
    images = image_set()
    parts = [
        spectra(network(nn.Softplus()), images, None, "smooth", "softplus")[0],
        spectra(network(nn.ReLU()), images, None, "plain", "relu")[0],
    ]
    import pandas as pd

    summary = summarise(pd.concat(parts, ignore_index=True)).set_index("model")
    assert list(summary.index) == ["plain", "smooth"]
    assert summary.loc["plain", "flat_piecewise_linear"] == 4
    counts = summary.loc["smooth", ["flat", "convex", "concave", "strongly_anisotropic", "mixed"]]
    assert counts.sum() == 4
    assert summary.loc["smooth", "spectral_radius"] == parts[0]["spectral_radius"].median()
    assert np.isnan(summary.loc["smooth", "region_radius"])
    assert summary.loc["plain", "regions_crossed"] == parts[1]["regions_crossed"].median()
    SPECTRA_SUMMARY.validate(summary.reset_index())


def test_tables_fit_their_schemas_also_when_empty():
    empty = ImageSet(np.zeros((0, *SHAPE), np.uint8), np.zeros(0, np.int64), [])
    table, eigenvalues, arrays = spectra(network(nn.Softplus()), empty, None, "smooth", "softplus")
    assert len(SPECTRA.validate(table)) == len(EIGENVALUES.validate(eigenvalues)) == 0
    assert arrays["eigenvectors"].shape == (0, 6, *SHAPE)


def test_wrong_settings_and_labels_are_refused_in_one_line():
    model, images = network(nn.ReLU()), image_set(1)
    with pytest.raises(ConfigError, match="segment"):
        spectra(model, images, None, "plain", "relu", settings=Settings(segment=0.0))
    with pytest.raises(ConfigError, match="near_zero"):
        spectra(model, images, None, "plain", "relu", settings=Settings(thresholds=Thresholds(near_zero=1.0)))
    for activation, model in (("softplus", network(nn.ReLU())), ("relu", network(nn.Softplus()))):
        with pytest.raises(ModelError, match="contradicts") as caught:
            spectra(model, images, None, "plain", activation)
        assert "\n" not in str(caught.value)


def test_model_is_left_as_it_was_found():
    model = network(nn.Softplus()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    spectra(model, image_set(1), None, "smooth", "softplus")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert next(model.parameters()).dtype == torch.float32


# What the course assignment asks to be shown of any Hessian (directional curvature, scalarisation).


def test_directional_curvature_predicts_the_change_of_the_gradient():
    model = network(nn.Softplus()).double()
    f, x = targets.max_logit(model), image_set().tensor(0).double()
    v = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v /= v.norm()
    H = derivatives.hessian(f, x).numpy()
    kappa = v.numpy().ravel() @ H @ v.numpy().ravel()
    for step in (1e-2, 1e-3):
        ends, _ = zip(*(closed_form(model, (x + sign * step * v).numpy()) for sign in (1, -1)), strict=True)
        change = (ends[0] - ends[1]) @ v.numpy().ravel() / (2 * step)
        # Error of a central difference: step² / 6 times the fourth derivative, of order one here.
        np.testing.assert_allclose(change, kappa, atol=step**2)


def test_error_of_the_expansion_falls_as_the_cube_of_the_step():
    model = network(nn.Softplus()).double()
    f, x = targets.max_logit(model), image_set().tensor(0).double()
    v = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    v /= v.norm()
    g, H = derivatives.gradient(f, x[None])[0], derivatives.hessian(f, x)
    slope, kappa = float((g * v).sum()), float(v.ravel() @ H @ v.ravel())
    W, b, V, c = (p.detach().numpy() for p in model.parameters())

    def largest_logit(point: np.ndarray) -> float:
        return float((V @ np.logaddexp(0, W @ point.ravel() + b) + c).max())

    steps = np.array([0.004, 0.008, 0.016])
    errors = [
        abs(largest_logit((x + h * v).numpy()) - largest_logit(x.numpy()) - h * slope - h**2 / 2 * kappa)
        for h in steps
    ]
    orders = np.diff(np.log(errors)) / np.log(2)
    # The next term shifts the order by about its relative size, a few steps' worth.
    np.testing.assert_allclose(orders, 3, atol=0.1)


def test_hessian_of_a_probability_by_the_chain_rule():
    model = network(nn.Softplus()).double()
    x = image_set().tensor(2).double()
    W, b, V, c = (p.detach().numpy() for p in model.parameters())
    z = W @ x.numpy().ravel() + b
    s = expit(z)
    J = V @ (s[:, None] * W)
    logit_hessians = [(W.T * (row * s * (1 - s))) @ W for row in V]
    logits = V @ np.logaddexp(0, z) + c
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    k = 1
    e = np.eye(CLASSES)[k]
    inner = p[k] * (e - p)  # ∇g of the SoftMax probability, and its Hessian:
    outer = p[k] * (np.outer(e - p, e - p) - np.diag(p) + np.outer(p, p))
    expected = sum(w * H for w, H in zip(inner, logit_hessians, strict=True)) + J.T @ outer @ J
    found = derivatives.hessian(targets.probability(model, k), x)
    np.testing.assert_allclose(found, expected, atol=1e-12)
