"""The stage of sparsity along λ₁: its table, its arrays and its summary, against independent solutions."""

import cvxpy
import numpy as np
import pytest
import torch

import curvelens as cl
from curvelens import config, models
from curvelens.context_aware import block_labels, choose_l2
from curvelens.errors import ArgumentError, ConfigError
from curvelens.experiments.sparsity import isolated, sparsity_paths
from curvelens.sections.sparsity import Sparsity
from curvelens.softmax_curvature import softmax_hessian
from curvelens.store import ImageSet
from curvelens.summaries.sparsity import CAFO, CASO, CLIPPED, METHODS, summarise

SIZE = 8
KINDS = ("values", "channels", "patches", "superpixels")


def images(count=3):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 200, (count, 3, 2, 2))
    pixels = np.kron(blocks, np.ones((4, 4), int)) + rng.integers(0, 30, (count, 3, SIZE, SIZE))
    return ImageSet(pixels.astype(np.uint8), np.array([0, 1, -1][:count]), [f"own/{i}" for i in range(count)])


def network(dtype=torch.float64, classes=6):
    model = models.build("mlp", {"hidden": [40, 30]}, classes, (3, SIZE, SIZE), seed=3)
    with torch.no_grad():
        list(model.modules())[-1].weight.mul_(6)  # so that L is of the order of c₁
    return model.to(dtype)


def settings(**changes):
    return Sparsity(**({"patch": 4, "segments": (4, 9)} | changes))


@pytest.fixture(scope="module")
def computed():
    return sparsity_paths(network(), images(), settings(), dtype=torch.float64)


def of(table, image, block, method):
    rows = table[(table["image_id"] == image) & (table["block"] == block) & (table["method"] == method)]
    return rows.sort_values("lambda1")


def problem(index):
    """g, H, λ₂ of an image, H by the full Jacobian."""
    x = images().tensor(index).double()
    found = softmax_hessian(network(), x)
    H = (found.factor @ found.factor.T).numpy()
    return found.gradient.reshape(-1).numpy(), (H + H.T) / 2, choose_l2(found.largest_eigenvalue)


def test_every_lambda_has_every_method_and_one_is_chosen(computed):
    table, arrays = computed
    assert (table["status"] == "ok").all()
    for (image, block), rows in table.groupby(["image_id", "block"]):
        paths = [of(table, image, block, method)["lambda1"].tolist() for method in METHODS]
        assert paths[0] == paths[1] == paths[2]
        assert rows.groupby("method")["chosen"].sum().tolist() == [1, 1, 1]
        assert 0.0 in paths[0]
    assert arrays["path"].shape[:2] == (3, 3)
    assert arrays["chosen"].shape == (3, 4, 3, SIZE, SIZE)
    for place, image in enumerate(images().ids):
        for number, kind in enumerate(KINDS):
            for method, name in enumerate(METHODS):
                row = of(table, image, kind, name).query("chosen").iloc[0]
                assert (arrays["chosen"][place, number, method] == 0).mean() == pytest.approx(row["sparsity"])
        etas = [(one == 0).mean() for one in arrays["path"][place, 1] if np.isfinite(one).all()]
        assert etas == pytest.approx(of(table, image, "values", CASO)["sparsity"].tolist())


def test_solutions_are_exact(computed):
    table, _ = computed
    assert table["kkt_residual"].astype(float).max() <= 1e-6
    single, _ = sparsity_paths(network(torch.float32), images(), settings())
    assert (single["status"] == "ok").all()
    assert single["kkt_residual"].astype(float).max() <= 1e-4
    by_products, _ = sparsity_paths(network(), images(), settings(curvature="products"), dtype=torch.float64)
    assert by_products["kkt_residual"].astype(float).max() <= 1e-6
    for column in ("sparsity", "loss", "objective"):
        np.testing.assert_allclose(
            by_products[column].astype(float), table[column].astype(float), rtol=1e-4, atol=1e-5
        )
    assert (by_products["products"] > 0).any()


def test_what_single_precision_cannot_solve_is_solved_in_double(computed, monkeypatch):
    monkeypatch.setattr("curvelens.experiments.sparsity.EXACT", 1e-12)
    model = network(torch.float32)
    found, _ = sparsity_paths(model, images(), settings())
    assert (found["precision"] == "float64").all()
    assert next(model.parameters()).dtype == torch.float32
    for column in ("lambda1", "sparsity", "objective", "kkt_residual"):
        expected = computed[0][column].astype(float)
        np.testing.assert_allclose(found[column].astype(float), expected, rtol=1e-9, atol=1e-12)
    assert (found.groupby("image_id")["calls"].sum() == 12).all()  # both attempts


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_is_that_of_a_convex_solver(computed, kind):
    table, _ = computed
    g, H, l2 = problem(1)
    labels = block_labels(kind, images().images[1], patch=4, segments=(4, 9))
    A = 2 * l2 * np.eye(len(g)) - H
    rows = of(table, "own/1", kind, CASO)
    row = rows[rows["chosen"]].iloc[0]
    v = cvxpy.Variable(len(g))
    if labels is None:
        weight = cvxpy.norm1(v)
    else:
        flat = np.broadcast_to(labels, (3, SIZE, SIZE)).reshape(-1)
        weight = sum(
            np.sqrt((flat == k).sum()) * cvxpy.norm(v[np.flatnonzero(flat == k)]) for k in np.unique(flat)
        )
    goal = cvxpy.quad_form(v, cvxpy.psd_wrap(A)) / 2 - g @ v + row["lambda1"] * weight
    solved = cvxpy.Problem(cvxpy.Minimize(goal))
    solved.solve(solver="CLARABEL")
    # Clarabel stops at a gap of 1e-8.
    assert row["objective"] == pytest.approx(-solved.value, rel=1e-5, abs=1e-8)
    assert row["lambda2"] == pytest.approx(l2)
    moved = images().tensor(1).double() + torch.from_numpy(v.value).reshape(3, SIZE, SIZE)
    loss = float(cl.targets.loss(network(), int(row["prediction"]))(moved[None]).detach()[0])
    assert row["loss"] == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("method", [CAFO, CASO])
def test_the_walk_and_the_choice_are_those_of_the_paper(computed, method):
    table, _ = computed
    for (_, _), rows in table[table["method"] == method].groupby(["image_id", "block"]):
        walk = rows[rows["step"].notna()].sort_values("step")
        etas, l1s = walk["block_sparsity"].to_numpy(float), walk["lambda1"].to_numpy(float)
        zero = int(np.argmax(etas == 1))  # the first power of ten that leaves nothing
        np.testing.assert_allclose(l1s[: zero + 1], 1e-5 * 10.0 ** np.arange(zero + 1))
        assert (etas[:zero] < 1).all()
        inside = (etas >= 0.75) & (etas < 1)
        chosen = walk[walk["chosen"].astype(bool)].iloc[0]
        assert inside.any() == chosen["satisfied"]
        if inside[:zero].any():
            assert len(walk) == zero + 1
        else:
            assert l1s[zero + 1] == pytest.approx(l1s[zero] / 2)
            assert not inside[:-1].any()
        if inside.any():
            assert chosen["loss"] == walk["loss"].to_numpy(float)[inside].max()


def test_the_clipped_gradient_has_as_many_blocks_and_the_largest(computed):
    table, arrays = computed
    g, _, _ = problem(0)
    size = np.abs(g).reshape(3, -1).sum(0)
    for rows in (of(table, "own/0", kind, CASO) for kind in KINDS):
        clipped = of(table, "own/0", rows["block"].iloc[0], CLIPPED)
        np.testing.assert_allclose(clipped["block_sparsity"], rows["block_sparsity"])
    place = int(np.flatnonzero(of(table, "own/0", "values", CASO)["chosen"])[0])
    kept = arrays["path"][0, 2, place].reshape(-1) != 0
    assert size[kept].min() >= size[~kept].max()
    own = arrays["path"][0, 1, place].reshape(-1) != 0
    row = of(table, "own/0", "values", CASO).iloc[place]
    assert row["jaccard_gradient"] == pytest.approx((kept & own).sum() / (kept | own).sum())


def test_cafo_is_the_gradient_clipped_value_by_value(computed):
    table, _ = computed
    rows = table[(table["method"] == CAFO) & (table["block_sparsity"] < 1)]
    assert (rows["jaccard_cafo"] == 1).all()
    g, _, _ = problem(2)
    for row in of(table, "own/2", "values", CAFO).itertuples():
        eta = (np.abs(g).reshape(3, -1).max(0) <= row.lambda1).mean()
        assert row.sparsity == pytest.approx(eta)


def test_results_do_not_depend_on_what_else_is_computed(computed):
    table, arrays = computed
    part, own = sparsity_paths(network(), images().subset([2]), settings(), dtype=torch.float64)
    expected = table[table["image_id"] == "own/2"].reset_index(drop=True)
    for column in ("lambda1", "sparsity", "loss", "kkt_residual", "cosine", "jaccard_gradient", "isolated"):
        np.testing.assert_allclose(part[column].astype(float), expected[column].astype(float), rtol=1e-9)
    np.testing.assert_array_equal(own["chosen"][0], arrays["chosen"][2])


def test_calls_add_up(computed):
    table, _ = computed
    # By the factor: one reverse pass a class, for everything.
    assert table.groupby("image_id")["calls"].sum().tolist() == [6, 6, 6]


def test_an_image_without_gradient_fails_alone():
    model = network()
    with torch.no_grad():
        list(model.modules())[-1].weight.zero_()
    table, arrays = sparsity_paths(model, images(2), settings(), dtype=torch.float64)
    assert (table["status"] == "failed").all()
    assert table["error"].str.contains("g must be finite and not zero").all()
    assert np.isnan(arrays["chosen"]).all()
    assert summarise(table).empty


def test_one_image_without_gradient_spoils_its_own_rows_only():
    model = network()
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    with torch.no_grad():
        first.bias.fill_(-0.05)  # a black image activates no unit, and no score depends on it
    some = images()
    some.images[1] = 0
    table, arrays = sparsity_paths(model, some, settings(), dtype=torch.float64)
    failed = table[table["status"] == "failed"]
    assert failed["image_id"].tolist() == ["own/1"]
    assert set(table.loc[table["status"] == "ok", "image_id"]) == {"own/0", "own/2"}
    assert np.isnan(arrays["chosen"][1]).all()
    assert (arrays["labels"][1] == -1).all()
    assert np.isfinite(arrays["chosen"][[0, 2]]).all()
    assert summarise(table)["images"].eq(2).all()


def test_isolated_pixels_by_hand():
    support = torch.zeros(5, 6, dtype=torch.bool)
    support[0, 0] = support[1, 1] = support[4, 5] = support[2, 4] = True
    assert isolated(support) == 0.5
    assert np.isnan(isolated(torch.zeros(3, 3, dtype=torch.bool)))


def test_blocks_by_hand():
    image = np.zeros((3, 4, 5), np.uint8)
    assert block_labels("values", image) is None
    assert block_labels("channels", image).tolist() == np.arange(20).reshape(4, 5).tolist()
    assert block_labels("patches", image, patch=2).tolist() == [
        [0, 0, 1, 1, 2],
        [0, 0, 1, 1, 2],
        [3, 3, 4, 4, 5],
        [3, 3, 4, 4, 5],
    ]
    with pytest.raises(ArgumentError, match="choose from values"):
        block_labels("circles", image)


def test_the_summary_by_hand(computed):
    table, _ = computed
    found = summarise(table).set_index(["block", "method"])
    rows = table[(table["block"] == "patches") & (table["method"] == CASO)]
    chosen = rows[rows["chosen"].astype(bool)]
    line = found.loc[("patches", CASO)]
    assert line["images"] == 3
    assert line["sparsity"] == pytest.approx(np.median(chosen["sparsity"].astype(float)))
    assert line["kkt_residual"] == rows["kkt_residual"].astype(float).max()
    assert line["steps"] == np.median(rows[rows["step"].notna()].groupby("image_id").size())


def test_settings_that_make_no_sense_are_refused():
    raw = {
        "datasets": {"d": {"source": "sklearn_digits"}},
        "models": {"m": {"dataset": "d"}},
        "experiments": {"e": {"model": "m", "sparsity": {"segments": [5, 4]}}},
    }
    with pytest.raises(ConfigError, match="segments = 5 to 4 are impossible"):
        config.load(raw)
    raw["experiments"]["e"]["sparsity"] = {"blocks": ["values", "values"]}
    with pytest.raises(ConfigError, match="names a kind twice"):
        config.load(raw)
