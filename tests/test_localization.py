"""Measures against masks: by hand, against scikit-learn and Quantus, and what perfect and random maps get."""

import numpy as np
import pytest
import quantus
from sklearn.metrics import jaccard_score, roc_auc_score
from torch import nn

from curvelens.errors import ArgumentError
from curvelens.localization import importance, localization

SHAPE = (16, 12)


def object_mask():
    mask = np.zeros(SHAPE, bool)
    mask[4:10, 2:9] = True
    return mask


def noise(seed, shape=SHAPE):
    return np.random.default_rng(seed).random(shape)


def test_importance_sums_magnitudes_of_slopes_and_drops_what_speaks_against():
    channels = np.array([[[1.0, -3.0]], [[-2.0, 1.0]]])
    np.testing.assert_array_equal(importance(channels), [[3.0, 4.0]])
    np.testing.assert_array_equal(importance(channels + 1, contributions=True), [[1.0, 0.0]])


@pytest.mark.parametrize("wrong", [np.ones((3, 3)), np.full((1, 2, 2), np.nan)])
def test_a_map_that_is_none_is_refused(wrong):
    with pytest.raises(ArgumentError, match="importance"):
        importance(wrong)


def test_a_map_equal_to_the_mask_is_perfect():
    mask = object_mask()
    found = localization(mask.astype(float), mask)
    assert found.pointing == found.energy == found.auc == found.best_iou == found.mean_iou == 1
    assert found.error == 0  # ties: the centre of all most important pixels


def test_the_opposite_of_the_mask_is_as_wrong_as_can_be():
    mask = object_mask()
    found = localization((~mask).astype(float), mask)
    assert found.pointing == found.energy == found.auc == found.mean_iou == 0
    assert found.best_iou == pytest.approx(mask.mean())  # the whole picture


def test_random_maps_get_what_chance_says():
    mask = object_mask()
    found = [localization(noise(seed), mask) for seed in range(400)]
    for name, expected in (("pointing", mask.mean()), ("energy", mask.mean()), ("auc", 0.5)):
        values = np.array([getattr(one, name) for one in found])
        # Five standard errors: the test fails by chance once in a million.
        assert abs(values.mean() - expected) < 5 * values.std() / np.sqrt(len(values))
    assert found[0].chance == mask.mean()


def test_by_hand():
    pixels = np.array([[4.0, 3.0], [2.0, 1.0]])
    mask = np.array([[False, True], [False, True]])
    found = localization(pixels, mask, thresholds=(0.5, 0.9))
    assert found.pointing == 0
    assert found.energy == pytest.approx(4 / 10)
    # Pairs (object, background) in the right order: (3, 2) alone of four.
    assert found.auc == pytest.approx(1 / 4)
    # The 99 % quantile is 3.97: the pixels 4, 3 and 2 are above half of it, 4 alone above 0.9 of it.
    assert found.iou == {0.5: pytest.approx(1 / 4), 0.9: 0}
    assert found.best_iou == pytest.approx(2 / 4)
    # From (0, 0) to the centre (0.5, 1) of the object; the diagonal is √8.
    assert found.error == pytest.approx(np.hypot(0.5, 1) / np.sqrt(8))


def test_auc_and_iou_agree_with_scikit_learn():
    mask = object_mask()
    pixels = noise(1) + 0.3 * mask
    found = localization(pixels, mask)
    assert found.auc == pytest.approx(roc_auc_score(mask.ravel(), pixels.ravel()))
    scaled = np.minimum(pixels / np.quantile(pixels, 0.99), 1)
    for threshold, value in found.iou.items():
        assert value == pytest.approx(jaccard_score(mask.ravel(), (scaled >= threshold).ravel()))
    brute = max(jaccard_score(mask.ravel(), (pixels >= one).ravel()) for one in np.unique(pixels))
    assert found.best_iou == pytest.approx(brute)


@pytest.mark.parametrize("seed", range(4))
def test_quantus_agrees(seed):
    mask = object_mask()
    pixels = noise(seed) + 0.2 * mask
    found = localization(pixels, mask)
    batch = {
        "model": nn.Identity(),
        "x_batch": np.zeros((1, 1, *SHAPE)),
        "y_batch": np.zeros(1, int),
        "a_batch": pixels[None, None],
        "s_batch": mask[None, None],
        "channel_first": True,
    }
    for kind, value in (
        (quantus.PointingGame, found.pointing),
        (quantus.AUC, found.auc),
        (quantus.RelevanceMassAccuracy, found.energy),
    ):
        assert kind(disable_warnings=True)(**batch)[0] == pytest.approx(value, abs=1e-9)


def test_pixels_of_which_nobody_knows_do_not_count():
    mask, known = object_mask(), np.ones(SHAPE, bool)
    known[:2] = False
    pixels = noise(2)
    elsewhere = np.where(known, pixels, 100)
    kept = localization(pixels[2:], mask[2:])
    found = localization(elsewhere, mask, known)
    assert (found.auc, found.energy, found.iou, found.best_iou) == (
        kept.auc,
        kept.energy,
        kept.iou,
        kept.best_iou,
    )
    assert found.pointing == kept.pointing


def test_a_sparse_map_is_compared_with_its_maximum():
    mask = np.zeros((20, 20), bool)
    mask[3, 4] = True
    found = localization(mask * 7.0, mask)
    assert found.mean_iou == 1


@pytest.mark.parametrize("mask", [np.zeros(SHAPE, bool), np.ones(SHAPE, bool)])
def test_a_mask_without_object_or_without_background_is_refused(mask):
    with pytest.raises(ArgumentError, match="leave the image out"):
        localization(noise(0), mask)


def test_shapes_must_fit():
    with pytest.raises(ArgumentError, match="one shape"):
        localization(noise(0), np.ones((3, 3), bool))
