"""LIME on super-pixels, by Captum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from curvelens.methods import REGISTRY, Explanation
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar

_BATCH = 16  # images a forward pass, as for occlusion


class Surrogate(Parameters):
    """The super-pixels, and the linear model of which of them are there."""

    samples: int = Field(
        500, ge=4, description="Images with some super-pixels left out, a forward pass each."
    )
    segments: tuple[int, int] = Field((40, 60), description="Fewest and most super-pixels of an image.")
    kernel_width: float = Field(
        0.25,
        gt=0,
        description="Width of the kernel that weighs a sample by its cosine distance to the image.",
    )
    ridge: float = Field(1.0, ge=0, description="Penalty on the squared weights of the linear model.")

    @model_validator(mode="after")
    def _ascending(self) -> Surrogate:
        if not 2 <= self.segments[0] <= self.segments[1]:
            raise ValueError("segments must be [fewest, most] with 2 <= fewest <= most; correct them")
        return self


@REGISTRY.register(
    "lime",
    parameters=Surrogate,
    reference="Ribeiro et al. 2016, arXiv:1602.04938, eq. 1, with the kernel, the ridge regression and the "
    "mean colours of the authors' code for images",
    signed=True,
    sense="contribution",
)
def lime(f: Scalar, x: Tensor, seed: int, parameters: Surrogate) -> Explanation:
    """By how much each super-pixel adds to the scalar, in a linear model fitted to images that lack some.

    Super-pixels are found by SLIC; one that is left out takes its mean colour. Samples count by
    exp(-D²/2w²), D = 1 - √(share of super-pixels that are there), the cosine distance.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[C, H, W]``, C = 1 or 3.
        seed: Seed of the samples.
        parameters: Super-pixels, samples, kernel and penalty.

    Returns:
        ``attribution`` ``[C, H, W]``: at each pixel the weight of its super-pixel, in units of the scalar,
        spread evenly over the channels, so that their sum is the map; ``segments`` ``[H, W]``: numbers of the
        super-pixels. The regression is Captum's, in single precision. No gradient; a forward pass a sample.

    Raises:
        ArgumentError: The image cannot be divided into as many super-pixels.
    """
    import torch
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    from curvelens import seeds, superpixels
    from curvelens.methods import _layers
    from curvelens.methods._counting import Counted

    pixels = (x.detach().cpu().double() * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    segments = torch.as_tensor(superpixels.slic_segments(pixels, parameters.segments)).to(x.device)
    random = seeds.generator(seed, "lime")
    width = parameters.kernel_width

    def sample(image: Tensor, **given: int) -> Tensor:
        return (torch.rand(1, given["num_interp_features"], generator=random) < 0.5).long().to(image.device)

    def similarity(image: Tensor, sampled: Tensor, present: Tensor, **given: object) -> Tensor:
        distance = 1 - present.double().mean(1).sqrt()
        return (-(distance**2) / (2 * width**2)).exp()

    counted = Counted(f)
    explainer = Lime(counted, SkLearnRidge(alpha=parameters.ridge), similarity, sample)
    # Captum hands the samples to a loader, which draws from the global generator.
    with torch.random.fork_rng(devices=[]):
        weights = explainer.attribute(
            x[None],
            baselines=_mean_colours(x, segments)[None],
            feature_mask=segments.expand(1, *x.shape),
            n_samples=parameters.samples,
            perturbations_per_eval=_BATCH,
            return_input_shape=False,
        )
    values = weights.flatten().detach().to(x)[segments]
    maps = {"attribution": _layers.spread(values, x), "segments": segments.to(x)}
    return Explanation(maps, calls=0, forward_calls=counted.rows)


def _mean_colours(x: Tensor, segments: Tensor) -> Tensor:
    """Return the image with every super-pixel in its mean colour, ``[C, H, W]``."""
    from curvelens.superpixels import indicators

    chosen = indicators(segments, x)
    means = (chosen * x).sum((2, 3)) / chosen.sum((2, 3))
    return (means[:, :, None, None] * chosen).sum(0)
