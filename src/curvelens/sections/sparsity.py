"""The stage `sparsity`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from curvelens.sections.common import Closed, Count, Positive

Block = Literal["values", "channels", "patches", "superpixels"]


def _default_blocks() -> list[Block]:
    return ["values", "channels", "patches", "superpixels"]


class Sparsity(Closed):
    """CAFO and CASO along lambda_1, and its choice by sparsity (Singla et al. 2019, Sec. 4.1, Fig. 3)."""

    images: Count = Field(4, description="Images of the test split.")
    shards: Count = Field(1, description="Jobs.")
    c1: Positive = Field(10.0, description="lambda_2 = L/2 + c1, L the largest eigenvalue of the Hessian.")
    curvature: Literal["auto", "factor", "products", "differentiation"] = Field(
        "auto", description="How the Hessian is held, as in `distances`."
    )
    least: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.75, description="Smallest share of zero pixels (zero blocks) that may be chosen."
    )
    halvings: int = Field(
        4,
        ge=0,
        le=20,
        description="Halvings of the first lambda_1 that leaves nothing, solved with the powers of ten "
        "whether or not the choice needs them; 4 give the values of the paper's Table 2.",
    )
    tolerance: Positive = Field(
        1e-6, description="Largest relative KKT residual, where the rounding of the products allows it."
    )
    blocks: list[Block] = Field(
        default_factory=_default_blocks,
        min_length=1,
        description="What is zero as a whole: single values, the channels of a pixel, patches, super-pixels.",
    )
    patch: Count = Field(8, description="Side of a patch in pixels.")
    segments: tuple[int, int] = Field((60, 90), description="Fewest and most super-pixels of an image.")
    compactness: Positive | None = Field(None, description="SLIC's, as in `superpixels`.")

    @model_validator(mode="after")
    def _blocks_make_sense(self) -> Sparsity:
        low, high = self.segments
        if not 2 <= low <= high:
            raise ValueError(f"segments = {low} to {high} are impossible; give 2 <= fewest <= most")
        if len(set(self.blocks)) < len(self.blocks):
            raise ValueError("blocks names a kind twice; name each once")
        return self
