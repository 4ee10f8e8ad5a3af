"""The stage `spectra`."""

from __future__ import annotations

from pydantic import Field

from curvelens.sections.common import Closed, Count, Positive


class Spectra(Closed):
    """Full input Hessians of the largest logit, SoftPlus against ReLU (Hessian spectra)."""

    images: Count = Field(24, description="Correctly classified images of the test split.")
    shards: Count = Field(1, description="Jobs per model.")
    near_zero: float = Field(
        1e-3, gt=0, lt=1, description="Eigenvalues below this share of the spectral radius count as zero."
    )
    segment: Positive = Field(
        1.0, description="Length (L2) of the segment along which linear regions are counted."
    )
    compared_images: int = Field(
        10, ge=0, description="Images on which further Hessians are compared, see `betas` and `classes`."
    )
    betas: list[Positive] = Field(
        default_factory=lambda: [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e5],
        description="Sharpness of the SoftPlus that replaces the ReLUs of `model`, from smooth to nearly "
        "ReLU: the Hessian of the predicted class's logit at each.",
    )
    classes: int = Field(
        3,
        ge=0,
        description="Classes, from the most probable on, whose logits' Hessians are compared in "
        "`smooth_model`.",
    )
