"""Taylor polynomials: local models from the derivatives of a function at one input."""

from __future__ import annotations

from torch import Tensor

from curvelens import derivatives
from curvelens.quadratic import LocalQuadratic, MatrixFree
from curvelens.targets import Function

DENSE_FEATURES = 4096  # above, a Hessian is held as products (float32: 64 MiB and d products below)


def is_dense(features: int, products: int | None = None) -> bool:
    """Say whether a Hessian is held as a matrix: where that fits in memory and costs no more than products.

    Args:
        features: d.
        products: Products with the Hessian that will be asked for; None: many.
    """
    return features <= (DENSE_FEATURES if products is None else min(DENSE_FEATURES, products))


def taylor(
    f: Function,
    x: Tensor,
    *,
    differentiated: Function | None = None,
    second_order: bool = True,
    dense: bool | None = None,
) -> dict[str, LocalQuadratic]:
    """Return the Taylor polynomials of first and second order.

    Args:
        f: Scalar, ``[B, *shape] -> [B]``, whose value is taken.
        x: ``[*shape]``.
        differentiated: Scalar whose derivatives are taken, ``f`` itself by default.
        second_order: Whether a Hessian is wanted; without it only ``"G"`` is returned.
        dense: Whether the Hessian is computed in full or held as products; None chooses by
            :func:`is_dense`.

    Returns:
        ``{"H+G": second order, "G": first order}``, with the gradient calls made in ``.calls``; a
        Hessian-vector product counts as one call.
    """
    h = f if differentiated is None else differentiated
    value = derivatives.value(f, x[None])[0]
    gradient = derivatives.gradient(h, x[None])[0]
    first = LocalQuadratic(value, gradient, None, calls=1)
    d = x.numel()
    if not second_order:
        return {"G": first}
    if getattr(h, "piecewise_linear", False):
        return {"H+G": first, "G": first}
    if not (is_dense(d) if dense is None else dense):
        products = MatrixFree(lambda v: derivatives.hvp(h, x, v.T.reshape(-1, *x.shape)).flatten(1).T, d)
        return {"H+G": LocalQuadratic(value, gradient, products, calls=1), "G": first}
    H = derivatives.hessian(h, x)
    return {"H+G": LocalQuadratic(value, gradient, H, calls=d + 1), "G": first}
