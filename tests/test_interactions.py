"""Interactions of networks against closed forms and quadrature, their summary, and what is drawn and said."""

import copy
import math

import interactions_world as world
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

from curvelens import figures, models, synthetic, tables, training
from curvelens.errors import ArgumentError
from curvelens.experiments.interactions import Settings, interactions, surfaces
from curvelens.figures import interactions as figure
from curvelens.figures import style
from curvelens.reporting import studies
from curvelens.schedules import Training
from curvelens.summaries.interactions import (
    INTERACTIONS,
    INTERACTIONS_SUMMARY,
    INTERACTIONS_SURFACE,
    summarise,
)

NESTED = synthetic.nested()
SMALL = Settings(sigma_squared=(0.01, 1.0), betas=(0.5, 50.0), levels=3, calls=16384)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ridges(seed=0, units=12):
    """f = Σ a relu(wᵀx + b), whose smoothed and SoftPlus Hessians are known."""
    rng = np.random.default_rng(seed)
    w, b, a = rng.normal(size=(units, 2)), rng.normal(size=units) * 0.5, rng.normal(size=units)
    model = nn.Sequential(nn.Linear(2, units), nn.ReLU(), nn.Linear(units, 1))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (w, b, a[None], [0.25]), strict=True):
            parameter.copy_(torch.as_tensor(value))
    w, b, a = (parameter.detach().double().numpy() for parameter in list(model.parameters())[:3])
    return model, w, b, a[0]


def element(table, smoother, name):
    return table[table["smoother"] == smoother][name].to_numpy(float)


def test_smoothhess_and_softplus_agree_with_the_closed_forms_of_a_hidden_layer():
    model, w, b, a = ridges()
    found = interactions(model, NESTED, SMALL)
    norm = np.linalg.norm(w, axis=1)
    outer = w[:, :, None] * w[:, None, :]
    for level, row in zip(np.geomspace(0.01, 1, 3), range(3), strict=True):
        # E relu(t + s) for s ~ N(0, σ²‖w‖²) has the density of s at −t as its second derivative.
        s = math.sqrt(level) * norm
        density = np.exp(-0.5 * (b / s) ** 2) / (s * math.sqrt(2 * math.pi))
        exact = np.einsum("k,kij->ij", a * density, outer)
        for i, j, name in ((0, 0, "11"), (0, 1, "12"), (1, 1, "22")):
            bar = element(found, "SmoothHess", f"stderr{name}")[row]
            # Eight estimates: a t distribution of 7 degrees of freedom, beyond 6 once in 2,000; and the bar
            # is small enough to mean something.
            assert abs(element(found, "SmoothHess", f"h{name}")[row] - exact[i, j]) < 6 * bar
            assert bar < 0.02 * np.abs(exact).max()
    for beta, row in zip(np.geomspace(0.5, 50, 3), range(3), strict=True):
        share = 1 / (1 + np.exp(-beta * b))
        exact = np.einsum("k,kij->ij", a * beta * share * (1 - share), outer)
        for i, j, name in ((0, 0, "11"), (0, 1, "12"), (1, 1, "22")):
            # float64 arithmetic; SoftPlus is linear beyond a threshold, worth 2e-9.
            assert element(found, "SoftPlus", f"h{name}")[row] == pytest.approx(exact[i, j], abs=1e-7)
    assert (element(found, "SoftPlus", "stderr12") == 0).all()
    tables.frame(found.to_dict("records"), INTERACTIONS)


def test_smoothhess_of_a_deep_network_agrees_with_quadrature():
    # E f(σz)(zzᵀ − I)/σ² over the square |z| < 6.6 with steps of 0.03: values only, no gradients. Kinks cost
    # (0.03)²/12 of the change of slope, 1e-4 of the Hessian.
    model = models.build("regression_mlp", {"hidden": [16, 16, 16]}, 1, (2,), seed=3, name="deep")
    found = interactions(model, NESTED, SMALL)
    axis = np.arange(-220, 221) * 0.03
    z = torch.as_tensor(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2))
    weight = (torch.exp(-0.5 * (z**2).sum(1)) / (2 * math.pi) * 9e-4).numpy()
    z = z.numpy()
    doubled = copy.deepcopy(model).double()
    for row, level in enumerate(np.geomspace(0.01, 1, 3)):
        with torch.no_grad():
            values = doubled(torch.as_tensor(math.sqrt(level) * z))[:, 0].numpy()
        for i, j, name in ((0, 0, "11"), (0, 1, "12"), (1, 1, "22")):
            exact = float(np.sum(weight * values * (z[:, i] * z[:, j] - (i == j)))) / level
            bar = element(found, "SmoothHess", f"stderr{name}")[row]
            assert abs(element(found, "SmoothHess", f"h{name}")[row] - exact) < 6 * bar + 1e-3 * abs(exact)


def test_the_exact_columns_are_those_of_the_target():
    found = interactions(ridges()[0], NESTED, Settings(sigma_squared=(0.01, 1.0), levels=3, calls=64))
    smooth = found[found["smoother"] == "SmoothHess"]
    for _, row in smooth.iterrows():
        exact = NESTED.plane.smoothed_hessian(row["level"] ** 0.5)
        inside = NESTED.inside.smoothed_hessian(row["level"] ** 0.5)
        assert row[["exact11", "exact12", "exact22"]].tolist() == pytest.approx(exact[np.triu_indices(2)])
        assert row[["inside11", "inside12", "inside22"]].tolist() == pytest.approx(inside[np.triu_indices(2)])
        off = np.abs(row[["h11", "h12", "h22"]].to_numpy(float) - exact[np.triu_indices(2)]).max()
        assert row["deviation"] == pytest.approx(off / np.abs(exact).max())
    assert (smooth["matched"] == smooth["level"]).all()
    # No other σ² of the range suits a SoftPlus Hessian better, up to the spacing of the search.
    for _, row in found[found["smoother"] == "SoftPlus"].iterrows():
        h = row[["h11", "h12", "h22"]].to_numpy(float)
        for variance in np.geomspace(0.01, 1, 37):
            exact = NESTED.plane.smoothed_hessian(variance**0.5)[np.triu_indices(2)]
            assert row["deviation"] <= np.abs(h - exact).max() / np.abs(exact).max() * 1.03 + 1e-9


def test_measuring_is_reproducible_and_leaves_the_network_alone():
    model = ridges()[0].train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    few = Settings(levels=2, calls=64)
    first, second, other = (interactions(model, NESTED, few, name) for name in ("a", "a", "b"))
    assert first.drop(columns="seconds").equals(second.drop(columns="seconds"))
    assert first["h12"].tolist() != other["h12"].tolist()
    assert model.training
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ArgumentError, match="8 calls cannot be shared among 8 repeats"):
        interactions(model, NESTED, Settings(calls=8))


def test_a_trained_network_shows_the_interactions_of_its_target():
    # A coarse grid, a small network and a short schedule: within 20 % of each other where the smoothing is
    # wide against the grid and narrow against the data; SoftPlus and errors of the estimate aside.
    target = synthetic.four_quadrants()
    examples = synthetic.grid(target, "f", spacing=0.08)
    model = models.build("regression_mlp", {"hidden": [32, 32]}, 1, (2,), seed=0, name="f")
    schedule = Training(optimizer="rmsprop", updates=600, learning_rate=5e-3, decay_at=[350, 500])
    training.train_regression(model, examples, examples, schedule, seed=0, name="f")
    found = interactions(model, target, Settings(sigma_squared=(0.2, 0.4), levels=2, calls=4096))
    smooth = found[found["smoother"] == "SmoothHess"]
    assert (smooth["deviation"] < 0.2).all()
    np.testing.assert_allclose(smooth["h12"], 2.5, atol=0.5)


def test_surfaces_are_the_network_and_its_average():
    model, w, b, a = ridges(1)
    found = surfaces(model, NESTED, [0.0, 0.25], points=5)
    tables.frame(found.to_dict("records"), INTERACTIONS_SURFACE)
    for variance, part in found.groupby("sigma_squared"):
        x = part[["x1", "x2"]].to_numpy()
        t = x @ w.T + b
        if variance == 0:
            expected = np.maximum(t, 0)
        else:  # E relu(t + s) = t Φ(t/s) + s φ(t/s)
            s = math.sqrt(variance) * np.linalg.norm(w, axis=1)
            normal = np.exp(-0.5 * (t / s) ** 2) / math.sqrt(2 * math.pi)
            expected = t * 0.5 * (1 + np.vectorize(math.erf)(t / s / math.sqrt(2))) + s * normal
        # float32 values; steps of σ/8: (σ/8)²/12 of each unit's kink, 12 units of order 1.
        np.testing.assert_allclose(part["value"], expected @ a + 0.25, atol=1e-5 if variance == 0 else 5e-3)
        np.testing.assert_allclose(part["target"], NESTED.plane(x), atol=1e-12)


def test_the_summary_counts_what_is_near_and_finds_the_longest_run():
    table = world.measured(levels=5)
    smooth = table["smoother"] == "SmoothHess"
    table.loc[smooth, "h12"] = table.loc[smooth, "exact12"] + [0.0, 5.0, 0.01, 0.02, 9.0]
    for name in ("h11", "h22"):
        table.loc[smooth, name] = table.loc[smooth, name.replace("h", "exact")]
    scale = table.loc[smooth, ["exact11", "exact12", "exact22"]].abs().max(axis=1)
    table.loc[smooth, "deviation"] = np.array([0.0, 5.0, 0.01, 0.02, 9.0]) / scale
    found = summarise(table, 0.1).set_index(["smoother", "element"])
    tables.frame(summarise(table, 0.1).to_dict("records"), INTERACTIONS_SUMMARY)
    levels = table.loc[smooth, "level"].tolist()
    for name in ("12", "all"):
        row = found.loc[("SmoothHess", name)]
        assert (row["levels"], row["near"]) == (5, 3)
        assert (row["near_low"], row["near_high"]) == (levels[2], levels[3])
        assert (row["smallest"], row["smallest_level"]) == (0, levels[0])
    assert found.loc[("SmoothHess", "11"), "near"] == 5
    soft = found.loc[("SoftPlus", "all")]
    assert soft["near"] == 0
    assert math.isnan(soft["near_low"])


@pytest.mark.parametrize("name", sorted(synthetic.TARGETS))
@pytest.mark.parametrize("near", [True, False])
def test_the_words_follow_the_numbers(name, near):
    made = world.tables(name, near, levels=7)
    told = figure.finding(made)
    times = 6 if near else 0
    assert told.startswith(f"On {figure.NAMES[name]} SmoothHess is within 10% of the exact Hessian at ")
    assert (f"at {times} of 7 values of σ²" if near else "at none of 7 values of σ²") in told
    assert "SoftPlus at none of 7 values of β" in told
    caption = figure.caption(made)
    assert "0.50 after 7 updates" in caption
    if name == "four_quadrants":
        assert "x₁x₁ = 3.82 at every σ²; x₁x₂ = 2.50 at every σ²; x₂x₂ = 3.82 at every σ²" in caption
    else:
        # Of the seven levels 0.046 and 0.22 are next to the lowest value, −e⁻² at σ² = 0.09.
        assert f"by way of −{-made['interactions']['exact22'].min():.3g} at σ²" in caption


def test_the_finding_says_which_smoothing_softplus_stands_for():
    made = world.tables(levels=5)
    assert "stands for" not in figure.finding(made)
    table = made["interactions"]
    soft = table.index[table["smoother"] == "SoftPlus"]
    table.loc[soft[:2], "deviation"] = 0.05
    table.loc[soft[1], "matched"] = 0.2
    again = {**made, "interactions": table, "interactions_summary": summarise(table, 0.1)}
    assert "SoftPlus at 2 of 5 values of β" in figure.finding(again)
    assert "where it stands for σ² of 0.20 to 0.30: SmoothHess" in figure.finding(again)


def test_the_caption_tells_the_network_from_the_estimate():
    made = world.tables(near=False, levels=5)
    assert "At 5 of the 5 values of σ² that are not near" in figure.caption(made)
    # The exact elements are at most 5, so a standard error of 2 hides all deviations of that size.
    noisy = made["interactions"].assign(stderr12=2.0)
    assert "At 0 of the 5 values of σ² that are not near" in figure.caption({**made, "interactions": noisy})
    few = world.measured(levels=5).assign(deviation=0.0)
    assert "not near" not in figure.caption({**world.tables(), "interactions": few})


@pytest.mark.parametrize("layout", [style.WIDE, style.NARROW], ids=lambda layout: layout.name)
def test_the_surfaces_stay_on_the_page_with_their_labels(layout):
    drawn = figures.get("smoothed_surface").draw(world.tables(), layout)
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    box, size = drawn.get_tightbbox(canvas.get_renderer()), drawn.get_size_inches()
    assert min(box.x0, box.y0, size[0] - box.x1, size[1] - box.y1) >= 0


def test_the_surface_says_how_sharp_its_creases_are():
    told = figures.get("smoothed_surface").caption(world.tables())
    # The made-up surface x₁x₂(1 − σ²) has no second difference along a feature.
    assert "Nested Interactions surface" in told
    assert "n = 25 points a surface" in told


def test_the_report_shows_every_level_and_the_papers_error():
    made = world.tables(levels=4)
    fit, near, *levels = studies.interactions(
        made["interactions"], made["interactions_summary"], made["interactions_network"]
    )
    assert "200,000" in str(fit)
    assert "≈ 0.1" in str(fit)
    assert str(near).count("<tr>") == 1 + 8
    assert [str(part).count("<tr>") for part in levels] == [1 + 4, 1 + 4]
    assert "at 3 of 4 values of σ²" in str(near)
