"""Integrated Gradients, by Captum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from curvelens.methods import REGISTRY, Explanation
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar


class Path(Parameters):
    """The straight path from a uniform baseline."""

    baseline: float = Field(0.0, ge=0, le=1, description="Value of every pixel at the start of the path.")
    steps: int = Field(50, ge=1, description="Points of Gauss-Legendre quadrature, each one gradient call.")


@REGISTRY.register(
    "integrated_gradients",
    parameters=Path,
    reference="Sundararajan et al. 2017, arXiv:1703.01365, eq. 1",
    signed=True,
    sense="path",
)
def integrated_gradients(f: Scalar, x: Tensor, seed: int, parameters: Path) -> Explanation:
    """Gradient averaged along the path from a baseline, times the difference from it.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[*shape]``.
        seed: Unused: the method is deterministic.
        parameters: Baseline and number of steps.

    Returns:
        ``attribution`` ``[*shape]``, which sums to ``f(x) - f(baseline)`` up to the scalar
        ``completeness_error``, which the index of explanations records for each image.
    """
    from captum.attr import IntegratedGradients

    from curvelens.chunks import largest_that_fits

    attribution, error = largest_that_fits(
        parameters.steps,
        lambda rows: IntegratedGradients(f).attribute(
            x[None],
            baselines=parameters.baseline,
            n_steps=parameters.steps,
            internal_batch_size=rows,
            return_convergence_delta=True,
        ),
        "integrated gradients",
        x[None],
    )
    return Explanation(
        {"attribution": attribution[0].detach(), "completeness_error": error[0].detach()},
        calls=parameters.steps,
        forward_calls=2,  # at both ends, for the error
    )
