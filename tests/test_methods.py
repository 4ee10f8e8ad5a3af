"""Attribution methods against closed forms and against Captum."""

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency

from curvelens import methods, seeds
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


def test_moments_equal_numpys_two_pass_sums_on_the_same_noise(quadratic):
    from curvelens.methods._noise import BLOCK, gradient_moments

    f, x, a, b = quadratic
    samples = 2 * BLOCK + 17
    noise = [
        torch.randn(
            min(BLOCK, samples - start), *x.shape, generator=seeds.generator(9, "noisy copies", start)
        )
        for start in range(0, samples, BLOCK)
    ]
    gradients = (b + (x + 0.2 * torch.cat(noise).double()).flatten(1) @ a).numpy()
    mean, variance = gradient_moments(f, x, 9, 0.2, samples)
    np.testing.assert_allclose(mean.flatten(), gradients.mean(0), rtol=1e-12)
    np.testing.assert_allclose(variance.flatten(), gradients.var(0, ddof=1), rtol=1e-10)


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
