"""CAM, Grad-CAM, Grad-CAM++, LIME, occlusion and completeness against theory, brute force, closed forms."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from curvelens import methods, models, targets
from curvelens.errors import ArgumentError, ConfigError
from curvelens.experiments import explanations
from curvelens.methods import _layers
from curvelens.reporting import trust as reported
from curvelens.store import ImageSet
from curvelens.superpixels import slic_segments

LAYERED = ("cam", "gradcam", "gradcam_plus_plus")


@pytest.fixture(scope="module")
def pooled() -> nn.Sequential:
    """Two convolutions, global average pooling, one linear layer; float64."""
    torch.manual_seed(1)
    layers = OrderedDict(
        conv1=nn.Conv2d(3, 4, 3, padding=1),
        relu1=nn.ReLU(),
        down=nn.MaxPool2d(2),
        conv2=nn.Conv2d(4, 5, 3, padding=1),
        relu2=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        logits=nn.Linear(5, 3),
    )
    return nn.Sequential(layers).double()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(3, 8, 10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def features(network: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    return network[:5](x[None])[0]


def test_cam_and_gradcam_are_proportional_where_theory_says_so(pooled, x):
    """With pooling and one linear layer ∂y/∂A is w/Z everywhere: Grad-CAM is the positive part of CAM / Z."""
    for k in range(3):
        f = targets.logit(pooled, k)
        cam, gradcam = (methods.explain(name, f, x) for name in ("cam", "gradcam"))
        coarse = cam.maps["coarse"]
        torch.testing.assert_close(gradcam.maps["coarse"], coarse.relu() / coarse.numel())
        known = torch.einsum("k,khw->hw", pooled.logits.weight[k], features(pooled, x)).detach()
        torch.testing.assert_close(coarse, known)
        # The mean of the map is what the pixels of the feature maps add to the logit.
        torch.testing.assert_close(coarse.mean() + pooled.logits.bias[k], f(x[None])[0])
        assert (cam.calls, cam.forward_calls, gradcam.calls) == (0, 1, 1)


def test_the_map_of_a_margin_is_the_difference_of_the_maps(pooled, x):
    one, other = (methods.explain("cam", targets.logit(pooled, k), x).maps["coarse"] for k in (0, 2))
    both = methods.explain("cam", targets.margin(pooled, 0, 2), x).maps["coarse"]
    torch.testing.assert_close(both, one - other)


@pytest.mark.parametrize("name", LAYERED)
def test_maps_have_the_size_of_the_image_and_their_channels_sum_to_the_map(pooled, x, name):
    maps = methods.explain(name, targets.logit(pooled, 1), x).maps
    assert maps["attribution"].shape == x.shape
    assert maps["attribution"].dtype == x.dtype
    fine = interpolate(maps["coarse"][None, None], x.shape[1:], mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(maps["attribution"].sum(0), fine)


def by_hand(network: nn.Sequential, x: torch.Tensor, k: int) -> torch.Tensor:
    """Grad-CAM++ of the logit behind two linear layers, from derivatives of y = exp(f) that autograd takes.

    α = ∂²y/∂A² / (2 ∂²y/∂A² + Σ A ∂³y/∂A³), weight Σ α ReLU(∂y/∂A) (Chattopadhay et al. 2018, eq. 19 and
    7); the weights are divided by y, since the scalar itself is explained.
    """
    A = features(network, x).detach()
    coarse = torch.zeros(A.shape[1:], dtype=A.dtype)
    for channel in range(len(A)):
        weight = torch.zeros((), dtype=A.dtype)
        for i, j in np.ndindex(*A.shape[1:]):

            def y(value: torch.Tensor, place=(channel, i, j)) -> torch.Tensor:
                moved = A.clone().index_put(tuple(torch.tensor([n]) for n in place), value[None])
                return network[5:](moved[None])[0, k].exp()

            value = A[channel, i, j].clone().requires_grad_()
            derivatives = [y(value)]
            for _ in range(3):
                derivatives.append(torch.autograd.grad(derivatives[-1], value, create_graph=True)[0])
            total, first, second, third = (found.item() for found in derivatives)
            alpha = second / (2 * second + float(A[channel].sum()) * third)
            weight += alpha * max(first, 0) / total
        coarse += weight * A[channel]
    return coarse.relu()


def test_gradcam_plus_plus_is_the_formula_computed_by_hand(x):
    torch.manual_seed(5)
    network = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Identity(), nn.Flatten(),
        nn.Linear(3 * 4 * 6, 2),
    ).double()  # fmt: skip
    found = methods.explain("gradcam_plus_plus", targets.logit(network, 1), x).maps["coarse"]
    assert found.max() > 0
    # The library adds 1e-6 to a denominator that is at least 2 for the largest gradient; for gradients of a
    # hundredth of it the addition is 1e-2 of the denominator, in weights that are 1e-2 of the largest.
    torch.testing.assert_close(found, by_hand(network, x, 1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_small_gradients_do_not_drown_in_the_librarys_epsilon(pooled, x, factor):
    """Maps multiplied by c and the layer after them divided by it: the same function, so the same map."""
    f = targets.logit(pooled, 1)
    plain = methods.explain("gradcam_plus_plus", f, x).maps["coarse"]
    scaled = copy.deepcopy(pooled)
    with torch.no_grad():
        scaled.conv2.weight.mul_(factor)
        scaled.conv2.bias.mul_(factor)
        scaled.logits.weight.div_(factor)
    found = methods.explain("gradcam_plus_plus", targets.logit(scaled, 1), x).maps["coarse"]
    torch.testing.assert_close(found, plain)


def test_occlusion_is_what_covering_each_square_does(pooled, x):
    f = targets.logit(pooled, 0)
    parameters = {"window": 0.5, "stride": 0.75, "baseline": 0.25}  # side 4, step 3 of 8 x 10 pixels
    found = methods.explain("occlusion", f, x, 0, parameters)
    drop, covered = torch.zeros(8, 10, dtype=x.dtype), torch.zeros(8, 10)
    tops, lefts = (0, 3, 6), (0, 3, 6)  # the last ones stick out, as the image must be covered
    for top in tops:
        for left in lefts:
            changed = x.clone()
            changed[:, top : top + 4, left : left + 4] = 0.25
            drop[top : top + 4, left : left + 4] += (f(x[None]) - f(changed[None]))[0].detach()
            covered[top : top + 4, left : left + 4] += 1
    torch.testing.assert_close(found.maps["attribution"].sum(0), drop / covered)
    assert (found.calls, found.forward_calls) == (0, 1 + 9)


def linear(w: torch.Tensor):
    return lambda batch: (batch * w).flatten(1).sum(1)


def test_lime_recovers_the_weights_of_super_pixels_of_a_linear_function():
    """f is linear, so leaving a super-pixel out costs w·(x - mean colour) on it, whatever the others do."""
    random = torch.Generator().manual_seed(7)
    x = torch.rand(3, 24, 24, generator=random, dtype=torch.float64)
    w = torch.randn(3, 24, 24, generator=random, dtype=torch.float64)
    parameters = {"samples": 200, "segments": (8, 16), "ridge": 1e-6}
    found = methods.explain("lime", linear(w), x, 3, parameters)
    segments = found.maps["segments"].long()
    known = slic_segments((x * 255).round().to(torch.uint8).numpy(), (8, 16))
    np.testing.assert_array_equal(segments.numpy(), known)
    for number in range(int(segments.max()) + 1):
        here = segments == number
        weight = sum(float((w[c][here] * (x[c][here] - x[c][here].mean())).sum()) for c in range(3))
        values = found.maps["attribution"].sum(0)[here]
        # Captum regresses in single precision on values of order 10: 1e-6 of that, over 200 samples.
        torch.testing.assert_close(values, torch.full_like(values, weight), rtol=1e-3, atol=1e-3)
    assert (found.calls, found.forward_calls) == (0, 200)


def test_lime_draws_from_its_seed_and_leaves_the_global_generator_alone():
    x = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(1))
    f, parameters = (lambda batch: batch.flatten(1).square().sum(1)), {"samples": 20, "segments": (8, 16)}
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first = methods.explain("lime", f, x, 4, parameters).maps["attribution"]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(12)
    again, other = (methods.explain("lime", f, x, seed, parameters).maps["attribution"] for seed in (4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_completeness_error_of_a_known_function_is_recorded():
    """f = Σx³ along 0 → x with one node of Gauss-Legendre, t = ½: Σ x · 3 (x/2)² = ¾ Σx³, an error of -¼."""

    class Cubes(nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            cubes = batch.flatten(1).pow(3).sum(1)
            return torch.stack([cubes, -cubes], 1)

    pixels = np.random.default_rng(0).integers(1, 256, (2, 1, 3, 3)).astype(np.uint8)
    images = ImageSet(pixels, np.zeros(2, np.int64), ["a", "b"])
    requests = {"integrated_gradients": {"steps": 1}, "gradient": {}}
    found = explanations.explain_images(Cubes(), images, requests, trust=None)
    index = found["integrated_gradients"][1]
    total = ((pixels / 255) ** 3).sum((1, 2, 3))
    np.testing.assert_allclose(index["completeness_error"].astype(float), -total / 4, rtol=1e-5)
    np.testing.assert_allclose(index["attributed_change"].astype(float), total, rtol=1e-5)
    assert found["gradient"][1]["completeness_error"].isna().all()
    told = str(reported.completeness(index)[0])
    assert "The attributions of Integrated Gradients" in told
    assert "25.0% of the mean change" in told


@pytest.mark.parametrize(("architecture", "parameters", "shape", "layer"), [
    ("efficientnet_lite0", {}, (3, 64, 64), "head"),
    ("resnet", {"model": "resnet18"}, (3, 16, 16), "network.layer4"),
    ("resnet_cifar", {}, (3, 16, 16), "layer3"),
    ("small_cnn", {"channels": [2, 4]}, (3, 16, 16), "activation2"),
    ("torchvision", {"model": "vgg11"}, (3, 32, 32), "network.features.19"),
])  # fmt: skip
def test_the_layer_is_the_last_convolution_with_its_activation(architecture, parameters, shape, layer):
    network = models.build(architecture, parameters, 1000 if "lite0" in architecture else 4, shape)
    f, image = targets.logit(network, 0), torch.rand(shape)
    found = _layers.feature_call("gradcam", _layers.calls("gradcam", f, image)[0], None)
    assert found.name == layer
    assert found.output.min() >= 0
    named = methods.explain("gradcam", f, image, 0, {"layer": layer}).maps["attribution"]
    assert torch.equal(named, methods.explain("gradcam", f, image).maps["attribution"])
    if architecture in ("efficientnet_lite0", "resnet", "resnet_cifar"):
        coarse = methods.explain("cam", f, image).maps["coarse"]
        gradcam = methods.explain("gradcam", f, image).maps["coarse"]
        # Single precision: sums over up to 1280 maps.
        torch.testing.assert_close(gradcam, coarse.relu() / coarse.numel(), rtol=1e-4, atol=1e-5)


def mlp() -> nn.Module:
    return models.build("mlp", {"hidden": [8]}, 3, (1, 6, 6))


@pytest.mark.parametrize(("name", "network", "told"), [
    ("cam", mlp, "no convolution"),
    ("gradcam", mlp, "no convolution"),
    ("gradcam_plus_plus", mlp, "no convolution"),
    ("cam", lambda: models.build("small_cnn", {"channels": [2]}, 3, (1, 6, 6)), "global average pooling"),
])  # fmt: skip
def test_networks_that_a_method_cannot_explain_stop_the_stage_with_one_line(name, network, told):
    images = ImageSet(np.zeros((1, 1, 6, 6), np.uint8), np.zeros(1, np.int64), ["a"])
    with pytest.raises(ConfigError, match=told) as error:
        explanations.explain_images(network(), images, {name: {}}, trust=None)
    assert "\n" not in str(error.value)


def test_what_is_no_logit_has_no_class_activation_map(pooled, x):
    with pytest.raises(ConfigError, match="not linear in the logits"):
        methods.explain("cam", targets.probability(pooled, 1), x)
    with pytest.raises(ArgumentError, match="scalar of a network's output"):
        methods.explain("gradcam", linear(x), x)
    with pytest.raises(ConfigError, match=r"layer 'con'.*name one of: conv1, relu1"):
        methods.explain("gradcam", targets.logit(pooled, 1), x, 0, {"layer": "con"})


@pytest.mark.parametrize("name", [*LAYERED, "occlusion", "lime"])
def test_the_network_is_left_as_it_was_found(pooled, x, name):
    pooled.train()
    hooks = sum(len(module._forward_hooks) for module in pooled.modules())
    methods.explain(name, targets.logit(pooled, 1), x, 0, {"segments": (2, 20)} if name == "lime" else {})
    assert all(module.training for module in pooled.modules())
    assert all(weight.grad is None for weight in pooled.parameters())
    assert sum(len(module._forward_hooks) for module in pooled.modules()) == hooks
    pooled.eval()
