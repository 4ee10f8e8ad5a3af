"""Hessians known by their products: against dense matrices, full factors and a convex solver."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
import torch
from torch import nn

from curvelens.context_aware import cafo, caso, caso_path, choose_l1, choose_l2
from curvelens.errors import ArgumentError
from curvelens.nystrom import Nystrom
from curvelens.quadratic import LowRank
from curvelens.softmax_curvature import softmax_hessian
from curvelens.softmax_products import softmax_products


def positive(d: int, seed: int, decay: float = 0.5) -> torch.Tensor:
    """A positive semidefinite matrix with eigenvalues 30·decayᵏ."""
    random = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(random.normal(size=(d, d)))
    return torch.from_numpy((Q * (30 * decay ** np.arange(d))) @ Q.T)


def classifier(classes: int = 40, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, classes)]
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        model[3].weight.mul_(20)
    return model


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestNystrom:
    def test_is_exact_on_what_was_tried_and_never_larger(self):
        H = positive(30, 0)
        known = Nystrom(lambda v: H @ v, 30, torch.float64)
        tried = torch.randn(30, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        torch.testing.assert_close(known.apply(tried), H @ tried, rtol=0, atol=1e-12)
        C = known.low_rank().factor
        # Leaving out eigenvalues below √ε·L costs at most that.
        torch.testing.assert_close(C @ (C.T @ tried), H @ tried, rtol=0, atol=30 * 1.5e-8 * 4)
        assert torch.linalg.eigvalsh(H - C @ C.T)[0] > -1e-11

    def test_what_is_known_costs_no_product(self):
        H = positive(12, 1)
        known = Nystrom(lambda v: H @ v, 12, torch.float64)
        tried = torch.eye(12, 3, dtype=torch.float64)
        known.apply(tried)
        mixed = tried @ torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.0]], dtype=torch.float64)
        torch.testing.assert_close(known.apply(mixed), H @ mixed, rtol=0, atol=1e-13)
        assert known.products == 3

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
    def test_largest_eigenvalue(self, dtype, tolerance):
        H = positive(60, 2, decay=0.8)
        known = Nystrom(lambda v: H.to(v) @ v, 60, dtype)
        found = known.largest_eigenvalue(torch.ones(60), tolerance)
        # 30 is the largest eigenvalue by construction; Ritz values come from below.
        assert found.value == pytest.approx(30, abs=2 * tolerance)
        assert 30 - found.value <= found.error + 1e-5
        assert found.products == known.products < 40

    def test_an_eigenvector_that_the_start_lacks_is_found(self):
        H = torch.diag(torch.tensor([5.0, 1.0, 0.5, 0.0], dtype=torch.float64))
        start = torch.tensor([0.0, 1.0, 0.0, 0.0])
        known = Nystrom(lambda v: H @ v, 4, torch.float64)
        assert known.largest_eigenvalue(start, 1e-9).value == pytest.approx(5)

    def test_products_that_are_not_finite_are_refused(self):
        with pytest.raises(ArgumentError, match="not finite"):
            Nystrom(lambda v: v * float("nan"), 3).apply(torch.ones(3, 1))


class TestSoftmaxProducts:
    def test_gradient_and_products_against_autograd(self):
        model, x = classifier(), image()
        found = softmax_products(model, x)
        label = int(model(x[None]).argmax())

        def loss(z):
            return -model(z[None]).log_softmax(1)[0, label]

        torch.testing.assert_close(found.gradient, torch.func.grad(loss)(x), rtol=1e-10, atol=1e-12)
        H = torch.func.hessian(loss)(x).reshape(48, 48)
        v = torch.randn(48, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        torch.testing.assert_close(found.matvec(v), H @ v, rtol=1e-9, atol=1e-9)
        assert found.label == label
        assert found.calls == 6

    def test_several_inputs_give_the_mean_at_one_label(self):
        model = classifier()
        xs = torch.stack([image(seed) for seed in range(5)])
        found = softmax_products(model, xs, label=7, copies=True, chunk=3)
        each = [softmax_hessian(model, x, label=7) for x in xs]
        H = sum(one.factor @ one.factor.T for one in each) / 5
        v = torch.randn(48, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        torch.testing.assert_close(found.matvec(v), H @ v, rtol=1e-10, atol=1e-10)
        mean = sum(one.gradient for one in each) / 5
        torch.testing.assert_close(found.gradient, mean, rtol=1e-10, atol=1e-12)

    def test_a_model_without_forward_mode(self):
        class Square(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return 2 * x

            @staticmethod
            def backward(ctx, g):
                return 2 * g

        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = classifier()

            def forward(self, x):
                return Square.apply(self.inner(x))

        model, x = Odd(), image()
        found = softmax_products(model, x, gauss_newton=True)
        C = softmax_hessian(model, x, gauss_newton=True).factor
        v = torch.randn(48, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        torch.testing.assert_close(found.matvec(v), C @ (C.T @ v), rtol=1e-9, atol=1e-9)

    def test_curved_models_and_wrong_labels_are_refused(self):
        curved = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        with pytest.raises(ArgumentError, match="piecewise linear"):
            softmax_products(curved, image())
        with pytest.raises(ArgumentError, match="label 40"):
            softmax_products(classifier(), image(), label=40)


class TestSolutions:
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.7])
    def test_against_the_full_factor(self, share):
        model, x = classifier(), image()
        full, few = softmax_hessian(model, x), softmax_products(model, x)
        largest = few.largest_eigenvalue(1e-6).value
        assert largest == pytest.approx(full.largest_eigenvalue, rel=1e-6)
        l2 = choose_l2(full.largest_eigenvalue)
        l1 = share * float(full.gradient.abs().max())
        truth = caso(full.gradient, full, l1, l2, tolerance=1e-11)
        found = caso(few.gradient, few, l1, l2, tolerance=1e-8)
        assert found.residual <= 1e-8
        # ‖Δ − Δ*‖ ≤ residual·‖g‖/(2λ₂ − L) with 2λ₂ − L = 20
        bound = 1.1e-8 * float(full.gradient.norm()) / 20
        assert float((found.delta - truth.delta).norm()) <= bound
        assert few.known.products < 40  # the number of classes

    def test_a_path_shares_its_products(self):
        model, x = classifier(), image()
        H = softmax_products(model, x)
        l2 = choose_l2(H.largest_eigenvalue(1e-6).value)
        top = float(H.gradient.abs().max())
        l1s = [0.0, 1e-3 * top, 1e-2 * top, 0.1 * top, 0.5 * top, 2 * top]
        before = H.known.products
        path = caso_path(H.gradient, H, l1s, l2, tolerance=1e-7)
        together = H.known.products - before
        alone = 0
        for l1, found in zip(l1s, path, strict=True):
            single = softmax_products(model, x)
            truth = caso(single.gradient, softmax_hessian(model, x), l1, l2, tolerance=1e-11)
            caso(single.gradient, single, l1, l2, tolerance=1e-7)
            alone += single.known.products
            assert found.residual <= 1e-7
            torch.testing.assert_close(
                found.delta, truth.delta, rtol=0, atol=1e-7 * float(truth.delta.norm() + 1)
            )
        assert not path[-1].delta.any()
        assert together < alone

    def test_choice_of_l1_is_that_of_the_full_factor(self):
        model, x = classifier(), image()
        full = softmax_hessian(model, x)
        l2 = choose_l2(full.largest_eigenvalue)

        def loss(z):
            return -model(z).log_softmax(1)[:, full.label]

        truth = choose_l1(full.gradient, full, l2, loss, x)
        found = choose_l1(full.gradient, softmax_products(model, x), l2, loss, x)
        assert found.l1 == truth.l1
        for mine, theirs in zip(found.path, truth.path, strict=True):
            assert (mine.l1, mine.step) == (theirs.l1, theirs.step)
            assert (mine.sparsity, mine.loss) == pytest.approx((theirs.sparsity, theirs.loss), rel=1e-5)

    def test_penalty_below_half_the_curvature_is_noticed(self):
        model, x = classifier(), image()
        H = softmax_products(model, x)
        largest = H.largest_eigenvalue(1e-6).value
        with pytest.raises(ArgumentError, match="must exceed L/2"):
            caso(H.gradient, H, 0.01, 0.4 * largest)


class TestGroups:
    labels = torch.arange(16).reshape(4, 4) // 2 % 2 + 2 * (torch.arange(16).reshape(4, 4) // 8)

    @pytest.mark.parametrize("share", [0.05, 0.4])
    def test_against_a_convex_solver(self, share):
        random = np.random.default_rng(0)
        g, C = random.normal(size=(2, 4, 4)), random.normal(size=(32, 3))
        l2 = float(np.linalg.norm(C, 2)) ** 2 / 2 + 1.0
        labels = np.broadcast_to(self.labels.numpy(), (2, 4, 4)).reshape(-1)
        l1 = share * max(np.linalg.norm(g.reshape(-1)[labels == k]) / np.sqrt(8) for k in range(4))
        v = cvxpy.Variable(32)
        weight = sum(np.sqrt(8) * cvxpy.norm(v[np.flatnonzero(labels == k)]) for k in range(4))
        A = 2 * l2 * np.eye(32) - C @ C.T
        problem = cvxpy.Problem(
            cvxpy.Minimize(cvxpy.quad_form(v, cvxpy.psd_wrap(A)) / 2 - g.reshape(-1) @ v + l1 * weight)
        )
        problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        found = caso(
            torch.from_numpy(g), LowRank(torch.from_numpy(C)), l1, l2, groups=self.labels, tolerance=1e-10
        )
        np.testing.assert_allclose(found.delta.reshape(-1), v.value, atol=1e-6)
        assert found.objective == pytest.approx(-problem.value, rel=1e-8)

    def test_a_group_is_zero_as_a_whole(self):
        g = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        lengths = [float(g[:, self.labels == k].norm()) / 8**0.5 for k in range(4)]
        found = cafo(g, sorted(lengths)[1] * 1.0001, 3.0, groups=self.labels).delta
        zero = [not found[:, self.labels == k].any() for k in range(4)]
        assert zero == [length < sorted(lengths)[2] for length in lengths]
        assert all(bool((found[:, self.labels == k] != 0).all()) for k in range(4) if not zero[k])

    def test_groups_of_one_are_single_entries(self):
        g = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        labels = torch.arange(15).reshape(3, 5)
        torch.testing.assert_close(cafo(g, 0.3, 2.0, groups=labels).delta, cafo(g, 0.3, 2.0).delta)

    def test_groups_that_do_not_fit_are_refused(self):
        with pytest.raises(ArgumentError, match="do not fit"):
            cafo(torch.ones(2, 4, 4), 0.1, 1.0, groups=torch.zeros(3, 3, dtype=torch.long))
        with pytest.raises(ArgumentError, match="integers"):
            cafo(torch.ones(4), 0.1, 1.0, groups=torch.zeros(4))
