"""Explanations of the images of one shard by all methods, in which each gradient call is made once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from curvelens import methods, seeds
from curvelens.errors import ConfigError
from curvelens.experiments.rows import Item, one_line, per_image, require_finite
from curvelens.experiments.scalars import PREDICTED
from curvelens.experiments.trust import columns
from curvelens.summaries.explanations import EXPLANATIONS
from curvelens.tables import FAILED, OK, frame
from curvelens.trust import Rays, radius_grid

if TYPE_CHECKING:
    import pandas as pd
    from pydantic import BaseModel

    from curvelens.store import ImageSet

logger = logging.getLogger(__name__)

# All methods of an image see the same noisy copies, so that their maps can be compared and share their calls.
_PURPOSE = "explanation"

_REFINEMENTS = 2  # of an octave, see experiments.trust
_PER_OCTAVE = 1

Arrays = dict[str, np.ndarray]


def explain_images(
    model: torch.nn.Module,
    images: ImageSet,
    requests: Mapping[str, Mapping[str, Any]],
    scalar: str = "predicted_logit",
    trust: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, tuple[Arrays, pd.DataFrame]]:
    """Explain every image by every method.

    Args:
        model: Classifier on ``device``.
        images: N images.
        requests: Parameters by registered name of the method.
        scalar: ``predicted_logit``, ``predicted_probability``, ``predicted_log_probability`` or ``margin``.
        trust: ``threshold``, ``smallest``, ``largest`` and ``samples`` of the trust radius of each map, as in
            :func:`curvelens.trust_radius`; None leaves it out.
        seed: Seed of the run.
        device: Where to compute.

    Returns:
        By method: arrays ``[N, ...]`` by name, NaN for an image that failed, and the index
        :data:`EXPLANATIONS`.

    Raises:
        ConfigError: If a method or one of its parameters does not exist, or cannot explain such a network.
    """
    parsed = {name: methods.REGISTRY.get(name).parse(values) for name, values in requests.items()}
    maps: dict[str, dict[str, Arrays]] = {name: {} for name in parsed}

    def explain(item: Item) -> list[dict[str, Any]]:
        return list(_explain(item, model, parsed, PREDICTED[scalar], trust, seed, maps))

    made = per_image(images, model, explain, description="explanations", device=device)
    index = {}
    for name, parameters in parsed.items():
        constants = {"scalar": scalar, "method": name, "parameters": parameters.model_dump_json()}
        # An image that no method could look at has a single row, without a method.
        rows = [row | constants for row in made if row.get("method", name) == name]
        index[name] = frame(rows, EXPLANATIONS)
    return {name: (_stack(maps[name], images), index[name]) for name in parsed}


def _explain(
    item: Item,
    model: torch.nn.Module,
    parsed: Mapping[str, BaseModel],
    function: Any,
    trust: Mapping[str, Any] | None,
    seed: int,
    maps: dict[str, dict[str, Arrays]],
) -> Iterator[dict[str, Any]]:
    """Yield a row of the index for each method, and put its arrays into ``maps``; one may fail by itself."""
    f = function(model, item.prediction)
    image_seed = seeds.derive(seed, item.image_id, _PURPOSE)
    with torch.no_grad():
        value = float(f(item.x[None])[0])
    head = {"target": item.prediction, "value": value, "seed": image_seed}
    work = methods.SharedWork(f, item.x, image_seed, parsed)
    judge = None
    if trust is not None:
        points = seeds.derive(seed, item.image_id, "explanation trust")
        judge = Rays(f, item.x, samples=trust["samples"], seed=points)
    for name in parsed:
        start = time.perf_counter()
        try:
            explanation = work.explain(name)
            require_finite(attribution=explanation.maps["attribution"])
            row: dict[str, Any] = head | {"calls": explanation.made, "calls_alone": explanation.calls}
            row |= {"forward_calls": explanation.forward_calls} | _completeness(explanation)
            if judge is not None and trust is not None and explanation.model is not None:
                row |= _trust(judge, explanation, trust)
            maps[name][item.image_id] = {key: found.cpu().numpy() for key, found in explanation.maps.items()}
            row |= {"status": OK, "error": ""}
        except ConfigError:  # a method that cannot explain this network is no image's fault
            raise
        except Exception as error:
            logger.exception("%s: image %s failed", name, item.image_id)
            row = {"calls": 0, "status": FAILED, "error": one_line(error)}
        yield row | {"method": name, "seconds": time.perf_counter() - start}


def _completeness(explanation: methods.Explanation) -> dict[str, float]:
    """Return what a method that promises it says of its sum: the error, and what the sum should be."""
    error = explanation.maps.get("completeness_error")
    if error is None:
        return {}
    total = float(explanation.maps["attribution"].double().sum())
    return {"completeness_error": float(error), "attributed_change": total - float(error)}


def _trust(rays: Rays, explanation: methods.Explanation, trust: Mapping[str, Any]) -> dict[str, Any]:
    assert explanation.model is not None
    grid = radius_grid(trust["smallest"], trust["largest"], _PER_OCTAVE)
    found = rays.curve(explanation.model).radius(trust["threshold"], grid, _REFINEMENTS)
    told = columns(found)
    return {
        "trust_radius": told["trust_radius"],
        "trust_low": told["low"],
        "trust_high": told["high"],
        "trust_censored": told["censored"],
    }


def _stack(maps: Mapping[str, Arrays], images: ImageSet) -> Arrays:
    """Join the images' arrays; one that failed leaves NaN behind and costs the others nothing."""
    if not maps:
        return {"attribution": np.full((len(images), *images.shape), np.nan, np.float32)}
    example = next(iter(maps.values()))
    missing = {name: np.full_like(array, np.nan) for name, array in example.items()}
    return {name: np.stack([maps.get(i, missing)[name] for i in images.ids]) for name in example}
