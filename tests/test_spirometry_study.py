"""The spirometry study: sums by interval against functions of known derivatives, and the whole chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spirometry_world as world
import torch
from torch import nn

from curvelens import config, figures, models
from curvelens.errors import ConfigError, DataError
from curvelens.experiments import exhalations
from curvelens.experiments import spirometry as experiment
from curvelens.schedules import Training
from curvelens.spirometry import SAMPLES
from curvelens.studies import Spirometry
from curvelens.summaries import spirometry as summaries

WAVEFORMS = Path(__file__).resolve().parents[2] / "shared" / "data" / "spirometry_waveforms_26"
TINY = {
    "kind": "spirometry", "training_curves": 40, "validation_curves": 8, "test_curves": 24, "blocks": 2,
    "channels": 2, "wide": 40, "narrow": 3, "dropout": 0.0, "calls": 1200, "repeats": 2, "sigma": 0.2,
    "training": {"optimizer": "adam", "epochs": 4, "batch_size": 8, "learning_rate": 0.01},
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def study(**changes) -> Spirometry:
    return Spirometry.model_validate(TINY | changes)


class Quadratic(nn.Module):
    """f(x) = a·x + ½ xᵀHx, of which SmoothHess is exact."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.a = nn.Parameter(torch.randn(SAMPLES, generator=generator))
        square = torch.randn(SAMPLES, SAMPLES, generator=generator) / SAMPLES
        self.h = nn.Parameter(square + square.T)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        return flat @ self.a + ((flat @ self.h) * flat).sum(1) / 2


def test_sums_by_interval_of_a_quadratic():
    """SmoothGrad of a quadratic is a + Hx, SmoothHess H; whole orthogonal matrices recover both exactly."""
    chosen = study(explained=1)
    curves, _ = exhalations.make_curves(chosen)
    model = Quadratic().double()
    found = experiment.explain_curves(chosen, model.float(), "wide", curves)
    assert (found["explanations"]["status"] == "ok").all()
    h, a = (tensor.detach().double().numpy() for tensor in (model.h, model.a))
    ids = curves.examples.ids
    for name, rows in found["intervals"].groupby("image_id"):
        x = curves.examples.inputs[ids.index(name), 0].astype(float)
        gradient = a + h @ x
        for k, row in enumerate(rows.sort_values("interval").to_dict("records")):
            part = slice(10 * k, 10 * k + 10)
            # float32: 300 terms of order 1, in sums of ten.
            assert row["attribution"] == pytest.approx(gradient[part].sum(), abs=2e-3)
            assert row["interaction"] == pytest.approx(h[:10, part].sum(), abs=2e-3)
        pairs = found["interactions"][found["interactions"]["image_id"] == name]
        wanted = h.reshape(30, 10, 30, 10).sum((1, 3))
        got = np.zeros((30, 30))
        got[pairs["first"], pairs["second"]] = pairs["interaction"]
        assert np.abs(got - np.triu(wanted)).max() < 2e-3
        told = found["explanations"].set_index("image_id").loc[name]
        assert told["strongest"] == 0.5 * (1 + np.abs(wanted[0, 1:]).argmax())
        assert told["pmse"] < 1e-6 < told["pmse_first_order"]
        assert told["first_share"] == pytest.approx(
            abs(gradient[:10].sum()) / np.abs(gradient.reshape(30, 10).sum(1)).sum(), rel=1e-3
        )
        assert told["calls"] == 1200


def test_locality_without_and_with_noise():
    size = 30
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    truth = np.where(apart <= 2, 1.0 / (1 + apart), 0.0)
    clean = torch.tensor(np.stack([truth, truth]))
    found = experiment.locality(clean, 1)
    kept = truth[apart <= 1]
    assert found["near_share"] == pytest.approx(kept.sum() / truth.sum())
    assert found["near_energy"] == pytest.approx((kept**2).sum() / (truth**2).sum())
    assert found["mean_distance"] == pytest.approx(0.5 * (apart * truth).sum() / truth.sum())
    assert found["energy_distance"] == pytest.approx(0.5 * (apart * truth**2).sum() / (truth**2).sum())
    # Noise of the size of the entries hides the locality in |.|, but not in products of independent repeats:
    # the noise of a cell's mean product over 8 repeats is √(2/56) = 0.19, of 900 cells 5.7, of a truth of 70.
    noisy = torch.tensor(truth + np.random.default_rng(0).normal(size=(8, size, size)))
    assert experiment.locality(noisy, 2)["near_share"] < 0.5
    assert experiment.locality(noisy, 2)["near_energy"] == pytest.approx(1, abs=0.25)


def test_the_chosen_curves_and_their_twins():
    chosen = study(explained=2, test_curves=60)
    curves, table = exhalations.make_curves(chosen, seed=1)
    groups = {name: [i for i, group in curves.explained() if group == name] for name in summaries.GROUPS}
    assert {name: len(found) for name, found in groups.items()} == dict(
        zip(summaries.GROUPS, (2, 2, 2, 0), strict=True)
    )
    facts = table.set_index("image_id")
    for index, twin in zip(groups["early cough"], groups["twin without cough"], strict=True):
        a, b = curves.examples.ids[index], curves.examples.ids[twin]
        assert b == f"{a} without coughs"
        assert 0 <= facts.loc[a, "first_cough"] <= 4
        assert facts.loc[b, "coughs"] == 0
        assert curves.examples.targets[index] == curves.examples.targets[twin]
        before = 0.05 * np.arange(SAMPLES) < facts.loc[a, "first_cough"]
        ours, theirs = curves.examples.inputs[[index, twin], 0]
        assert np.allclose(ours[before], theirs[before], rtol=1e-6)
        assert (ours <= theirs + 1e-6).all()  # a cough only delays
    for index in groups["no early cough"]:
        first = facts.loc[curves.examples.ids[index], "first_cough"]
        assert pd.isna(first) or first >= 4
    assert table["split"].value_counts().to_dict() == {"train": 40, "validation": 8, "test": 60, "twin": 2}
    again = exhalations.CurveSet.from_arrays(curves.arrays())
    assert again.explained() == curves.explained()


def test_what_lies_in_a_plateau():
    chosen = study()
    curves, _ = exhalations.make_curves(chosen)
    curves.plateaus[0] = [[0.4, 0.8], [2.0, 2.25], [np.nan, np.nan]]
    share = experiment._in_plateau(curves, 0)
    assert share[:5] == pytest.approx([0.2, 0.6, 0, 0, 0.5], abs=1e-6)
    assert share.sum() * 0.5 == pytest.approx(0.65, abs=1e-6)


def test_the_chain_on_a_tiny_network():
    """Training beats the mean; the narrow network's interactions keep to its reach."""
    chosen = study(training_curves=120, training=TINY["training"] | {"epochs": 12})
    curves, table = exhalations.make_curves(chosen, seed=3)
    told, described, explained = [], {}, []
    for network in summaries.NETWORKS:
        model, description, history = exhalations.train_network(chosen, network, curves, seed=3)
        assert len(history) == 12
        described[network] = {"parameters": description["parameters"], "reach": description["meta"]["reach"]}
        told.append(exhalations.predict_curves(model, network, curves))
        explained.append(experiment.explain_curves(chosen, model, network, curves, seed=3)["explanations"])
    found = summaries.networks(pd.concat(told), table, described).set_index(["predictor", "split"])
    for network in summaries.NETWORKS:
        error = found.loc[(network, "test"), "mean_squared_error"]
        assert error < 0.5 * found.loc[("mean of training", "test"), "mean_squared_error"]
    assert found.loc[("wide", "test"), "paper_mse"] == 0.547
    assert found.loc[("narrow", "test"), "reach"] == pytest.approx(2 * 2 * 0.05)
    rows = pd.concat(explained).set_index(["network", "image_id"])
    assert (rows["status"] == "ok").all()
    # Two blocks of width 3 reach 4 samples, so intervals that touch are the only pairs. The estimate's
    # relative error is below a quarter, and its square is what could leak.
    assert rows["near"].eq(0.5).all()
    assert (rows.loc["narrow", "near_energy"] > 0.9).all()
    assert (rows.loc["wide", "near_energy"] < rows.loc["narrow", "near_energy"]).all()


def test_a_stored_network_predicts_the_same(tmp_path):
    chosen = study(training=TINY["training"] | {"epochs": 1})
    curves, _ = exhalations.make_curves(chosen)
    model, description, _ = exhalations.train_network(chosen, "narrow", curves)
    models.save(model, tmp_path, **description)
    again = exhalations.predict_curves(models.load(tmp_path), "narrow", curves)
    pd.testing.assert_frame_equal(again, exhalations.predict_curves(model, "narrow", curves))


def test_one_bad_curve_spoils_one_row(tmp_path):
    time = np.arange(0, 6, 0.01)
    rows = [
        pd.DataFrame({"id": name, "time_s": time, "volume_l": 3 * (1 - np.exp(-2 * time))}) for name in "ab"
    ]
    rows[1].loc[5, "volume_l"] = np.nan
    pd.concat(rows).to_csv(tmp_path / "mine.csv", index=False)
    curves, table = exhalations.make_curves(study(data_dir=tmp_path))
    failed = table[table["status"] == "failed"]
    assert failed["image_id"].tolist() == ["recorded/b"]
    assert "sample 6 has no number" in failed["error"].iloc[0]
    assert "recorded/a" in curves.examples.ids
    assert (curves.of("recorded")[0], "recorded") in curves.explained()

    class Broken(nn.Module):
        def forward(self, x):
            bad = x.flatten(1)[:, -1] < 3.01 * (x.flatten(1)[:, 40] > 2.9)
            return torch.where(bad, torch.nan, x.flatten(1).sum(1))

    found = experiment.explain_curves(study(), Broken(), "wide", curves)["explanations"].set_index("group")
    assert found.loc["recorded", "status"] == "failed"
    assert "finite" in found.loc["recorded", "error"]
    assert (found["status"] == "ok").any()
    with pytest.raises(DataError, match="no such file"):
        exhalations.make_curves(study(data_dir=tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calls": 8, "repeats": 4}, "calls = 8 is less than 4 for each of 4 repeats"),
        ({"narrow": 200, "wide": 200}, "narrow = 200 is not smaller"),
        ({"cough_share": 1.5}, "cough_share = 1.5"),
        ({"kernel": 3}, "unknown key 'studies.lungs.kernel'"),
    ],
)
def test_impossible_settings_are_one_line(changes, message):
    raw = {
        "datasets": {"d": {"source": "sklearn_digits"}},
        "models": {"m": {"dataset": "d"}},
        "experiments": {"e": {"model": "m"}},
        "studies": {"lungs": {"kind": "spirometry", **changes}},
    }
    with pytest.raises(ConfigError, match=message) as caught:
        config.load(raw)
    assert "\n" not in str(caught.value)
    assert isinstance(
        config.load(raw | {"studies": {"l": {"kind": "spirometry"}}}).studies["l"].training, Training
    )


def finding(name: str, **changes) -> str:
    return figures.get(name).finding(world.tables(**changes))


def test_findings_follow_the_numbers():
    assert finding("spirometry").startswith("A cough's plateau draws interactions to itself: ")
    assert "in 2 of 2 simulated efforts" in finding("spirometry")
    assert finding("spirometry", twin_hits=2).startswith("There is no sign that a cough's plateau")
    assert finding("spirometry", hits=0).startswith("There is no sign that a cough's plateau")
    assert finding("spirometry_interactions").startswith("Narrow kernels keep interactions local: ")
    assert finding("spirometry_interactions", wide_reach=1.0).startswith("Narrow kernels do not keep")
    assert finding("spirometry_predictions").startswith("A network sees through coughs: on 5 simulated")
    tables = world.tables()
    worse = tables["spirometry_networks"].assign(mean_absolute_error=1.0)
    told = figures.get("spirometry_predictions").finding(tables | {"spirometry_networks": worse})
    assert told.startswith("The network does no better")


def test_figures_of_studies_that_failed_or_are_small():
    tables = world.tables()
    failed = {
        name: table.assign(status="failed") if name == "spirometry_explanations" else table.head(0)
        for name, table in tables.items()
    }
    lone = tables["spirometry_explanations"]
    one = tables | {"spirometry_explanations": lone[lone["network"] == "wide"].head(1)}
    for each in (failed, one):
        for name in ("spirometry", "spirometry_interactions", "spirometry_predictions"):
            spec = figures.get(name)
            for layout in (figures.WIDE, figures.NARROW):
                spec.draw(each, layout).draw_without_rendering()
            assert spec.caption(each)
            assert spec.alt(each)
            assert "nan" not in spec.caption(each) + spec.alt(each) + spec.finding(each)


@pytest.mark.skipif(not WAVEFORMS.is_dir(), reason="the recorded test waveforms are not on this machine")
def test_recorded_waveforms_through_the_chain():
    """A small network that knows simulated curves alone is nearer to the recorded ones than their mean."""
    chosen = study(
        data_dir=WAVEFORMS, training_curves=400, channels=4,
        training=TINY["training"] | {"epochs": 8, "batch_size": 16},
    )  # fmt: skip
    curves, table = exhalations.make_curves(chosen, seed=0)
    model, _, _ = exhalations.train_network(chosen, "narrow", curves, seed=0)
    rows = exhalations.predict_curves(model, "narrow", curves)
    rows = rows[rows["split"] == "recorded"]
    assert len(rows) == 26
    error = (rows["prediction"] - rows["fev1"]).abs()
    guess = (rows["fev1"] - table.loc[table["split"] == "train", "fev1"].mean()).abs()
    assert error.mean() < 0.5 * guess.mean()
    assert error.mean() < 0.6  # L; the networks of the default configuration are within about 0.25
