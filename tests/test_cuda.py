"""The same numbers on a GPU: every public function against its CPU result. Skipped where there is none."""

import copy
import math

import pytest
import torch
from torch import nn

import curvelens as cl
from curvelens import methods
from curvelens.context_aware import choose_l1

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
# float32 sums in another order differ by some 1e-6 of their size; a thousandfold margin covers what
# differences of gradients amplify. TF32 is off by default in matrix products.
TOLERANCE = {"rtol": 2e-3, "atol": 1e-6}
SHAPE = (1, 8, 8)
DEVICES = ("cpu", "cuda")


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    hidden = [nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU()]
    relu = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(32, 5)).requires_grad_(False)
    return {device: copy.deepcopy(relu).to(device) for device in DEVICES}


@pytest.fixture(scope="module")
def image():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))


def both(function, networks, image):
    """Results of ``function(model, x)`` on both devices, as CPU tensors."""
    return [torch.as_tensor(function(networks[device], image.to(device))).cpu() for device in DEVICES]


CASES = {
    "gradient": lambda m, x: cl.gradient(cl.targets.logit(m, 2), x[None]),
    "hessian of the loss": lambda m, x: cl.hessian(cl.targets.loss(m, 2), x),
    "hessian of a surrogate": lambda m, x: cl.hessian(cl.targets.logit(cl.softplus_surrogate(m, 5.0), 2), x),
    "smoothed gradient": lambda m, x: smooth(m, x).gradient,
    "smoothed hessian": lambda m, x: smooth(m, x).hessian(),
    "trust-region value": lambda m, x: smooth(m, x).minimize(0.5).value,
    "softmax hessian": lambda m, x: dense(cl.softmax_hessian(m, x).factor),
    "CASO": lambda m, x: context_aware(cl.softmax_hessian(m, x)),
    "P_MSE": lambda m, x: (
        cl.perturbation_mse(cl.targets.logit(m, 2), smooth(m, x), x, 0.5, samples=2000).mean
    ),
    "region radius": lambda m, x: cl.region_radius(m, x),
    "trust radius": lambda m, x: trusted(m, x),
    "VarGrad": lambda m, x: explained("vargrad", m, x)["attribution"],
    "CAFO, chosen by sparsity": lambda m, x: explained("cafo", m, x, {})["attribution"],
    "SmoothCASO": lambda m, x: explained(
        "smoothcaso", m, x, {"samples": 8, "l1_share": 0.1, "tolerance": 1e-6}
    )["attribution"],
    "CASO of rows, chosen by sparsity": lambda m, x: rows_chosen(cl.softmax_hessian(m, x), m, x),
    "occlusion": lambda m, x: explained("occlusion", m, x, {"window": 0.25})["attribution"],
    "LIME": lambda m, x: explained("lime", m, x, {"samples": 64, "segments": (3, 12)})["attribution"],
    "leading curvatures": lambda m, x: explained("smoothhess", m, x)["eigenvalues"],
}


def trusted(model, x):
    f = cl.targets.logit(model, 2)
    return cl.trust_radius(f, smooth(model, x), x, threshold=0.8, samples=500).radius


def explained(method, model, x, parameters=None):
    parameters = {"sigma": 0.2, "samples": 512} if parameters is None else parameters
    return methods.explain(method, cl.targets.logit(model, 2), x, 3, parameters).maps


def dense(factor):
    return factor @ factor.T


def context_aware(hessian):
    return cl.caso(hessian.gradient, hessian, 1e-3, 50.0).delta


def rows_chosen(hessian, model, x):
    rows = torch.arange(8)[:, None].expand(8, 8)
    loss = cl.targets.loss(model, int(hessian.label))
    return choose_l1(hessian.gradient, hessian, 50.0, loss, x, groups=rows).explanation.delta


def smooth(model, x):
    return cl.smooth_quadratic(cl.targets.logit(model, 2), x, sigma=0.2, calls=512, seed=3)


@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_the_cpus_numbers(networks, image, name):
    on_cpu, on_gpu = both(CASES[name], networks, image)
    scale = float(on_cpu.abs().max())
    assert math.isfinite(scale)
    torch.testing.assert_close(on_gpu / scale, on_cpu / scale, **TOLERANCE)


def test_results_stay_on_the_device_of_the_input(networks, image):
    x = image.cuda()
    q = smooth(networks["cuda"], x)
    assert q.gradient.device == x.device
    assert q.hessian().device == x.device
    assert q(torch.zeros(3, *SHAPE, device="cuda")).device == x.device


@pytest.mark.parametrize("method", ["cam", "gradcam", "gradcam_plus_plus"])
def test_class_activation_maps_agree(method, image):
    torch.manual_seed(2)
    features = [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*features, nn.Linear(6, 5))
    networks = {device: copy.deepcopy(network).to(device) for device in DEVICES}
    on_cpu, on_gpu = both(lambda m, x: explained(method, m, x, {})["attribution"], networks, image)
    torch.testing.assert_close(on_gpu, on_cpu, **TOLERANCE)
