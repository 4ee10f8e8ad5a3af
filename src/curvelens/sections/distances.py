"""The stage `distances`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curvelens.sections.common import Closed, Count, Positive


class Distances(Closed):
    """CASO against CAFO at lambda_1 = 0 (Singla et al. 2019, Fig. 1)."""

    images: Count = Field(300, description="Images of the test split.")
    shards: Count = Field(1, description="Jobs.")
    c1: Positive = Field(10.0, description="lambda_2 = L/2 + c1, L the largest eigenvalue of the Hessian.")
    curvature: Literal["auto", "factor", "products", "differentiation"] = Field(
        "auto",
        description="How the Hessian is held: its factor (a reverse pass a class), products alone (for many "
        "classes), or differentiation (any network); `auto` takes the cheapest that is exact.",
    )
    compared_images: int = Field(
        0, ge=0, description="Images on which every form is computed and compared; needs ReLU-like networks."
    )
    examples: int = Field(
        0,
        ge=0,
        description="Images of smallest and as many of largest distance whose explanations are shown.",
    )
