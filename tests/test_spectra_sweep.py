"""Hessians from smooth to nearly ReLU and of several classes, against closed forms; what is said of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import report_world as world
import torch
from matplotlib.figure import Figure
from scipy.special import expit
from torch import nn

from curvelens.errors import ConfigError
from curvelens.experiments.spectra_sweep import Settings, sweep
from curvelens.figures import eigenvectors, spectra_classes, spectra_sharpness, style
from curvelens.figures.inputs import load
from curvelens.figures.interpret_spectra import interpret
from curvelens.store import ImageSet
from curvelens.summaries.spectra import ANISOTROPIC, CONVEX, FLAT

SHAPE, D, CLASSES, WIDTH = (1, 3, 4), 12, 4, 9
BETAS = (0.5, 3.0, 40.0)


def network(activation: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(D, WIDTH), activation, nn.Linear(WIDTH, CLASSES))
    for parameter in model.parameters():
        parameter.data *= 2
    return model


def images(n: int = 3) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    return ImageSet(pixels, np.zeros(n, np.int64), [f"test/{i}" for i in range(n)])


def closed_form(model: nn.Sequential, x: np.ndarray, k: int, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and Hessian of logit k of W -> SoftPlus(beta) -> V at x, by hand."""
    W, b, V, _ = (p.detach().double().numpy() for p in model.parameters())
    s = expit(beta * (W @ x + b))
    return W.T @ (V[k] * s), (W.T * (V[k] * beta * s * (1 - s))) @ W


def test_surrogates_have_the_spectrum_of_the_closed_form():
    model, data = network(nn.ReLU()), images()
    table = sweep(model, None, data, ("plain", "none"), settings=Settings(betas=BETAS))
    assert (table["series"] == "sharpness").all()
    assert (table["status"] == "ok").all()
    assert len(table) == len(data) * len(BETAS)
    for row in table.itertuples():
        x = data.tensor(data.ids.index(row.image_id)).double().numpy().ravel()
        g, H = closed_form(model, x, row.prediction, row.beta)
        values = np.linalg.eigvalsh(H)
        # SoftPlus is cut to its line where beta z > 20: off by beta e^-20 = 1e-7 a unit, times weights of 2.
        np.testing.assert_allclose(row.spectral_radius, np.abs(values).max(), rtol=1e-9, atol=1e-5)
        np.testing.assert_allclose(row.trace, np.trace(H), rtol=1e-9, atol=1e-5)
        np.testing.assert_allclose(row.gradient_norm, np.linalg.norm(g), rtol=1e-7)
        relu, _ = closed_form(model, x, row.prediction, 1e12)
        off = np.linalg.norm(g - relu) / np.linalg.norm(relu)
        np.testing.assert_allclose(row.gradient_deviation, off, rtol=1e-6, atol=1e-7)
    assert not isinstance(model[2], nn.Softplus)


def test_beyond_the_smallest_pre_activation_curvature_is_gone():
    model, data = network(nn.ReLU()), images(2)
    W, b, _, _ = (p.detach().double().numpy() for p in model.parameters())
    nearest = min(np.abs(W @ x.ravel() + b).min() for x in data.tensor().double().numpy())
    # beta z of at least 40: SoftPlus bends there by beta e^-40.
    table = sweep(model, None, data, ("plain", "none"), settings=Settings(betas=[1.0, 40 / nearest]))
    last = table[table["beta"] > 1]
    assert (last["spectral_radius"] < 1e-9).all()
    assert (last["gradient_deviation"] < 1e-9).all()


def test_classes_come_by_their_logit():
    model, data = network(nn.Softplus()), images()
    table = sweep(network(nn.ReLU()), model, data, ("plain", "smooth"), settings=Settings([], classes=3))
    assert set(table["series"]) == {"classes"}
    assert set(table["model"]) == {"smooth"}
    assert table["beta"].isna().all()
    with torch.no_grad():
        logits = model(data.tensor()).double().numpy()
    for i, image_id in enumerate(data.ids):
        part = table[table["image_id"] == image_id].sort_values("class_rank")
        assert part["of_class"].tolist() == np.argsort(-logits[i])[:3].tolist()
        assert part["class_rank"].tolist() == [1, 2, 3]
        p = np.exp(logits[i]) / np.exp(logits[i]).sum()
        np.testing.assert_allclose(part["class_probability"], np.sort(p)[::-1][:3], rtol=1e-5)
        for row in part.itertuples():
            _, H = closed_form(model, data.tensor(i).double().numpy().ravel(), row.of_class, 1.0)
            values = np.linalg.eigvalsh(H)
            np.testing.assert_allclose(row.largest_eigenvalue, values[-1], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(row.smallest_eigenvalue, values[0], rtol=1e-9, atol=1e-12)


def test_nothing_asked_nothing_given_and_no_relu_no_sharpness():
    smooth = network(nn.Softplus())
    assert len(sweep(smooth, None, images(), ("a", "b"), settings=Settings([]))) == 0
    assert len(sweep(smooth, smooth, images(), ("a", "b"), settings=Settings([], classes=0))) == 0
    with pytest.raises(ConfigError, match=r"spectra\.betas: .*set spectra\.betas to \[\]"):
        sweep(smooth, None, images(), ("a", "b"))


def test_one_bad_image_spoils_its_rows(monkeypatch):
    from curvelens.experiments import spectra_sweep

    read = spectra_sweep._read

    def fails(f: Any, item: Any, settings: Any) -> Any:
        if item.image_id == "test/1":
            raise RuntimeError("no luck")
        return read(f, item, settings)

    monkeypatch.setattr(spectra_sweep, "_read", fails)
    table = sweep(network(nn.ReLU()), None, images(), ("a", "b"), settings=Settings(BETAS))
    assert (table["status"] == "failed").sum() == 1
    assert (table["status"] == "ok").sum() == 2 * len(BETAS)
    assert table.loc[table["status"] == "failed", "error"].tolist() == ["RuntimeError: no luck"]


def sharpness(radii: list[float]) -> dict[str, pd.DataFrame]:
    """The made-up sweep with other spectral radii along the sharpness."""
    table = world.spectra_sweep()
    for beta, radius in zip((1.0, 10.0, 100.0, 1e4), radii, strict=True):
        table.loc[table["beta"] == beta, "spectral_radius"] = radius
    return {"spectra_sweep": table}


@pytest.mark.parametrize(
    ("radii", "found", "read"),
    [
        ([2, 9, 40, 0], "does not fade towards ReLU, it first concentrates", "by concentrating"),
        ([2, 9, 40, 41], "Curvature grows towards ReLU", "Sharper SoftPlus curves more"),
        ([4, 3, 2, 1], "Curvature fades towards ReLU", "Sharper SoftPlus curves less"),
    ],
)
def test_what_is_said_of_the_way_to_relu(radii, found, read):
    tables = sharpness(radii)
    assert found in spectra_sharpness.finding(tables)
    told = " ".join(interpret(world.spectra(), tables["spectra_sweep"]))
    assert read in told
    gone = "nothing is left of it at any image" if radii[-1] == 0 else "has not vanished at any image"
    assert gone in told


def said(**columns: Any) -> str:
    table = world.spectra(8)
    smooth = table["activation"] != "relu"
    for name, value in columns.items():
        rows = ~smooth if name.startswith("relu_") else smooth
        table.loc[rows, name.removeprefix("relu_")] = value
    return " ".join(interpret(table))


def test_signs_size_and_geometry_flip_with_the_numbers():
    assert "Both signs weigh alike" in said(positive_mass=0.5)
    assert "the score bends up more than down" in said(positive_mass=0.7)
    assert "the score bends down more than up" in said(positive_mass=0.3)
    assert "each image is a saddle" in said()
    assert "no image is a saddle" in said(smallest_eigenvalue=0.1)
    assert "Curvature is strong" in said(relative_curvature=0.6)
    assert "Curvature is moderate" in said(relative_curvature=0.2)
    assert "Curvature is weak" in said(relative_curvature=0.02)
    assert "The numbers hold" in said()
    assert "does not behave as it should" in said(expansion_order=2.0)
    assert "The local geometry is strongly anisotropic: so judged at all 8 images" in said()
    assert "The local geometry is locally flat" in said(verdict=FLAT)
    mixed = [CONVEX] * 5 + [ANISOTROPIC] * 3
    assert "mostly locally convex: so judged at 5 of 8 images (others: strongly anisotropic 3)" in said(
        verdict=mixed
    )


def test_sources_of_instability_are_contrasted():
    told = said(gradient_change=0.1, relu_gradient_change=0.5)
    assert "The ReLU network's explanations are the less stable ones" in told
    assert "by 10% of its norm over the segment" in told
    assert "Hessian is exactly zero" in told
    swapped = said(gradient_change=0.5, relu_gradient_change=0.1)
    assert "The SoftPlus network's explanations are the less stable ones" in swapped
    assert "Both networks' explanations are about as stable" in said(
        gradient_change=0.3, relu_gradient_change=0.3
    )
    small = {"relu_gradient_norm": 2.0, "relu_gradient_change": 0.5, "relu_regions_crossed": 40.0}
    assert "Many small jumps" in said(**small, relu_largest_gradient_jump=0.1)
    assert "Many small jumps" not in said(**small, relu_largest_gradient_jump=0.9)
    only_smooth = world.spectra().query("activation != 'relu'")
    assert "ReLU" not in " ".join(interpret(only_smooth))


def test_rivals_and_classes_are_compared():
    table = world.spectra_sweep()
    tables = {"spectra": world.spectra(), "spectra_sweep": table, "models": []}
    assert "bends down where its rivals bend up" in spectra_classes.caption(tables)
    first = table["class_rank"] == 1
    table.loc[first, "largest_eigenvalue"] = 50.0
    assert "and its rivals bend alike" in spectra_classes.caption(tables)
    table.loc[~first, "smallest_eigenvalue"] = -50.0
    assert "bends up where its rivals bend down" in spectra_classes.caption(tables)
    assert spectra_classes.against_predicted(spectra_classes.rank_rows(tables))[2] == pytest.approx(
        1, rel=0.2
    )


def test_eigenvectors_are_shown_with_both_ends_and_told_against_the_gradient(tmp_path):
    rows = world.spectra(8)
    inputs: dict[str, Any] = world.explanations(tmp_path, 8)
    path = world.eigenvectors(tmp_path, rows)
    tables = load({"images": inputs["images"], "eigenvectors": [path]}) | {"spectra": rows}
    for layout, columns in ((style.WIDE, 8), (style.NARROW, 4)):
        figure = eigenvectors.draw(tables, layout)
        assert isinstance(figure, Figure)
        assert len(figure.axes) == eigenvectors.SHOWN * columns
    assert "nearly across the gradient" in eigenvectors.caption(tables)
    shard = dict(tables["eigenvectors"][0])
    tables["eigenvectors"] = [shard]
    shard["gradient"] = -shard["eigenvectors"][:, 3]  # of the largest |λ|
    assert "nearly along the gradient" in eigenvectors.caption(tables)
    _, values, vectors = eigenvectors.pairs(tables, str(shard["ids"][0]))
    # Turned, so that the score rises along it.
    np.testing.assert_allclose(vectors[3], shard["gradient"][0])
    assert values[3] == -4
    assert "λ from 3.0 to −4.0" in eigenvectors.alt(tables)
