"""Measures of one image's maps: rows of the table of judgements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from curvelens import derivatives, methods, targets
from curvelens.faithfulness import Curves, baseline, map_errors, removal_curves, removal_order
from curvelens.fidelity import Perturbations
from curvelens.localization import importance, localization
from curvelens.seeds import derive, generator

if TYPE_CHECKING:
    from torch import nn

    from curvelens.sections.judging import Judging

Row = dict[str, Any]
SLOPE, PATH, CONTRIBUTION = "slope", "path", "contribution"
_NEAR = 1 / 512  # a pixel that differs less from the baseline has no contribution to speak of


@dataclass(frozen=True)
class Scene:
    """What is judged on one picture.

    Attributes:
        image_id: Its name.
        x: ``[C, H, W]``.
        target: Class that is explained.
        mask: bool ``[H, W]``, where that class is; None where nobody says.
        known: bool ``[H, W]``, the pixels of which that is known.
    """

    image_id: str
    x: Tensor
    target: int
    mask: np.ndarray | None = None
    known: np.ndarray | None = None


def sense(method: str) -> str:
    """Return what a method's map says: see ``docs/add-a-method.md``; empty for a random map."""
    return (
        str(methods.REGISTRY.get(method).traits.get("sense", ""))
        if method in methods.REGISTRY.names()
        else ""
    )


def read(method: str, attribution: np.ndarray) -> np.ndarray:
    """Return the importance of pixels ``[H, W]`` that a method's map stands for."""
    return importance(attribution, contributions=sense(method) in (PATH, CONTRIBUTION))


def random_map(shape: Sequence[int], seed: int, image_id: str) -> np.ndarray:
    """Return a map ``shape`` of normal noise, which knows nothing of image and network."""
    return torch.randn(*shape, generator=generator(seed, image_id, "random map")).numpy()


def localized(scene: Scene, pixels: np.ndarray, thresholds: Sequence[float]) -> Iterator[Row]:
    """Yield how well a map finds the object; nothing where there is no object, or nothing else."""
    if scene.mask is None:
        return
    known = np.ones(scene.mask.shape, bool) if scene.known is None else scene.known
    if not scene.mask[known].any() or scene.mask[known].all():
        return
    found = localization(pixels, scene.mask, known, tuple(thresholds))
    yield {"metric": "pointing", "value": found.pointing, "chance": found.chance}
    yield {"metric": "energy", "value": found.energy, "chance": found.chance}
    yield {"metric": "pixel_auc", "value": found.auc, "chance": 0.5}
    yield {"metric": "best_iou", "value": found.best_iou, "chance": found.chance}
    yield {"metric": "mean_iou", "value": found.mean_iou}
    yield {"metric": "localization_error", "value": found.error}
    for threshold, value in found.iou.items():
        yield {"metric": "iou", "at": threshold, "value": value}


class Removal:
    """Deletion and insertion curves on one scene.

    Args:
        model: Classifier.
        scene: The picture and the class whose probability is followed.
        settings: The stage's settings.
        seed: Seed of the run; decides the order of pixels of equal importance.
    """

    def __init__(self, model: nn.Module, scene: Scene, settings: Judging, seed: int) -> None:
        self.scene, self.steps = scene, settings.steps
        self.functions = [targets.probability(model, scene.target), targets.loss(model, scene.target)]
        self.baseline = baseline(scene.x, settings.baseline, settings.blur)
        self.seed = derive(seed, scene.image_id, "removal")

    def rows(self, pixels: np.ndarray) -> tuple[list[Row], list[Row]]:
        """Return areas under the curves of a map, and the curves."""
        order = removal_order(pixels, self.seed)
        found = removal_curves(self.functions, self.scene.x, self.baseline, order, self.steps)
        areas, points = [], []
        for curve, values in (("deletion", found.deletion), ("insertion", found.insertion)):
            area = Curves.area(found.shares, values)
            areas += [
                {"metric": curve, "value": float(area[0])},
                {"metric": f"{curve}_loss", "value": float(area[1])},
            ]
            points += [
                {"curve": curve, "share": float(share), "probability": float(p), "loss": float(loss)}
                for share, p, loss in zip(found.shares, *values, strict=True)
            ]
        return areas, points


class Loss:
    """The loss around one image, against which maps are held as slopes.

    Args:
        model: Classifier.
        scene: The image and the class whose loss is predicted.
        radii: Radii, L2 norm.
        samples: Perturbations at each.
        seed: Seed of the run.
    """

    def __init__(
        self, model: nn.Module, scene: Scene, radii: Sequence[float], samples: int, seed: int
    ) -> None:
        self.scene, self.f = scene, targets.loss(model, scene.target)
        self.value = float(derivatives.value(self.f, scene.x[None])[0])
        points = derive(seed, scene.image_id, "judging perturbations")
        settings = [(radius, "ball") for radius in radii]
        self.around = Perturbations(self.f, scene.x, settings, samples=samples, seed=points)

    def rows(self, maps: Mapping[str, np.ndarray], parameters: Mapping[str, Any]) -> dict[str, list[Row]]:
        """Return what each of the maps that are slopes leaves unexplained of the loss.

        Args:
            maps: ``[C, H, W]`` by method.
            parameters: Parameters of the methods.
        """
        slopes = {name: self._slope(name, found, parameters) for name, found in maps.items()}
        given = {name: slope for name, slope in slopes.items() if slope is not None}
        if not given:
            return {}
        rows: dict[str, list[Row]] = {}
        for name, errors in map_errors(self.around, self.value, given).items():
            rows[name] = []
            for one in errors:
                head = {"at": one.radius}
                rows[name].append(head | {"metric": "unexplained", "value": one.unexplained, "chance": 1.0})
                rows[name].append(head | {"metric": "pmse", "value": one.mean, "stderr": one.stderr})
        return rows

    def _slope(self, name: str, found: np.ndarray, parameters: Mapping[str, Any]) -> Tensor | None:
        """Return a map as the slope of a linear model, None where it is none."""
        values = torch.from_numpy(found).to(self.scene.x)
        kind = sense(name)
        if kind == PATH:
            # A contribution is a slope times the distance from the baseline.
            step = self.scene.x - parameters[name]["baseline"]
            return torch.where(step.abs() < _NEAR, 0, values / step)
        return values if kind == SLOPE or name not in methods.REGISTRY.names() else None

    def own(self, explanation: methods.Explanation) -> Iterator[Row]:
        """Yield what a method's own local model of the log-probability leaves unexplained of the loss."""
        q = explanation.model
        if q is None:
            return
        changes = self.around.mse(lambda steps: self.value + 0 * steps.flatten(1).sum(1))
        errors = self.around.mse(lambda steps: self.value - (q(steps) - q.value))
        for change, error in zip(changes, errors, strict=True):
            if change.mean > 0:
                share = error.mean / change.mean
                yield {"metric": "own_unexplained", "at": error.radius, "value": share, "chance": 1.0}


def mask_of(values: np.ndarray, target: int, classes: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return where the explained class is, and the pixels of which that is known.

    Args:
        values: uint8 ``[H, W]``, 0 for no object, 255 for unknown.
        target: The explained class.
        classes: Class index by value; other values are objects of other classes.
    """
    return np.isin(values, [value for value, index in classes.items() if index == target]), values != 255
