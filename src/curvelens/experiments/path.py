"""How explanations evolve along the straight path from one image to another of a different class.

At each of T points the predicted class's logit is explained by its gradient, SmoothGrad and VarGrad. All
points see the same noise, so that what changes is due to the point. Between points, the linear regions that
the path crosses are counted: a gradient is about one of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from curvelens import methods, seeds, targets
from curvelens.errors import ConfigError, ModelError
from curvelens.experiments.rows import predict, progress
from curvelens.regions import regions_along
from curvelens.tables import Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

    from curvelens.store import ImageSet

logger = logging.getLogger(__name__)
METHODS = ("gradient", "smoothgrad", "vargrad")

_CHANGE = "1 − cosine of the angle between this {} and the previous step's; missing at the first step."

PATH = schema(
    "path",
    "The straight path from one image to another of a different class, x(t) = (1 − t)·start + t·end.",
    {
        "start_id": Column(str, "Name of the image at t = 0."),
        "end_id": Column(str, "Name of the image at t = 1."),
        "step": Column(int, "Number of the point, from 0.", ge=0),
        "t": Column(float, "Position on the path.", ge=0, le=1),
        "start_class": Column(int, "True class of the image at t = 0.", ge=0),
        "end_class": Column(int, "True class of the image at t = 1.", ge=0),
        "start_probability": Column(float, "SoftMax probability of the start's class.", ge=0, le=1 + 1e-6),
        "end_probability": Column(float, "SoftMax probability of the end's class.", ge=0, le=1 + 1e-6),
        "prediction": Column(int, "Class with the largest logit, whose logit is explained.", ge=0),
        "confidence": Column(float, "SoftMax probability of the predicted class.", ge=0, le=1 + 1e-6),
        "value": Column(float, "The explained logit."),
        "gradient_norm": Column(float, "L2 norm of the gradient.", unit="logit/L2", ge=0),
        **{
            f"{name}_change": Column(float, _CHANGE.format(name), nullable=True, ge=0, le=2)
            for name in METHODS
        },
        "regions_crossed": Column(
            int,
            "Borders of linear regions crossed since the previous step; missing at the first step, for "
            "smooth networks, and where ReLUs are not modules.",
            nullable=True,
            ge=0,
        ),
        "seconds": Column(float, "Wall time spent on the step's explanations.", unit="s", ge=0),
        "calls": Column(int, "Gradient calls made for the step.", ge=0),
    },
    keys=("start_id", "end_id", "step"),
)


def choose_pair(
    model: torch.nn.Module,
    images: ImageSet,
    classes: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[int, int]:
    """Return the positions of two correctly classified images of different classes, the first that qualify.

    Args:
        model: Classifier on ``device``.
        images: Where to choose from.
        classes: Classes of the start and the end; by default that of the first correctly classified image,
            and of the first one of another class.
        device: Device of the model.

    Returns:
        Positions of start and end.

    Raises:
        ConfigError: The two classes are the same, or one has no correctly classified image.
    """
    if classes is not None and classes[0] == classes[1]:
        raise ConfigError(f"path: start and end are both of class {classes[0]}; name two different classes")
    right = predict(model, images.tensor().to(device)).prediction.cpu().numpy() == images.labels
    start_class = _class_of_first(images, right) if classes is None else classes[0]
    start = _first(right & (images.labels == start_class), f"class {start_class}")
    end_class = f"a class other than {start_class}" if classes is None else f"class {classes[1]}"
    wanted = images.labels != start_class if classes is None else images.labels == classes[1]
    return start, _first(right & wanted, end_class)


def _class_of_first(images: ImageSet, right: np.ndarray) -> int:
    return int(images.labels[_first(right, "any class")])


def _first(eligible: np.ndarray, what: str) -> int:
    if not eligible.any():
        raise ConfigError(
            f"path: no correctly classified image of {what}; choose other classes, more images or a better "
            "model"
        )
    return int(np.flatnonzero(eligible)[0])


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
    labels = _labels(images, start, end, steps)
    parsed = {name: methods.REGISTRY.get(name).parse((parameters or {}).get(name)) for name in METHODS}
    a, b = (images.tensor(position).to(device) for position in (start, end))
    t = np.linspace(0, 1, steps)
    points = torch.stack([(1 - s) * a + s * b for s in t.tolist()])
    found = predict(model, points)
    probabilities = found.logits.softmax(1)
    noise = seeds.derive(seed, images.ids[start], images.ids[end], "path")
    maps: dict[str, list[Tensor]] = {name: [] for name in METHODS}
    rows = _step_rows(probabilities, labels)
    for row, x, crossed in progress(
        list(zip(rows, points, _regions_crossed(model, a, b, t), strict=True)), "path"
    ):
        began, f = time.perf_counter(), targets.logit(model, row["prediction"])
        work = methods.SharedWork(f, x, noise, parsed)
        explained = {name: work.explain(name) for name in METHODS}
        for name, explanation in explained.items():
            maps[name].append(explanation.maps["attribution"])
            row[f"{name}_change"] = _change(maps[name])
        row |= {
            "start_id": images.ids[start],
            "end_id": images.ids[end],
            "t": t[row["step"]],
            "value": float(found.logits[row["step"], row["prediction"]]),
            "gradient_norm": float(torch.linalg.vector_norm(maps["gradient"][-1])),
            "regions_crossed": crossed,
            "seconds": time.perf_counter() - began,
            "calls": sum(explanation.made or 0 for explanation in explained.values()),
        }
    tensors = {name: torch.stack(values) for name, values in maps.items()}
    tensors |= {"images": points, "probabilities": probabilities}
    return frame(rows, PATH), {"t": t} | {name: value.cpu().numpy() for name, value in tensors.items()}


def _labels(images: ImageSet, start: int, end: int, steps: int) -> tuple[int, int]:
    """Return the classes of start and end, if they make a path of ``steps`` points."""
    if steps < 2:
        raise ConfigError(f"path.steps: {steps} points make no path; give at least 2, 25 for a film")
    labels = int(images.labels[start]), int(images.labels[end])
    if labels[0] == labels[1]:
        raise ConfigError(f"path: start and end are both of class {labels[0]}; choose two different classes")
    return labels


def _step_rows(probabilities: Tensor, labels: tuple[int, int]) -> list[dict[str, Any]]:
    """Return what the model says at each step, given its probabilities ``[T, c]``."""
    confidence, prediction = probabilities.max(1)
    return [
        {
            "step": step,
            "start_class": labels[0],
            "end_class": labels[1],
            "start_probability": float(p[labels[0]]),
            "end_probability": float(p[labels[1]]),
            "prediction": int(prediction[step]),
            "confidence": float(confidence[step]),
        }
        for step, p in enumerate(probabilities)
    ]


def _change(maps: list[Tensor]) -> float | None:
    """Return 1 − cosine of the last two maps; None for the first one, and where a map is zero."""
    if len(maps) < 2:
        return None
    now, before = maps[-1].double().flatten(), maps[-2].double().flatten()
    lengths = torch.linalg.vector_norm(now) * torch.linalg.vector_norm(before)
    if lengths == 0:
        return None
    return min(2.0, max(0.0, 1 - float(now @ before / lengths)))


def _regions_crossed(model: torch.nn.Module, a: Tensor, b: Tensor, t: np.ndarray) -> list[int | None]:
    """Return how many borders lie in each interval [t[i-1], t[i]); None at t[0] and where there are none."""
    if not targets.logits(model).piecewise_linear:
        return [None] * len(t)
    try:
        crossings = regions_along(model, a, b).t.cpu().numpy()
    except ModelError as error:
        logger.warning("path: regions are not counted: %s", error)
        return [None] * len(t)
    counts, _ = np.histogram(crossings, t)
    return [None, *counts.tolist()]
