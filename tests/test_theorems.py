"""The theorems of Singla et al. 2019 as experiments, against closed forms and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import theorems_world
import torch
import yaml
from workflow_runs import TEST_CONFIG, output, snakemake

from curvelens import figures, known, tables
from curvelens.context_aware import caso
from curvelens.context_aware.operators import operator
from curvelens.context_aware.solvers import Problem
from curvelens.experiments import theorems
from curvelens.experiments.convergence import convergence, exact
from curvelens.experiments.rank_one import probabilities, rank_one
from curvelens.experiments.relaxation import path_supports, relaxation
from curvelens.reporting import theorems as report_tables
from curvelens.seeds import derive, generator
from curvelens.studies import Theorems
from curvelens.summaries import theorems as summaries

EPS = np.finfo(float).eps


def facts(**changed):
    settings = {"classes": [2, 6], "networks": 2, "features": 12, "multiples": [0.9, 2.0], "steps": 60}
    return theorems.facts(**(settings | changed), seed=3)


def logits_of(model: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    for layer in model:
        if isinstance(layer, torch.nn.Linear):
            x = layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()
        else:
            x = np.maximum(x, 0)
    return x


def test_two_classes_have_one_eigenvalue_known_in_closed_form():
    """H = p₀p₁ (w₀ − w₁)(w₀ − w₁)ᵀ, the w by central differences: exact within a linear piece."""
    table = facts()[0].query("classes == 2")
    for network, row in table.set_index("network").iterrows():
        model, x = theorems.random_classifier(12, 2, 3, network)
        z = logits_of(model, x.numpy())
        steps = 1e-6 * np.eye(12)
        W = [(logits_of(model, x.numpy() + e) - logits_of(model, x.numpy() - e)) / 2e-6 for e in steps]
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        # Central differences cancel about 1e-16/1e-6 of the logits.
        expected = p[0] * p[1] * ((np.array(W)[:, 0] - np.array(W)[:, 1]) ** 2).sum()
        assert row["largest_eigenvalue"] == pytest.approx(expected, rel=1e-8)
        assert row["confidence"] == pytest.approx(p.max(), rel=1e-12)


def test_hessians_are_semidefinite_and_of_rank_one_less_than_classes():
    table = facts(classes=[2, 6, 12], features=24)[0]
    assert (table["smallest_eigenvalue"] >= -table["rounding"]).all()
    assert (table["rank"] == table["classes"] - 1).all()
    assert (table["kernel"] < 24 * EPS).all()
    assert (table["difference"] < 24 * 24 * EPS).all()


def test_fewer_features_than_classes_bound_the_rank_too():
    table = facts(classes=[9], features=4)[0]
    assert (table["bound"] == 4).all()
    assert (table["rank"] <= 4).all()


def test_steps_meet_the_maximum_above_the_border_and_grow_without_end_below():
    table = facts()[1]
    above = table[table["multiple"] == 2.0]
    # Steps of 1/(2λ₂) contract the error by L/(2λ₂) = 1/2 each.
    np.testing.assert_allclose(above["value"], above["optimum"], rtol=1e-9)
    np.testing.assert_allclose(above["measured_modulus"], above["modulus"], rtol=1e-10)
    below = table[table["multiple"] == 0.9]
    assert below["optimum"].isna().all()
    assert (below["measured_modulus"] < 0).all()
    # Along the leading eigenvector each step multiplies Δ by 1/0.9, the objective by its square.
    growth = below["value_doubled"] / below["value"]
    np.testing.assert_allclose(growth, 0.9 ** (-2 * 60), rtol=0.05)


def ranks(**changed):
    settings = {"classes": [3, 8], "doubts": [0.5, 1e-3], "features": 12, "length": 5.0, "c1": 10.0}
    return rank_one(**(settings | changed), seed=4).set_index(["family", "classes", "doubt"])


def test_orthonormal_models_follow_their_closed_form_and_its_plateau():
    table = ranks(classes=[10, 100], doubts=[0.5, 1e-2, 1e-6], features=100).loc["orthonormal"]
    # 1 − p loses digits: relative errors of 1e-16/1e-6.
    np.testing.assert_allclose(table["paper_error"], table["exact_paper_error"], rtol=1e-9)
    np.testing.assert_allclose(table["best_error"], table["exact_best_error"], rtol=1e-9)
    assert table.loc[(100, 1e-6), "best_error"] == pytest.approx(0.0985, abs=5e-5)
    assert table.loc[(10, 1e-6), "best_error"] == pytest.approx(math.sqrt(8 / (9 * 12)), rel=1e-5)
    assert table.loc[(100, 0.5), "paper_error"] == pytest.approx(1.0, rel=1e-9)
    assert table["angle"].max() < 1e-6
    assert table["distance"].max() < 1e-12
    np.testing.assert_allclose(
        table["largest_eigenvalue"],
        [25 * (1 - q) * c * q / (c - 1) for c, q in table.index],
        rtol=1e-9,
    )


@pytest.mark.parametrize("family", ["gaussian", "zipf"])
def test_other_models_against_whole_matrices_in_feature_space(family):
    table = ranks().loc[family]
    for (c, doubt), row in table.iterrows():
        if family == "zipf":
            W, others = 5.0 * np.eye(12)[:, :c], 1 / np.arange(1, c)
        else:
            source = generator(4, "linear model", c, "theorems")
            W = torch.randn(12, c, generator=source, dtype=torch.float64).numpy() * 5.0 / math.sqrt(12)
            others = np.ones(c - 1)
        p = np.array([1 - doubt, *(doubt * others / others.sum())])
        H, g = W @ (np.diag(p) - np.outer(p, p)) @ W.T, W @ (p - np.eye(c)[0])
        values, vectors = np.linalg.eigh(H)
        singular = np.linalg.svd(H, compute_uv=False)
        paper = np.linalg.norm(H - np.outer(g, g) / doubt) / np.linalg.norm(H)
        second = np.linalg.solve((values[-1] + 20) * np.eye(12) - H, g)
        units = [v / np.linalg.norm(v) for v in (second, g)]
        cosine = abs(g @ vectors[:, -1]) / np.linalg.norm(g)
        assert row["largest_eigenvalue"] == pytest.approx(values[-1], rel=1e-9)
        assert row["best_error"] == pytest.approx(np.linalg.norm(singular[1:]) / np.linalg.norm(singular))
        assert row["paper_error"] == pytest.approx(paper, rel=1e-9)
        assert row["angle"] == pytest.approx(math.degrees(math.acos(min(cosine, 1))), abs=1e-5)
        assert row["distance"] == pytest.approx(np.linalg.norm(units[0] - units[1]), rel=1e-6, abs=1e-12)
        assert row["distance"] <= row["kantorovich_bound"]


def test_probabilities_sum_to_one_and_slopes_to_zero():
    for family in summaries.FAMILIES:
        p, slope = probabilities(family, 7, 1e-3)
        assert float(p.sum()) == pytest.approx(1, rel=1e-15)
        assert abs(float(slope.sum())) < 1e-17
        assert float(p[0]) == p.max()


def problem(largest: float, seed: int, d: int = 7) -> tuple[np.ndarray, np.ndarray, float, torch.Tensor]:
    g, H = known.random_softmax(d, 5, largest, seed)
    l2 = largest / 2 + 1
    return g.numpy(), 2 * l2 * np.eye(d) - H.dense(g).numpy(), l2, H


def test_the_path_has_the_supports_of_solutions_at_single_penalties():
    for seed in range(4):
        g, A, l2, H = problem(50.0, seed)
        met = path_supports(torch.from_numpy(g), torch.from_numpy(A))
        top = np.abs(g).max()
        seen = set()
        for share in np.linspace(0.02, 0.98, 25):
            delta = caso(g, H, share * top, l2, tolerance=1e-10).delta
            seen.add(tuple(np.flatnonzero(delta.numpy())))
        assert seen <= met
        assert {len(support) for support in met} >= {1, 7}


def test_supports_against_brute_force():
    table = relaxation(features=7, classes=5, curvatures=[50.0], sizes=[1, 3], instances=6, seed=5)
    for row in table.itertuples():
        g, A, _, _ = problem(50.0, derive(5, "50", row.instance, "relaxation"))
        gains = {
            S: g[list(S)] @ np.linalg.solve(A[np.ix_(S, S)], g[list(S)]) / 2
            for S in itertools.combinations(range(7), row.size)
        }
        best = max(gains, key=gains.get)
        met = path_supports(torch.from_numpy(g), torch.from_numpy(A))
        steepest = tuple(sorted(np.argsort(-np.abs(g))[: row.size]))
        assert row.supports == len(gains) == math.comb(7, row.size)
        assert row.optimum == pytest.approx(gains[best], rel=1e-10)
        assert row.same == (best in met)
        assert row.gradient_loss == pytest.approx(1 - gains[steepest] / gains[best], abs=1e-10)
        assert (row.loss < 1e-12) == row.same
        values = np.linalg.eigvalsh(A)
        assert row.condition == pytest.approx(values[-1] / values[0], rel=1e-9)


def test_without_curvature_every_support_is_that_of_the_gradient():
    table = relaxation(features=6, classes=3, curvatures=[1e-9], sizes=[1, 2, 5], instances=5, seed=1)
    assert table["same"].all()
    assert table["gradient_same"].all()
    assert table["off_diagonal"].max() < 1e-8


def test_random_softmax_problems_have_the_eigenvalue_asked_for_and_rank_one_for_two_classes():
    g, H = known.random_softmax(9, 2, 30.0, seed=2)
    values = torch.linalg.eigvalsh(H.dense(g))
    assert float(values[-1]) == pytest.approx(30, rel=1e-12)
    assert float(values[:-1].abs().max()) < 30 * 9 * EPS
    # With two classes H is a multiple of ggᵀ.
    assert torch.allclose(H.apply(g[:, None])[:, 0], 30 * g, rtol=1e-10)
    assert int((torch.linalg.eigvalsh(known.random_softmax(9, 5, 1.0, 0)[1].dense(g)) > 1e-12).sum()) == 4


@pytest.fixture(scope="module")
def followed():
    return convergence(
        features=20, classes=4, curvatures=[1.0, 1000.0], l1=[0.0, 0.2], iterations=[1, 10, 300],
        instances=2, c1=10.0, seed=6,
    )  # fmt: skip


def test_exact_solutions_are_optimal():
    for share in (0.0, 0.3):
        g, H = known.random_softmax(20, 4, 200.0, seed=8)
        l1 = share * float(g.abs().max())
        delta = exact(Problem(g, operator(H, g), l1, 110.0)).numpy()
        slope = g.numpy() - (220 * np.eye(20) - H.dense(g).numpy()) @ delta
        inside = delta != 0
        # Products of norm 220·‖Δ‖ round to about 1e-16 of it.
        assert np.abs(slope[inside] - l1 * np.sign(delta[inside])).max() < 1e-12 * np.abs(g.numpy()).max()
        assert (np.abs(slope[~inside]) <= l1).all()
        assert inside.all() == (share == 0)


def test_errors_are_those_of_the_library_at_each_number_of_steps(followed):
    g, H = known.random_softmax(20, 4, 1000.0, derive(6, "1000", 1))
    truth = torch.linalg.solve(1020 * torch.eye(20).double() - H.dense(g), g)
    rows = followed.query("curvature == 1000 and l1 == 0 and instance == 1 and method == 'paper'")
    for row in rows.itertuples():
        made = caso(g, H, 0.0, 510.0, method="paper", max_iterations=row.iterations)
        # The condition number of 51 magnifies rounding.
        assert row.error == pytest.approx(float((made.delta - truth).norm() / truth.norm()), abs=1e-12)
    assert rows.set_index("iterations").loc[10, "error"] > 0.05


def test_solvers_converge_and_obey_the_bound_with_the_step_that_they_take(followed):
    last = followed[followed["iterations"] == 300]
    assert last.query("method == 'accelerated'")["error"].max() < 1e-9
    assert last.query("method == 'conjugate gradients'")["error"].max() < 1e-9
    assert followed.query("method == 'closed form'")["error"].max() == 0
    assert (followed["exact_residual"] <= 1e-12).all()
    paper = followed[followed["method"] == "paper"]
    assert (paper["gap"] <= paper["step_bound"] + 1e-12).all()
    assert (paper["gap"] > paper["printed_bound"]).any()


def test_rows_do_not_depend_on_what_else_is_computed():
    alone, among = ranks(classes=[8], doubts=[0.5]), ranks()
    assert alone.equals(among.loc[alone.index])


def test_settings_of_a_study_are_closed():
    assert Theorems(kind="theorems").rank_one.classes[-1] == 1000
    with pytest.raises(ValueError, match="fewer than"):
        Theorems(kind="theorems", rank_one={"classes": [10], "features": 9})
    with pytest.raises(ValueError, match="below 6 features"):
        Theorems(kind="theorems", relaxation={"features": 6, "sizes": [6]})


def told(name: str, **replaced):
    spec, made = figures.get(name), {**theorems_world.tables(), **replaced}
    return spec.finding(made), spec.caption(made)


def test_the_finding_on_rank_one_follows_the_numbers():
    finding, caption = told("rank_one")
    assert finding.startswith("Certainty alone does not make the Hessian one of rank one: the error")
    assert "limit for orthogonal gradients: 0.0985" in finding
    assert "exactly 0 for orthogonal gradients, equal others" in caption
    table = theorems_world.tables()["rank_one"]
    falling = table.assign(paper_error=table["doubt"])
    assert told("rank_one", rank_one=falling)[0].startswith("Certainty alone makes")


def test_the_finding_on_the_relaxation_follows_the_numbers():
    table = theorems_world.tables()["relaxation"]
    tight = table.assign(same=True)
    assert told("relaxation", relaxation=tight)[0].endswith(f"the best support in all {len(table)} cases.")
    loose = table.assign(same=[False] + [True] * (len(table) - 1), loss=[0.5] + [0.0] * (len(table) - 1))
    finding = told("relaxation", relaxation=loose)[0]
    assert f"in {100 * (1 - 1 / len(table)):.0f}% of {len(table)} cases" in finding
    assert "50.0% of the objective is lost on average, 50% at most" in finding


def test_the_finding_on_convergence_follows_the_numbers():
    table = theorems_world.tables()["convergence"]
    ten = table.query("method == 'paper' and iterations == 10 and l1 == 0 and curvature == 1000")
    finding, caption = told("convergence")
    assert f"{100 * ten['error'].median():.0f}% at L = 1000 (λ₁ = 0)" in finding
    assert "stop short" in finding
    assert "is broken in" in caption
    assert "it holds in 100%" in caption
    good = table.assign(error=1e-9, gap=0.0)
    finding, caption = told("convergence", convergence=good)
    assert "suffice" in finding
    assert "as printed holds in every measurement" in caption


def test_tables_of_the_report_tell_what_was_measured():
    made = theorems_world.tables()
    text = str(report_tables.facts(made["hessian_facts"]))
    assert "none has a negative eigenvalue beyond rounding (Theorem 2), none has a rank above" in text
    worse = made["hessian_facts"].assign(smallest_eigenvalue=-1.0)
    assert "2 have a negative eigenvalue" in str(report_tables.facts(worse))
    assert "kept growing in 2 of 2 cases" in str(report_tables.concavity(made["concavity"]))
    assert "closed form" in str(report_tables.steps(made["convergence"]))


SMALL = {
    "kind": "theorems",
    "facts": {"classes": [3], "networks": 1, "features": 8, "steps": 10},
    "rank_one": {"classes": [3, 10], "doubts": [0.5, 0.01], "features": 10},
    "relaxation": {"features": 5, "sizes": [1, 2], "instances": 2, "curvatures": [10]},
    "convergence": {"features": 8, "classes": 3, "curvatures": [10], "iterations": [1, 10], "instances": 1},
}


@pytest.mark.slow
@pytest.mark.workflow
def test_a_study_of_the_workflow_makes_its_tables_and_its_figures(tmp_path):
    raw = yaml.safe_load(TEST_CONFIG.read_text())
    raw["studies"] = {"proved": SMALL}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(raw))
    names = ("rank_one", "relaxation", "convergence")
    made = [f"results/figures/proved/{name}.svg" for name in names]
    done = snakemake(tmp_path, *made, config=config)
    assert done.returncode == 0, output(done)
    folder = tmp_path / "results/tables/proved"
    for name in Theorems.tables:
        assert len(tables.read(folder / f"{name}.parquet", tables.SCHEMAS[name]))
