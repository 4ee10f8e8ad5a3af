"""A look at a network before anything is computed with it: does it take the images, what does it give?"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curvelens import targets
from curvelens.derivatives import gradient
from curvelens.errors import ModelError
from curvelens.linearity import is_piecewise_linear
from curvelens.products import hessian_operator

logger = logging.getLogger(__name__)

# Relative to the logits: what other kernels for another number of images round, with TF32 on a GPU.
_ROUNDING = 1e-2


def probe(
    model: nn.Module, architecture: str, classes: int, image_shape: Sequence[int], **_: object
) -> dict[str, Any]:
    """See :func:`curvelens.models.probe`."""
    generator = torch.Generator().manual_seed(0)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    x = torch.rand(2, *image_shape, generator=generator).to(like)
    together = _logits(model, architecture, x)
    _require_rows(architecture, together, x, classes)
    alone = torch.cat([_logits(model, architecture, row[None]) for row in x])
    scale = float(alone.abs().max().clamp(min=1))
    if alone.shape != together.shape or float((alone - together).abs().max()) > _ROUNDING * scale:
        raise ModelError(
            f"{architecture}: the logits of an image change with the other images of its batch; give a "
            "network that treats each by itself in evaluation mode"
        )
    _require_gradient(model, architecture, x[:1])
    found = {"piecewise_linear": is_piecewise_linear(model), "second_derivatives": _curves(model, x[:1])}
    _tell(architecture, found)
    return found


def _logits(model: nn.Module, architecture: str, x: Tensor) -> Any:
    try:
        with torch.no_grad(), targets.evaluation_mode(model):
            return model(x)
    except Exception as error:  # a network raises whatever images of another shape lead to
        text = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{architecture}: does not take {len(x)} images of shape {list(x.shape[1:])} "
            f"({type(error).__name__}: {text}); say what it takes with parameters.resize and "
            "parameters.channels, or prepare the images in another size"
        ) from error


def _require_rows(architecture: str, y: Any, x: Tensor, classes: int) -> None:
    if not isinstance(y, Tensor) or y.ndim != 2 or len(y) != len(x) or not y.is_floating_point():
        shape = f"{y.dtype} {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ModelError(
            f"{architecture}: gives {shape} for {len(x)} images; it must give one row of logits for each"
        )
    if y.shape[1] != classes:
        raise ModelError(
            f"{architecture}: gives {y.shape[1]} outputs, and the data set has {classes} classes; use the "
            "data set that it was trained on, or name the outputs that stand for its classes "
            "(parameters.outputs)"
        )


def _require_gradient(model: nn.Module, architecture: str, x: Tensor) -> None:
    try:
        gradient(targets.logit(model, 0), x)
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{architecture}: its logits cannot be differentiated by the pixels ({type(error).__name__}: "
            f"{text}); remove what detaches or rounds them"
        ) from error


def _curves(model: nn.Module, x: Tensor) -> bool:
    """Whether a Hessian-vector product of the loss can be had by any way."""
    try:
        with targets.evaluation_mode(model), torch.no_grad():
            hessian_operator(targets.loss(model, 0), x).products(torch.ones_like(x)[None])
    except Exception as error:
        logger.info("no Hessian-vector product (%s: %s)", type(error).__name__, error)
        return False
    return True


def _tell(architecture: str, found: Mapping[str, Any]) -> None:
    if not found["second_derivatives"]:
        logger.warning(
            "%s: has no second derivatives; images fail in spectra and distances, and with methods and local "
            "models that have curvature; gradients, SmoothGrad and SmoothHess work",
            architecture,
        )
    if not found["piecewise_linear"]:
        logger.info(
            "%s: is not known to be piecewise linear, and treated as curved: its Hessians are computed, "
            "which are zero where it is so after all, and nothing is said of linear regions",
            architecture,
        )
