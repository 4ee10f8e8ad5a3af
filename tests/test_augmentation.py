"""Augmentation against torchvision's functions, and the learning rate against the formulas."""

import math
from itertools import pairwise

import pytest
import torch
from torchvision.transforms import functional

from curvelens import models, targets
from curvelens.config import load
from curvelens.errors import ConfigError, DataError
from curvelens.linearity import is_piecewise_linear
from curvelens.schedules import Augmentation, Training, learning_rate
from curvelens.surrogates import softplus_surrogate
from curvelens.training import augmentation


def images(count=6, channels=3):
    drawn = torch.rand(count, channels, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn[0, :, 0, 0] = 0.25  # a pixel without colour has no hue
    return drawn


@pytest.mark.parametrize(
    ("ours", "theirs", "amounts"),
    [
        (augmentation.brightness, functional.adjust_brightness, [0.0, 0.6, 1.0, 1.4, 3.0, 1.1]),
        (augmentation.contrast, functional.adjust_contrast, [0.0, 0.6, 1.0, 1.4, 3.0, 1.1]),
        (augmentation.saturation, functional.adjust_saturation, [0.0, 0.6, 1.0, 1.4, 3.0, 1.1]),
        (augmentation.hue, functional.adjust_hue, [-0.5, -0.1, 0.0, 0.1, 0.3, 0.5]),
    ],
)
def test_each_change_is_that_of_torchvision(ours, theirs, amounts):
    x = images()
    found = ours(x, torch.tensor(amounts, dtype=x.dtype))
    expected = torch.stack([theirs(image, amount) for image, amount in zip(x, amounts, strict=True)])
    # torchvision turns hues in float32: some ten roundings of numbers up to 6, the sectors of the circle.
    tolerance = 10 * 6 * 2**-24 if ours is augmentation.hue else 1e-12
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_probabilities_of_zero_and_one_are_kept():
    x = images()
    before = x.clone()
    assert torch.equal(augmentation.augment(x, Augmentation()), x)
    assert torch.equal(augmentation.augment(x, Augmentation(flip=1)), x.flip(-1))
    grey = augmentation.augment(x, Augmentation(grayscale=1))
    torch.testing.assert_close(grey, functional.rgb_to_grayscale(x, 3), rtol=1e-12, atol=1e-12)
    torch.manual_seed(1)
    changed = augmentation.augment(x, Augmentation(jitter=1, brightness=0.4, contrast=0.4, hue=0.1))
    assert torch.equal(x, before)
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert ((changed - x).abs().amax((1, 2, 3)) > 1e-3).all()
    torch.manual_seed(1)
    again = augmentation.augment(x, Augmentation(jitter=1, brightness=0.4, contrast=0.4, hue=0.1))
    assert torch.equal(changed, again)


def test_cut_outs_are_squares_of_the_image_scaled_up():
    """A plane stays a plane when cut and scaled linearly: its slope is the side, its middle the place."""
    height, width, count, smallest = 12, 16, 400, 0.25
    across = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    down = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    planes = torch.stack([across.expand(height, width), down[:, None].expand(height, width)])
    torch.manual_seed(3)
    found = augmentation.augment(planes.expand(count, 2, -1, -1), Augmentation(crop=smallest))
    inner = found[..., 2:-2, 2:-2]  # outside, interpolation may reach beyond the border
    side = (inner[:, 0, :, 1:] - inner[:, 0, :, :-1]) * width
    other = (inner[:, 1, 1:] - inner[:, 1, :-1]) * height
    first = side[:, :1, :1]
    torch.testing.assert_close(side, first.expand_as(side), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other, first.expand_as(other), rtol=1e-9, atol=1e-9)
    area, middle = first.flatten() ** 2, inner.mean((2, 3))
    assert smallest <= float(area.min()) <= float(area.max()) <= 1
    # Uniform numbers: the mean of 400 has a standard deviation of width / sqrt(12 * 400), here tripled.
    assert float(area.mean()) == pytest.approx((1 + smallest) / 2, abs=3 * (1 - smallest) / 69)
    assert ((middle - 0.5).abs() <= (1 - first[:, :, 0]) / 2 + 1e-9).all()
    places = (middle - 0.5) / (1 - first[:, :, 0])
    assert places.std(0).tolist() == pytest.approx([12**-0.5] * 2, rel=0.1)


def test_about_half_of_many_images_are_flipped():
    x = images(2000)
    flipped = (augmentation.augment(x, Augmentation(flip=0.5)) != x).flatten(1).any(1)
    assert abs(float(flipped.double().mean()) - 0.5) < 5 * math.sqrt(0.25 / 2000)


def test_grey_images_have_no_hue():
    grey = images(channels=1)
    assert augmentation.augment(grey, Augmentation(jitter=1, contrast=0.4)).shape == grey.shape
    with pytest.raises(DataError, match="images of 1 channels have no colours"):
        augmentation.augment(grey, Augmentation(hue=0.1))


def test_the_learning_rate_of_torop_et_al_for_cifar10():
    """App. E.1: 0.01 to 0.5 over 5 epochs, then a cosine to 1e-5 by the last of 55 epochs."""
    schedule = Training(epochs=55, learning_rate=0.5, warmup_epochs=5, final_learning_rate=1e-5)
    batches, total = 313, 55 * 313
    rates = [learning_rate(schedule, update, batches, total) for update in range(total)]
    assert rates[0] == 0.01
    assert rates[5 * batches] == 0.5 == max(rates)
    assert rates[-1] == pytest.approx(1e-5)
    rising = [b - a for a, b in pairwise(rates[: 5 * batches + 1])]
    assert max(rising) == pytest.approx(min(rising))
    middle = rates[5 * batches + (total - 1 - 5 * batches) // 2]
    assert middle == pytest.approx((0.5 + 1e-5) / 2, rel=1e-3)
    with pytest.raises(ValueError, match="choose steps or a cosine"):
        Training(decay_at=[5], final_learning_rate=0.1)


def test_a_mistake_in_the_augmentation_is_one_line():
    raw = {"datasets": {"d": {"source": "cifar10"}}, "experiments": {"e": {"model": "m"}}}
    raw["models"] = {"m": {"dataset": "d", "training": {"augmentation": {"flips": 0.5}}}}
    with pytest.raises(ConfigError, match=r"unknown key 'models\.m\.training\.augmentation\.flips'"):
        load(raw)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weights"), [("resnet18", 11_689_512), ("resnet101", 44_549_160)])
def test_residual_networks_of_torchvision_for_small_pictures(name, weights):
    """Sizes as torchvision counts them with 1000 classes; ours have 9 of 49 weights in the stem and 10."""
    model = models.build("resnet", {"model": name}, 10, (3, 32, 32))
    features = 512 if name == "resnet18" else 2048
    expected = weights - 64 * 3 * (49 - 9) - 990 * (features + 1)
    assert sum(p.numel() for p in model.parameters()) == expected
    x = torch.rand(2, 3, 32, 32)
    seen = {}
    model.network.layer1.register_forward_hook(lambda m, i, out: seen.update(stem=i[0].shape))
    assert model(x).shape == (2, 10)
    assert seen["stem"] == (2, 64, 32, 32)
    assert is_piecewise_linear(model)
    assert targets.inner_neuron(model, int(model(x[:1]).argmax()), x[:1])[0] == "network.avgpool"
    assert not is_piecewise_linear(softplus_surrogate(model, 5.0))
