"""Exported programs: the same numbers and derivatives as the network they were made from."""

import pytest
import torch
from exported_world import SHAPE, Residual, described, export, exported_residual, images
from torch import nn

from curvelens import hessian, models, region_radius, targets
from curvelens.derivatives import vjp
from curvelens.errors import ModelError
from curvelens.linearity import is_piecewise_linear
from curvelens.surrogates import softplus_surrogate


def chain(activation=nn.ReLU):
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), activation(), nn.Flatten(), nn.Linear(48, 5), activation(), nn.Linear(5, 3)
    )


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    return exported_residual(tmp_path_factory.mktemp("programs") / "residual.pt2")


# ---------------------------------------------------------------- the same network


@pytest.mark.parametrize("decompose", [None, ({},), ()], ids=["as exported", "functional", "core"])
@pytest.mark.parametrize("batch", ["dynamic", 1, 3])
def test_a_program_is_the_network_for_any_number_of_images(tmp_path, residual, batch, decompose):
    model, _ = residual
    path = export(model, tmp_path / "m.pt2", batch, decompose)
    found = models.restore(path, **described())
    x = images(5)
    torch.testing.assert_close(found(x), model(x))
    models.save_weights(found, tmp_path / "stored.safetensors")
    again = models.restore(tmp_path / "stored.safetensors", **described())
    assert torch.equal(again(x), found(x))
    assert is_piecewise_linear(again)


def test_derivatives_are_those_of_the_network(residual):
    """Against another way: the definition, by differences in float64, and autograd of the original."""
    model, path = residual
    original, found = (m.double() for m in (Residual(), models.restore(path, **described())))
    original.load_state_dict(model.state_dict())
    original.eval()
    x = images(1, dtype=torch.float64)[0]
    f = targets.loss(found, 1)
    H = hessian(f, x)
    jacobian = torch.autograd.functional.jacobian(lambda z: original(z[None])[0], x).flatten(1)
    p = original(x[None])[0].softmax(0).detach()
    # The network is piecewise linear, so the loss has no other curvature than the softmax's.
    expected = jacobian.T @ (p.diag() - p[:, None] * p) @ jacobian
    torch.testing.assert_close(H, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(vjp(targets.logits(found), x, torch.eye(3).double()).flatten(1), jacobian)
    products = torch.func.vmap(
        lambda v: torch.func.jvp(torch.func.grad(lambda z: f(z[None])[0]), (x,), (v.view_as(x),))[1].flatten()
    )(torch.eye(x.numel(), dtype=torch.float64))
    torch.testing.assert_close(products, expected, rtol=1e-8, atol=1e-10)


def test_layers_are_modules_again(residual):
    """So that surrogates replace ReLUs, regions are followed, and an inner neuron is found."""
    model, path = residual
    found = models.restore(path, **described())
    kinds = [type(part).__name__ for part in found.network.layers.values()]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "Linear"]
    assert list(found.network.layers)[:2] == ["conv1", "bn1"]
    x = images(1)
    assert float(region_radius(found, x[0])) == pytest.approx(float(region_radius(model, x[0])), rel=1e-6)
    smooth = softplus_surrogate(found, 20.0)
    torch.testing.assert_close(smooth(x), softplus_surrogate(Separate(model), 20.0)(x))
    assert not is_piecewise_linear(smooth)
    assert targets.inner_neuron(found, int(found(x).argmax()), x)[0] == "network.layers.conv2"


class Separate(nn.Module):
    """The residual network without writing in place, for surrogates."""

    def __init__(self, model):
        super().__init__()
        self.m = model
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        m = self.m
        x = self.relu1(m.bn1(m.conv1(x)))
        return m.fc(m.pool(self.relu2(m.conv2(x) + x) + m.shift).flatten(1))


def test_a_chain_of_layers_is_a_sequential(tmp_path):
    model = chain()
    found = models.restore(export(model, tmp_path / "m.pt2"), **described())
    assert [type(part) for part in found.network] == [type(part) for part in model]
    torch.testing.assert_close(found(images(4)), model(images(4)))


@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU, nn.Hardswish, nn.Softplus, nn.Tanh, nn.ELU])
def test_curved_programs_are_not_taken_for_linear(tmp_path, activation):
    model = chain(activation)
    found = models.restore(export(model, tmp_path / "m.pt2"), **described())
    assert [type(part) for part in found.network] == [type(part) for part in model]
    assert models.probe(found, **described()) == {"piecewise_linear": False, "second_derivatives": True}


@pytest.mark.parametrize("activation", [nn.ReLU6, nn.LeakyReLU, nn.Hardtanh])
def test_straight_programs_are_known_to_be(tmp_path, activation):
    model = chain(activation)
    found = models.restore(export(model, tmp_path / "m.pt2"), **described())
    torch.testing.assert_close(found(images(4)), model(images(4)))
    assert models.probe(found, **described())["piecewise_linear"]


class Attention(nn.Module):
    """A transformer's block over rows of pixels, with a product of values, which is curved."""

    def __init__(self):
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        rows = x.permute(0, 2, 1, 3).flatten(2)
        rows = torch.cat([self.token.expand(x.shape[0], -1, -1), rows], 1)
        return self.fc(self.inner(rows)[:, 0])


def test_attention_has_second_derivatives(tmp_path):
    torch.manual_seed(1)
    model = Attention().eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        found = models.restore(export(model, tmp_path / "m.pt2"), **described())
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    torch.testing.assert_close(found(images(3)), model(images(3)), rtol=1e-4, atol=1e-5)
    found = found.double()
    x, v = images(1, dtype=torch.float64)[0], torch.ones(SHAPE, dtype=torch.float64)
    f = targets.logit(found, 0)
    h = 1e-4  # the fourth-order error is about 1e-8 here, rounding 1e-8 of a second difference
    with torch.no_grad():
        second = (f((x + h * v)[None]) - 2 * f(x[None]) + f((x - h * v)[None])) / h**2
    assert float(v.flatten() @ hessian(f, x) @ v.flatten()) == pytest.approx(
        float(second), rel=1e-4, abs=1e-6
    )


def test_preprocessing_and_shapes(tmp_path, residual):
    _, path = residual
    with pytest.raises(
        ModelError, match=r"exported for images \[2, 6, 6\], and gets \[2, 8, 6\]; give parameters"
    ):
        models.restore(path, **described((2, 8, 6)))
    found = models.restore(path, **described((2, 8, 6), resize=[6, 6]))
    assert models.probe(found, **described((2, 8, 6)))["piecewise_linear"]
    with pytest.raises(ModelError, match="gives 3 outputs, and the data set has 4 classes"):
        models.probe(found, **described((2, 8, 6), classes=4))


class OneByOne(nn.Module):
    """Whose program holds on to the number of images it was made for."""

    def forward(self, x):
        ranks = torch.cat([x[i : i + 1].flatten(1)[:, :3] * 2 for i in range(x.shape[0])])
        return ranks * 1.0


def test_a_fixed_number_of_images_is_kept_where_it_must_be(tmp_path, caplog):
    path = export(OneByOne(), tmp_path / "m.pt2", 2)
    found = models.restore(path, **described())
    x = images(5)
    torch.testing.assert_close(found(x), x.flatten(1)[:, :3] * 2)
    assert "was exported for exactly 2 images at a time" in caplog.text
    f = targets.loss(found.double(), 0)
    p = (x[0].double().flatten()[:3] * 2).softmax(0)
    block = hessian(f, x[0].double())[:3, :3]
    torch.testing.assert_close(block, 4 * (p.diag() - p[:, None] * p))
