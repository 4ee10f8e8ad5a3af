"""The methods CAFO, CASO and their smooth variants against numpy on models with known derivatives."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import curvelens as cl
from curvelens import datasets, methods, models, targets
from curvelens.context_aware import choose_l2
from curvelens.errors import ArgumentError, ConfigError
from curvelens.experiments import explanations
from curvelens.seeds import derive
from curvelens.smoothing import gaussian_copies
from curvelens.store import ImageSet

D = (1, 5, 5)
NAMES = ("cafo", "caso", "smoothcafo", "smoothcaso")
NOISE = {"sigma": 0.2, "samples": 6}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads only get in each other's way on arrays this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def linear(classes: int, scale: float = 2.0) -> nn.Module:
    torch.manual_seed(classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, classes)).double().requires_grad_(False)
    with torch.no_grad():
        model[1].weight *= scale
    return model


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def derivatives(model: nn.Module, xs: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over inputs of ``Wᵀ(p − e_k)`` and ``Wᵀ(diag p − ppᵀ)W``."""
    W, b = model[1].weight.detach().numpy(), model[1].bias.detach().numpy()
    g, H = np.zeros(25), np.zeros((25, 25))
    for x in xs.flatten(1).numpy():
        p = np.exp(W @ x + b)
        p /= p.sum()
        g += W.T @ (p - np.eye(len(p))[k])
        H += W.T @ (np.diag(p) - np.outer(p, p)) @ W
    return g / len(xs), H / len(xs)


def problem(name: str, model: nn.Module, x: torch.Tensor, seed: int, c1: float = 1.0):
    """Gradient, Hessian (zero for the first order) and λ₂ in numpy, with the label."""
    k = int(model(x[None]).argmax())
    smooth = name.startswith("smooth")
    xs = gaussian_copies(x, 0.2, 6, derive(seed, "noisy copies")) if smooth else x[None]
    g, H = derivatives(model, xs, k)
    l2 = np.linalg.eigvalsh(H)[-1] / 2 + c1
    return g, H * name.endswith("caso"), l2, k


def parameters(name: str, **values: float) -> dict[str, float]:
    return {"c1": 1.0, **values, **(NOISE if name.startswith("smooth") else {})}


@pytest.mark.parametrize("classes", [7, 40])  # the Hessian as a factor, and by its products
@pytest.mark.parametrize("name", NAMES)
def test_without_sparsity_it_is_a_linear_system(name, classes):
    model, x = linear(classes), image()
    g, H, l2, k = problem(name, model, x, seed=3)
    found = methods.explain(name, targets.logit(model, k), x, 3, parameters(name, l1=0.0, tolerance=1e-9))
    delta = np.linalg.solve(2 * l2 * np.eye(25) - H, g)
    # L is found to 1e-4 of 2c₁, in the mean over copies to 1e-3: so much does 2λ₂ − H move, relatively.
    np.testing.assert_allclose(-found.maps["attribution"].flatten(), delta, rtol=1e-3, atol=1e-4 * l2)
    assert float(found.maps["lambda2"]) == pytest.approx(l2, rel=1e-3 if "smooth" in name else 1e-4)
    assert float(found.maps["kkt_residual"]) < 1e-9


@pytest.mark.parametrize("classes", [7, 40])
@pytest.mark.parametrize("name", NAMES)
def test_the_optimality_conditions_hold_in_numpy(name, classes):
    """The objective is strongly concave: whatever meets the conditions is the one maximum."""
    model, x = linear(classes), image(1)
    g, H, _, k = problem(name, model, x, seed=3)
    found = methods.explain(
        name, targets.logit(model, k), x, 3, parameters(name, l1_share=0.4, tolerance=1e-9)
    ).maps
    l1, l2 = float(found["lambda1"]), float(found["lambda2"])
    assert l1 == pytest.approx(0.4 * abs(g).max())
    delta = -found["attribution"].flatten().numpy()
    slope = g + H @ delta - 2 * l2 * delta
    on = delta != 0
    assert 0 < on.sum() < 25
    np.testing.assert_allclose(slope[on], l1 * np.sign(delta[on]), atol=1e-7)
    assert (abs(slope[~on]) <= l1 + 1e-7).all()
    assert float(found["sparsity"]) == pytest.approx(1 - on.mean())
    changed = x + torch.from_numpy(delta).reshape(D)
    assert float(found["loss"]) == pytest.approx(float(-model(changed[None])[0].log_softmax(0)[k]))


@pytest.mark.parametrize("name", ["cafo", "smoothcafo"])
def test_lambda1_is_the_one_of_the_papers_rule(name):
    """λ₁ = 10⁻⁵, 10⁻⁴, … until all is zero; of 0.25 ≤ η < 1 the one with the highest loss."""
    model, x = linear(7), image(4)
    with torch.no_grad():
        model[1].weight *= torch.logspace(-4, 1, 25, dtype=torch.float64)  # slopes of many orders
    g, _, l2, k = problem(name, model, x, seed=0)
    candidates = []
    for power in range(-5, 5):
        delta = np.sign(g) * np.maximum(abs(g) - 10.0**power, 0) / (2 * l2)
        eta = float((delta == 0).mean())
        if 0.25 <= eta < 1:
            changed = x + torch.from_numpy(delta).reshape(D)
            candidates.append((float(-model(changed[None])[0].log_softmax(0)[k]), 10.0**power))
    assert len(candidates) > 1
    found = methods.explain(name, targets.logit(model, k), x, 0, parameters(name, sparsity=0.25)).maps
    assert float(found["lambda1"]) == pytest.approx(max(candidates)[1])


@pytest.mark.parametrize("name", ["cafo", "caso"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_registered_methods_are_the_librarys_functions(name, dtype):
    model, x = linear(40).to(dtype), image(2).to(dtype)
    k = int(model(x[None]).argmax())
    found = methods.explain(name, targets.logit(model, k), x, 0, {"c1": 1.0, "l1_share": 0.3}).maps
    g, H = derivatives(linear(40), image(2)[None], k)
    l1, l2 = float(found["lambda1"]), float(found["lambda2"])
    same = cl.cafo(g, l1, l2) if name == "cafo" else cl.caso(g, H, l1, l2, tolerance=1e-10)
    assert found["attribution"].dtype == dtype
    # A KKT residual of 1e-5‖g‖ bounds the error by 1e-5‖g‖/(2c₁); single precision adds a hundred roundings.
    atol = 1e-5 * np.linalg.norm(g) + (100 * 6e-8 * l2 if dtype == torch.float32 else 0)
    np.testing.assert_allclose(-found["attribution"].double(), same.delta.reshape(D), atol=atol)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_is_not_piecewise_linear(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 9), nn.Tanh(), nn.Linear(9, 4)).double()
    x = image(3)
    k = int(model(x[None]).argmax())
    found = methods.explain(
        name, targets.logit(model, k), x, 5, parameters(name, l1_share=0.2, tolerance=1e-9)
    )
    xs = gaussian_copies(x, 0.2, 6, derive(5, "noisy copies")) if "smooth" in name else x[None]
    g, H = torch.zeros(25, dtype=torch.float64), torch.zeros(25, 25, dtype=torch.float64)
    for z in xs.flatten(1):

        def loss(y):
            return -model(y[None])[0].log_softmax(0)[k]

        g += torch.autograd.functional.jacobian(loss, z) / len(xs)
        H += torch.autograd.functional.hessian(loss, z) / len(xs)
    l1, l2 = float(found.maps["lambda1"]), float(found.maps["lambda2"])
    assert l2 == pytest.approx(max(0, float(torch.linalg.eigvalsh(H)[-1])) / 2 + 1.0, rel=1e-6)
    delta = -found.maps["attribution"].flatten()
    slope = g + (H @ delta if name.endswith("caso") else 0) - 2 * l2 * delta
    on = delta != 0
    torch.testing.assert_close(slope[on], l1 * delta[on].sign(), rtol=0, atol=1e-7)
    assert (slope[~on].abs() <= l1 + 1e-7).all()
    assert found.calls >= len(xs)


def test_copies_come_in_pairs_with_the_right_law():
    """Pairs, their centre x, and, over many seeds, variance σ² and no correlation."""
    x = image(0)[0, :2, :3]
    found = torch.stack([gaussian_copies(x, 0.3, 9, seed) for seed in range(1500)]) - x
    assert found.shape == (1500, 8, 2, 3)
    torch.testing.assert_close(found[:, :4], -found[:, 4:])
    flat = found[:, :4].reshape(-1, 6) / 0.3
    covariance = flat.T @ flat / len(flat)
    # A variance of 6,000 normal numbers has a standard error of √(2/6000) = .018, a covariance of .013.
    torch.testing.assert_close(covariance, torch.eye(6, dtype=torch.float64), rtol=0, atol=0.08)
    assert float((flat**4).mean()) == pytest.approx(3, abs=0.15)
    for sigma, count in ((0.0, 4), (float("nan"), 4), (0.1, 1)):
        with pytest.raises(ArgumentError, match="gaussian_copies"):
            gaussian_copies(x, sigma, count)


def requests(**more: dict) -> dict[str, dict]:
    chosen = {name: parameters(name, l1_share=0.3) for name in NAMES}
    return {"gradient": {}, **chosen, **more}


def image_set(count: int = 3) -> ImageSet:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, size=(count, *D)).astype(np.uint8)
    return ImageSet(pixels, random.integers(0, 2, count), [f"tiny/{i}" for i in range(count)])


@pytest.mark.parametrize("classes", [7, 40])
def test_first_and_second_order_share_their_work(classes):
    model, x = linear(classes), image()
    f = targets.logit(model, int(model(x[None]).argmax()))
    parsed = {name: methods.REGISTRY.get(name).parse(values) for name, values in requests().items()}
    work = methods.SharedWork(f, x, 2, parsed)
    found = {name: work.explain(name) for name in ("caso", "cafo", "smoothcaso", "smoothcafo")}
    for name, together in found.items():
        alone = methods.explain(name, f, x, 2, requests()[name])
        assert torch.equal(together.maps["attribution"], alone.maps["attribution"])
        assert together.calls == alone.calls == alone.made
    assert found["cafo"].made == found["smoothcafo"].made == 0
    assert found["smoothcaso"].made == found["smoothcaso"].calls
    assert found["smoothcaso"].calls % NOISE["samples"] == 0


def test_shards_change_nothing():
    model, images = linear(40).float(), image_set()
    whole = explanations.explain_images(model, images, requests(), seed=5)
    part = explanations.explain_images(model, images.subset([2]), requests(), seed=5)
    for name in NAMES:
        np.testing.assert_array_equal(part[name][0]["attribution"][0], whole[name][0]["attribution"][2])
        assert whole[name][0]["lambda1"].shape == (3,)


def test_an_image_without_a_gradient_fails_by_itself():
    """Two classes with equal logits on one image: its loss is flat, and no λ₁ leaves anything."""

    class Flat(nn.Module):
        def __init__(self, dark: np.ndarray) -> None:
            super().__init__()
            self.model, self.dark = linear(40).float(), torch.from_numpy(dark).float() / 255

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flat = ((x - self.dark).abs().flatten(1).amax(1) < 1e-6).float()[:, None]
            return self.model(x) * (1 - flat)

    images = image_set()
    model = Flat(images.images[1])
    found = explanations.explain_images(model, images, {"gradient": {}, "cafo": {}, "caso": {}})
    assert (found["gradient"][1]["status"] == "ok").all()
    for name in ("cafo", "caso"):
        arrays, index = found[name]
        assert index[index["status"] == "failed"]["image_id"].tolist() == ["tiny/1"]
        assert np.isnan(arrays["attribution"][1]).all()
        assert np.isfinite(arrays["attribution"][[0, 2]]).all()
        assert pd.isna(arrays["lambda1"][1])


def test_mistakes_are_named():
    model, x = linear(7), image()
    with pytest.raises(ArgumentError, match="scalar"):
        methods.explain("cafo", lambda z: z.flatten(1).sum(1), x)
    with pytest.raises(ConfigError, match="l1_share"):
        methods.explain("caso", targets.logit(model, 0), x, 0, {"l1": 0.1, "l1_share": 0.1})


def test_the_class_is_that_of_the_scalar_else_the_predicted_one():
    model, x = linear(7), image()
    k = int(model(x[None]).argmax())
    other = (k + 1) % 7
    values = {"l1": 0.0}
    predicted = methods.explain("cafo", targets.max_logit(model), x, 0, values).maps["attribution"]
    named = methods.explain("cafo", targets.margin(model, k), x, 0, values).maps["attribution"]
    torch.testing.assert_close(predicted, named)
    g, _ = derivatives(model, x[None], other)
    asked = methods.explain("cafo", targets.probability(model, other), x, 0, values).maps["attribution"]
    assert (
        float(torch.nn.functional.cosine_similarity(asked.flatten(), -torch.from_numpy(g), dim=0)) > 1 - 1e-9
    )


def test_a_thousand_classes_take_few_passes():
    """EfficientNet-Lite0 on a photograph, against CASO with the whole factor of the Hessian."""
    network = models.build("efficientnet_lite0", None, 1000, (3, 64, 64))
    x = torch.from_numpy(datasets.load("packaged_photographs", {"size": 64}).images[0]).float() / 255
    with torch.no_grad():
        k = int(network(x[None]).argmax())
    found = methods.explain("caso", targets.logit(network, k), x, 0, {"l1_share": 0.2})
    H = cl.softmax_hessian(network, x, label=k)
    l2 = choose_l2(H.largest_eigenvalue)
    exact = cl.caso(H.gradient, H, float(found.maps["lambda1"]), l2, tolerance=1e-9).delta
    assert found.calls <= 30 < H.calls
    assert float((-found.maps["attribution"] - exact).norm() / exact.norm()) < 1e-3
