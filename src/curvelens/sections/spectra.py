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
