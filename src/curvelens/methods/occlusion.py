"""Occlusion, by Captum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from curvelens.methods import REGISTRY, Explanation
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar

_BATCH = 16  # occluded images a forward pass; beyond that nothing gets faster, but takes memory


class Square(Parameters):
    """The square that is moved over the image."""

    window: float = Field(
        0.2, gt=0, le=1, description="Side of the square, as a share of the image's shorter side."
    )
    stride: float = Field(0.5, gt=0, le=1, description="Step, as a share of the square's side.")
    baseline: float = Field(
        0.5, ge=0, le=1, description="Value of the pixels in the square; grey by default."
    )


@REGISTRY.register(
    "occlusion",
    parameters=Square,
    reference="Zeiler and Fergus 2014, arXiv:1311.2901, sec. 4.2",
    signed=True,
    sense="contribution",
)
def occlusion(f: Scalar, x: Tensor, seed: int, parameters: Square) -> Explanation:
    """By how much the scalar falls when a square of the image is covered, the mean over squares on a pixel.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[C, H, W]``.
        seed: Unused: the method is deterministic.
        parameters: Size, step and filling of the square.

    Returns:
        ``attribution`` ``[C, H, W]``: f(x) - f(covered), in units of the scalar, spread evenly over the
        channels, so that their sum is the map. No gradient; a forward pass a position of the square, and one.
    """
    from captum.attr import Occlusion

    from curvelens.methods import _layers
    from curvelens.methods._counting import Counted

    side = max(1, round(parameters.window * min(x.shape[1:])))
    step = max(1, round(parameters.stride * side))
    counted = Counted(f)
    drop = Occlusion(counted).attribute(
        x[None],
        sliding_window_shapes=(len(x), side, side),
        strides=(len(x), step, step),
        baselines=parameters.baseline,
        perturbations_per_eval=_BATCH,
    )[0, 0]
    return Explanation({"attribution": _layers.spread(drop, x)}, calls=0, forward_calls=counted.rows)
