"""A network of 1,000 classes read as one of two, and the cats and dogs that ship inside packages."""

import numpy as np
import pytest
import torch

from curvelens import datasets, models, targets
from curvelens.datasets.packaged_animals import ANIMALS, MONTAGES
from curvelens.errors import ConfigError, ModelError
from curvelens.models._layers import LogSumExp
from curvelens.models.efficientnet_lite0 import expand
from curvelens.training import evaluate

NAME = "efficientnet_lite0"
CATS, DOGS = range(281, 286), range(151, 269)


def described(groups, names, size=64):
    settings = {"architecture": NAME, "parameters": {"class_groups": groups}}
    return models.described(settings, {"class_names": names, "image_shape": [3, size, size]})


@pytest.fixture(scope="module")
def pair():
    """The network of two classes, that of 1,000, and a batch."""
    grouped = models.build(**described("dogs_and_cats", ["cat", "dog"])).double()
    full = models.build(NAME, None, 1000, (3, 64, 64)).double()
    x = torch.rand(3, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return grouped, full, x


def test_the_logits_are_the_conditional_probabilities_of_the_groups(pair):
    grouped, full, x = pair
    with torch.no_grad():
        p = full(x).softmax(1)
        cat, dog = p[:, list(CATS)].sum(1), p[:, list(DOGS)].sum(1)
        expected = torch.stack([cat, dog], 1) / (cat + dog)[:, None]
        torch.testing.assert_close(grouped(x).softmax(1), expected, rtol=1e-9, atol=0)


def test_the_gradient_is_the_weighted_mean_of_the_members(pair):
    grouped, full, x = pair
    x = x[:1]
    weights = full(x)[:, list(CATS)].softmax(1).detach()[0]
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad((full(leaf)[0, list(CATS)] * weights).sum(), leaf)
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(targets.logit(grouped, 0)(leaf).sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_it_is_not_taken_for_piecewise_linear(pair):
    grouped, full, _ = pair
    assert targets.logits(full).piecewise_linear
    assert not targets.logits(grouped).piecewise_linear


def test_a_large_logit_does_not_overflow():
    layer = LogSumExp([[0, 2], [1]])
    found = layer(torch.tensor([[1e4, -1e4, 1e4]], dtype=torch.float64))
    assert found.tolist() == [[pytest.approx(1e4 + np.log(2), rel=1e-15), -1e4]]


def test_groups_follow_the_order_of_the_data_set():
    groups = {"dog": ["151-268"], "cat": [281, "282-285"]}
    for names in (["cat", "dog"], ["dog", "cat"]):
        assert list(described(groups, names)["parameters"]["class_groups"]) == names
    plural = described("dogs_and_cats", ["Cats", "Dogs"])["parameters"]["class_groups"]
    assert {name: expand(indices) for name, indices in plural.items()} == {
        "Cats": list(CATS),
        "Dogs": list(DOGS),
    }


def test_a_stored_network_keeps_its_order(tmp_path):
    description = described({"b": 999, "a": ["0-3"]}, ["a", "b"])
    model = models.build(**description)
    models.save(model, tmp_path, **description)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        full = models.build(NAME, None, 1000, (3, 64, 64))(x)
        # The same single-precision network: only the log-sum-exp is rounded.
        expected = torch.stack([full[:, :4].logsumexp(1), full[:, 999]], 1)
        torch.testing.assert_close(models.load(tmp_path)(x), expected)


@pytest.mark.parametrize(
    ("groups", "names", "told"),
    [
        ("dogs_and_cats", ["cat", "horse"], "class_groups are dog, cat, and the data set has cat, horse"),
        ("dogs_and_cats", ["a", "b", "c", "d"], "has a, b, c and 1 more"),
        ({"cat": 281, "dog": 151}, ["cats", "dogs"], "class_groups are cat, dog"),
    ],
)
def test_groups_that_are_not_the_data_sets_classes_are_refused(groups, names, told):
    with pytest.raises(ModelError, match=told):
        described(groups, names)


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ({"cat": ["281-285"], "dog": ["285-300"]}, "index 285 is in cat and in dog"),
        ({"cat": ["281-285"]}, "1 class; name two"),
        ({"cat": ["285-281"], "dog": 151}, "285-281 is no range"),
        ({"cat": ["998-1001"], "dog": 151}, "class_groups"),
        ({"cat": [], "dog": 151}, "without indices"),
        ("cats_and_dogs", "class_groups"),
    ],
)
def test_impossible_groups_are_refused(groups, told):
    with pytest.raises(ConfigError, match=told):
        models.REGISTRY.get(NAME).parse({"class_groups": groups})


def test_the_number_of_classes_is_checked():
    with pytest.raises(ModelError, match="2 groups for 3 classes"):
        models.build(NAME, {"class_groups": "dogs_and_cats"}, 3, (3, 64, 64))


# The animals.


@pytest.fixture(scope="module")
def animals():
    return datasets.load("packaged_animals", {"size": 128})


def test_every_animal_has_its_class_and_an_origin(animals):
    assert animals.class_names == ["cat", "dog"]
    assert np.bincount(animals.labels + 1).tolist() == [2, 3, 6]
    assert list(animals.origins) == animals.ids == [*ANIMALS, *MONTAGES]
    for name, origin in animals.origins.items():
        assert origin.startswith("Montage") == name.startswith("montage/"), name
    assert "foolbox/dalmatian" in animals.origins["montage/cat_above_dog"]
    assert animals.origins["montage/cat_above_dog"].count("CC0") == 1


def test_none_is_trained_on(animals):
    assert [len(part) for part in datasets.split(animals, validation=0).values()] == [0, 0, 11]


def test_a_montage_holds_the_pictures_it_names(animals):
    """The lower right quarter of the four animals is the sitting cat, cut and scaled by Pillow."""
    from PIL import Image

    from curvelens.datasets._photographs import packaged_picture

    cat = ANIMALS["foolbox/sitting_cat"]
    with Image.open(packaged_picture(cat.package, cat.path)) as opened:
        expected = np.asarray(opened.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC))
    found = animals.images[animals.ids.index("montage/two_of_each")][:, 64:, 64:]
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))
    assert animals.images[len(ANIMALS) :].min(axis=(1, 2, 3)).max() < 40  # the tiles leave no part white


def test_the_network_knows_nearly_all_single_animals(animals):
    model = models.build(**described("dogs_and_cats", animals.class_names, 128))
    single = animals.image_set().subset(slice(len(ANIMALS)))
    # Its top-5 accuracy is 92 % among 1,000 classes; the two classes exchanged would give about 0.
    assert evaluate(model, single).accuracy >= 5 / 7
