"""What is held against the network: on validation images every value of every case, else the chosen ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from curvelens.errors import ConfigError
from curvelens.summaries.fidelity import CASE, METHODS, PARAMETERS, UNSMOOTHED

if TYPE_CHECKING:
    import pandas as pd

GRIDS = {
    "SH+SG": "sigma_factors",
    "SG": "sigma_factors",
    "SP H+G": "betas",
    "SP G": "betas",
    "SW H+G": "swish_betas",
    "SW G": "swish_betas",
}


@dataclass(frozen=True)
class Trial:
    """A local model to hold against the network in one setting.

    Attributes:
        scalar: Function that is modelled.
        method: One of :data:`curvelens.summaries.fidelity.METHODS`.
        covariance: Shape of the smoothing noise; ``none`` for methods that do not smooth.
        radius: ε.
        law: Law of the perturbations.
        value: σ or β; None for G.
    """

    scalar: str
    method: str
    covariance: str
    radius: float
    law: str
    value: float | None = None


def cases(
    scalars: Sequence[str],
    methods: Sequence[str],
    covariances: Sequence[str],
    radii: Sequence[float],
    laws: Sequence[str],
) -> list[Trial]:
    """Return every combination, without values; only methods with a σ come with several covariances."""
    return [
        Trial(scalar, method, covariance, float(radius), law)
        for scalar in scalars
        for method in methods
        for covariance in (covariances if PARAMETERS[method] == "sigma" else [UNSMOOTHED])
        for radius in radii
        for law in laws
    ]


def grid(
    wanted: Sequence[Trial], sigmas: Sequence[float], betas: Mapping[str, Sequence[float]]
) -> Iterator[Trial]:
    """Yield every case with every value to try.

    Args:
        wanted: From :func:`cases`.
        sigmas: σ for radius 1; it grows in proportion to the radius.
        betas: β by the name of the grid, ``betas`` and ``swish_betas``.

    Raises:
        ConfigError: A method has no values to try.
    """
    for case in wanted:
        name = GRIDS.get(case.method, "")
        values: list[float | None] = [None]
        if name:
            tried = [sigma * case.radius for sigma in sigmas] if name == "sigma_factors" else betas[name]
            values = list(tried)
        if not values:
            raise ConfigError(f"fidelity.{name}: empty, but {case.method} needs values to try")
        for value in values:
            yield replace(case, value=value)


def chosen(wanted: Sequence[Trial], choices: pd.DataFrame) -> Iterator[Trial]:
    """Yield every case with the value that was chosen for it.

    Args:
        wanted: From :func:`cases`.
        choices: :data:`curvelens.summaries.fidelity.FIDELITY_CHOICES`.

    Raises:
        ConfigError: No value was chosen for a case that needs one.
    """
    found = choices.set_index(CASE)["parameter_value"].to_dict()
    for case in wanted:
        value = None
        if PARAMETERS[case.method]:
            value = found.get((case.scalar, case.method, case.covariance, case.radius, case.law))
            if value is None:
                raise ConfigError(
                    f"fidelity: no parameter was chosen for {case.method} of {case.scalar} at radius = "
                    f"{case.radius:g}, law {case.law}; run validation first"
                )
        yield replace(case, value=None if value is None else float(value))


def possible(choices: pd.DataFrame | None, betas: Sequence[float], swish_betas: Sequence[float]) -> list[str]:
    """Return the methods to measure where none are named: of surrogates those with values or a choice."""
    tried = {"SP": betas, "SW": swish_betas}
    left_out = [
        surrogate
        for surrogate, values in tried.items()
        if not (values if choices is None else choices["method"].str.startswith(surrogate).any())
    ]
    return [method for method in METHODS if method.partition(" ")[0] not in left_out]
