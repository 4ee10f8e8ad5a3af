"""The trust-region step against hand solutions, brute force, a convex solver and optimality conditions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from curvelens.errors import ArgumentError
from curvelens.trust_region import (
    TrustRegionStep,
    leading,
    solve,
    solve_matrix_free,
    truncated_paper_step,
)

# Float64 has 16 digits; the cases below have condition numbers near 1 and need a few dozen operations.
EXACT = 1e-13


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def solve_dense(g: Tensor, H: Tensor, radius: float) -> TrustRegionStep:
    w, V = torch.linalg.eigh(H)
    return solve(g, w, V, radius)


def random_problem(d: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    A = torch.randn(d, d, generator=source, dtype=torch.float64)
    return torch.randn(d, generator=source, dtype=torch.float64), scale * (A + A.T) / 2


def model(g: Tensor, H: Tensor, s: Tensor) -> float:
    return float(g @ s + 0.5 * s @ H @ s)


def brute_force(g: Tensor, H: Tensor, radius: float) -> float:
    """Lowest value over a polar grid of a disc; within ½·L·(arc of a step) of the minimum."""
    angle = torch.linspace(0, 2 * math.pi, 2001, dtype=torch.float64)
    rho = torch.linspace(0, radius, 201, dtype=torch.float64)
    points = rho[:, None, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
    values = points @ g + 0.5 * ((points @ H) * points).sum(-1)
    return float(values.min())


def semidefinite_programme(g: Tensor, H: Tensor, radius: float) -> float:
    """Value of the relaxation of Torop et al. 2023, eq. 65, which is tight for this problem."""
    cp = pytest.importorskip("cvxpy")
    d = len(g)
    M = cp.Variable((d + 1, d + 1), PSD=True)
    X, gamma = M[:d, :d], M[:d, d]
    objective = cp.Minimize(0.5 * cp.trace(H.numpy() @ X) + g.numpy() @ gamma)
    problem = cp.Problem(objective, [cp.trace(X) <= radius**2, M[d, d] == 1])
    return float(problem.solve(solver=cp.CLARABEL))


class TestSolvedByHand:
    def test_one_dimension_concave_goes_downhill_to_the_border(self):
        # −½s² + ½s on [−2, 2]: both ends are candidates, s = −2 gives −3, s = 2 gives −1. λ = −(g + Hs)/s.
        step = solve_dense(vector(0.5), vector(-1.0)[:, None], 2.0)
        assert step.step.item() == pytest.approx(-2, rel=EXACT)
        assert step.value == pytest.approx(-3, rel=EXACT)
        assert step.multiplier == pytest.approx(1.25, rel=EXACT)

    def test_interior_minimum_of_a_convex_model(self):
        step = solve_dense(vector(1, 2), torch.diag(vector(1, 4)), 5.0)
        torch.testing.assert_close(step.step, vector(-1, -0.5), rtol=EXACT, atol=0)
        assert step.multiplier == 0
        assert step.value == pytest.approx(-1, rel=EXACT)
        assert not step.hard_case

    def test_minimum_exactly_on_the_border_has_multiplier_zero(self):
        step = solve_dense(vector(3, 4), torch.eye(2, dtype=torch.float64), 5.0)
        assert step.multiplier == pytest.approx(0, abs=EXACT)
        assert step.step.norm().item() == pytest.approx(5, rel=EXACT)

    def test_border_minimum_of_a_convex_model(self):
        # H = I: s = −r g/‖g‖ and 1 + λ = ‖g‖/r.
        step = solve_dense(vector(3, 4), torch.eye(2, dtype=torch.float64), 2.0)
        torch.testing.assert_close(step.step, vector(-1.2, -1.6), rtol=EXACT, atol=0)
        assert step.multiplier == pytest.approx(1.5, rel=EXACT)

    @pytest.mark.parametrize("radius", [0.75, 1.0, 4.0])
    def test_hard_case(self, radius: float):
        # H = diag(−1, 1), g = (0, 1): λ = 1, s₂ = −½, s₁ = ±√(r² − ¼), value −½ + ⅛ − ½(r² − ¼).
        step = solve_dense(vector(0, 1), torch.diag(vector(-1, 1)), radius)
        assert step.hard_case
        assert step.multiplier == pytest.approx(1, rel=EXACT)
        expected = vector(math.sqrt(radius**2 - 0.25), -0.5)
        torch.testing.assert_close(step.step, expected, rtol=EXACT, atol=0)
        assert step.value == pytest.approx(-0.25 - radius**2 / 2, rel=EXACT)
        assert step.residual < EXACT

    def test_same_matrix_with_a_small_ball_is_not_hard(self):
        # ‖s(1)‖ = ½ > 0.25: the border is reached with λ = 1/0.25 − 1 before the singularity.
        step = solve_dense(vector(0, 1), torch.diag(vector(-1, 1)), 0.25)
        assert not step.hard_case
        assert step.multiplier == pytest.approx(3, rel=EXACT)
        torch.testing.assert_close(step.step, vector(0, -0.25), rtol=EXACT, atol=EXACT)

    def test_hard_case_with_a_degenerate_lowest_eigenvalue(self):
        # The lowest eigenspace is a plane: any direction in it is as good, the value is not affected.
        step = solve_dense(vector(0, 0, 2), torch.diag(vector(-3, -3, 1)), 2.0)
        assert step.hard_case
        assert step.multiplier == pytest.approx(3, rel=EXACT)
        assert step.step[2].item() == pytest.approx(-0.5, rel=EXACT)
        assert step.value == pytest.approx(-1 + 0.125 - 1.5 * 3.75, rel=EXACT)

    def test_degenerate_lowest_eigenvalue_with_gradient_in_it(self):
        step = solve_dense(vector(3, 4, 0), torch.diag(vector(-2, -2, 1)), 1.0)
        torch.testing.assert_close(step.step, vector(-0.6, -0.8, 0), rtol=EXACT, atol=EXACT)
        assert step.multiplier == pytest.approx(7, rel=EXACT)

    @pytest.mark.parametrize("coefficient", [1e-4, 1e-8, 1e-12, 1e-16, 1e-40, 1e-120, 1e-200, 1e-300])
    def test_nearly_hard_case_keeps_its_accuracy(self, coefficient: float):
        # First order in the coefficient a: value → −¼ − r²/2 − a√(r² − ¼), step → (∓√(r² − ¼), −½).
        radius, reach = 2.0, math.sqrt(3.75)
        step = solve_dense(vector(coefficient, 1), torch.diag(vector(-1, 1)), radius)
        assert step.value == pytest.approx(-2.25 - coefficient * reach, abs=coefficient**2 + EXACT)
        assert abs(step.step[0].item()) == pytest.approx(reach, abs=coefficient + EXACT)
        if coefficient >= 1e-120:  # below, the coefficient is beneath any rounding and the sign is free
            assert step.step[0].item() < 0
        assert step.residual < EXACT

    def test_zero_gradient_on_a_saddle_follows_the_lowest_eigenvector(self):
        step = solve_dense(vector(0, 0), torch.diag(vector(-1, 1)), 2.0)
        torch.testing.assert_close(step.step, vector(2, 0), rtol=EXACT, atol=0)
        assert (step.value, step.multiplier, step.hard_case) == (-2, 1, True)

    @pytest.mark.parametrize("diagonal", [(1.0, 2.0), (0.0, 0.0), (0.0, 1.0)])
    def test_zero_gradient_without_negative_curvature_stays(self, diagonal: tuple[float, float]):
        step = solve_dense(vector(0, 0), torch.diag(vector(*diagonal)), 2.0)
        assert step.step.abs().max() == 0
        assert (step.value, step.multiplier, step.residual) == (0, 0, 0)

    def test_zero_hessian_gives_the_first_order_step(self):
        # Torop et al. 2023, Sec. 4: −ε g/‖g‖.
        for eigenvalues, eigenvectors in (
            (vector(), torch.empty(2, 0, dtype=torch.float64)),
            (vector(0, 0), torch.eye(2, dtype=torch.float64)),
        ):
            step = solve(vector(3, 4), eigenvalues, eigenvectors, 2.0)
            torch.testing.assert_close(step.step, vector(-1.2, -1.6), rtol=EXACT, atol=0)
            assert step.value == pytest.approx(-10, rel=EXACT)
            assert step.multiplier == pytest.approx(2.5, rel=EXACT)

    def test_singular_convex_model_uses_the_flat_direction_only_as_far_as_the_gradient_asks(self):
        # H = diag(1, 0), g = (1, 0): the minimum −½ at s₁ = −1; nothing pulls along the second axis.
        step = solve_dense(vector(1, 0), torch.diag(vector(1, 0)), 3.0)
        torch.testing.assert_close(step.step, vector(-1, 0), rtol=EXACT, atol=EXACT)
        assert step.multiplier == 0


class TestAgainstOtherMethods:
    @pytest.mark.parametrize("seed", range(8))
    def test_plane_against_brute_force(self, seed: int):
        g, H = random_problem(2, seed)
        for radius in (0.3, 1.0, 3.0):
            found = solve_dense(g, H, radius).value
            # Lipschitz constant of the model on the disc times half the diagonal of a grid cell, or more.
            slope = float(g.norm() + torch.linalg.matrix_norm(H, 2) * radius)
            cell = radius * (math.pi / 2000 + 0.5 / 200)
            best = brute_force(g, H, radius)
            assert found <= best + EXACT
            assert found >= best - slope * cell

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("radius", [0.2, 1.5])
    def test_semidefinite_programme_agrees(self, seed: int, radius: float):
        g, H = random_problem(6, 100 + seed)
        if seed == 4:  # the hard case
            V = torch.linalg.eigh(H).eigenvectors
            g = g - V[:, 0] * (V[:, 0] @ g)
        if seed == 5:  # a convex model
            H = H @ H
        found = solve_dense(g, H, radius).value
        # CLARABEL stops at a relative gap of 1e-8; a decade is left for the hard case, where it loses some.
        assert found == pytest.approx(semidefinite_programme(g, H, radius), rel=1e-7, abs=1e-7)

    @pytest.mark.parametrize("hard", [False, True])
    def test_low_rank_dense_and_matrix_free_agree(self, hard: bool):
        source = torch.Generator().manual_seed(7)
        d, r = 60, 5
        V = torch.linalg.qr(torch.randn(d, r, generator=source, dtype=torch.float64)).Q
        w = vector(-4, -1, 0.5, 2, 6)
        g = torch.randn(d, generator=source, dtype=torch.float64)
        if hard:
            g = g - V[:, 0] * (V[:, 0] @ g)
        H = V @ torch.diag(w) @ V.T
        radii = [0.1, 1.0, 20.0]
        low = solve(g, w, V, radii)
        free = solve_matrix_free(g, lambda X: H @ X, radii, tolerance=1e-11)
        for a, c, radius in zip(low, free, radii, strict=True):
            b = solve_dense(g, H, radius)
            assert a.value == pytest.approx(b.value, rel=1e-12)
            assert c.value == pytest.approx(b.value, rel=1e-10)
            assert a.multiplier == pytest.approx(b.multiplier, rel=1e-10)
            assert a.value == pytest.approx(model(g, H, a.step), rel=1e-12)
            assert c.value == pytest.approx(model(g, H, c.step), rel=1e-10)
            if not (hard and radius == 20.0):  # there the sign of the lowest direction is free
                torch.testing.assert_close(a.step, b.step, rtol=1e-9, atol=1e-9)
                torch.testing.assert_close(c.step, b.step, rtol=1e-7, atol=1e-7)
        assert low[2].hard_case == hard

    def test_low_rank_convex_model_moves_along_the_flat_part_of_the_gradient(self):
        # H = diag(2, 0, 0) given by one eigenpair: s = −(g₁/(2+λ), g₂/λ, g₃/λ).
        g = vector(1, 3, 4)
        step = solve(g, vector(2), torch.eye(3, dtype=torch.float64)[:, :1], 1.0)
        lam = step.multiplier
        expected = vector(-1 / (2 + lam), -3 / lam, -4 / lam)
        torch.testing.assert_close(step.step, expected, rtol=1e-12, atol=0)
        assert step.step.norm().item() == pytest.approx(1, rel=EXACT)

    def test_matrix_free_finds_the_lowest_eigenvector_that_the_gradient_hides(self):
        # The gradient is an eigenvector: its Krylov space has one dimension and never shows the −5.
        diagonal = torch.linspace(1, 2, 80, dtype=torch.float64)
        diagonal[3] = -5
        g = torch.zeros(80, dtype=torch.float64)
        g[10] = 1.0
        step = solve_matrix_free(g, lambda X: diagonal[:, None] * X, 2.0, tolerance=1e-10)
        free = 1.0 / (5 + diagonal[10].item())
        expected = -free + 0.5 * diagonal[10].item() * free**2 - 2.5 * (4 - free**2)
        assert step.value == pytest.approx(expected, rel=1e-9)
        assert step.multiplier == pytest.approx(5, rel=1e-9)
        assert step.hard_case

    def test_matrix_free_handles_zero_gradient_zero_matrix_and_one_feature(self):
        H = torch.diag(vector(-1, 1, 2))
        assert solve_matrix_free(vector(0, 0, 0), lambda X: H @ X, 2.0).value == pytest.approx(-2, rel=1e-10)
        flat = solve_matrix_free(vector(3, 4), torch.zeros_like, 2.0)
        torch.testing.assert_close(flat.step, vector(-1.2, -1.6), rtol=1e-12, atol=0)
        assert solve_matrix_free(vector(1.0), lambda X: 2 * X, 3.0).step.item() == pytest.approx(-0.5)

    def test_matrix_free_uses_few_products_where_few_suffice(self):
        g, H = random_problem(300, 3)
        seen = []
        step = solve_matrix_free(g, lambda X: seen.append(X.shape[1]) or H @ X, 0.1)
        assert step.residual <= 1e-6
        assert sum(seen) < 60


class TestTruncation:
    def test_keeps_the_fewest_eigenvalues_with_the_share(self):
        # Magnitudes 5, 3, 1, 1 of 10: shares .5, .8, .9, 1 (Torop et al. 2023, eq. 71).
        w = vector(1, -5, 3, -1)
        assert leading(w, 0.5).tolist() == [1]
        assert leading(w, 0.51).tolist() == [1, 2]
        assert leading(w, 0.8).tolist() == [1, 2]
        assert len(leading(w, 1.0)) == 4

    def test_stays_in_the_kept_span_and_drops_the_rest_of_the_gradient(self):
        g, w = vector(1, 1, 1, 1), vector(-5, 3, 1, -1)
        step = truncated_paper_step(g, w, torch.eye(4, dtype=torch.float64), 0.5, share=0.8)
        assert step.step[2:].abs().max() == 0
        assert step.residual > 0.1  # the gradient's dropped half is missing from the stationarity condition
        assert step.value > solve(g, w, torch.eye(4, dtype=torch.float64), 0.5).value

    def test_everything_kept_is_the_exact_step(self):
        g, H = random_problem(12, 5)
        w, V = torch.linalg.eigh(H)
        whole, kept = solve(g, w, V, 0.7), truncated_paper_step(g, w, V, 0.7, share=1.0)
        torch.testing.assert_close(kept.step, whole.step, rtol=1e-10, atol=1e-12)
        assert kept.residual < 1e-12


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, float]:
    """Spectra with repeated, zero, tiny and huge eigenvalues; gradients with zero and tiny coefficients."""
    d = draw(st.integers(1, 6))
    eigenvalue = st.one_of(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 1e-9, -1e-9, 1e6]), st.floats(-10, 10))
    coefficient = st.one_of(st.sampled_from([0.0, 1e-30, 1e-13, 1e8]), st.floats(-10, 10))
    w = vector(*draw(st.lists(eigenvalue, min_size=d, max_size=d)))
    c = vector(*draw(st.lists(coefficient, min_size=d, max_size=d)))
    source = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    V = torch.linalg.qr(torch.randn(d, d, generator=source, dtype=torch.float64)).Q
    radius = 10 ** draw(st.floats(-6, 4))
    return V @ c, w, V, radius


class TestCertificate:
    @settings(max_examples=300, deadline=None)
    @given(problems())
    def test_optimality_conditions_hold(self, problem: tuple[Tensor, Tensor, Tensor, float]):
        g, w, V, radius = problem
        step = solve(g, w, V, radius)
        H = V @ torch.diag(w) @ V.T
        size = float(w.abs().max())
        norm = float(step.step.norm())
        scale = float(g.norm()) + (size + step.multiplier) * norm
        # Forming H, projecting and expanding each round relative to the largest term: d² ≤ 36 operations.
        tolerance = 1e-13
        assert step.multiplier >= 0
        assert norm <= radius * (1 + 1e-15)
        assert float(w.min()) + step.multiplier >= -tolerance * (size + step.multiplier)
        assert float((H @ step.step + step.multiplier * step.step + g).norm()) <= tolerance * scale + 1e-300
        assert step.multiplier * (radius - norm) <= tolerance * scale + 1e-300
        assert step.residual <= tolerance
        assert step.value <= 0

    @settings(max_examples=60, deadline=None)
    @given(problems(), st.floats(-8, 8), st.floats(-8, 8))
    def test_scaling_function_and_space(
        self, problem: tuple[Tensor, Tensor, Tensor, float], log_a: float, log_b: float
    ):
        # a·m(b·s): gradient a·b·g, Hessian a·b²·H, radius r/b; value times a, multiplier times a·b².
        g, w, V, radius = problem
        a, b = 10**log_a, 10**log_b
        plain = solve(g, w, V, radius)
        scaled = solve(a * b * g, a * b * b * w, V, radius / b)
        bound = float(g.norm()) * radius + float(w.abs().max()) * radius**2  # terms that cancel in the value
        assert scaled.value / a == pytest.approx(plain.value, rel=1e-9, abs=1e-12 * bound)

    def test_never_above_any_feasible_point(self):
        g, H = random_problem(8, 21)
        points = torch.randn(2000, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        points = 0.9 * points / points.norm(dim=1, keepdim=True)
        values = points @ g + 0.5 * ((points @ H) * points).sum(1)
        assert solve_dense(g, H, 0.9).value <= float(values.min())

    def test_value_falls_as_the_radius_grows(self):
        g, H = random_problem(10, 22)
        w, V = torch.linalg.eigh(H)
        values = [step.value for step in solve(g, w, V, np.geomspace(1e-3, 1e3, 30).tolist())]
        assert all(later < earlier for earlier, later in itertools.pairwise(values))

    def test_many_radii_are_the_single_ones(self):
        g, H = random_problem(10, 23)
        w, V = torch.linalg.eigh(H)
        radii = [0.25, 0.5, 1.75]
        for together, radius in zip(solve(g, w, V, radii), radii, strict=True):
            alone = solve(g, w, V, radius)
            # BLAS sums a block of columns in another order than a single one.
            torch.testing.assert_close(together.step, alone.step, rtol=EXACT, atol=EXACT)
            assert together.radius == radius

    def test_order_of_eigenpairs_does_not_matter(self):
        g, H = random_problem(9, 24)
        w, V = torch.linalg.eigh(H)
        order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
        a, b = solve(g, w, V, 0.8), solve(g, w[order], V[:, order], 0.8)
        torch.testing.assert_close(a.step, b.step, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("radius", [0.01, 1.0, 100.0])
    def test_float32_in_float32_out(self, radius: float):
        g, H = random_problem(50, 25)
        exact = solve_dense(g, H, radius)
        step = solve_dense(g.float(), H.float(), radius)
        assert step.step.dtype == torch.float32
        assert float(step.step.double().norm()) <= radius * (1 + 1e-6)
        # The eigenpairs carry float32's 6e-8, times a few for 50 dimensions.
        assert step.residual < 5e-6
        assert step.value == pytest.approx(exact.value, rel=1e-5)

    def test_truncating_away_the_gradient_is_the_callers_choice(self):
        g, V = vector(1, 1), torch.eye(2, dtype=torch.float64)[:, :1]
        inside = solve(g, vector(2), V, 5.0, complete=True)
        torch.testing.assert_close(inside.step, vector(-0.5, 0), rtol=EXACT, atol=0)
        assert solve(g, vector(2), V, 5.0).step[1] < -4


class TestBadInput:
    @pytest.mark.parametrize("radius", [0, -1.0, math.nan, math.inf, [], [1.0, 0.0], [[1.0]]])
    def test_radius(self, radius: object):
        for run in (
            lambda: solve_dense(vector(1, 0), torch.eye(2, dtype=torch.float64), radius),
            lambda: solve_matrix_free(vector(1, 0), lambda X: X, radius),
        ):
            with pytest.raises(ArgumentError, match="radius"):
                run()

    def test_shapes(self):
        eye = torch.eye(2, dtype=torch.float64)
        with pytest.raises(ArgumentError, match="flat vector"):
            solve(eye, vector(1, 1), eye, 1.0)
        with pytest.raises(ArgumentError, match="eigenvectors"):
            solve(vector(1, 1, 1), vector(1, 1), eye, 1.0)
        with pytest.raises(ArgumentError, match="flat vector"):
            solve(vector(), vector(), torch.empty(0, 0), 1.0)

    def test_values_that_are_not_finite(self):
        eye = torch.eye(2, dtype=torch.float64)
        with pytest.raises(ArgumentError, match="gradient"):
            solve(vector(1, math.nan), vector(1, 1), eye, 1.0)
        with pytest.raises(ArgumentError, match="eigenvalues"):
            solve(vector(1, 1), vector(1, math.inf), eye, 1.0)

    def test_asymmetric_operator(self):
        H = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
        with pytest.raises(ArgumentError, match="not symmetric"):
            solve_matrix_free(vector(1, 0), lambda X: H @ X, 1.0)

    def test_too_small_a_subspace_says_so(self):
        g, H = random_problem(200, 26)
        V = torch.linalg.eigh(H).eigenvectors
        hard = g - V[:, 0] * (V[:, 0] @ g)
        with pytest.warns(RuntimeWarning, match="max_size"):
            step = solve_matrix_free(hard, lambda X: H @ X, 50.0, max_size=8)
        assert step.residual > 1e-6

    @pytest.mark.parametrize("share", [0.0, 1.1, -0.5])
    def test_share(self, share: float):
        with pytest.raises(ArgumentError, match="share"):
            truncated_paper_step(vector(1, 1), vector(1, 2), torch.eye(2, dtype=torch.float64), 1.0, share)
        with pytest.raises(ArgumentError, match="no eigenvalues"):
            truncated_paper_step(vector(1, 1), vector(), torch.empty(2, 0), 1.0, 0.5)

    def test_tolerance(self):
        with pytest.raises(ArgumentError, match="tolerance"):
            solve_matrix_free(vector(1, 1), lambda X: X, 1.0, tolerance=0.0)
