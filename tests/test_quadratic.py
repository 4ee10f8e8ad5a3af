"""Local quadratic models against explicit matrices and hand-worked cases."""

import math

import numpy as np
import pytest
import torch

from curvelens import quadratic
from curvelens.errors import CurvelensError
from curvelens.quadratic import LocalQuadratic, LowRank, MatrixFree

SHAPE = (2, 3, 4)
D = 24


def numbers(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def forms_of_curvature(rank=5):
    """The same H as a matrix, a factor whose columns are not orthonormal, and an operator."""
    factor, weights = numbers(D, rank, seed=1), numbers(rank, seed=2)
    H = factor @ weights.diag() @ factor.T
    return H, {
        "dense": H,
        "low rank": LowRank(factor, weights),
        "matrix-free": MatrixFree(lambda v: H @ v, D),
    }


FORMS = ("dense", "low rank", "matrix-free")


@pytest.mark.parametrize("form", FORMS)
def test_value_product_and_matrix_equal_the_explicit_formula(form):
    H, forms = forms_of_curvature()
    g = numbers(*SHAPE, seed=3)
    q = LocalQuadratic(1.5, g, forms[form])
    delta = numbers(7, *SHAPE, seed=4)
    rows = delta.reshape(7, D).numpy()
    expected = 1.5 + rows @ g.reshape(-1).numpy() + 0.5 * np.einsum("bi,ij,bj->b", rows, H.numpy(), rows)
    # Sums of 24² products of numbers of order 10: rounding stays far below 1e-12 of the scale.
    np.testing.assert_allclose(q(delta).numpy(), expected, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(q.hessian().numpy(), H.numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(q.hvp(delta).reshape(7, D).numpy(), rows @ H.numpy(), rtol=1e-12, atol=1e-11)
    assert q.hvp(delta).shape == delta.shape


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_leading_eigenpairs_equal_numpy(form, k):
    H, forms = forms_of_curvature()
    values, vectors = LocalQuadratic(0.0, numbers(*SHAPE), forms[form]).eigh(k)
    expected = np.linalg.eigvalsh(H.numpy())
    expected = expected[np.argsort(-np.abs(expected))][:k]
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-9)
    assert vectors.shape == (D, k)
    np.testing.assert_allclose((vectors.T @ vectors).numpy(), np.eye(k), atol=1e-9)
    np.testing.assert_allclose((H @ vectors).numpy(), (vectors * values).numpy(), atol=1e-8)


def test_all_eigenpairs_of_a_small_operator_and_of_a_wide_factor():
    H, forms = forms_of_curvature()
    wide = LowRank(numbers(D, 40, seed=8), numbers(40, seed=9))
    for curvature, matrix in (
        (forms["matrix-free"], H),
        (wide, (wide.factor * wide.weights) @ wide.factor.T),
    ):
        values, vectors = LocalQuadratic(0.0, numbers(*SHAPE), curvature).eigh()
        assert values.shape == (D,)
        np.testing.assert_allclose((vectors * values @ vectors.T).numpy(), matrix.numpy(), atol=1e-10)


def test_a_factor_without_weights_is_a_gram_matrix():
    factor = numbers(D, 3, seed=1)
    torch.testing.assert_close(LocalQuadratic(0.0, numbers(D), LowRank(factor)).hessian(), factor @ factor.T)


def test_only_the_symmetric_part_of_a_matrix_counts():
    H = numbers(D, D)
    torch.testing.assert_close(LocalQuadratic(0.0, numbers(D), H).hessian(), (H + H.T) / 2)


def test_many_displacements_never_meet_each_other():
    # 300,000 displacements of three features: their n×n products would take 720 GB.
    delta = numbers(300_000, 3)
    H = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    q = LocalQuadratic(0.0, torch.zeros(3, dtype=torch.float64), H)
    torch.testing.assert_close(q(delta), 0.5 * delta.square() @ H.diagonal())


def test_first_order_drops_the_curvature_only():
    H, _ = forms_of_curvature()
    q = LocalQuadratic(2.0, numbers(*SHAPE), H, calls=17, error=0.1, info={"sigma": 0.5})
    first = q.first_order()
    delta = numbers(4, *SHAPE, seed=5)
    torch.testing.assert_close(first(delta), 2.0 + delta.reshape(4, D) @ q.gradient.reshape(-1))
    assert (first.calls, first.info, first.curvature) == (17, {"sigma": 0.5}, None)
    assert math.isnan(first.error)
    assert not first.hessian().any()
    assert not first.hvp(delta).any()
    assert first.eigh()[0].shape == (0,)


@pytest.mark.parametrize("form", FORMS)
def test_minimum_over_a_ball_satisfies_the_optimality_conditions(form):
    # Moré and Sorensen 1983, Lemma 2.3: s is a global minimum where (H + λI)s = −g, H + λI ⪰ 0 and
    # λ(radius − ‖s‖) = 0.
    H, forms = forms_of_curvature()
    g = numbers(*SHAPE, seed=6)
    q = LocalQuadratic(3.0, g, forms[form])
    steps = q.minimize([0.1, 1.0, 10.0])
    for radius, step in zip((0.1, 1.0, 10.0), steps, strict=True):
        assert step.step.shape == SHAPE
        s = step.step.reshape(-1)
        assert float(s.norm()) == pytest.approx(radius, rel=1e-6)
        stationarity = H @ s + step.multiplier * s + g.reshape(-1)
        assert float(stationarity.norm()) < 1e-5 * float(g.norm() + (H @ s).norm())
        assert float(torch.linalg.eigvalsh(H)[0]) + step.multiplier > -1e-6
        assert step.value == pytest.approx(float(q(step.step[None])) - 3.0, rel=1e-6)
    alone = q.minimize(1.0)
    torch.testing.assert_close(alone.step, steps[1].step)


def test_first_order_minimum_is_along_the_gradient():
    g = numbers(*SHAPE)
    step = LocalQuadratic(0.0, g).minimize(0.25)
    torch.testing.assert_close(step.step, -0.25 * g / g.norm())
    assert step.value == pytest.approx(-0.25 * float(g.norm()))


def test_all_radii_share_one_factorisation(monkeypatch):
    H, _ = forms_of_curvature()
    q = LocalQuadratic(0.0, numbers(*SHAPE), H)
    calls = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: calls.append(matrix) or eigh(matrix))
    q.minimize([0.1, 0.5])
    q.minimize(2.0)
    q.eigh(3)
    assert len(calls) == 1


def test_lanczos_needs_few_products_of_a_large_operator():
    size = 20_000
    diagonal = torch.zeros(size, dtype=torch.float64)
    diagonal[[3, 77, 500]] = torch.tensor([5.0, -4.0, 1.0], dtype=torch.float64)
    products = []

    def matvec(columns):
        products.append(columns.shape[1])
        return diagonal[:, None] * columns

    values, vectors = LocalQuadratic(0.0, diagonal, MatrixFree(matvec, size)).eigh(2)
    torch.testing.assert_close(values, torch.tensor([5.0, -4.0], dtype=torch.float64))
    assert abs(float(vectors[3, 0])) == pytest.approx(1.0)
    assert sum(products) < 200


def test_a_matrix_that_does_not_fit_is_refused_with_the_remedy(monkeypatch):
    size = 100_000  # 80 GB in double precision
    q = LocalQuadratic(0.0, numbers(size), LowRank(numbers(size, 2)))
    with pytest.raises(CurvelensError, match=r"hvp\(\) or eigh\(k\).*74\.5 GiB") as caught:
        q.hessian()
    assert "\n" not in str(caught.value)
    small = LocalQuadratic(0.0, numbers(D), numbers(D, D))
    with pytest.raises(CurvelensError, match="limit"):
        small.hessian(limit=D * D * 8 - 1)
    assert small.hessian(limit=D * D * 8).shape == (D, D)
    monkeypatch.setattr(quadratic, "DENSE_LIMIT", 100)
    with pytest.raises(CurvelensError, match="fewer eigenpairs"):
        LocalQuadratic(0.0, numbers(D), MatrixFree(lambda v: v, D)).eigh()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_follows_the_dtype_of_the_gradient(dtype):
    g = numbers(*SHAPE).to(dtype)
    q = LocalQuadratic(1.0, g, LowRank(numbers(D, 3).to(dtype)))
    delta = numbers(2, *SHAPE).to(dtype)
    for result in (q.value, q(delta), q.hvp(delta), q.hessian(), *q.eigh(2), q.minimize(0.1).step):
        assert result.dtype == dtype


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalQuadratic(0.0, numbers(3), numbers(4, 4)), "4 features but the gradient has 3"),
        (lambda: LocalQuadratic(0.0, numbers(3), numbers(3, 4)), r"\[3, 4\]"),
        (lambda: LowRank(numbers(3)), r"\[d, r\]"),
        (lambda: LowRank(numbers(3, 2), numbers(3)), r"\[2\]"),
        (lambda: LocalQuadratic(0.0, numbers(3))(numbers(2, 4)), "leading axis"),
        (lambda: LocalQuadratic(0.0, numbers(3))(numbers(3)), "leading axis"),
        (lambda: LocalQuadratic(0.0, numbers(3)).hvp(numbers(2, 4)), "leading axis"),
        (lambda: LocalQuadratic(0.0, numbers(3)).eigh(0), "at least 1"),
        (lambda: LocalQuadratic(0.0, numbers(3)).minimize(-1.0), "radius"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(make, message):
    with pytest.raises(CurvelensError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_repr_names_what_matters():
    q = LocalQuadratic(1.25, numbers(*SHAPE), numbers(D, D), calls=12, error=0.5)
    assert repr(q) == "LocalQuadratic(value=1.25, shape=[2, 3, 4], curvature=Dense, calls=12, error=0.5)"
