"""Local models of a scalar at one image, first and second order from the same work.

The zeroth-order term is always the explained network's own value at the image, also where the derivatives are
those of a smoothed function (Torop et al. 2023, eq. 10).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from curvelens import derivatives, targets
from curvelens.errors import ArgumentError
from curvelens.quadratic import LocalQuadratic, LowRank
from curvelens.smoothing import smooth_quadratic
from curvelens.surrogates import set_sharpness, softplus_surrogate, swish_surrogate
from curvelens.targets import Function
from curvelens.taylor import is_dense, taylor

Kind = Literal["smooth", "softplus", "swish", "plain"]
_SURROGATES = {"softplus": softplus_surrogate, "swish": swish_surrogate}
ScalarFactory = Callable[[nn.Module], Function]


def build(
    kind: Kind,
    model: nn.Module,
    scalar_factory: ScalarFactory,
    x: Tensor,
    value: float | Tensor | None = None,
    seed: int = 0,
    calls: int = 4096,
    estimator: str | None = None,
    second_order: bool = True,
    surrogates: dict[Kind, nn.Module] | None = None,
    products: int | None = None,
) -> dict[str, LocalQuadratic]:
    """Return the local models of one kind at one image.

    Args:
        kind: ``smooth``: SmoothHess + SmoothGrad and SmoothGrad (Torop et al. 2023, eq. 7); ``softplus``:
            Hessian and gradient of the network with SoftPlus for ReLU; ``swish``: with Swish; ``plain``: of
            the network itself.
        model: The network that is explained.
        scalar_factory: Makes the scalar from a network, e.g. ``lambda m: targets.probability(m, 3)``.
        x: ``[*shape]``.
        value: For ``smooth`` σ > 0, one per feature ``[*shape]``, or a Cholesky factor ``[d, d]`` of the
            covariance; β > 0 for ``softplus`` and ``swish``; not used for ``plain``.
        seed: For ``smooth``, derived by the caller from the image and the purpose.
        calls: Gradient calls for ``smooth``.
        estimator: Estimator for ``smooth``; None means the default one.
        second_order: Whether a Hessian is wanted; without it only ``"G"`` is returned.
        surrogates: Surrogates of this model from earlier calls, kept here and set to ``value``, where the
            Hessian is dense; otherwise a Hessian-vector product may come later.
        products: How many products with a Hessian of ``softplus`` or ``swish`` will be asked for; below the
            number of features a dense Hessian, which takes one for each of them, costs more. None: many.

    Returns:
        ``{"H+G": second order, "G": first order}``, with the gradient calls made in ``.calls``; a
        Hessian-vector product counts as one call.

    Raises:
        ArgumentError: For an unknown kind, or a missing σ or β.
    """
    f = scalar_factory(model)
    if kind == "plain":
        return taylor(f, x, second_order=second_order)
    if kind not in ("smooth", *_SURROGATES):
        raise ArgumentError(f"local model {kind!r} is unknown; choose smooth, softplus, swish or plain")
    if value is None:
        name = "sigma" if kind == "smooth" else "beta"
        raise ArgumentError(f"local model {kind!r}: needs {name} > 0; give it as value=")
    if kind != "smooth":
        dense = is_dense(x.numel(), products)
        surrogate = _surrogate(kind, model, float(value), surrogates if dense else None)
        differentiated = scalar_factory(surrogate)
        return taylor(f, x, differentiated=differentiated, second_order=second_order, dense=dense)
    options: dict[str, Any] = {} if estimator is None else {"estimator": estimator}
    second = smooth_quadratic(f, x, sigma=value, calls=calls, seed=seed, **options)
    return {"H+G": second, "G": second.first_order()} if second_order else {"G": second.first_order()}


def _surrogate(kind: Kind, model: nn.Module, beta: float, known: dict[Kind, nn.Module] | None) -> nn.Module:
    if known is None:
        return _SURROGATES[kind](model, beta)
    if kind not in known:
        known[kind] = _SURROGATES[kind](model, beta)
    set_sharpness(known[kind], beta)
    return known[kind]


def probability_models(model: nn.Module, x: Tensor, k: int) -> dict[str, LocalQuadratic]:
    """Return the plain local models of a SoftMax probability, in closed form where the logits are linear.

    In a linear region of the logits z = Wᵀx + b, ``∇p = W(p_k(e_k − p))`` and ``∇²p = W M Wᵀ`` with
    ``M = p_k[(e_k − p)(e_k − p)ᵀ − diag p + ppᵀ]``: rank c − 1 from c gradients instead of d Hessian-vector
    products. The c-dimensional factors are computed in float64, so that a confidence that float32 rounds to 1
    still has a gradient in the right direction.

    Args:
        model: Classifier ``[B, *shape] -> [B, c]``.
        x: ``[*shape]``.
        k: Class.

    Returns:
        ``{"H+G": second order, "G": first order}``.
    """
    scores = targets.logits(model)
    if not scores.piecewise_linear:
        return build("plain", model, lambda network: targets.probability(network, k), x)
    with torch.no_grad():
        z = scores(x[None])[0]
    classes = torch.arange(len(z), device=x.device)
    W = derivatives.gradient(targets.logit(model, classes), x.expand(len(z), *x.shape)).flatten(1).T
    p = z.double().softmax(0)
    rest = 1 - p
    rest[k] = p[classes != k].sum()  # 1 − p_k would cancel where the prediction is confident
    pull = torch.where(classes == k, rest, -p)
    covariance = torch.outer(p, p).neg().fill_diagonal_(0) + (p * rest).diag()
    M = p[k] * (torch.outer(pull, pull) - covariance)
    weights, U = torch.linalg.eigh(M)
    gradient = (W.double() @ (p[k] * pull)).to(x.dtype).reshape(x.shape)
    curvature = LowRank(W @ U.to(x.dtype), weights.to(x.dtype))
    second = LocalQuadratic(p[k].to(x.dtype), gradient, curvature, calls=len(z))
    return {"H+G": second, "G": second.first_order()}
