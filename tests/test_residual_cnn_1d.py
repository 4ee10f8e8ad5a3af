"""The one-dimensional network against torch's convolutions and against what its kernels can reach."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from curvelens import models
from curvelens.errors import ModelError
from curvelens.models._convolution1d import SameConvolution

SMALL = {"blocks": 3, "channels": 4, "width": 5, "dropout": 0.5}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("width", [1, 2, 5, 31, 32, 33, 64, 200, 601])
@pytest.mark.parametrize("length", [300, 97])
def test_the_convolution_is_torchs(width, length):
    torch.manual_seed(0)
    ours = SameConvolution(3, 4, width).double()
    theirs = nn.Conv1d(3, 4, width, padding="same").double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, length, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 4, length, dtype=torch.float64)
    a, b = ours(x), theirs(x)
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    for found, wanted in zip(
        torch.autograd.grad(a, (x, ours.weight, ours.bias), upstream),
        torch.autograd.grad(b, (x, theirs.weight, theirs.bias), upstream),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_the_network_of_the_paper_has_its_size():
    model = models.build("residual_cnn_1d", None, 1, (1, 300))
    convolutions = 20 * 1 * 200 + 20 + 9 * (20 * 20 * 200 + 20)
    assert sum(p.numel() for p in model.parameters()) == convolutions + 10 * 40 + 20 * 300 + 1
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.5] * 10


def test_the_network_is_the_formula():
    values = SMALL | {"mean": 2.0, "std": 0.5, "output_mean": 3.0, "output_std": 1.5}
    model = models.build("residual_cnn_1d", values, 1, (1, 60)).double()
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.1
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not name.startswith(("normalise", "scale"))
    }
    model.load_state_dict(state, strict=False)
    x = torch.randn(2, 1, 60, generator=generator, dtype=torch.float64)
    h = (x - 2) / 0.5
    for block in ("block1", "block2", "block3"):
        s = {
            key.removeprefix(f"{block}."): value
            for key, value in state.items()
            if key.startswith(f"{block}.")
        }
        y = nn.functional.conv1d(h, s["convolution.weight"], s["convolution.bias"], padding=2)
        mean, variance = s["normalisation.running_mean"], s["normalisation.running_var"]
        y = (y - mean[:, None]) / (variance[:, None] + 1e-5).sqrt()
        h = h + (s["normalisation.weight"][:, None] * y + s["normalisation.bias"][:, None]).clamp(min=0)
    expected = 3 + 1.5 * (h.reshape(2, -1) @ state["output.weight"].T + state["output.bias"])
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_an_untrained_network_predicts_the_mean():
    model = models.build("residual_cnn_1d", SMALL | {"output_mean": 2.8}, 1, (1, 40))
    assert model(torch.randn(3, 1, 40)).tolist() == [[pytest.approx(2.8)]] * 3


def test_samples_beyond_the_reach_of_the_kernels_do_not_interact():
    """With 3 blocks of width 5 two samples 12 apart still meet inside, two samples 13 apart do not."""
    model = models.build("residual_cnn_1d", SMALL, 1, (1, 60)).double()
    for block in (model.block1, model.block2, model.block3):
        block.activation = nn.Softplus(beta=1.0)  # smooth, so that there is a Hessian
    nn.init.normal_(model.output.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(60, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    H = torch.autograd.functional.hessian(lambda z: model(z[None, None])[0, 0], x)
    distance = (torch.arange(60)[:, None] - torch.arange(60)).abs()
    assert H[distance > 12].abs().max() == 0
    assert (H[distance == 12].abs() > 0).any()
    # A skip connection keeps what comes in: with the convolutions silenced the network is linear.
    with torch.no_grad():
        for block in (model.block1, model.block2, model.block3):
            block.normalisation.weight.zero_()
    H = torch.autograd.functional.hessian(lambda z: model(z[None, None])[0, 0], x)
    assert H.abs().max() == 0


def test_other_shapes_are_refused():
    with pytest.raises(ModelError, match="one channel of samples"):
        models.build("residual_cnn_1d", SMALL, 3, (1, 8, 8))
