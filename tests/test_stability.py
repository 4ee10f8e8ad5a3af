"""Stability under noise, randomised networks, and the memory of an explanation."""

import copy

import numpy as np
import pytest
import quantus
import torch
from torch import nn

from curvelens.costs import tensor_memory
from curvelens.errors import ArgumentError
from curvelens.sanity import randomized, similarity
from curvelens.stability import noisy_images, sensitivity


def unit(t):
    return t / t.norm()


def test_sensitivity_is_the_distance_of_maps_of_unit_length():
    torch.manual_seed(1)
    x = torch.rand(2, 5, 4, dtype=torch.float64)
    noisy = noisy_images(x, 0.1, 4, seed=0)
    original, maps = torch.randn_like(x), [torch.randn_like(x) for _ in range(4)]
    expected = [float((unit(original) - unit(one)).norm()) for one in maps]
    mean, largest = sensitivity(x, noisy, original, maps)
    assert mean == pytest.approx(np.mean(expected))
    assert largest == pytest.approx(max(expected))


def test_a_map_that_stays_has_none_and_its_opposite_two():
    x = torch.rand(1, 3, 3)
    noisy, one = noisy_images(x, 0.1, 2, seed=0), torch.randn(1, 3, 3)
    assert sensitivity(x, noisy, one, [5 * one, one]) == pytest.approx((0, 0), abs=1e-6)
    assert sensitivity(x, noisy, one, [-one, one]) == pytest.approx((1, 2), abs=1e-6)
    assert all(np.isnan(sensitivity(x, noisy, one, [0 * one, one])))


def test_noise_has_its_scale_and_its_seed():
    x = torch.full((3, 40, 40), 0.5)
    noisy = noisy_images(x, 0.2, 2, seed=3)
    # 9,600 draws: the standard deviation is known to 0.7 %.
    assert float((noisy - x).std()) == pytest.approx(0.2, rel=0.03)
    assert torch.equal(noisy, noisy_images(x, 0.2, 2, seed=3))
    assert torch.equal(noisy[0], noisy_images(x, 0.2, 1, seed=3)[0])
    assert not torch.equal(noisy[0], noisy[1])


def test_maps_must_be_as_many_as_images():
    x = torch.rand(1, 3, 3)
    with pytest.raises(ArgumentError, match="give one for each"):
        sensitivity(x, noisy_images(x, 0.1, 2, seed=0), x, [x])


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 3)
    )


def test_layers_are_shuffled_from_the_output_down():
    model = network()
    before = copy.deepcopy(model.state_dict())
    seen = []
    for share, changed in randomized(model, 3, seed=4):
        differs = {
            name.split(".")[0]: not torch.equal(tensor, before[name])
            for name, tensor in changed.state_dict().items()
            if name.endswith("weight")
        }
        seen.append((share, [name for name, one in differs.items() if one]))
        for name, tensor in changed.state_dict().items():
            assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
    assert [share for share, _ in seen] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [names for _, names in seen] == [["5"], ["3", "5"], ["1", "3", "5"]]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_one_stage_is_the_whole_network_and_none_is_refused():
    assert [share for share, _ in randomized(network(), 1, seed=0)] == [1]
    with pytest.raises(ArgumentError, match="stages"):
        list(randomized(network(), 0, seed=0))
    with pytest.raises(ArgumentError, match="layers"):
        list(randomized(nn.ReLU(), 1, seed=0))


class Shuffled(nn.Linear):
    """A layer that resets itself as ours are randomised, so that Quantus randomises alike."""

    layer = ""

    def reset_parameters(self):
        if not self.layer:
            super().reset_parameters()
            return
        from curvelens.sanity import _shuffle

        _shuffle(self, self.layer, 4)


def test_quantus_compares_the_same_networks_alike():
    model = nn.Sequential(nn.Flatten(), Shuffled(12, 9), nn.Tanh(), Shuffled(9, 7), nn.Tanh(), Shuffled(7, 3))
    for name, layer in model.named_modules():
        if isinstance(layer, Shuffled):
            layer.layer = name
    x = torch.rand(1, 1, 4, 3, generator=torch.Generator().manual_seed(1))

    def gradient(network, inputs):
        z = torch.as_tensor(inputs).clone().requires_grad_()
        return torch.autograd.grad(network(z)[:, 1].sum(), z)[0].numpy()

    original = np.abs(gradient(model, x))[0, 0]
    ours = [similarity(original, np.abs(gradient(one, x))[0, 0]) for _, one in randomized(model, 3, seed=4)]
    theirs = quantus.MPRT(disable_warnings=True)(
        model=model,
        x_batch=x.numpy(),
        y_batch=np.array([1]),
        explain_func=lambda model, inputs, **_: gradient(model, inputs),
        channel_first=True,
    )
    assert theirs.pop("original") == pytest.approx([1.0])
    assert ours == pytest.approx([scores[0] for scores in theirs.values()], abs=1e-6)


def test_a_flat_map_has_no_rank_correlation():
    assert np.isnan(similarity(np.ones((2, 2)), np.arange(4.0).reshape(2, 2)))
    assert similarity(np.arange(4.0), np.arange(4.0) ** 3) == pytest.approx(1)


def test_memory_is_what_tensors_take_at_once():
    def work():
        kept = torch.ones(500, 1000)  # 2,000,000 bytes
        for _ in range(3):
            _ = torch.ones(250, 1000) + 1  # 1,000,000 bytes and as much again, freed each time
        return kept.sum()

    result, peak = tensor_memory(work)
    assert float(result) == 500_000
    # The last passing tensor may still be there when two more are made.
    assert 4_000_000 <= peak <= 5_001_000
