"""The same numbers on a GPU: every public function against its CPU result. Skipped where there is none."""

import copy
import math

import pytest
import stages_world
import torch
from torch import nn

import curvelens as cl
from curvelens import chunks, devices, methods
from curvelens.context_aware import choose_l1

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
# float32 sums in another order differ by some 1e-6 of their size; a thousandfold margin covers what
# differences of gradients amplify. TF32, which would differ by 1e-3, is off, as it is in every job.
TOLERANCE = {"rtol": 2e-3, "atol": 1e-6}
SHAPE = (1, 8, 8)
DEVICES = ("cpu", "cuda")


@pytest.fixture(scope="module", autouse=True)
def as_in_a_job():
    """Torch computes as a job makes it."""
    devices.set_numerics("cuda")
    yield
    devices.set_numerics("cpu")


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


@pytest.mark.parametrize("stage", stages_world.STAGES)
def test_a_stage_of_the_workflow_gives_the_cpus_numbers(stage):
    """Tolerance as derived in stages_world; what is no floating-point number has to be equal."""
    apart = stages_world.differences(stages_world.run(stage), stages_world.run(stage, device="cuda"))
    assert max(apart.values()) <= stages_world.TOLERANCE, apart


def test_two_runs_on_one_gpu_give_the_same_bits(networks, image):
    f, x = cl.targets.loss(networks["cuda"], 2), image.cuda()
    first, second = (cl.smooth_quadratic(f, x, sigma=0.2, calls=512, seed=3) for _ in range(2))
    assert torch.equal(first.gradient, second.gradient)
    assert torch.equal(first.hessian(), second.hessian())


def test_a_real_shortage_is_survived(monkeypatch):
    """65,536 rows of a layer of 4,096 take 1 GiB; the process may have a quarter of that more than now."""
    monkeypatch.setattr(chunks, "_fitting", {})
    torch.manual_seed(4)
    layers = [nn.Linear(64, 4096), nn.Softplus(), nn.Linear(4096, 5)]
    f = {d: cl.targets.logit(nn.Sequential(*copy.deepcopy(layers)).to(d), 1) for d in DEVICES}
    x = torch.rand(65536, 64)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        found = cl.gradient(f["cuda"], x.cuda(), chunk=len(x)).cpu()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert min(chunks._fitting.values()) < len(x)
    torch.testing.assert_close(found[::997], cl.gradient(f["cpu"], x[::997]), **TOLERANCE)


def test_a_job_holds_the_gpu_that_it_was_granted(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    assert devices.found()
    assert devices.device("auto", 1) == torch.device("cuda", torch.cuda.current_device())
    assert len(list((tmp_path / "curvelens-devices").glob("*.lock"))) == 1
