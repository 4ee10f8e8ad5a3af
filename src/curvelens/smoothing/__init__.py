"""Gaussian-smoothed gradients and Hessians from gradient calls alone (Torop et al. 2023).

``h(x) = E f(x + δ)`` with ``δ ~ N(0, Σ)``; SmoothGrad is ∇h, SmoothHess is ∇²h.
"""

from curvelens.smoothing.copies import gaussian_copies
from curvelens.smoothing.directions import LENGTHS
from curvelens.smoothing.eigenpairs import Eigenpairs, leading_eigenpairs
from curvelens.smoothing.products import SmoothProducts, smooth_products
from curvelens.smoothing.smooth import (
    DEFAULT,
    ESTIMATORS,
    GradientMoments,
    smooth_gradient,
    smooth_quadratic,
)

__all__ = [
    "DEFAULT",
    "ESTIMATORS",
    "LENGTHS",
    "Eigenpairs",
    "GradientMoments",
    "SmoothProducts",
    "gaussian_copies",
    "leading_eigenpairs",
    "smooth_gradient",
    "smooth_products",
    "smooth_quadratic",
]
