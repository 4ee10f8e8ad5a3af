"""Studies: questions put to functions or networks of their own, which belong to no experiment.

A kind of study is a class here, one branch of :data:`AnyStudy`, and a rule file of its own that writes
``results/tables/{study}/{table}.parquet`` for each of its tables. Figures find those tables by name, as they
do an experiment's; the report shows whatever was drawn.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from curvelens.registry import Parameters

Estimator = Literal["regression", "projected", "orthogonal", "antithetic", "sobol", "plain"]
Positive = Annotated[float, Field(gt=0)]


def _default_estimators() -> list[Estimator]:
    return ["regression", "projected", "orthogonal", "antithetic", "sobol", "plain"]


class Study(Parameters):
    """What every kind of study declares beside its settings.

    Attributes:
        tables: Names of its tables.
        counted: Those of them that have a status for every image: failures are counted in them.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    tables: ClassVar[tuple[str, ...]]
    counted: ClassVar[tuple[str, ...]] = ()


class Complexity(Study):
    """Error of the smoothed Hessian against gradient calls and dimension (Torop et al. 2023, Theorem 1)."""

    tables: ClassVar[tuple[str, ...]] = ("complexity", "complexity_rates")

    kind: Literal["complexity"] = Field(description="Sample complexity, where the truth has a closed form.")
    dimensions: list[Annotated[int, Field(ge=3)]] = Field(
        default_factory=lambda: [8, 32, 128], min_length=1, description="Input features d."
    )
    calls: list[Annotated[int, Field(ge=2)]] = Field(
        default_factory=lambda: [2**k for k in range(8, 15)], min_length=1, description="Gradient calls n."
    )
    widths: list[Positive] = Field(
        default_factory=lambda: [4.0],
        min_length=1,
        description="ReLU units for each input feature, of networks with one hidden layer.",
    )
    quadratic: bool = Field(True, description="Whether to add a random quadratic.")
    sigma: Positive = Field(
        0.25, description="Smoothing; the distances to the units' kinks have standard deviation 1."
    )
    repeats: int = Field(4, ge=2, description="Functions drawn anew for each dimension.")
    estimators: list[Estimator] = Field(
        default_factory=_default_estimators, min_length=1, description="Estimators compared."
    )

    @model_validator(mode="after")
    def _no_value_twice(self) -> Complexity:
        for key in ("dimensions", "calls", "widths", "estimators"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key} names a value twice; name each once")
        return self


AnyStudy = Complexity
"""The settings of one study, told apart by ``kind``."""

KINDS: dict[str, type[Study]] = {"complexity": Complexity}
"""Kinds of study by name."""
