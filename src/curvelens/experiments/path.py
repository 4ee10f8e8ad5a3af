"""How explanations evolve along the straight path from one image to another of a different class.

At each of T points the predicted class's logit is explained by its gradient, SmoothGrad and VarGrad. All
points see the same noise, so that what changes is due to the point. Along the path its slope and curvature
are taken, exactly at the points and by differences between them; and the linear regions that the path
crosses are counted, since a gradient is about one of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from curvelens import methods, seeds, targets
from curvelens.chunks import run_in_chunks
from curvelens.errors import ConfigError, ModelError
from curvelens.experiments.path_pair import choose_pair
from curvelens.experiments.rows import predict, progress, require_finite
from curvelens.patterns import activation_pattern, units_switched
from curvelens.products import pushforward
from curvelens.regions import regions_along
from curvelens.summaries.path import METHODS, PATH, jumps
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd

    from curvelens.store import ImageSet

__all__ = ["METHODS", "PATH", "choose_pair", "path"]
logger = logging.getLogger(__name__)
# Walking from border to border takes at least one step for each of them, and a path between two images
# crosses about as many borders as there are units.
_WALKED_UNITS = 50_000
_TOGETHER = 4  # points whose second derivatives are taken at once


def path(
    model: torch.nn.Module,
    images: ImageSet,
    start: int,
    end: int,
    *,
    steps: int = 26,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Explain every point of the path.

    Args:
        model: Classifier ``[B, C, H, W] -> [B, c]`` on ``device``; it is left as it was found.
        images: The images to choose from.
        start: Position of the image at t = 0.
        end: Position of the image at t = 1, of another class.
        steps: T, evenly spaced points, both ends among them; at least 2.
        parameters: Parameters of ``gradient``, ``smoothgrad`` and ``vargrad``, by method.
        seed: Seed of the run.
        device: Where to compute.

    Returns:
        The table :data:`PATH` and arrays by name: ``t`` ``[T]``, ``images``, ``gradient``, ``smoothgrad`` and
        ``vargrad`` ``[T, C, H, W]``, ``probabilities`` ``[T, c]``.

    Raises:
        ConfigError: Fewer than 2 steps, two images of the same class, or an impossible method parameter.
    """
    if steps < 2:
        raise ConfigError(f"path.steps: {steps} points make no path; give at least 2, 25 for a film")
    parsed = {name: methods.REGISTRY.get(name).parse((parameters or {}).get(name)) for name in METHODS}
    a, b = (images.tensor(position).to(device) for position in (start, end))
    t = np.linspace(0, 1, steps)
    points = torch.stack([(1 - s) * a + s * b for s in t.tolist()])
    found = predict(model, points)
    classes = _classes(images, (start, end), found.prediction)
    length = float(torch.linalg.vector_norm(b - a))
    if length == 0:
        raise ConfigError("path: start and end are the same picture; choose two that differ")
    u = (b - a) / length
    noise = seeds.derive(seed, images.ids[start], images.ids[end], "path")
    maps: dict[str, list[Tensor]] = {name: [] for name in METHODS}
    head: dict[str, Any] = {"start_id": images.ids[start], "end_id": images.ids[end]}
    head |= {"start_class": classes[0], "end_class": classes[1]}
    rows: list[dict[str, Any]] = []
    for step, x in enumerate(progress(list(points), "path")):
        prediction = int(found.prediction[step])
        explained, row = _explain(model, x, prediction, u, noise, parsed)
        for name, values in explained.items():
            maps[name].append(values)
        rows.append(head | {"step": step, "t": t[step], "distance": t[step] * length} | row)
    tensors = {name: torch.stack(values) for name, values in maps.items()}
    tensors |= {"images": points, "probabilities": found.logits.softmax(1)}
    arrays = {"t": t} | {name: value.cpu().numpy() for name, value in tensors.items()}
    columns: dict[str, Sequence[Any]] = _predictions(found.logits.double(), classes)
    columns |= _changes(arrays)
    columns |= _curvatures(model, points, u)
    columns |= _along(found.logits.double(), tensors, u, length / (steps - 1))
    columns |= _units(model, points) | {"regions_crossed": _regions_crossed(model, a, b, t)}
    rows = [row | {name: values[row["step"]] for name, values in columns.items()} for row in rows]
    return frame(rows, PATH), arrays


def _classes(images: ImageSet, ends: tuple[int, int], prediction: Tensor) -> tuple[int, int]:
    """Return the classes of start and end, predicted where no label is known, if they differ."""
    known = [int(images.labels[position]) for position in ends]
    start, end = (k if k >= 0 else int(p) for k, p in zip(known, prediction[[0, -1]].tolist(), strict=True))
    if start == end:
        raise ConfigError(f"path: start and end are both of class {start}; choose two different classes")
    return start, end


def _explain(
    model: torch.nn.Module, x: Tensor, prediction: int, u: Tensor, noise: int, parsed: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the maps of one point, and what its row says of slope and cost."""
    began, f = time.perf_counter(), targets.logit(model, prediction)
    work = methods.SharedWork(f, x, noise, parsed)
    explained = {name: work.explain(name) for name in METHODS}
    maps = {name: explanation.maps["attribution"] for name, explanation in explained.items()}
    require_finite(**maps)
    row = {
        "slope": _dot(maps["gradient"], u),
        "gradient_norm": float(torch.linalg.vector_norm(maps["gradient"])),
        "seconds": time.perf_counter() - began,
        "calls": sum(explanation.made or 0 for explanation in explained.values()),
    }
    return maps, row


def _curvatures(model: torch.nn.Module, points: Tensor, u: Tensor) -> dict[str, Sequence[Any]]:
    """Return second derivatives along ``u`` at each point, of the largest logit and of its cross-entropy.

    Forward mode twice gives those of all logits z at once, at the cost of a few forward passes. Those of the
    loss −log p_k follow: Σ p z'' − z_k'' + Var_p(z').
    """
    z = targets.logits(model)
    push = pushforward(z)

    def slopes(x: Tensor) -> Tensor:
        return push(x, u.expand_as(x))

    bend = pushforward(slopes)
    parts: list[list[Tensor]] = []

    def work(start: int, stop: int) -> None:
        x = points[start:stop]
        parts.append([part.double() for part in (z(x), slopes(x), bend(x, u.expand_as(x)))])

    with torch.no_grad():
        run_in_chunks(len(points), _TOGETHER, work, "second derivatives along the path", points)
    logits, first, second = (torch.cat(part) for part in zip(*parts, strict=True))
    p, k = logits.softmax(1), logits.argmax(1)[:, None]
    mean = (p * first).sum(1, keepdim=True)
    own = second.gather(1, k)[:, 0]
    loss = (p * second).sum(1) - own + (p * (first - mean) ** 2).sum(1)
    return {"curvature": own.tolist(), "loss_curvature": loss.tolist()}


def _dot(v: Tensor, u: Tensor) -> float:
    return float((v.double() * u.double()).sum())


def _predictions(logits: Tensor, classes: tuple[int, int]) -> dict[str, Sequence[Any]]:
    """Return what the model says at each step, given its logits ``[T, c]``."""
    p = logits.softmax(1)
    confidence, prediction = p.max(1)
    change = [None, *(p.diff(dim=0).abs().sum(1) / 2).tolist()]
    return {
        "start_probability": p[:, classes[0]].tolist(),
        "end_probability": p[:, classes[1]].tolist(),
        "prediction": prediction.tolist(),
        "confidence": confidence.tolist(),
        "prediction_change": change,
        "prediction_jump": jumps(np.array(change, float)).tolist(),
        "value": logits.gather(1, prediction[:, None])[:, 0].tolist(),
    }


def _changes(arrays: Mapping[str, np.ndarray]) -> dict[str, Sequence[Any]]:
    """Return how far each explanation turns and moves from step to step, and where it jumps."""
    found: dict[str, Sequence[Any]] = {}
    for name in METHODS:
        v = arrays[name].reshape(len(arrays[name]), -1).astype(np.float64)
        norms = np.linalg.norm(v, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = np.einsum("td,td->t", v[1:], v[:-1]) / (norms[1:] * norms[:-1])
            distances = 2 * np.linalg.norm(np.diff(v, axis=0), axis=1) / (norms[1:] + norms[:-1])
        zero = (norms[1:] == 0) | (norms[:-1] == 0)
        turns, moves = (
            np.r_[np.nan, np.where(zero, np.nan, values)]
            for values in (np.clip(1 - cosines, 0, 2), distances)
        )
        found |= {f"{name}_change": _missing(turns), f"{name}_distance": _missing(moves)}
        found[f"{name}_jump"] = jumps(moves).tolist()
    return found


def _missing(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _along(logits: Tensor, tensors: Mapping[str, Tensor], u: Tensor, step: float) -> dict[str, Sequence[Any]]:
    """Return curvatures between points a ``step`` apart, and what the start's maps predict of the path.

    Args:
        logits: ``[T, c]``, float64.
        tensors: ``gradient`` and ``smoothgrad`` ``[T, *shape]``.
        u: Unit direction ``[*shape]``.
        step: L2 distance of neighbouring points.
    """
    best = logits.argmax(1)
    second = (logits[2:] - 2 * logits[1:-1] + logits[:-2]) / step**2
    slopes = (tensors["smoothgrad"].double() * u.double()).flatten(1).sum(1)
    bends = torch.where(best[1:] == best[:-1], slopes.diff() / step, torch.nan)
    start, walked = logits[:, best[0]], step * torch.arange(len(logits), device=logits.device)
    predicted: dict[str, Sequence[Any]] = {
        f"start_score_from_{name}": (start[0] + walked * _dot(tensors[name][0], u)).tolist()
        for name in ("gradient", "smoothgrad")
    }
    inside = second.gather(1, best[1:-1, None])[:, 0].tolist()
    return predicted | {
        "step_curvature": [None, *inside, None],
        "smoothed_curvature": [None, *_missing(bends.cpu().numpy())],
        "start_score": start.tolist(),
    }


def _units(model: torch.nn.Module, points: Tensor) -> dict[str, Sequence[Any]]:
    """Return how many units of ReLU type change their linear piece at each step, and their share."""
    before = activation_pattern(model, points[0])
    units = sum(part.numel() for part in before)
    if not units:
        return dict.fromkeys(("units_switched", "switched_share"), [None] * len(points))
    counts: list[int | None] = [None]
    shares: list[float | None] = [None]
    for x in points[1:]:
        after = activation_pattern(model, x)
        counts.append(count := units_switched(before, after))
        shares.append(count / units)
        before = after
    return {"units_switched": counts, "switched_share": shares}


def _regions_crossed(model: torch.nn.Module, a: Tensor, b: Tensor, t: np.ndarray) -> list[int | None]:
    """Return how many borders lie in each interval [t[i-1], t[i]); None at t[0] and where there are none."""
    if not targets.logits(model).piecewise_linear:
        return [None] * len(t)
    units = sum(part.numel() for part in activation_pattern(model, a))
    if units > _WALKED_UNITS:
        logger.info("path: borders of linear regions are not walked along: the network has %d units", units)
        return [None] * len(t)
    try:
        crossings = regions_along(model, a, b).t.cpu().numpy()
    except ModelError as error:
        logger.warning("path: regions are not counted: %s", error)
        return [None] * len(t)
    counts, _ = np.histogram(crossings, t)
    return [None, *counts.tolist()]
