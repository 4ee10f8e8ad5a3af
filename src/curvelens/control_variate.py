"""P_MSE of many local models of one function from few passes over the perturbations.

For a model q and a reference q₀ with residual r = q₀ − f and difference c = q − q₀, (q − f)² = r² + 2cr + c².
The difference of two quadratics, c(δ) = a + b·δ + ½δᵀCδ, has an expectation E c² in closed form under both
radius laws, because lengths and directions are independent and directions u uniform on the sphere:

    E(b·u)² = ‖b‖²/d,    E uᵀCu = tr C/d,    E(uᵀCu)² = (2‖C‖_F² + tr² C)/(d(d + 2)),

and odd terms vanish. The mean of c r over the perturbations is linear in c: it needs mean r, mean rδ and the
matrix M = mean rδδᵀ, found once for each setting. Every further model then costs O(d²) instead of O(nd²). The
estimate is unbiased, as the plain mean is, and its standard error is about the same where q₀ is faithful.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from curvelens.fidelity import Fidelity, Perturbations, quadratic_terms
from curvelens.quadratic import LocalQuadratic, LowRank
from curvelens.seeds import generator

SUBSAMPLE = 512  # perturbations that standard errors are estimated on
LOOSE = 1.5  # times the plain mean's standard error; beyond, the plain mean is taken
RANK = 96  # of a reference's curvature: what it leaves out makes the residual larger, and no estimate wrong
_TILES = 4  # of a symmetric matrix, of which the upper half is computed


class ControlVariate:
    """Reference models held against a function, for estimates of other models' P_MSE.

    Args:
        around: The function's values at perturbations.
        references: q₀ for each setting of ``around``, the same for several or not; preferably faithful there.
            A matrix [d, d] is held for each of them and for each setting.

    Raises:
        ArgumentError: if a matrix [d, d] is too large.
    """

    def __init__(self, around: Perturbations, references: Sequence[LocalQuadratic]) -> None:
        self.around = around
        points = around.points
        distinct = list({id(q): q for q in references}.values())
        places = {id(q): place for place, q in enumerate(distinct)}
        self._reference = [places[id(q)] for q in references]
        distinct = [_thin(q) for q in distinct]
        like, d, count = distinct[0].gradient, distinct[0].size, len(points.settings)
        self._values = [float(q.value) for q in distinct]
        self._gradients = torch.stack([q.gradient.reshape(-1) for q in distinct]).double()
        # Matrices M of the settings, then the references' curvatures: one product finds all inner products.
        self._matrices = like.new_zeros(count + len(distinct), d, d)
        for matrix, q in zip(self._matrices[count:], distinct, strict=True):
            matrix.copy_(q.hessian())
        self._sums = torch.zeros(count, 2, dtype=torch.float64)  # mean r and mean r²
        self._linear = like.new_zeros(count, d)
        self._sample: list[tuple[Tensor, Tensor]] = []  # lengths and residuals
        self._accumulate(distinct)
        self._inner = self._inner_products(self._matrices[count:])
        self._traces = self._matrices[count:].diagonal(dim1=1, dim2=2).double().sum(1)
        self._forms = torch.stack([_form(self._rows, H) for H in self._matrices[count:]])
        self._slopes = (self._rows @ self._gradients.T.to(like)).T.double()

    def _accumulate(self, distinct: Sequence[LocalQuadratic]) -> None:
        """Find the sums over all perturbations, and keep the first of them."""
        points, start = self.around.points, 0
        for directions, uniforms in points.blocks():
            rows = directions.flatten(1)
            terms = [quadratic_terms(q, directions) for q in distinct]
            for place, setting in enumerate(points.settings):
                value, slope, form = terms[self._reference[place]]
                s = points.lengths(uniforms, setting)
                r = value + s * slope + s.square() * form
                r -= self.around.values[place][start : start + len(s)]
                self._sums[place] += torch.stack([r.sum(), r.square().sum()]).cpu() / points.samples
                weight = (r * s / points.samples).to(rows)
                self._linear[place] += weight @ rows
                _add_outer(self._matrices[place], rows, weight * s.to(rows))
                if start == 0:
                    self._sample.append((s[:SUBSAMPLE], r[:SUBSAMPLE]))
            if start == 0:
                self._rows = rows[:SUBSAMPLE].clone()
            start += len(rows)
        for matrix in self._matrices[: len(points.settings)]:
            _mirror(matrix)

    def _inner_products(self, curvatures: Tensor) -> Tensor:
        """Return ⟨M, H⟩ and ⟨H₀, H⟩ for curvatures [m, d, d], float64 [m, settings + references]."""
        return (curvatures.flatten(1) @ self._matrices.flatten(1).T).double()

    def mse(self, q: LocalQuadratic, settings: Sequence[tuple[float, str]] | None = None) -> list[Fidelity]:
        """Return the perturbation mean squared error of a local model for each setting.

        The standard error is estimated on the first 512 perturbations. Where it is more than 1.5 times that
        of the plain mean, because q is much more faithful than the reference, the plain mean is taken.

        Args:
            q: Local model of the same function at the same x.
            settings: Some of the settings; None means all of them.

        Raises:
            ArgumentError: if ``q`` gives numbers that are not finite.
        """
        count = len(self.around.points.settings)
        wanted = self.around.points.settings if settings is None else list(settings)
        gradient = q.gradient.reshape(-1).double()
        slope = (self._rows @ q.gradient.reshape(-1)).double()
        inner = torch.zeros(self._matrices.shape[0], dtype=torch.float64, device=gradient.device)
        square, trace, form = 0.0, 0.0, torch.zeros_like(self._forms[0])
        if q.curvature is not None:
            H = q.hessian()
            inner, square = self._inner_products(H[None])[0], float(H.norm()) ** 2
            trace, form = float(H.diagonal().double().sum()), _form(self._rows, H)
        found: list[Fidelity | None] = []
        for setting in wanted:
            place = self.around.points.settings.index(setting)
            k = self._reference[place]
            a, b = float(q.value) - self._values[k], gradient - self._gradients[k]
            own = self._inner[k]
            norm = square - 2 * float(inner[count + k]) + float(own[count + k])
            product = a * float(self._sums[place, 0]) + float(self._linear[place].double() @ b)
            product += float(inner[place] - own[place]) / 2
            expected = _expected_square(
                a, float(b @ b), trace - float(self._traces[k]), max(0.0, norm), *setting, q.size
            )
            s, r = self._sample[place]
            c = a + s * (slope - self._slopes[k]) + s.square() * (form - self._forms[k]) / 2
            mean = float(self._sums[place, 1]) + 2 * product + expected
            found.append(self._checked(mean, r.square() + 2 * c * r, (r + c).square(), setting))
        rest = [setting for setting, one in zip(wanted, found, strict=True) if one is None]
        again = iter(self.around.mse(q, rest) if rest else [])
        return [one or next(again) for one in found]

    def _checked(
        self, mean: float, terms: Tensor, squares: Tensor, setting: tuple[float, str]
    ) -> Fidelity | None:
        """Return the estimate unless the plain mean is better; tensors are samples of what is averaged."""
        samples = self.around.points.samples
        stderr, plain = (float(values.std()) / math.sqrt(samples) for values in (terms, squares))
        good = math.isfinite(mean) and mean > 0 and stderr <= LOOSE * plain
        return self.around.result(mean, stderr, setting) if good else None


def _thin(q: LocalQuadratic) -> LocalQuadratic:
    """Return a model with about the leading eigenspace of its curvature, by subspace iteration."""
    if q.curvature is None or q.size <= 2 * RANK or isinstance(q.curvature, LowRank):
        return q
    start = torch.randn(q.size, RANK, generator=generator(0, "subspace"), dtype=torch.float32)
    basis = start.to(q.gradient)
    for _ in range(2):
        basis = torch.linalg.qr(q.curvature.apply(basis))[0]
    values, vectors = torch.linalg.eigh(basis.T @ q.curvature.apply(basis))
    return LocalQuadratic(q.value, q.gradient, LowRank(basis @ vectors, values))


def moments(radius: float, law: str, size: int) -> tuple[float, float]:
    """Return E‖δ‖² and E‖δ‖⁴ under a radius law in d dimensions."""
    if law == "ball":
        return radius**2 * size / (size + 2), radius**4 * size / (size + 4)
    return radius**2 / 3, radius**4 / 5


def _expected_square(
    a: float, slope: float, trace: float, norm: float, radius: float, law: str, size: int
) -> float:
    """Return E(a + b·δ + ½δᵀCδ)² from ‖b‖², tr C and ‖C‖_F²."""
    second, fourth = moments(radius, law, size)
    form = (2 * norm + trace**2) / (size * (size + 2))
    return a**2 + (slope + a * trace) * second / size + form * fourth / 4


def _form(rows: Tensor, matrix: Tensor) -> Tensor:
    """Return uᵀHu for rows u [m, d], in float64."""
    return ((rows @ matrix) * rows).sum(1).double()


def _add_outer(matrix: Tensor, rows: Tensor, weights: Tensor) -> None:
    """Add Σ w_i u_i u_iᵀ to the tiles on and above the diagonal of ``matrix`` [d, d]."""
    weighted = rows * weights[:, None]
    for start, stop in _tiles(len(matrix)):
        matrix[start:stop, start:].addmm_(weighted[:, start:stop].T, rows[:, start:])


def _mirror(matrix: Tensor) -> None:
    for start, stop in _tiles(len(matrix)):
        matrix[stop:, start:stop] = matrix[start:stop, stop:].T


def _tiles(size: int) -> Iterator[tuple[int, int]]:
    step = -(-size // _TILES)
    for start in range(0, size, step):
        yield start, min(start + step, size)
