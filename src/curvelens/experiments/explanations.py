"""Per-image explanations: arrays for the images of one shard and one row of their index per image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from curvelens import methods, seeds
from curvelens.experiments.rows import Item, per_image
from curvelens.experiments.scalars import PREDICTED
from curvelens.summaries.explanations import EXPLANATIONS
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd

    from curvelens.store import ImageSet


# SmoothGrad and VarGrad of an image see the same noisy copies, so that their maps can be compared.
_PURPOSE = "explanation"


def explain_images(
    model: torch.nn.Module,
    images: ImageSet,
    method: str,
    parameters: Mapping[str, Any],
    scalar: str = "predicted_logit",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Explain every image by one method.

    Args:
        model: Classifier on ``device``.
        images: N images.
        method: Registered name of the method.
        parameters: Its parameters.
        scalar: ``predicted_logit``, ``predicted_probability``, ``predicted_log_probability`` or ``margin``.
        seed: Seed of the run.
        device: Where to compute.

    Returns:
        Arrays ``[N, ...]`` by name, NaN for an image that failed, and the index :data:`EXPLANATIONS`.

    Raises:
        ConfigError: If the method or one of its parameters does not exist.
    """
    parsed = methods.REGISTRY.get(method).parse(parameters)
    maps: dict[str, dict[str, np.ndarray]] = {}

    def explain(item: Item) -> dict[str, Any]:
        f = PREDICTED[scalar](model, item.prediction)
        image_seed = seeds.derive(seed, item.image_id, _PURPOSE)
        explanation = methods.explain(method, f, item.x, image_seed, parsed.model_dump())
        maps[item.image_id] = {name: value.cpu().numpy() for name, value in explanation.maps.items()}
        with torch.no_grad():
            value = float(f(item.x[None])[0])
        return {"target": item.prediction, "value": value, "seed": image_seed, "calls": explanation.calls}

    constants = {"scalar": scalar, "method": method, "parameters": parsed.model_dump_json()}
    rows = per_image(images, model, explain, description=method, device=device, constants=constants)
    return _stack(maps, images), frame(rows, EXPLANATIONS)


def _stack(maps: Mapping[str, Mapping[str, np.ndarray]], images: ImageSet) -> dict[str, np.ndarray]:
    """Join the images' arrays; one that failed leaves NaN behind and costs the others nothing."""
    if not maps:
        return {"attribution": np.full((len(images), *images.shape), np.nan, np.float32)}
    example = next(iter(maps.values()))
    missing = {name: np.full_like(array, np.nan) for name, array in example.items()}
    return {name: np.stack([maps.get(i, missing)[name] for i in images.ids]) for name in example}
