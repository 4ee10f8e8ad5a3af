"""A small network, images with masks, and their stored explanations: what the stage of judgement works on."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import nn

from curvelens.experiments import judging
from curvelens.experiments.explanations import explain_images
from curvelens.experiments.judging_again import Explainer
from curvelens.experiments.rows import predict
from curvelens.sections.judging import Judging
from curvelens.store import ImageSet

SIZE = 12
METHODS = {
    "gradient": {},
    "smoothgrad": {"samples": 8},
    "vargrad": {"samples": 8},
    "integrated_gradients": {"steps": 8},
}
SCALAR = "predicted_log_probability"
CLASSES = 4


@cache
def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A convolution, global pooling, and four classes: it takes pictures of any size."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)
    )
    return model.to(dtype).eval()


@cache
def images(count: int = 8) -> ImageSet:
    """Noisy patches of colour, labelled by what the network says; a patch's mask stands for that class."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 40, (count, 3, SIZE, SIZE))
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    for place in range(count):
        top, left = rng.integers(0, 6, 2)
        pixels[place, :, top : top + 6, left : left + 6] += rng.integers(0, 210, (3, 1, 1))
        masks[place, top : top + 6, left : left + 6] = 1
        masks[place, top] = 255
    ids = [f"own/{place}" for place in range(count)]
    plain = ImageSet(pixels.astype(np.uint8), np.zeros(count, np.int64), ids)
    labels = predict(network(), plain.tensor().double()).prediction.numpy()
    masks = np.where(masks == 1, labels[:, None, None] + 1, masks).astype(np.uint8)
    return ImageSet(plain.images, labels, ids, masks)


def settings(**changes: object) -> Judging:
    chosen = {
        "images": 8,
        "steps": 4,
        "radii": [0.01, 0.5],
        "samples": 40,
        "stability": {"images": 2, "draws": 2},
        "randomization": {"images": 1, "stages": 2},
    }
    return Judging.model_validate({**chosen, **changes})


@cache
def explained() -> tuple[dict[str, dict[str, np.ndarray]], dict]:
    """Stored maps and what they took."""
    import pandas as pd

    found = explain_images(network(torch.float32), images(), METHODS, scalar=SCALAR)
    maps = {
        method: dict(zip(images().ids, arrays["attribution"], strict=True))
        for method, (arrays, _) in found.items()
    }
    return maps, judging.costs(pd.concat([index for _, index in found.values()]))


def judge(**changes: object) -> judging.Judge:
    """What judges those images; ``changes`` are attributes of :class:`Judge`."""
    maps, costs = explained()
    ids = images().ids
    plain = judging.Judge(
        network(),
        settings(),
        Explainer(METHODS, SCALAR, 0),
        maps,
        costs,
        {value: value - 1 for value in range(1, CLASSES + 1)},
        frozenset(ids[:2]),
        frozenset(ids[:1]),
    )
    return replace(plain, **changes)
