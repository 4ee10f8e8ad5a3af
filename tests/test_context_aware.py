"""CAFO and CASO against KKT conditions, linear algebra in numpy, a convex solver and hand calculation."""

from __future__ import annotations

import math

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curvelens.context_aware import (
    ConvergenceWarning,
    angle,
    cafo,
    caso,
    choose_l2,
    distance,
    kantorovich_distance,
    normalise,
    sparsity,
)
from curvelens.errors import ArgumentError
from curvelens.quadratic import LocalQuadratic, LowRank, MatrixFree
from curvelens.softmax_curvature import softmax_hessian


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads only get in each other's way on arrays this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def problem(d: int, rank: int, seed: int, largest: float = 30.0, indefinite: bool = False):
    """Gradient, factor, weights and dense Hessian with the given largest eigenvalue."""
    random = np.random.default_rng(seed)
    factor = random.normal(size=(d, rank))
    weights = random.uniform(0.1, 1, rank)
    if indefinite:
        weights[::2] *= -1
    H = (factor * weights) @ factor.T
    weights *= largest / np.linalg.eigvalsh(H)[-1]
    H = (factor * weights) @ factor.T
    g = random.normal(size=d)
    return (torch.from_numpy(a) for a in (g, factor, weights, H))


def violation(delta: np.ndarray, g: np.ndarray, H: np.ndarray, l1: float, l2: float) -> np.ndarray:
    """Distance of zero from the subdifferential, entry by entry, written out."""
    slope = g + H @ delta - 2 * l2 * delta
    out = np.empty_like(slope)
    for i, (s, value) in enumerate(zip(slope, delta, strict=True)):
        out[i] = max(abs(s) - l1, 0) if value == 0 else s - l1 * np.sign(value)
    return out


def two_class_model(d: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(d, 16), nn.ReLU(), nn.Linear(16, 2)).double()


def classifier(d: int, classes: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, classes)).double()


class TestClosedForms:
    def test_soft_threshold_by_hand(self):
        g = torch.tensor([[3.0, -1.0], [0.5, -2.5]])
        found = cafo(g, 1.0, 2.0)
        # (|g| − 1)₊ sign(g) / 4
        assert torch.equal(found.delta, torch.tensor([[0.5, 0.0], [0.0, -0.375]]))
        # gΔ − |Δ| − 2Δ²: 3·0.5 − 0.5 − 0.5, and 2.5·0.375 − 0.375 − 0.28125
        assert found.objective == pytest.approx(0.5 + 0.28125)
        assert (found.residual, found.iterations) == (0.0, 0)

    def test_without_sparsity_cafo_is_the_scaled_gradient(self):
        g = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(cafo(g, 0.0, 5.0).delta, g / 10, rtol=0, atol=0)

    def test_accepts_numpy(self):
        g = np.array([1.0, -2.0])
        found = caso(g, np.array([[2.0, 0.0], [0.0, 0.0]]), 0.0, 2.0)
        np.testing.assert_allclose(found.delta.numpy(), [1 / 2, -2 / 4], rtol=1e-15)

    @pytest.mark.parametrize("indefinite", [False, True])
    def test_against_numpy_solve_in_every_form(self, indefinite):
        g, factor, weights, H = problem(20, 6, 1, indefinite=indefinite)
        l2 = choose_l2(30.0, c1=2.0)
        truth = np.linalg.solve(2 * l2 * np.eye(20) - H.numpy(), g.numpy())
        forms = {
            "dense": H,
            "low-rank": LowRank(factor, weights),
            "matrix-free": MatrixFree(lambda v: H @ v, 20),
            "function": lambda v: H @ v,
            "local model": LocalQuadratic(0.0, g.reshape(4, 5), H),
            "low-rank local model": LocalQuadratic(0.0, g.reshape(4, 5), LowRank(factor, weights)),
        }
        for name, form in forms.items():
            found = caso(g.reshape(4, 5), form, 0.0, l2, tolerance=1e-12)
            assert found.delta.shape == (4, 5)
            # A residual of 1e-12·‖g‖ is an error of at most 1e-12·‖g‖/(2c₁); the rest is rounding.
            np.testing.assert_allclose(found.delta.flatten(), truth, rtol=0, atol=5e-11, err_msg=name)
            assert found.residual < 1e-12, name
            objective = g.numpy() @ truth / 2  # gᵀΔ − ½Δᵀ(2λ₂I − H)Δ at the optimum
            assert found.objective == pytest.approx(objective, rel=1e-10), name

    def test_rank_above_dimension_and_zero_rank(self):
        g, factor, weights, H = problem(4, 9, 2)
        found = caso(g, LowRank(factor, weights), 0.0, 20.0)
        np.testing.assert_allclose(found.delta, np.linalg.solve(40 * np.eye(4) - H.numpy(), g), rtol=1e-12)
        empty = LowRank(torch.zeros(4, 0, dtype=torch.float64))
        torch.testing.assert_close(caso(g, empty, 0.3, 2.0).delta, cafo(g, 0.3, 2.0).delta)

    def test_two_classes_coincide(self):
        # With two classes H is a multiple of ggᵀ, so both solutions point along g.
        x = torch.rand(1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        hessian = softmax_hessian(two_class_model(16), x)
        l2 = choose_l2(hessian.largest_eigenvalue)
        first, second = cafo(hessian.gradient, 0.0, l2), caso(hessian.gradient, hessian, 0.0, l2)
        assert distance(first.delta, second.delta) < 1e-12
        assert float(second.delta.norm()) > float(first.delta.norm()) > 0

    def test_softmax_hessian_against_double_differentiation(self):
        model = classifier(12, 5)
        x = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 3
        hessian = softmax_hessian(model, x)
        label = int(hessian.label)

        def loss(z):
            return -model(z[None])[0].log_softmax(0)[label]

        H = torch.autograd.functional.hessian(loss, x).numpy()
        g = torch.autograd.functional.jacobian(loss, x).numpy()
        l2 = choose_l2(float(np.linalg.eigvalsh(H)[-1]), 0.05)
        found = caso(hessian.gradient, hessian, 0.0, l2)
        np.testing.assert_allclose(
            found.delta, np.linalg.solve(2 * l2 * np.eye(12) - H, g), rtol=1e-9, atol=1e-12
        )


class TestSparse:
    @pytest.mark.parametrize("indefinite", [False, True])
    @pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
    def test_kkt_conditions_hold(self, share, indefinite):
        g, factor, weights, H = problem(40, 8, 5, indefinite=indefinite)
        l1, l2 = share * float(g.abs().max()), 16.0
        for form in (H, LowRank(factor, weights), MatrixFree(lambda v: H @ v, 40)):
            found = caso(g, form, l1, l2, tolerance=1e-9)
            broken = violation(found.delta.numpy(), g.numpy(), H.numpy(), l1, l2)
            size = float(np.linalg.norm(broken) / np.linalg.norm(g.numpy()))
            assert size < 2e-9
            assert size == pytest.approx(found.residual, rel=1e-3, abs=1e-15)
            assert 0 < found.iterations < 2000
            assert (found.delta == 0).any()

    @pytest.mark.parametrize("seed", range(4))
    def test_against_a_convex_solver(self, seed):
        d = 15
        g, factor, weights, H = problem(d, 5, seed, indefinite=seed % 2 == 1)
        l1, l2 = 0.3 * float(g.abs().max()), 15.5
        variable = cvxpy.Variable(d)
        curved = cvxpy.quad_form(variable, cvxpy.psd_wrap(l2 * np.eye(d) - H.numpy() / 2))
        goal = cvxpy.Maximize(g.numpy() @ variable - curved - l1 * cvxpy.norm1(variable))
        truth = cvxpy.Problem(goal).solve(solver=cvxpy.CLARABEL)
        found = caso(g, LowRank(factor, weights), l1, l2, tolerance=1e-10)
        # Clarabel stops at a relative gap of 1e-8; the distance to the optimum goes as the root of the gap.
        assert found.objective == pytest.approx(truth, rel=1e-7)
        assert found.objective >= truth - 1e-9 * abs(truth)
        np.testing.assert_allclose(found.delta.numpy(), variable.value, atol=1e-4)

    def test_forms_agree_in_shape_of_image(self):
        g, factor, weights, H = problem(48, 7, 6)
        shaped = g.reshape(3, 4, 4)
        l1, l2 = 0.5 * float(g.abs().max()), 25.0
        dense, low, free = (
            caso(shaped, form, l1, l2, tolerance=1e-11).delta
            for form in (H, LowRank(factor, weights), MatrixFree(lambda v: H @ v, 48))
        )
        # ‖Δ − Δ*‖ ≤ 1e-11·‖g‖/(2λ₂ − L) for each; twice that between two.
        bound = 2e-11 * float(g.norm()) / (50 - 30)
        assert float((dense - low).norm()) <= bound
        assert float((dense - free).norm()) <= bound

    def test_residual_bounds_the_error(self):
        g, factor, weights, _ = problem(30, 6, 7)
        l1, l2 = 0.2 * float(g.abs().max()), 16.0
        exact = caso(g, LowRank(factor, weights), l1, l2, tolerance=1e-13).delta
        for tolerance in (1e-1, 1e-2, 1e-4):
            rough = caso(g, LowRank(factor, weights), l1, l2, tolerance=tolerance)
            bound = rough.residual * float(g.norm()) / (32 - 30)
            assert 0 < float((rough.delta - exact).norm()) <= bound

    def test_warm_start_gives_the_same_in_fewer_steps(self):
        g, factor, weights, _ = problem(60, 8, 8)
        form, l2 = LowRank(factor, weights), 15.2
        cold = caso(g, form, 0.30, l2, tolerance=1e-10)
        near = caso(g, form, 0.32, l2, tolerance=1e-10)
        warm = caso(g, form, 0.30, l2, tolerance=1e-10, start=near.delta)
        bound = 2e-10 * float(g.norm()) / (30.4 - 30)
        assert float((warm.delta - cold.delta).norm()) <= bound
        assert warm.iterations < cold.iterations
        again = caso(g, form, 0.30, l2, tolerance=1e-10, start=warm.delta.numpy())
        assert again.iterations == 0

    def test_zero_from_the_largest_gradient_on(self):
        g, factor, weights, H = problem(20, 4, 9)
        top = float(g.abs().max())
        for form in (None, H, LowRank(factor, weights), MatrixFree(lambda v: H @ v, 20)):
            for l1 in (top, 2 * top):
                found = caso(g, form, l1, 20.0, start=torch.ones_like(g))
                assert not found.delta.any()
                assert (found.objective, found.residual) == (0.0, 0.0)
            # Just below, one entry leaves zero: Δᵢ = (|gᵢ| − λ₁)/(2λ₂ − Hᵢᵢ).
            only = caso(g, form, 0.9999 * top, 20.0, tolerance=1e-12).delta
            i = int(g.abs().argmax())
            diagonal = 0.0 if form is None else float(H[i, i])
            assert int((only != 0).sum()) == 1
            assert float(only[i].abs()) == pytest.approx(1e-4 * top / (40 - diagonal), rel=1e-7)

    def test_single_precision_products(self):
        g, _, _, H = problem(50, 6, 10)
        single = H.float()
        found = caso(g.float(), MatrixFree(lambda v: single @ v, 50), 0.4, 20.0)
        exact = caso(g, H, 0.4, 20.0, tolerance=1e-12)
        assert found.delta.dtype == torch.float32
        assert found.residual <= 1e-6
        # tolerance 1e-6 over μ = 10, and single precision in g and H over the same
        np.testing.assert_allclose(found.delta, exact.delta, atol=3e-6 * float(g.norm()) / 10)

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("l1", [0.0, 0.05])
    def test_single_precision_stops_at_its_rounding(self, l1):
        # Condition 51: 2λ₂Δ and HΔ cancel to a fiftieth, and 1e-9 is out of reach for products with 24 bits.
        g, _, _, H = problem(60, 6, 15, largest=1000.0)
        single = H.float()
        found = caso(g.float(), lambda v: single @ v, l1, 510.0, tolerance=1e-9)
        exact = caso(g, H, l1, 510.0, tolerance=1e-12)
        assert found.iterations < 500
        assert 1e-9 < found.residual < 1e-4
        np.testing.assert_allclose(found.delta, exact.delta, atol=1e-3 * float(exact.delta.abs().max()))

    def test_too_few_iterations_are_reported(self):
        g, factor, weights, H = problem(20, 4, 11)
        with pytest.warns(ConvergenceWarning, match="raise max_iterations"):
            found = caso(g, LowRank(factor, weights), 0.1, 15.01, max_iterations=3)
        assert found.iterations == 3
        with pytest.warns(ConvergenceWarning):
            caso(g, lambda v: H @ v, 0.0, 15.01, max_iterations=2)


class TestPaperMethod:
    def test_ten_steps_are_far_from_the_optimum_where_curvature_is_large(self):
        # λ₂ = L/2 + 10: condition 1 + L/20. Ten steps suffice at L = 10 and fail at L = 1000.
        errors = {}
        for largest in (10.0, 1000.0):
            g, factor, weights, _ = problem(100, 9, 12, largest=largest)
            form, l2 = LowRank(factor, weights), choose_l2(largest)
            exact = caso(g, form, 0.0, l2).delta
            paper = caso(g, form, 0.0, l2, method="paper")
            assert paper.iterations == 10
            errors[largest] = float((paper.delta - exact).norm() / exact.norm())
            assert paper.objective <= caso(g, form, 0.0, l2).objective
        assert errors[10.0] < 0.02
        assert errors[1000.0] > 0.1

    def test_ten_steps_by_hand_in_one_dimension(self):
        # A = 2λ₂ − L = 20; the step is halved from 0.1 until step·A ≤ 1: 0.05.
        g, L, l2, l1 = 3.0, 1000.0, 510.0, 0.5
        delta = ahead = 0.0
        age = 1.0
        for _ in range(10):
            moved = ahead + 0.05 * (g - 20 * ahead)
            new = math.copysign(max(abs(moved) - 0.05 * l1, 0), moved)
            following = (1 + math.sqrt(1 + 4 * age * age)) / 2
            ahead = new + (age - 1) / following * (new - delta)
            delta, age = new, following
        H = torch.tensor([[L]], dtype=torch.float64)
        found = caso(torch.tensor([g], dtype=torch.float64), H, l1, l2, method="paper")
        assert float(found.delta) == pytest.approx(delta, rel=1e-12)

    def test_more_steps_converge_to_the_same(self):
        g, factor, weights, _ = problem(30, 5, 13)
        form = LowRank(factor, weights)
        exact = caso(g, form, 0.5, 20.0, tolerance=1e-12).delta
        paper = caso(g, form, 0.5, 20.0, method="paper", max_iterations=2000).delta
        torch.testing.assert_close(paper, exact, rtol=0, atol=1e-10)


class TestRefusals:
    @pytest.mark.parametrize("l1", [0.0, 0.1])
    @pytest.mark.parametrize("method", ["fista", "paper"])
    def test_not_concave(self, l1, method):
        g, factor, weights, H = problem(10, 3, 14)
        for form in (H, LowRank(factor, weights)):
            with pytest.raises(ArgumentError, match=r"must exceed L/2=15 .*choose_l2"):
                caso(g, form, l1, 14.9, method=method)
        if method == "fista":
            with pytest.raises(ArgumentError, match="no maximum"):
                caso(g, MatrixFree(lambda v: H @ v, 10), l1, 5.0)

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"l1": -0.1}, "λ₁"),
            ({"l1": float("nan")}, "λ₁"),
            ({"l2": 0.0}, "λ₂"),
            ({"tolerance": 0.0}, "tolerance"),
            ({"max_iterations": 0}, "max_iterations"),
            ({"method": "newton"}, "fista"),
            ({"g": torch.full((4,), float("nan"))}, "finite"),
            ({"g": torch.arange(4)}, "finite"),
            ({"H": torch.eye(3)}, r"\[4, 4\]"),
            ({"H": LowRank(torch.ones(3, 1))}, "3 features"),
            ({"H": MatrixFree(lambda v: v, 3)}, "3 features"),
            ({"H": lambda v: v[:2]}, r"\[d, m\]"),
            ({"H": torch.full((4, 4), float("inf"))}, "not finite"),
            ({"H": lambda v: v * float("nan")}, "not finite"),
            ({"start": torch.ones(5)}, "start"),
        ],
    )
    def test_errors_name_the_remedy(self, change, word):
        usual = {"g": torch.ones(4), "H": torch.eye(4), "l1": 0.1, "l2": 3.0}
        with pytest.raises(ArgumentError, match=word) as caught:
            caso(**(usual | change))
        assert "\n" not in str(caught.value)


class TestComparison:
    def test_distance_and_angle_by_hand(self):
        a = torch.tensor([[2.0, 0.0]])
        b = torch.tensor([[5.0, 5.0]])
        assert distance(a, b) == pytest.approx(math.sqrt(2 - math.sqrt(2)))
        assert angle(a, b) == pytest.approx(45)
        assert distance(a, -a) == pytest.approx(2)
        assert angle(a, -a) == pytest.approx(180)
        tiny = torch.tensor([1.0, 1e-9], dtype=torch.float64)
        assert angle(tiny, np.array([1.0, 0.0])) == pytest.approx(math.degrees(1e-9), rel=1e-6)

    def test_zero_has_no_direction(self):
        with pytest.raises(ArgumentError, match="direction"):
            distance(torch.zeros(3), torch.ones(3))
        with pytest.raises(ArgumentError, match="features"):
            angle(torch.ones(2), torch.ones(3))

    @settings(max_examples=80, deadline=None)
    @given(
        values=st.lists(st.floats(0, 100), min_size=2, max_size=6),
        g=st.lists(st.floats(-1, 1), min_size=6, max_size=6),
        c1=st.floats(1e-3, 100),
    )
    def test_kantorovich_bound_holds(self, values, g, c1):
        gradient = torch.tensor(g[: len(values)], dtype=torch.float64)
        if float(gradient.norm()) < 1e-3:
            gradient = torch.ones_like(gradient)
        l2 = choose_l2(max(values), c1)
        H = torch.diag(torch.tensor(values, dtype=torch.float64))
        found = distance(cafo(gradient, 0.0, l2).delta, caso(gradient, H, 0.0, l2).delta)
        for smallest in (0.0, min(values)):
            # Rounding of the two unit vectors, times the condition number 2λ₂/(2c₁) ≤ 5e4
            assert found <= kantorovich_distance(max(values), l2, smallest) + 1e-10

    @pytest.mark.parametrize("largest", [0.5, 30.0, 4000.0])
    def test_kantorovich_bound_is_attained(self, largest):
        # Equality for equal weight g₁²/g₂² = κ on the two eigenvectors of A = 2λ₂I − H.
        l2 = choose_l2(largest)
        kappa = 2 * l2 / (2 * l2 - largest)
        g = torch.tensor([1.0, math.sqrt(kappa)], dtype=torch.float64)
        H = torch.diag(torch.tensor([largest, 0.0], dtype=torch.float64))
        found = distance(g, caso(g, H, 0.0, l2).delta)
        assert found == pytest.approx(kantorovich_distance(largest, l2), rel=1e-12)
        cosine = 2 * math.sqrt(kappa) / (1 + kappa)
        assert found == pytest.approx(math.sqrt(2 - 2 * cosine), rel=1e-6)

    def test_kantorovich_refuses(self):
        with pytest.raises(ArgumentError, match="choose_l2"):
            kantorovich_distance(10.0, 5.0)
        assert kantorovich_distance(0.0, 1.0) == 0

    def test_normalise_by_hand(self):
        attribution = torch.zeros(2, 10, 20)
        attribution[0] = torch.arange(200).reshape(10, 20) / 2
        attribution[1] = -attribution[0]
        found = normalise(attribution)
        # Magnitudes 0..199 over channels; numpy's 99th percentile of them is 197.01.
        cap = np.percentile(np.arange(200), 99)
        np.testing.assert_allclose(found.flatten(), np.minimum(np.arange(200) / cap, 1), rtol=1e-6, atol=1e-7)
        assert float(normalise(attribution, 50)[5, 0]) == 1

    def test_normalise_sparse_and_zero(self):
        one = torch.zeros(1, 20, 20)
        one[0, 3, 4] = -2
        expected = torch.zeros(20, 20)
        expected[3, 4] = 1
        assert torch.equal(normalise(one), expected)
        assert torch.equal(normalise(torch.zeros(1, 2, 2)), torch.zeros(2, 2))
        with pytest.raises(ArgumentError, match="percentile"):
            normalise(one, 0)

    def test_sparsity_counts_pixels(self):
        delta = torch.zeros(3, 2, 2)
        delta[0, 0, 0] = delta[2, 0, 0] = delta[1, 1, 1] = 1
        assert sparsity(delta) == 0.5
        assert sparsity(delta.flatten()) == 0.75


class TestPenalties:
    def test_l2_by_hand(self):
        assert choose_l2(6.0) == 13.0
        assert choose_l2(torch.tensor(4.0), 1.0) == 3.0
        assert choose_l2(-4.0, 1.0) == 1.0
        with pytest.raises(ArgumentError, match="c1"):
            choose_l2(1.0, 0.0)
