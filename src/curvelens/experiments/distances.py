"""How far curvature moves an explanation: CASO against CAFO at λ₁ = 0 (Singla et al. 2019, sec. 3.3)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from curvelens.context_aware import angle, cafo, caso, choose_l2, distance, kantorovich_distance
from curvelens.errors import ConfigError
from curvelens.experiments.rows import Item, per_image, solver
from curvelens.loss_curvature import AFFORDABLE_CLASSES, loss_curvature
from curvelens.seeds import derive
from curvelens.summaries.distances import DISTANCES, FORM_COMPARISON, FORMS
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from curvelens.store import ImageSet


KEPT = (10, 100)  # classes of a factor that is compared with the whole one, where there are many
EXACT = 1e-6  # relative residual beyond which an image is solved again in double precision


def distances(
    model: torch.nn.Module,
    images: ImageSet,
    *,
    c1: float = 10.0,
    form: str = "auto",
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> pd.DataFrame:
    """Compare CASO with CAFO on every image.

    Args:
        model: Classifier on ``device`` and in ``dtype``; L is exact for a piecewise-linear network.
        images: The images.
        c1: λ₂ = L/2 + c₁, > 0.
        form: How the Hessian is held, see :func:`~curvelens.loss_curvature.loss_curvature`.
        seed: Seed of the run.
        device: Device of the model.
        dtype: Precision of the model; None means float32.

    Returns:
        The table :data:`DISTANCES`; an image that fails becomes a failed row.

    Raises:
        ConfigError: if ``c1`` is not positive or the form does not exist.
    """
    if not (math.isfinite(c1) and c1 > 0):
        raise ConfigError(f"distances.c1: {c1:g} is not positive; 10 is the paper's")

    if form not in FORMS:
        raise ConfigError(f"distances.curvature: {form!r} does not exist; choose from {', '.join(FORMS)}")

    def solve(network: torch.nn.Module, item: Item) -> dict[str, Any]:
        drawn = derive(seed, item.image_id, "largest eigenvalue")
        return compare_explanations(network, item, c1, form, drawn)[0]

    # Where L is large, HΔ and 2λ₂Δ cancel, and what is left of single precision is too little.
    solutions = solver(model, solve, lambda row: row["kkt_residual"], EXACT)

    def compare(item: Item) -> dict[str, Any]:
        found = solutions(item)
        return found[-1] | {name: sum(row[name] for row in found) for name in ("calls", "solving_calls")}

    rows = per_image(images, model, compare, description="distances", device=device, dtype=dtype)
    return frame(rows, DISTANCES)


def compare_explanations(
    model: torch.nn.Module, item: Item, c1: float, form: str, seed: int, classes: int | None = None
) -> tuple[dict[str, Any], torch.Tensor]:
    """Return a row of :data:`DISTANCES` for one image, and its CASO explanation ``[*shape]`` at λ₁ = 0.

    Args:
        model: Classifier.
        item: The image.
        c1: λ₂ = L/2 + c₁.
        form: How the Hessian is held.
        seed: Seed of random first directions.
        classes: Most probable classes that a factor keeps; None keeps all.
    """
    curvature = loss_curvature(model, item.x, item.prediction, form=form, c1=c1, seed=seed, classes=classes)
    before = curvature.calls
    l2 = choose_l2(curvature.largest, c1)
    first = cafo(curvature.gradient, 0.0, l2)
    second = caso(curvature.gradient, curvature.hessian, 0.0, l2)
    calls = curvature.calls
    p = item.logits.double().softmax(0)
    entropy = max(0.0, float(-(p * p.clamp_min(1e-300).log()).sum()))
    row = {
        "entropy": entropy,
        "effective_classes": math.exp(entropy),
        "largest_eigenvalue": curvature.largest,
        "largest_eigenvalue_error": curvature.largest_error,
        "lambda2": l2,
        "distance": distance(first.delta, second.delta),
        "angle": angle(first.delta, second.delta),
        "kantorovich_bound": kantorovich_distance(curvature.largest, l2, curvature.smallest),
        "kkt_residual": second.residual,
        "precision": str(item.x.dtype).removeprefix("torch."),
        "curvature": curvature.form,
        "full_calls": curvature.full_calls,
        "solving_calls": calls - before,
        "calls": calls,
    }
    return row, second.delta


def compare_forms(
    model: torch.nn.Module,
    images: ImageSet,
    *,
    c1: float = 10.0,
    forms: Sequence[str] = FORMS[1:],
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> pd.DataFrame:
    """Compute the same explanations with each form of the Hessian, and how far they lie apart.

    Where there are many classes the factor is also made of the most probable ones alone.

    Args:
        model: Piecewise-linear classifier on ``device``.
        images: The images.
        c1: λ₂ = L/2 + c₁, > 0.
        forms: Some of :data:`FORMS` but ``auto``; the first is the one that the others are held against.
        seed: Seed of the run.
        device: Device of the model.
        dtype: Precision of the model; None means float32.

    Returns:
        The table :data:`FORM_COMPARISON`.
    """

    def compare(item: Item) -> Iterator[dict[str, Any]]:
        reference: torch.Tensor | None = None
        count = len(item.logits)
        many = count > AFFORDABLE_CLASSES and "factor" in forms
        few = [("factor", kept) for kept in KEPT if many and kept < count]
        for form, kept in [*((form, None) for form in forms), *few]:
            start = time.perf_counter()
            row, delta = compare_explanations(
                model, item, c1, form, derive(seed, item.image_id, "largest eigenvalue"), kept
            )
            seconds = time.perf_counter() - start
            reference = delta.double() if reference is None else reference
            off = float((delta - reference).norm() / reference.norm())
            same = ("largest_eigenvalue", "largest_eigenvalue_error", "distance", "curvature", "calls")
            told = {key: row[key] for key in same}
            yield {**told, "classes": kept or count, "difference": off, "seconds": seconds}

    rows = per_image(images, model, compare, description="forms of the Hessian", device=device, dtype=dtype)
    return frame(rows, FORM_COMPARISON)
