"""How far each local model may be believed: trust radii of every method and parameter, image by image."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curvelens import targets
from curvelens.errors import ConfigError
from curvelens.experiments.local_models import build
from curvelens.experiments.rows import Item, per_image
from curvelens.experiments.scalars import PREDICTED
from curvelens.fidelity import LAWS
from curvelens.regions import region_radius
from curvelens.seeds import derive
from curvelens.summaries.trust import METHODS, PARAMETERS, TRUST
from curvelens.tables import frame
from curvelens.trust import Rays, TrustRadius, radius_grid

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from curvelens.experiments.local_models import Kind
    from curvelens.quadratic import LocalQuadratic
    from curvelens.store import ImageSet

_REFINEMENTS = 2  # of half an octave: interpolation between radii 9 % apart is far finer than the interval
_KINDS: dict[Kind, str] = {"smooth": "sigma", "softplus": "beta", "plain": ""}  # what they depend on
_NAMES: dict[Kind, dict[str, str]] = {
    "smooth": {"H+G": "SH+SG", "G": "SG"},
    "softplus": {"H+G": "SP H+G", "G": "SP G"},
    "plain": {"G": "G"},
}


def measure(
    model: nn.Module,
    images: ImageSet,
    *,
    split: str,
    methods: Sequence[str] = METHODS,
    thresholds: Sequence[float] = (0.9,),
    scalar: str = "predicted_logit",
    law: str = "ball",
    smoothing_radii: Sequence[float] = (1.0, 2.0, 4.0),
    betas: Sequence[float] = (),
    smallest: float = 0.05,
    largest: float = 16.0,
    calls: int = 1568,
    samples: int = 400,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> pd.DataFrame:
    """Measure the trust radius of every local model on every image.

    All models of an image are held against the same perturbations, at which the network is evaluated once.

    Args:
        model: Classifier on ``device`` and in ``dtype``.
        images: The images.
        split: ``validation`` or ``test``; a column of the table.
        methods: Some of :data:`METHODS`.
        thresholds: Relative fidelities in (0, 1).
        scalar: A key of :data:`curvelens.experiments.scalars.PREDICTED`.
        law: One of :data:`curvelens.fidelity.LAWS`.
        smoothing_radii: σ = radius/√d to try, the rule of Torop et al. 2023, sec. 5. A trust radius is not
            known before the model is, so that σ cannot follow it.
        betas: β of SoftPlus to try.
        smallest: Smallest radius looked at, L2 norm.
        largest: Largest.
        calls: Gradient calls of a smoothed model.
        samples: Perturbations at each radius.
        seed: Seed of the run.
        device: Where to compute.
        dtype: Type to compute in; None means float32.

    Returns:
        The table :data:`TRUST`; an image that fails becomes a failed row.

    Raises:
        ConfigError: If an argument is unknown, empty or out of range.
    """
    wrong = [name for name in methods if name not in METHODS]
    if wrong or not methods:
        shown = repr(wrong[0]) if wrong else "an empty list"
        raise ConfigError(f"trust.methods: {shown} will not do; choose from {', '.join(METHODS)}")
    if scalar not in PREDICTED:
        raise ConfigError(f"trust.scalar: {scalar!r} is unknown; choose from {', '.join(PREDICTED)}")
    if law not in LAWS:
        raise ConfigError(f"trust.law: {law!r} is unknown; choose ball or paper")
    if not thresholds or not all(0 < one < 1 for one in thresholds):
        raise ConfigError(f"trust.thresholds: {list(thresholds)} must hold numbers between 0 and 1")
    if not 0 < smallest < largest:
        raise ConfigError(
            f"trust.smallest = {smallest:g} must be positive and below trust.largest = {largest:g}"
        )
    sigmas = [radius / math.sqrt(math.prod(images.shape)) for radius in smoothing_radii]
    tried: dict[str, list[float | None]] = {"sigma": [*sigmas], "beta": [*betas], "": [None]}
    for name, key in (("sigma", "smoothing_radii"), ("beta", "betas")):
        if not tried[name] and any(PARAMETERS[method] == name for method in methods):
            raise ConfigError(f"trust.{key}: empty, but the methods chosen need values to try")
    grid = radius_grid(smallest, largest)
    of_image = _Measurement(model, methods, thresholds, scalar, law, tried, grid, calls, samples, seed)
    constants = {"split": split, "scalar": scalar, "law": law}
    name = f"trust radius, {split}"
    made = per_image(
        images, model, of_image, description=name, device=device, dtype=dtype, constants=constants
    )
    return frame(made, TRUST)


@dataclass(frozen=True)
class _Measurement:
    """What is done to one image."""

    model: nn.Module
    methods: Sequence[str]
    thresholds: Sequence[float]
    scalar: str
    law: str
    tried: dict[str, list[float | None]]
    grid: list[float]
    calls: int
    samples: int
    seed: int

    def __call__(self, item: Item) -> list[dict[str, Any]]:
        """Return a row for each local model and threshold."""
        f = PREDICTED[self.scalar](self.model, item.prediction)
        points = derive(self.seed, item.image_id, "trust perturbations")
        rays = Rays(f, item.x, law=self.law, samples=self.samples, seed=points)
        rows = []
        for method, value, q, seconds in self._models(item):
            curve = rays.curve(q)
            for threshold in self.thresholds:
                found = curve.radius(threshold, self.grid, _REFINEMENTS)
                head = {"method": method, "parameter": PARAMETERS[method], "parameter_value": value}
                cost = {"seconds": seconds, "calls": q.calls}
                rows.append(head | {"threshold": threshold} | columns(found) | cost)
        region = self._region(item)
        return [row | {"region_radius": region, "evaluations": rays.evaluations} for row in rows]

    def _models(self, item: Item) -> Iterator[tuple[str, float | None, LocalQuadratic, float]]:
        """Yield (method, value, local model, seconds), one at a time so that memory holds one Hessian."""
        smoothing = derive(self.seed, item.image_id, "trust smoothing")
        for kind, parameter in _KINDS.items():
            orders = {order: name for order, name in _NAMES[kind].items() if name in self.methods}
            for value in self.tried[parameter] if orders else []:
                start = time.perf_counter()
                made = build(
                    kind,
                    self.model,
                    lambda network: PREDICTED[self.scalar](network, item.prediction),
                    item.x,
                    value,
                    smoothing,
                    self.calls,
                    second_order="H+G" in orders,
                )
                seconds = time.perf_counter() - start
                for order, method in orders.items():
                    yield method, value, made[order], seconds

    def _region(self, item: Item) -> float | None:
        """Return the distance to the border of the linear region, None where there is none."""
        if not targets.logits(self.model).piecewise_linear:
            return None
        radius = float(region_radius(self.model, item.x))
        return radius if math.isfinite(radius) else None


def columns(found: TrustRadius) -> dict[str, Any]:
    """Return what a table says of one trust radius."""
    return {
        "trust_radius": found.radius,
        "low": found.low,
        "high": found.high if math.isfinite(found.high) else None,
        "censored": found.censored,
        "fidelity": found.fidelity,
        "fidelity_stderr": found.stderr,
    }
