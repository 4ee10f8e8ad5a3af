"""Maps made anew for their judgement: of noisy images, of randomised networks, and what one costs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from curvelens import methods, seeds
from curvelens.costs import tensor_memory
from curvelens.experiments.judging_measures import Loss, Row, Scene, read
from curvelens.experiments.scalars import PREDICTED
from curvelens.sanity import randomized, similarity
from curvelens.stability import noisy_images, sensitivity

if TYPE_CHECKING:
    from torch import nn

    from curvelens.sections.judging import Randomization, Stability


class Explainer:
    """Explains as the stage ``explanations`` does, but one method alone.

    Args:
        requests: Parameters by method; those left out take their defaults.
        scalar: The number that is explained, see :data:`curvelens.experiments.scalars.PREDICTED`.
        seed: Seed of the run.
    """

    def __init__(self, requests: Mapping[str, Mapping[str, Any]], scalar: str, seed: int) -> None:
        self.requests = {
            name: methods.REGISTRY.get(name).parse(one).model_dump() for name, one in requests.items()
        }
        self.scalar, self.seed = scalar, seed

    def __call__(
        self, method: str, model: nn.Module, scene: Scene, x: torch.Tensor | None = None, scalar: str = ""
    ) -> methods.Explanation:
        """Explain the scene's class, at another point or by another scalar where given.

        Noise is that of the stage ``explanations``, so that an image and its noisy copy see the same.
        """
        f = PREDICTED[scalar or self.scalar](model, scene.target)
        seed = seeds.derive(self.seed, scene.image_id, "explanation")
        at = scene.x if x is None else x
        return methods.explain(method, f, at, seed, self.requests[method])

    def importance(self, method: str, model: nn.Module, scene: Scene) -> np.ndarray:
        """Return the importance of the scene's pixels ``[H, W]``."""
        return read(method, _array(self(method, model, scene)))


def stability(
    explainer: Explainer, method: str, model: nn.Module, scene: Scene, settings: Stability
) -> Iterator[Row]:
    """Yield how much a map changes under noise, and the time and memory that one takes."""
    device = scene.x.device
    original, peak = tensor_memory(lambda: explainer(method, model, scene), device)
    yield {"metric": "memory", "value": peak / 2**20}
    seed = seeds.derive(explainer.seed, scene.image_id, "judging")
    noisy = noisy_images(scene.x, settings.sigma, settings.draws, seed)
    perturbed, seconds = [], []
    for copy in noisy:
        start = time.perf_counter()
        perturbed.append(explainer(method, model, scene, copy).maps["attribution"])
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    yield {"metric": "seconds", "value": float(np.median(seconds))}
    mean, largest = sensitivity(scene.x, noisy, original.maps["attribution"], perturbed)
    yield {"metric": "sensitivity", "value": mean, "chance": 2**0.5}
    yield {"metric": "max_sensitivity", "value": largest}


def own_model(explainer: Explainer, method: str, model: nn.Module, scene: Scene, loss: Loss) -> Iterator[Row]:
    """Yield what the method's own local model of the loss leaves unexplained, of a method that makes one."""
    traits = methods.REGISTRY.get(method).traits
    if traits.get("local_model"):
        yield from loss.own(explainer(method, model, scene, scalar="predicted_log_probability"))


def randomization(
    explainer: Explainer, method: str, model: nn.Module, scene: Scene, settings: Randomization
) -> Iterator[Row]:
    """Yield how alike a method's maps of the network and of randomised ones are."""
    original = explainer.importance(method, model, scene)
    seed = seeds.derive(explainer.seed, scene.image_id, "judging")
    for share, changed in randomized(model, settings.stages, seed):
        alike = similarity(original, explainer.importance(method, changed, scene))
        yield {"metric": "randomization", "at": share, "value": alike, "chance": 0.0}


def _array(explanation: methods.Explanation) -> np.ndarray:
    return explanation.maps["attribution"].detach().cpu().numpy()
