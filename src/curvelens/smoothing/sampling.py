"""Gradients at smoothed points, and what they say about SmoothGrad and the smoothed value."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from curvelens.derivatives import gradient
from curvelens.errors import ArgumentError
from curvelens.smoothing.covariance import Covariance
from curvelens.smoothing.directions import Directions

Function = Callable[[Tensor], Tensor]


class Sampler:
    """Evaluates gradients at x ± L z and keeps the averages that need no d×d matrix.

    Work is done in the whitened space u, where φ(u) = f(x + L u) has the smoothed Hessian E z D(z)ᵀ with
    D(z) = Lᵀ[g(x + L z) − g(x − L z)]/2: the even part of the gradient, which carries no curvature but most
    of the variance of Torop et al. 2023, eq. 8, cancels.

    Args:
        f: Scalar, [B, *shape] -> [B].
        x: [*shape].
        covariance: Σ = LLᵀ.
        directions: Where the z come from.
        paired: Whether points come in pairs ±z; else D(z) = Lᵀ g(x + L z), eq. 8 as printed.
        chunk: Points differentiated at once; None chooses by memory.
    """

    def __init__(
        self,
        f: Function,
        x: Tensor,
        covariance: Covariance,
        directions: Directions,
        paired: bool,
        chunk: int | None,
    ) -> None:
        self.f, self.x, self.chunk, self.paired = f, x, chunk, paired
        self.covariance, self.directions = covariance, directions
        self.calls = 0
        self._gradients = _WeightedMean()
        self._odd = torch.zeros(x.numel(), dtype=torch.float64, device=x.device)
        self._values = _WeightedMean()

    def draw(self, rows: int) -> tuple[Tensor, Tensor]:
        """Return √w z and √w D(z) for the next directions, both [rows, d]."""
        z, w = self.directions.take(rows)
        step = self.covariance.displace(z)
        flat = self.x.reshape(-1)
        points = torch.cat([flat + step, flat - step]) if self.paired else flat + step
        slopes, values = self._differentiate(points)
        if self.paired:
            plus, minus = slopes[:rows], slopes[rows:]
            self._gradients.add((plus + minus) / 2, w)
            self._values.add((values[:rows, None] + values[rows:, None]) / 2, w)
            slopes = (plus - minus) / 2
            self._odd += w @ slopes.square()
        else:
            self._gradients.add(slopes, w)
            self._values.add(values[:, None], w)
        root = w.sqrt()[:, None]
        return z * root, self.covariance.whiten(slopes) * root

    def _differentiate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return gradients [m, d] and, from the same forward passes, values [m]."""
        values = points.new_full((len(points),), math.nan)

        def recorded(block: Tensor) -> Tensor:
            y = self.f(block)
            # Chunks are views of the points, so that their place in memory tells which rows they are.
            start = block.storage_offset() // points.shape[1]
            values[start : start + len(y)] = y.detach()
            return y

        recorded.__name__ = str(getattr(self.f, "name", getattr(self.f, "__name__", "f")))
        shaped = points.reshape(-1, *self.x.shape)
        slopes = gradient(recorded, shaped, self.chunk).reshape(points.shape)
        self.calls += len(points)
        if not bool(torch.isfinite(slopes).all()):
            raise ArgumentError(
                "smooth_quadratic: f has gradients that are not finite near x; use a smaller sigma or mend f"
            )
        return slopes, values

    def gradient(self) -> tuple[Tensor, float]:
        """Return SmoothGrad [*shape] and its estimated relative error."""
        mean, error = self._gradients.mean()
        norm = float(mean.norm())
        relative = error / norm if norm > 0 else (math.inf if error > 0 else 0.0)
        return mean.to(self.x).reshape(self.x.shape), relative

    def spread(self) -> tuple[Tensor, Tensor]:
        """Return the variance of g(x + L z) (VarGrad) and the standard error of SmoothGrad, both [*shape].

        With g(x ± L z) = e ± D, E D = 0 by symmetry, so that Var g = Var e + E D². The second term is a plain
        mean, without the loss of a mean that is estimated from the same points; where f is quadratic e is
        constant, and an orthogonal matrix of directions gives the variance exactly. NaN from a single row.
        """
        even = self._gradients.variance()
        count = self._gradients.count
        shape = self.x.shape
        variance = even + self._odd / count
        return variance.to(self.x).reshape(shape), (even / count).sqrt().to(self.x).reshape(shape)

    def value(self) -> float:
        """Return the smoothed value h(x) = E f(x + L z)."""
        return float(self._values.mean()[0])


class _WeightedMean:
    """The mean of w_i y_i for weights with E w = 1 that are independent of the directions.

    ``Σ w_i y_i / n`` is unbiased but has the variance of w; ``Σ w_i y_i / Σ w_i`` has a bias. Instead each
    y_i is compared with the plain mean of the others, m_i: ``Σ [w_i (y_i − m_i) + m_i] / n`` is unbiased and
    exact where y is constant. Sums are taken relative to the first row, against cancellation.
    """

    def __init__(self) -> None:
        self.count = 0
        self.weight = 0.0
        self.origin = self.plain = self.weighted = torch.empty(0)
        self.squared = self.spread = torch.empty(0)
        self.squares = self.squared_weights = 0.0

    def add(self, rows: Tensor, weights: Tensor) -> None:
        """Add y [m, p] with weights [m]."""
        if self.count == 0:
            self.origin = rows[0].clone()
            self.plain = torch.zeros_like(self.origin, dtype=torch.float64)
            self.weighted, self.squared = torch.zeros_like(self.plain), torch.zeros_like(self.plain)
            self.spread = torch.zeros_like(self.plain)
        shifted = rows - self.origin
        self.plain += shifted.sum(0)
        self.weighted += weights @ shifted
        self.squared += weights.square() @ shifted
        self.spread += weights @ shifted.square()
        self.squares += float((weights[:, None] * shifted).double().square().sum())
        self.squared_weights += float(weights.double().square().sum())
        self.weight += float(weights.double().sum())
        self.count += len(rows)

    def mean(self) -> tuple[Tensor, float]:
        """Return the mean [p], float64, and the standard error of its length, as if rows were independent.

        The error is the root of Σ w_i² ‖y_i − mean‖²/n².
        """
        n = self.count
        if n == 1:
            return self.origin.double(), math.nan
        others = ((n - self.weight) * self.plain - self.plain + self.weighted) / (n - 1)
        shift = (self.weighted + others) / n
        variance = (
            self.squares - 2 * float(shift @ self.squared) + self.squared_weights * float(shift @ shift)
        )
        return self.origin.double() + shift, math.sqrt(max(0.0, variance) / (n * (n - 1)))

    def variance(self) -> Tensor:
        """Return the variance of y under the weights, [p], float64, as if rows were independent; NaN from one
        row.

        It is Σ w_i (y_i − mean)²/(n − 1).
        """
        if self.count < 2:
            return torch.full_like(self.plain, math.nan)
        shift = self.mean()[0] - self.origin.double()
        squares = self.spread - 2 * shift * self.weighted + shift.square() * self.weight
        return squares.clamp_min(0) / (self.count - 1)
