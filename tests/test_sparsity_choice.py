"""λ₁ along its path, and the choice of one by sparsity: against brute force, and by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from curvelens.context_aware import (
    block_labels,
    cafo,
    caso,
    caso_path,
    choose_l1,
    choose_l2,
    l1_grid,
    sparsity,
)
from curvelens.errors import ArgumentError
from curvelens.quadratic import LowRank
from curvelens.softmax_curvature import softmax_hessian
from curvelens.softmax_products import softmax_products


def tiny(seed: int, d: int = 6):
    """g, a factor C of H = CCᵀ, H, and λ₂ near the border of concavity."""
    random = np.random.default_rng(seed)
    g, C = random.normal(size=d), random.normal(size=(d, 3))
    H = C @ C.T
    return g, C, H, choose_l2(np.linalg.eigvalsh(H)[-1], 0.5)


def enumerated(g: np.ndarray, H: np.ndarray, l1: float, l2: float) -> np.ndarray:
    """The maximum by trying every support with every combination of signs."""
    A, best, found = 2 * l2 * np.eye(len(g)) - H, 0.0, np.zeros(len(g))
    for signs in itertools.product((-1, 0, 1), repeat=len(g)):
        s = np.array(signs)
        S = np.flatnonzero(s)
        delta = np.zeros(len(g))
        delta[S] = np.linalg.solve(A[np.ix_(S, S)], g[S] - l1 * s[S]) if len(S) else delta[S]
        if (np.sign(delta) == s).all():
            value = g @ delta - delta @ A @ delta / 2 - l1 * np.abs(delta).sum()
            if value > best:
                best, found = value, delta
    return found


def classifier(d: int = 48, classes: int = 7) -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Flatten(), nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, classes)]
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        model[3].weight.mul_(20)
    return model


class TestPath:
    @pytest.mark.parametrize("seed", range(4))
    def test_the_path_is_that_of_all_supports_and_signs(self, seed):
        g, C, H, l2 = tiny(seed)
        l1s = [share * float(np.abs(g).max()) for share in (0.0, 0.1, 0.3, 0.6, 0.9, 1.1)]
        path = caso_path(torch.from_numpy(g), LowRank(torch.from_numpy(C)), l1s, l2, tolerance=1e-10)
        for l1, found in zip(l1s, path, strict=True):
            truth = enumerated(g, H, l1, l2)
            # ‖Δ − Δ*‖ ≤ residual ‖g‖/(2λ₂ − L), 2λ₂ − L being 1.
            np.testing.assert_allclose(found.delta, truth, atol=1e-10 * np.linalg.norm(g) + 1e-13)
            assert sparsity(found.delta) == (truth == 0).mean()

    @pytest.mark.parametrize("form", ["factor", "products", "matrix"])
    @pytest.mark.parametrize("kind", ["values", "channels", "patches"])
    def test_the_path_is_that_of_separate_solutions(self, form, kind):
        model = classifier()
        x = torch.rand(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        full = softmax_hessian(model, x)
        dense = full.factor @ full.factor.T
        H = {"factor": full, "products": softmax_products(model, x), "matrix": dense}[form]
        labels = block_labels(kind, np.zeros((3, 4, 4), np.uint8), patch=2)
        grid = [0.0, *l1_grid(full.gradient, labels)]
        l2 = choose_l2(full.largest_eigenvalue)
        path = caso_path(full.gradient, H, grid, l2, tolerance=1e-9, groups=labels)
        for l1, found in zip(grid, path, strict=True):
            alone = caso(full.gradient, dense, l1, l2, tolerance=1e-11, groups=labels)
            # Both within residual ‖g‖/(2c₁) of the solution.
            bound = 1.01e-9 * float(full.gradient.norm()) / 20
            assert float((found.delta - alone.delta).norm()) <= bound
            assert found.residual <= 1e-9
        assert not path[-1].delta.any()

    def test_the_grid_ends_where_nothing_is_left(self):
        g = torch.tensor([0.02, -0.3, 0.0, 0.3], dtype=torch.float64)
        assert l1_grid(g) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])
        # √(0.02² + 0.3²)/√2 = 0.2126 and 0.3/√2 = 0.2121
        pairs = torch.tensor([0, 0, 1, 1])
        grid = l1_grid(g, pairs)
        assert not cafo(g, grid[-1], 1.0, groups=pairs).delta.any()
        assert cafo(g, grid[-2], 1.0, groups=pairs).delta.any()
        assert l1_grid(1e-7 * g) == [1e-5]
        with pytest.raises(ArgumentError, match="zero"):
            l1_grid(math.nan * g)

    def test_sparsity_in_groups(self):
        delta = torch.zeros(3, 2, 2)
        delta[1, 0, 1] = 1.0
        assert sparsity(delta) == 0.75
        assert sparsity(delta, torch.tensor([[0, 0], [1, 1]])) == 0.5
        assert sparsity(delta, torch.arange(12).reshape(3, 2, 2)) == pytest.approx(11 / 12)


class TestChoice:
    def test_takes_the_highest_loss_in_the_range(self):
        # CAFO keeps |gᵢ| > λ₁ and the paper's grid is 1e-5, 1e-4, …, until nothing is left: max|g| = 1.
        sizes = [1.0, 5e-2, 5e-3, 5e-4, 5e-5, *[5e-6] * 15]
        g = torch.tensor(sizes, dtype=torch.float64)
        x = torch.zeros(20, dtype=torch.float64)
        found = choose_l1(g, None, 1.0, lambda z: z.sum(1), x)
        grid = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
        assert [point.l1 for point in found.path] == pytest.approx(grid)
        assert [point.step for point in found.path] == [0, 1, 2, 3, 4, 5]
        assert [point.sparsity for point in found.path] == pytest.approx([0.75, 0.8, 0.85, 0.9, 0.95, 1])
        truth = [sum(max(size - l1, 0) for size in sizes) / 2 for l1 in grid]
        assert [point.loss for point in found.path] == pytest.approx(truth)
        assert found.l1 == pytest.approx(1e-5)  # the sum falls with λ₁
        assert found.satisfied
        # Δ = 0 at λ₁ = 1 has the highest loss of all, but η < 1 is asked for.
        other = choose_l1(g, None, 1.0, lambda z: -z.sum(1), x)
        assert other.l1 == pytest.approx(1e-1)
        middle = choose_l1(g, None, 1.0, lambda z: -(z.sum(1) - truth[2]).abs(), x)
        assert middle.l1 == pytest.approx(1e-3)

    def test_halves_the_first_that_gives_zero_where_the_grid_has_none(self):
        # Of 100 pixels 70 are zero from λ₁ = 0.01 on; the other 30 are 0.11, 0.12, …, 0.4. The first power of
        # ten that leaves none is 1: 1/2 leaves none either, 1/4 leaves 15.
        sizes = [0.01] * 70 + [0.11 + 0.01 * k for k in range(30)]
        g = torch.tensor(sizes, dtype=torch.float64)
        found = choose_l1(g, None, 1.0, lambda z: z.sum(1), torch.zeros_like(g))
        walk = sorted((point for point in found.path), key=lambda point: point.step)
        assert [point.l1 for point in walk] == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 0.5, 0.25])
        etas = [0, 0, 0, 0.7, 0.7, 1, 1, 0.85]
        assert [point.sparsity for point in walk] == pytest.approx(etas)
        assert found.satisfied
        assert found.l1 == pytest.approx(0.25)

    def test_bisects_where_halving_steps_over_the_range(self):
        # Pixels 0.11, 0.12, …, 0.3: 1/2 leaves none, 1/4 leaves five of twenty, too many for η ≥ 0.8.
        g = torch.tensor([0.11 + 0.01 * k for k in range(20)], dtype=torch.float64)
        found = choose_l1(g, None, 1.0, lambda z: z.sum(1), torch.zeros_like(g), least=0.8)
        walk = sorted((point for point in found.path), key=lambda point: point.step)[5:]
        # Between 1/4 (too dense) and 1/2 (zero): 3/8 (zero), 5/16 (zero), 9/32 (two left).
        assert [point.l1 for point in walk] == pytest.approx([1, 0.5, 0.25, 0.375, 0.3125, 0.28125])
        assert [point.sparsity for point in walk] == pytest.approx([1, 1, 0.75, 1, 1, 0.9])
        assert found.l1 == pytest.approx(0.28125)

    def test_what_is_solved_along_is_not_chosen_from(self):
        g = torch.tensor([1.0, 0.05, *[1e-6] * 18], dtype=torch.float64)
        x = torch.zeros_like(g)
        plain = choose_l1(g, None, 1.0, lambda z: z.sum(1), x)
        more = choose_l1(g, None, 1.0, lambda z: z.sum(1), x, also=[0.0, 3e-5])
        assert more.l1 == plain.l1
        assert [point.l1 for point in more.path if point.step is None] == [0.0, 3e-5]
        assert [point.l1 for point in more.path if point.step is not None] == [p.l1 for p in plain.path]

    def test_groups_count_as_wholes(self):
        # Four groups of two pixels, of ‖g_G‖/√2 = 1, 0.05, 5e-4, 5e-6: η = ¼, ½, ½, ¾, ¾, 1.
        g = torch.tensor([1.0, 0.05, 5e-4, 5e-6], dtype=torch.float64).repeat_interleave(2)
        labels = torch.arange(8) // 2
        found = choose_l1(g, None, 1.0, lambda z: z.sum(1), torch.zeros_like(g), groups=labels)
        assert l1_grid(g, labels) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])
        assert [p.sparsity for p in found.path] == pytest.approx([0.25, 0.25, 0.5, 0.5, 0.75, 1])
        assert found.l1 == pytest.approx(0.1)

    def test_reports_where_nothing_is_sparse_enough(self):
        # All entries equal: they leave zero together.
        g = torch.ones(6, dtype=torch.float64)
        found = choose_l1(g, None, 1.0, lambda z: z.sum(1), torch.zeros_like(g))
        assert not found.satisfied
        assert found.sparsity == 0
        with pytest.raises(ArgumentError, match="zero"):
            choose_l1(0 * g, None, 1.0, lambda z: z.sum(1), torch.zeros_like(g))

    def test_second_order_on_a_network(self):
        model = classifier(3 * 6 * 6, 5)
        x = torch.rand(3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        hessian = softmax_hessian(model, x)
        l2 = choose_l2(hessian.largest_eigenvalue)
        label = int(hessian.label)

        def loss(z):
            return -model(z).log_softmax(1)[:, label]

        found = choose_l1(hessian.gradient, hessian, l2, loss, x)
        assert found.satisfied
        assert 0.75 <= found.sparsity < 1
        again = caso(hessian.gradient, hessian, found.l1, l2)
        torch.testing.assert_close(found.explanation.delta, again.delta, rtol=0, atol=1e-7)
        before, after = loss(torch.stack([x, x + found.explanation.delta])).tolist()
        assert found.loss == pytest.approx(after, rel=1e-12)
        assert after > before
