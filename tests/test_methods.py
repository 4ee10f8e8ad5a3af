"""Attribution methods against closed forms and against Captum."""

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency

from curvelens import methods
from curvelens.errors import ConfigError

D = 6


@pytest.fixture(scope="module")
def quadratic():
    """f(x) = b.x + x.Ax/2 with its gradient b + Ax known."""
    random = np.random.default_rng(3)
    a = random.normal(size=(D, D))
    a, b = torch.tensor((a + a.T) / 2), torch.tensor(random.normal(size=D))
    x = torch.tensor(random.uniform(size=(1, 2, 3)))

    def f(batch):
        flat = batch.flatten(1)
        return flat @ b + 0.5 * ((flat @ a) * flat).sum(1)

    return f, x, a, b


def test_gradient_is_the_closed_form(quadratic):
    f, x, a, b = quadratic
    result = methods.explain("gradient", f, x)
    torch.testing.assert_close(result.maps["attribution"].flatten(), b + a @ x.flatten())
    assert result.calls == 1


def test_smoothgrad_and_vargrad_converge_to_the_gaussian_moments(quadratic):
    f, x, a, b = quadratic
    sigma, samples = 0.3, 4000
    parameters = {"sigma": sigma, "samples": samples}
    mean = methods.explain("smoothgrad", f, x, seed=1, parameters=parameters)
    variance = methods.explain("vargrad", f, x, seed=1, parameters=parameters)
    true_mean = b + a @ x.flatten()
    true_variance = sigma**2 * (a @ a).diagonal()
    # Five standard errors: of a mean sqrt(v/n), of a Gaussian's sample variance v*sqrt(2/(n-1)).
    mean_error = (mean.maps["attribution"].flatten() - true_mean).abs()
    assert (mean_error <= 5 * (true_variance / samples).sqrt()).all()
    variance_error = (variance.maps["attribution"].flatten() - true_variance).abs()
    assert (variance_error <= 5 * true_variance * (2 / (samples - 1)) ** 0.5).all()
    assert mean.calls == variance.calls == samples


def test_one_orthogonal_block_is_exact_on_a_quadratic(quadratic):
    """From 2 d calls: SmoothGrad is b + Ax, VarGrad σ² diag A² and SmoothHess A, to rounding."""
    f, x, a, b = quadratic
    parameters = {"sigma": 0.4, "samples": 2 * D}
    mean, variance = (methods.explain(name, f, x, 5, parameters) for name in ("smoothgrad", "vargrad"))
    torch.testing.assert_close(
        mean.maps["attribution"].flatten(), b + a @ x.flatten(), rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(mean.maps["standard_error"], torch.zeros_like(x), rtol=0, atol=1e-8)
    torch.testing.assert_close(variance.maps["attribution"].flatten(), 0.4**2 * (a @ a).diagonal())
    curved = methods.explain("smoothhess", f, x, 5, parameters | {"eigenpairs": D})
    values, vectors = curved.maps["eigenvalues"], curved.maps["eigenvectors"].reshape(D, D)
    torch.testing.assert_close((vectors.T * values) @ vectors, a, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(curved.maps["vargrad"], variance.maps["attribution"])
    torch.testing.assert_close(curved.maps["attribution"].flatten(), vectors[0])
    assert (vectors @ (b + a @ x.flatten()) >= 0).all()
    assert (values.abs().diff() <= 1e-12).all()


def cubic(batch):
    """Gradient 1 + δ² in each of four features: its even part varies, which no quadratic shows."""
    flat = batch.flatten(1)
    return (flat + flat**3 / 3).sum(1)


def test_moments_of_a_cubic_have_the_right_expectation():
    """At 0 with noise s: mean 1 + s², variance 2s⁴. Over 300 seeds the means must meet them.

    The variance among n pairs is divided by n − 1, as is right for independent ones; those of an orthogonal
    matrix make the mean more precise, at most exact, for which n would be right.
    """
    s, x = 0.5, torch.zeros(1, 2, 2, dtype=torch.float64)
    parameters = {"sigma": s, "samples": 24}
    found = [methods.explain("smoothgrad", cubic, x, seed, parameters).maps for seed in range(300)]
    spread = [
        methods.explain("vargrad", cubic, x, seed, parameters).maps["attribution"] for seed in range(300)
    ]
    means = torch.stack([maps["attribution"] for maps in found]).flatten()
    variances = torch.stack(spread).flatten()
    assert abs(means.mean() - (1 + s**2)) < 4 * means.std() / len(means) ** 0.5
    error = 4 * variances.std() / len(variances) ** 0.5
    assert 2 * s**4 - error < variances.mean() < 2 * s**4 * 12 / 11 + error
    # What the method says of its own error, as if directions were independent, is that of repetition or more.
    stated = torch.stack([maps["standard_error"] for maps in found]).square().mean().sqrt()
    assert 0.7 * means.std() < stated < 1.6 * means.std()


COPIES = {"sigma": 0.2, "samples": 24}


@pytest.mark.parametrize("others", [(), ("vargrad",), ("smoothhess",), ("smoothhess", "gradient", "vargrad")])
def test_company_does_not_change_an_explanation(others):
    x = torch.rand(1, 2, 2, dtype=torch.float64)
    requests = {name: {} if name == "gradient" else COPIES for name in (*others, "smoothgrad")}
    parsed = {name: methods.REGISTRY.get(name).parse(values) for name, values in requests.items()}
    work = methods.SharedWork(cubic, x, 4, parsed)
    found = {name: work.explain(name) for name in parsed}
    alone = methods.explain("smoothgrad", cubic, x, 4, COPIES)
    assert torch.equal(found["smoothgrad"].maps["attribution"], alone.maps["attribution"])
    assert found["smoothgrad"].calls == alone.calls == alone.made == 24
    sharing = [explanation for name, explanation in found.items() if name != "gradient"]
    assert [explanation.made for explanation in sharing] == [24] + [0] * (len(sharing) - 1)


def test_calls_that_are_counted_are_those_that_are_made():
    x, points = torch.rand(1, 2, 2, dtype=torch.float64), []

    def counting(batch):
        if batch.requires_grad and len(batch) > 4:  # smaller batches measure how much memory a row takes
            points.append(len(batch))
        return cubic(batch)

    requests = dict.fromkeys(("smoothgrad", "vargrad", "smoothhess"), COPIES)
    requests |= {"integrated_gradients": {"steps": 10}}
    parsed = {name: methods.REGISTRY.get(name).parse(values) for name, values in requests.items()}
    work = methods.SharedWork(counting, x, 4, parsed)
    made = [work.explain(name).made for name in parsed]
    assert made == [24, 0, 0, 10]
    assert sum(points) == sum(made)


def test_other_noise_is_not_shared():
    x = torch.rand(1, 2, 2, dtype=torch.float64)
    requests = {
        "smoothgrad": COPIES,
        "vargrad": COPIES | {"sigma": 0.3},
        "smoothhess": COPIES | {"samples": 12},
    }
    parsed = {name: methods.REGISTRY.get(name).parse(values) for name, values in requests.items()}
    work = methods.SharedWork(cubic, x, 4, parsed)
    assert [work.explain(name).made for name in parsed] == [24, 24, 12]


def test_maps_come_with_the_local_model_that_they_belong_to(quadratic):
    f, x, a, b = quadratic
    delta = torch.linspace(-0.1, 0.2, 3 * D, dtype=torch.float64).reshape(3, *x.shape)
    exact = f(x + delta)
    parameters = {"sigma": 0.4, "samples": 2 * D}
    first = float(f(x[None])) + delta.flatten(1) @ (b + a @ x.flatten())
    for name, truth in (("gradient", first), ("smoothgrad", first), ("smoothhess", exact)):
        found = methods.explain(name, f, x, 1, {} if name == "gradient" else parameters)
        torch.testing.assert_close(found.model(delta), truth, rtol=1e-9, atol=1e-9)
    for name in ("vargrad", "integrated_gradients"):
        assert methods.explain(name, f, x).model is None


def test_few_copies_leave_the_rest_of_the_eigenpairs_zero():
    x = torch.rand(1, 4, 4, dtype=torch.float64)
    found = methods.explain("smoothhess", cubic, x, 0, {"samples": 6, "eigenpairs": 8}).maps
    assert found["eigenvalues"].shape == (8,)
    assert (found["eigenvalues"][3:] == 0).all()
    assert (found["eigenvectors"][3:] == 0).all()
    assert found["eigenvalues"][0] != 0


def test_variance_does_not_cancel_in_single_precision():
    # Gradients 1000 + x with a spread of 1e-3: E[g^2] - E[g]^2 loses all digits in float32: eps*1e6 = 0.06.
    def f(batch):
        return (1000 * batch + 0.5 * batch**2).flatten(1).sum(1)

    parameters = {"sigma": 1e-3, "samples": 2000}
    variance = methods.explain("vargrad", f, torch.zeros(1, 1, 4), 0, parameters).maps["attribution"]
    # Gradients are rounded to multiples of 2^-14 = 6e-5, which adds (6e-5)^2/12 = 3e-10 to the variance 1e-6.
    torch.testing.assert_close(variance, torch.full_like(variance, 1e-6), rtol=0.2, atol=0)


def test_smoothgrad_agrees_with_captum(quadratic):
    f, x, a, _ = quadratic
    torch.manual_seed(0)
    ours = methods.explain("smoothgrad", f, x, 2, {"sigma": 0.2, "samples": 3000}).maps["attribution"]
    theirs = NoiseTunnel(Saliency(f)).attribute(
        x[None], nt_type="smoothgrad", nt_samples=3000, stdevs=0.2, abs=False
    )[0]
    # Two independent means: five standard errors of their difference.
    tolerance = 5 * (2 * 0.2**2 * (a @ a).diagonal() / 3000).sqrt()
    assert ((ours - theirs).flatten().abs() <= tolerance).all()


def test_integrated_gradients_is_complete(quadratic):
    f, x, a, b = quadratic
    result = methods.explain("integrated_gradients", f, x, 0, {"steps": 4})
    # Gauss-Legendre with 4 nodes is exact for the linear gradient of a quadratic.
    torch.testing.assert_close(result.maps["attribution"].flatten(), x.flatten() * (b + a @ x.flatten() / 2))
    assert abs(float(result.maps["completeness_error"])) < 1e-12


@pytest.mark.parametrize(("name", "parameters", "told"), [
    ("smothgrad", {}, "smoothgrad"),
    ("smoothgrad", {"sigma": 0}, "sigma"),
    ("smoothgrad", {"sample": 3}, "sample"),
])  # fmt: skip
def test_bad_requests_name_the_culprit_on_one_line(quadratic, name, parameters, told):
    f, x, *_ = quadratic
    with pytest.raises(ConfigError, match=told) as error:
        methods.explain(name, f, x, 0, parameters)
    assert "\n" not in str(error.value)


def test_a_seed_gives_the_same_map_and_another_seed_another(quadratic):
    f, x, *_ = quadratic
    first, again, other = (
        methods.explain("smoothgrad", f, x, seed).maps["attribution"] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
