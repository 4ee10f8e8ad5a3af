"""Captum-style classes: the library's functions, input by input, beside Captum's own."""

from __future__ import annotations

import pytest
import torch
from captum.attr import Saliency
from torch import nn

import curvelens as cl
from curvelens import attr
from curvelens.context_aware import sparsity
from curvelens.errors import ArgumentError


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(32, 40), nn.ReLU(), nn.Linear(40, 6)]
    return nn.Sequential(*layers).double()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_context_aware_explanations_are_those_of_the_functions(model, images):
    label = 4
    second = attr.CASO(model).attribute(images, target=label)
    first = attr.CAFO(model).attribute(images, target=label)
    for i, x in enumerate(images):
        H = cl.softmax_hessian(model, x, label=label)
        l2 = H.largest_eigenvalue / 2 + 10
        dense = 2 * l2 * torch.eye(32) - H.factor @ H.factor.T
        truth = torch.linalg.solve(dense, H.gradient.reshape(-1)).reshape(x.shape)
        # Small eigenvalues of CCᵀ are known to √ε of the largest only, which λ₂ dwarfs.
        torch.testing.assert_close(second[i], truth, rtol=1e-7, atol=1e-10)
        torch.testing.assert_close(first[i], H.gradient / (2 * l2), rtol=1e-12, atol=0)


def test_signature_is_captums(model, images):
    theirs = Saliency(model).attribute(images.clone().requires_grad_(), target=torch.tensor([0, 1, 2]))
    ours = attr.CAFO(model).attribute(images, target=torch.tensor([0, 1, 2]))
    assert theirs.shape == ours.shape
    predicted = model(images).argmax(1)
    torch.testing.assert_close(
        attr.CASO(model).attribute(images), attr.CASO(model).attribute(images, target=predicted)
    )


def test_sparse_choice_and_groups(model, images):
    sparse = attr.CASO(model).attribute(images, l1=None)
    assert all(0.75 <= sparsity(one) < 1 for one in sparse)
    labels = torch.arange(16).reshape(4, 4) // 4
    g = cl.softmax_hessian(model, images[0]).gradient
    lengths = g.square().sum((0, 2)).div(8).sqrt()
    grouped = attr.CAFO(model).attribute(images[:1], l1=float(lengths.median()) * 1.001, groups=labels)
    assert [bool(row.any()) for row in grouped[0].transpose(0, 1)] == (
        lengths > lengths.median() * 1.001
    ).tolist()


def test_l1_may_be_chosen_for_groups(model, images):
    columns = torch.arange(4).expand(4, 4)
    found = attr.CASO(model).attribute(images, l1=None, groups=columns)
    # Four groups: η in [0.75, 1) leaves one of them, whole.
    assert (found != 0).any(1).any(1).sum(1).tolist() == [1, 1, 1]


def test_interactions_with_a_source(model, images):
    def square(x):
        return torch.stack([x.flatten(1).sum(1) ** 2, -(x[:, 0, 0, 0] * x[:, 0, 0, 1])], 1)

    class Known(nn.Module):
        def forward(self, x):
            return square(x)

    # (Σx)² has H = 2 everywhere: with a source of 3 features every feature interacts by 6.
    source = torch.zeros(2, 4, 4, dtype=torch.bool)
    source.view(-1)[:3] = True
    found = attr.SmoothHess(Known()).attribute(images, target=0, source=source, sigma=0.1, calls=128)
    torch.testing.assert_close(found, torch.full_like(images, 6.0), rtol=1e-6, atol=1e-6)
    # −x₀x₁: the first feature interacts with the second only.
    found = attr.SmoothHess(Known()).attribute(images[:1], target=1, sigma=0.1, calls=128)
    truth = torch.zeros_like(images[:1])
    truth.view(-1)[:2] = -1
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-6)


def test_wrong_arguments_are_named(model, images):
    with pytest.raises(ArgumentError, match="2 targets for 3"):
        attr.CASO(model).attribute(images, target=[0, 1])
    with pytest.raises(ArgumentError, match="groups"):
        attr.CASO(model).attribute(images, l1=None, groups=torch.zeros(3, 3, dtype=torch.long))
    with pytest.raises(ArgumentError, match="source"):
        attr.SmoothHess(model).attribute(images, source=torch.ones(3, 3, dtype=torch.bool))
