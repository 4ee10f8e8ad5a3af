"""Studies: questions put to functions or networks of their own, which belong to no experiment.

A kind of study is a class here, one branch of :data:`AnyStudy`, and a rule file of its own that writes
``results/tables/{study}/{table}.parquet`` for each of its tables. Figures find those tables by name, as they
do an experiment's; the report shows whatever was drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from curvelens.registry import Parameters
from curvelens.schedules import Training

Estimator = Literal["regression", "projected", "orthogonal", "antithetic", "sobol", "plain"]
Positive = Annotated[float, Field(gt=0)]


def _default_estimators() -> list[Estimator]:
    return ["regression", "projected", "orthogonal", "antithetic", "sobol", "plain"]


def _paper_schedule() -> Training:
    return Training(
        optimizer="rmsprop",
        updates=40_000,
        batch_size=128,
        learning_rate=1e-3,
        decay_at=[5_000, 10_000, 20_000],
    )


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


class Interactions(Study):
    """Interactions that are known, found again in a network (Torop et al. 2023, Fig. 1, 2 and 5)."""

    tables: ClassVar[tuple[str, ...]] = (
        "interactions",
        "interactions_summary",
        "interactions_network",
        "interactions_surface",
    )

    kind: Literal["interactions"] = Field(
        description="Hessian of a network of two features, where that of its target is known."
    )
    target: Literal["four_quadrants", "nested"] = Field(description="What the network is trained on.")
    spacing: float = Field(0.008, gt=0, le=1, description="Of the grid on [-2, 2]² that it is trained on.")
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [64] * 5, min_length=1, description="Width of each hidden layer."
    )
    training: Training = Field(
        default_factory=_paper_schedule, description="By default that of the paper for `four_quadrants`."
    )
    sigma_squared: tuple[Positive, Positive] = Field(
        (1e-3, 1.0), description="Lowest and highest variance of the Gaussian."
    )
    betas: tuple[Positive, Positive] = Field(
        (0.1, 1e4), description="Lowest and highest sharpness of SoftPlus."
    )
    levels: int = Field(41, ge=2, description="Values between, evenly spread on a logarithmic scale.")
    calls: int = Field(16384, ge=4, description="Gradient calls for each variance, over all repeats.")
    repeats: int = Field(
        8, ge=2, description="Independent estimates for each variance; they give the error bar."
    )
    estimator: Estimator = Field("sobol", description="Estimator of the smoothed Hessian.")
    tolerance: Positive = Field(
        0.1, description="Deviation, as a share of the largest exact element, up to which a level is near."
    )
    surface_sigma_squared: list[Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: [0.0, 0.03, 0.3],
        min_length=1,
        description="Variances at which the surface is drawn; 0 is the network itself.",
    )
    surface_points: int = Field(41, ge=2, description="Points of the surface along each feature.")

    @model_validator(mode="after")
    def _ranges(self) -> Interactions:
        for key in ("sigma_squared", "betas"):
            low, high = getattr(self, key)
            if not low < high:
                raise ValueError(f"{key} = {low:g}, {high:g} does not rise; give the lowest value first")
        if self.calls < 2 * self.repeats:
            raise ValueError(f"calls = {self.calls} are too few for {self.repeats} repeats; give 2 for each")
        if len(set(self.surface_sigma_squared)) < len(self.surface_sigma_squared):
            raise ValueError("surface_sigma_squared names a value twice; name each once")
        return self


Share = Annotated[float, Field(ge=0, lt=1)]
Classes = Annotated[int, Field(ge=2)]


class Part(Parameters):
    """Settings of one part of a study."""

    model_config = ConfigDict(allow_inf_nan=False)


class HessianFacts(Part):
    """Theorems 2 and 3 of Singla et al. 2019 on random networks."""

    classes: list[Classes] = Field(
        default_factory=lambda: [2, 5, 10, 40], min_length=1, description="Numbers of classes c."
    )
    networks: int = Field(3, ge=1, description="Networks drawn anew for each number of classes.")
    features: int = Field(64, ge=2, description="Input features d, half the units of a layer.")
    multiples: list[Annotated[float, Field(ge=0.5, le=100)]] = Field(
        default_factory=lambda: [0.9, 0.99, 1.01, 1.1, 2.0],
        min_length=1,
        description="λ₂ as multiples of L/2, the border of concavity.",
    )
    steps: int = Field(100, ge=1, le=200, description="Proximal gradient steps; twice as many are made too.")


class RankOne(Part):
    """Theorems 4 and 5 and Fig. 5 to 7 of Singla et al. 2019."""

    classes: list[Annotated[int, Field(ge=3)]] = Field(
        default_factory=lambda: [10, 30, 100, 300, 1000], min_length=1, description="Numbers of classes c."
    )
    doubts: list[Annotated[float, Field(ge=1e-6, le=0.5)]] = Field(
        default_factory=lambda: [0.5, 0.1, 0.01, 1e-3, 1e-4],
        min_length=1,
        description="1 − p, p being the probability of the predicted class.",
    )
    features: int = Field(2000, ge=3, description="Input features of the Gaussian linear model, at least c.")
    length: Positive = Field(20.0, description="Length of the gradient of one logit.")
    c1: Positive = Field(10.0, description="λ₂ − L/2 for CASO and CAFO.")

    @model_validator(mode="after")
    def _features_suffice(self) -> RankOne:
        if self.features < max(self.classes):
            raise ValueError(
                f"features {self.features} are fewer than {max(self.classes)} classes; give more"
            )
        return self


class Relaxation(Part):
    """The L0-L1 relaxation of Singla et al. 2019, App. E, where all supports can be enumerated."""

    features: int = Field(12, ge=3, le=16, description="Input features d.")
    classes: int = Field(6, ge=2, description="Classes: the Hessian has one rank less.")
    curvatures: list[Positive] = Field(
        default_factory=lambda: [1.0, 10.0, 100.0, 1000.0],
        min_length=1,
        description="L/c₁, largest eigenvalue over distance from the border of concavity.",
    )
    sizes: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [1, 2, 3, 4, 5], min_length=1, description="Features k that may change."
    )
    instances: int = Field(40, ge=1, description="Random problems for each curvature.")

    @model_validator(mode="after")
    def _sizes_fit(self) -> Relaxation:
        if max(self.sizes) >= self.features:
            raise ValueError(f"sizes name {max(self.sizes)}, which must be below {self.features} features")
        return self


class Convergence(Part):
    """Iterations to the exact solution of CASO."""

    features: int = Field(100, ge=2, description="Input features d.")
    classes: int = Field(10, ge=2, description="Classes.")
    curvatures: list[Positive] = Field(
        default_factory=lambda: [1.0, 10.0, 100.0, 1000.0], min_length=1, description="Largest eigenvalues L."
    )
    l1: list[Share] = Field(
        default_factory=lambda: [0.0, 0.2], min_length=1, description="λ₁ as shares of the largest |gᵢ|."
    )
    iterations: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [1, 2, 5, 10, 20, 50, 100, 200, 500],
        min_length=1,
        description="Iterations made, each number from the start.",
    )
    instances: int = Field(3, ge=1, description="Random problems for each L.")
    c1: Positive = Field(10.0, description="λ₂ − L/2.")


class Theorems(Study):
    """What Singla et al. 2019 prove or promise of the Hessian, CASO and its solvers, measured."""

    tables: ClassVar[tuple[str, ...]] = (
        "hessian_facts",
        "concavity",
        "rank_one",
        "relaxation",
        "convergence",
    )

    kind: Literal["theorems"] = Field(description="The theorems of Singla et al. 2019 as experiments.")
    facts: HessianFacts = Field(
        default_factory=HessianFacts, description="Definiteness, rank, concavity (Theorems 2 and 3)."
    )
    rank_one: RankOne = Field(
        default_factory=RankOne, description="Rank-one approximation (Theorems 4 and 5, Fig. 5 to 7)."
    )
    relaxation: Relaxation = Field(
        default_factory=Relaxation, description="Tightness of the L0-L1 relaxation (App. E)."
    )
    convergence: Convergence = Field(
        default_factory=Convergence, description="FISTA against the exact solution (App. B)."
    )


class Spirometry(Study):
    """FEV1 from disturbed, simulated exhalations, explained (Torop et al. 2023, Fig. 3 and 4)."""

    tables: ClassVar[tuple[str, ...]] = (
        "spirometry_curves",
        "spirometry_networks",
        "spirometry_predictions",
        "spirometry_explanations",
        "spirometry_intervals",
        "spirometry_interactions",
        "spirometry_samples",
    )
    counted: ClassVar[tuple[str, ...]] = ("spirometry_curves", "spirometry_explanations")

    kind: Literal["spirometry"] = Field(description="Interactions in a network on exhalation curves.")
    training_curves: int = Field(1000, ge=2, description="Simulated efforts to train on.")
    validation_curves: int = Field(100, ge=2, description="Simulated efforts to follow training on.")
    test_curves: int = Field(300, ge=2, description="Simulated efforts to report and explain.")
    cough_share: float = Field(0.9, ge=0, le=1, description="Share of the efforts that coughs disturb.")
    blocks: int = Field(10, ge=1, description="Convolution blocks of both networks.")
    channels: int = Field(20, ge=1, description="Channels of every block.")
    wide: int = Field(200, ge=1, description="Samples that a kernel of the wide network spans.")
    narrow: int = Field(5, ge=1, description="Samples that a kernel of the narrow network spans.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Share of the values dropped in training.")
    training: Training = Field(
        default_factory=lambda: Training(optimizer="adam", epochs=30, batch_size=32, learning_rate=0.003)
    )
    explained: int = Field(
        1, ge=1, description="Curves explained of each group: early cough, no early cough, recorded."
    )
    sigma: Positive = Field(
        0.1, description="Smoothing of SmoothGrad and SmoothHess, L; the paper states none."
    )
    calls: int = Field(2400, ge=8, description="Gradient calls for each curve and network.")
    repeats: int = Field(
        4, ge=2, description="Independent parts of the calls, from which the error bars are taken."
    )
    data_dir: Path | None = Field(
        None,
        description="Your own curves: a CSV or parquet file (columns id, time_s, volume_l or flow_l_s), or a "
        "folder of such files and of flow waveforms (text, one number a line, L/s).",
    )
    flow_interval: Positive = Field(0.002, description="Seconds between two lines of a flow waveform.")

    @model_validator(mode="after")
    def _parts_can_be_estimated(self) -> Spirometry:
        if self.calls < 4 * self.repeats:
            raise ValueError(
                f"calls = {self.calls} is less than 4 for each of {self.repeats} repeats; give more calls"
            )
        if self.narrow >= self.wide:
            raise ValueError(f"narrow = {self.narrow} is not smaller than wide = {self.wide}; exchange them")
        return self


AnyStudy = Annotated[Complexity | Interactions | Theorems | Spirometry, Field(discriminator="kind")]
"""The settings of one study, told apart by ``kind``."""

KINDS: dict[str, type[Study]] = {
    "complexity": Complexity,
    "interactions": Interactions,
    "theorems": Theorems,
    "spirometry": Spirometry,
}
"""Kinds of study by name."""
