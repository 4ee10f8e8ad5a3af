"""Attacks from local models, image by image (Torop et al. 2023, Tables 2, 4 and 8)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curvelens.attacks import Attack, attack, pgd_attack, random_attack
from curvelens.errors import ConfigError
from curvelens.experiments.local_models import Kind, build, probability_models
from curvelens.experiments.rows import Item, per_image
from curvelens.seeds import derive
from curvelens.summaries.attacks import ATTACKS, METHODS, PUBLISHED, TRUNCATED
from curvelens.tables import frame
from curvelens.targets import probability

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from curvelens.quadratic import LocalQuadratic
    from curvelens.store import ImageSet

# Methods that share the work of one local model: kind -> (second order, first order).
_FAMILIES: dict[Kind, tuple[str, str]] = {
    "smooth": ("SH+SG", "SG"),
    "softplus": ("SP H+G", "SP G"),
    "plain": ("H+G", "G"),
}
_PARAMETERS = {"smooth": "sigma_squared", "softplus": "beta"}
# The Lanczos method takes some tens of products for all sizes together, but one at a time: up to about this
# many features a dense Hessian, whose products are made in batches, is no slower.
_FEW_FEATURES = 1024


def local_models(
    method: str,
    model: torch.nn.Module,
    x: torch.Tensor,
    label: int,
    parameter_value: float | None = None,
    seed: int = 0,
    calls: int = 4096,
    estimator: str | None = None,
    second_order: bool = True,
) -> dict[str, LocalQuadratic]:
    """Return the local models of the SoftMax probability for a method and its sibling of the other order.

    Args:
        method: One of :data:`~curvelens.summaries.attacks.PUBLISHED` but ``Random``.
        model: Classifier ``[B, *shape] -> [B, c]``.
        x: ``[*shape]``.
        label: Class whose probability is attacked.
        parameter_value: σ² > 0 for SH+SG and SG, β > 0 for SP H+G and SP G.
        seed: For the smoothing, derived by the caller from the image.
        calls: Gradient calls for the smoothing.
        estimator: Estimator of the smoothed Hessian; None means the default one.
        second_order: Whether the second-order model is wanted; without it SP G and G cost one gradient.

    Returns:
        Local models by method, e.g. ``{"SH+SG": ..., "SG": ...}``.

    Raises:
        ConfigError: If the method does not exist.
        ArgumentError: If a parameter is missing or out of range.
    """
    for kind, (second, first) in _FAMILIES.items():
        if method not in (second, first):
            continue
        if kind == "plain":
            found = probability_models(model, x, label)
        else:
            value = math.sqrt(parameter_value) if kind == "smooth" and parameter_value else parameter_value
            found = build(
                kind,
                model,
                lambda m: probability(m, label),
                x,
                value,
                seed,
                calls,
                estimator,
                second_order,
                products=_FEW_FEATURES,
            )
        names = {"H+G": second, "G": first}
        return {names[order]: q for order, q in found.items()}
    raise ConfigError(f"attack method {method!r} does not exist; choose from {', '.join(PUBLISHED)}")


def attack_images(
    model: torch.nn.Module,
    images: ImageSet,
    *,
    split: str,
    magnitudes: Sequence[float],
    sigma_squared: Sequence[float] = (),
    betas: Sequence[float] = (),
    choices: pd.DataFrame | None = None,
    methods: Sequence[str] | None = None,
    calls: int = 1568,
    estimator: str | None = None,
    truncation: float | None = None,
    pgd: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> pd.DataFrame:
    """Attack the predicted class's SoftMax probability of every image with every local model.

    On the validation split the whole grid is evaluated, so methods without a parameter are left out; on the
    test split only the chosen parameters are. First and second order share one local model, all sizes share
    one factorisation.

    Args:
        model: Classifier on ``device`` and in ``dtype``.
        images: The images.
        split: ``validation`` or ``test``.
        magnitudes: Sizes ε > 0.
        sigma_squared: Variances to try; validation only.
        betas: SoftPlus sharpnesses to try; validation only.
        choices: :data:`~curvelens.summaries.attacks.ATTACK_CHOICES`; test only.
        methods: Which of :data:`~curvelens.summaries.attacks.METHODS` to run; None means those of the paper,
            without SoftPlus where it has no ``betas`` to try and none was chosen, its truncated steps where
            there is a ``truncation``, and PGD where there is ``pgd``.
        calls: Gradient calls of a smoothed model.
        estimator: Estimator of the smoothed Hessian; None means the default one.
        truncation: T in (0, 1] of the paper's truncated steps (Torop et al. 2023, eq. 71).
        pgd: ``steps``, ``restarts`` and ``relative_step`` of :func:`curvelens.attacks.pgd_attack`; test only.
        seed: Seed of the run.
        device: Where to compute.
        dtype: Type to compute in; None means float32.

    Returns:
        The table :data:`~curvelens.summaries.attacks.ATTACKS`.

    Raises:
        ConfigError: For an unknown method or split, an empty grid, a size without a choice, or truncated
            steps or PGD without their settings.
    """
    grids = {"smooth": list(sigma_squared), "softplus": list(betas)}
    smoothed = choices["method"].str.startswith("SP").any() if choices is not None else grids["softplus"]
    chosen = _methods(methods, truncation, pgd, bool(smoothed))
    plan = _plan(split, list(magnitudes), chosen, grids, choices)

    def run(item: Item) -> Iterator[dict[str, Any]]:
        for (kind, value), sizes in plan.items():
            if kind == "random":
                found = random_attack(model, item.x, sizes["Random"], item.image_id, seed, item.prediction)
                yield from (_row("Random", "", None, 0, result) for result in found)
            elif kind == "pgd" and pgd is not None:
                found = pgd_attack(model, item.x, sizes["PGD"], item.image_id, seed, item.prediction, **pgd)
                yield from (_row("PGD", "", None, pgd["steps"] * pgd["restarts"], result) for result in found)
            else:
                yield from _attack_with(
                    kind, value, sizes, model, item, seed, calls, estimator, truncation
                )  # fmt: skip

    rows = per_image(
        images, model, run, description=f"attacks ({split})", device=device, dtype=dtype,
        constants={"split": split},
    )  # fmt: skip
    return frame(rows, ATTACKS)


def _methods(
    methods: Sequence[str] | None,
    truncation: float | None,
    pgd: Mapping[str, Any] | None,
    has_surrogate: bool,
) -> list[str]:
    """Check the names, or return those that there are settings for."""
    able = [
        *PUBLISHED,
        *(TRUNCATED if truncation is not None else ()),
        *(("PGD",) if pgd is not None else ()),
    ]
    for method in methods or ():
        if method not in METHODS:
            raise ConfigError(f"attack method {method!r} does not exist; choose from {', '.join(METHODS)}")
        if method not in able:
            key = "truncation" if method in TRUNCATED else "pgd"
            raise ConfigError(f"attack method {method!r} has no settings; give attacks.{key}")
    if methods is not None:
        return list(methods)
    return [method for method in able if has_surrogate or not method.startswith("SP")]


_Plan = dict[tuple[str, float | None], dict[str, list[float]]]


def _plan(
    split: str,
    magnitudes: list[float],
    methods: list[str],
    grids: Mapping[str, list[float]],
    choices: pd.DataFrame | None,
) -> _Plan:
    """What to run: (kind, parameter) -> method -> sizes."""
    if split not in ("validation", "test"):
        raise ConfigError(f"attacks: split must be validation or test, not {split!r}")
    plan: _Plan = {}
    for kind, family in _FAMILIES.items():
        for method in [m for m in methods if TRUNCATED.get(m, m) in family]:
            if split == "validation" and kind != "plain":
                if not grids[kind]:
                    raise ConfigError(f"attacks: no {_PARAMETERS[kind]} to try; give at least one")
                for value in grids[kind]:
                    plan.setdefault((kind, value), {})[method] = magnitudes
            elif split == "test":
                for epsilon in magnitudes:
                    chosen = None if kind == "plain" else _chosen(choices, method, epsilon)
                    plan.setdefault((kind, chosen), {}).setdefault(method, []).append(epsilon)
    for alone, method in (("random", "Random"), ("pgd", "PGD")):
        if split == "test" and method in methods:
            plan[alone, None] = {method: magnitudes}
    return plan


def _chosen(choices: pd.DataFrame | None, method: str, epsilon: float) -> float:
    if choices is not None:
        row = choices[(choices["method"] == method) & (choices["epsilon"] == epsilon)]
        if len(row) == 1:
            return float(row["parameter_value"].iloc[0])
    raise ConfigError(
        f"attacks: no parameter was chosen for {method} at epsilon = {epsilon:g}; run validation first"
    )


def _attack_with(
    kind: str,
    value: float | None,
    sizes: Mapping[str, list[float]],
    model: torch.nn.Module,
    item: Item,
    seed: int,
    calls: int,
    estimator: str | None,
    truncation: float | None,
) -> Iterator[dict[str, Any]]:
    """Rows of the attacks that share one local model."""
    image_seed = derive(seed, item.image_id, "attack smoothing")
    of = {method: TRUNCATED.get(method, method) for method in sizes}
    curved = any(method == second for method in of.values() for second, _ in _FAMILIES.values())
    models = local_models(
        next(iter(of.values())), model, item.x, item.prediction, value, image_seed, calls, estimator, curved
    )
    for method, magnitudes in sizes.items():
        q, share = models[of[method]], truncation if method in TRUNCATED else None
        for result in attack(model, q, item.x, magnitudes, item.prediction, truncation=share):
            yield _row(method, _PARAMETERS.get(kind, ""), value, q.calls, result)


def _row(method: str, parameter: str, value: float | None, calls: int, result: Attack) -> dict[str, Any]:
    return {
        "method": method,
        "epsilon": result.epsilon,
        "parameter": parameter,
        "parameter_value": value,
        "changed": result.changed,
        "confidence_after": result.confidence,
        "predicted_decrease": result.predicted_decrease,
        "actual_decrease": result.actual_decrease,
        "optimality_residual": result.residual,
        "calls": calls,
    }
