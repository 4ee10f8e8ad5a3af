"""Explanations of two classes on one image: where a network errs, and where several objects are seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from curvelens import methods, overlap, seeds, targets
from curvelens.errors import ConfigError
from curvelens.experiments.rows import Item, classify, per_image, require_finite
from curvelens.summaries.competing import COMPETING, MISTAKE, RIGHT, SCENE
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd
    from pydantic import BaseModel

    from curvelens.sections.competing import Competing
    from curvelens.store import ImageSet

SCALARS = {
    "logit": targets.logit,
    "probability": targets.probability,
    "log_probability": targets.log_probability,
    "margin": targets.margin,
}
_CLOSEST = 3  # scenes taken where none are named
# As for the stage `explanations`: both classes and all methods see the same noisy copies of an image.
_PURPOSE = "explanation"


@dataclass(frozen=True)
class Question:
    """What is asked of one image.

    Attributes:
        part: ``mistake``, ``right`` or ``scene``.
        kind: What is special about it.
        a, b: The two classes.
    """

    part: str
    kind: str
    a: int
    b: int


@dataclass(frozen=True)
class Described:
    """What is known of the images besides their pixels.

    Attributes:
        class_names: Name of each class.
        origins: Where single images come from, by id.
        source: Where all others come from.
    """

    class_names: list[str]
    origins: Mapping[str, str]
    source: str

    def name(self, label: int) -> str:
        """Return the name of a class, empty where it is not known."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else ""

    def origin(self, image_id: str) -> str:
        """Return where an image comes from."""
        return self.origins.get(image_id, self.source)


def competing(
    model: torch.nn.Module,
    images: ImageSet,
    scenes: ImageSet,
    settings: Competing,
    described: Described,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> tuple[pd.DataFrame, dict[str, np.ndarray], list[str]]:
    """Explain images for two classes each and compare the maps.

    Args:
        model: Classifier ``[B, C, H, W] -> [B, c]`` on ``device`` and in ``dtype``.
        images: The test images, of which the misclassified are taken.
        scenes: Where scenes are taken from; may be the same.
        settings: What is computed.
        described: Names of classes, and where images come from.
        seed: Seed of the run.
        device: Where to compute.
        dtype: Precision of the model; None means float32.

    Returns:
        The table :data:`COMPETING`; arrays with an entry for each row that did not fail: ``maps``
        ``[n, 2, C, H, W]``, of both classes, ``pixels`` uint8 ``[n, C, H, W]``, ``method`` and ``part``
        ``[n]``; and the n image ids.

    Raises:
        ConfigError: A method, class or image does not exist.
    """
    said, usable = classify(model, images, device, dtype)
    labelled = (images.labels >= 0) & usable
    logits = said.logits.cpu()
    wrong = labelled & (logits.argmax(1).numpy() != images.labels)
    asked = {
        "images": (images, _mistakes(images, logits, labelled, settings.mistakes)),
        "scenes": (scenes, _scenes(model, scenes, settings, described, device, dtype)),
    }
    totals = {"test_images": int(labelled.sum()), "test_errors": int(wrong.sum())}
    run = _Run(model, settings, described, seed, totals)
    rows: list[dict[str, Any]] = []
    for source, questions in asked.values():
        chosen = source.subset([source.ids.index(name) for name in questions])
        made = per_image(
            chosen,
            model,
            partial(run.explain, questions),
            description="two classes",
            device=device,
            dtype=dtype,
        )
        order = {name: number for number, name in enumerate(questions)}
        for row in made:
            row["place"] = order[row["image_id"]]
            row.setdefault("part", questions[row["image_id"]].part)
            row.setdefault("method", settings.scene_method)
        rows += made
        run.add_pixels(chosen)
    return frame(rows, COMPETING), *run.arrays(images.shape)


def _mistakes(images: ImageSet, logits: torch.Tensor, known: np.ndarray, count: int) -> dict[str, Question]:
    """Return the surest errors, then the least sure of the others.

    Args:
        images: N images.
        logits: ``[N, c]``.
        known: bool ``[N]``: of which images that can be said.
        count: Images wanted.
    """
    p = logits.double().softmax(1)
    best, classes = (one.tolist() for one in p.topk(2, 1))
    labels = images.labels
    places = np.flatnonzero(known).tolist()
    wrong = [index for index in places if classes[index][0] != labels[index]]
    wrong.sort(key=lambda index: (-best[index][0], images.ids[index]))
    right = [index for index in places if classes[index][0] == labels[index]]
    right.sort(key=lambda index: (best[index][0] - best[index][1], images.ids[index]))
    found = {
        images.ids[index]: Question(MISTAKE, MISTAKE, classes[index][0], int(labels[index]))
        for index in wrong[:count]
    }
    for index in right[: count - len(found)]:
        found[images.ids[index]] = Question(RIGHT, RIGHT, *classes[index])
    return found


def _scenes(
    model: torch.nn.Module,
    scenes: ImageSet,
    settings: Competing,
    described: Described,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> dict[str, Question]:
    """Return the scenes that were named, or those on which two classes come closest."""
    kinds = {name: kind for kind, ids in (settings.scenes or {}).items() for name in ids}
    unknown = [name for name in kinds if name not in scenes.ids]
    if unknown:
        near = get_close_matches(unknown[0], scenes.ids, n=3, cutoff=0.3)
        raise ConfigError(
            f"competing.scenes: no test image is called {unknown[0]!r}; it may be {' or '.join(near)}"
            if near
            else f"competing.scenes: no test image is called {unknown[0]!r}; take ids from the data set"
        )
    said, usable = classify(model, scenes, device, dtype)
    p = said.logits.double().softmax(1).cpu()
    if settings.classes is None:
        pairs = torch.sort(p.topk(2, 1)[1])[0]
    else:
        chosen = [_index(one, described.class_names) for one in settings.classes]
        pairs = torch.tensor(chosen).expand(len(scenes), 2)
    between = p.gather(1, pairs)
    margin = ((between[:, 0] - between[:, 1]).abs() / between.sum(1)).tolist()
    if not kinds:
        order = sorted(np.flatnonzero(usable).tolist(), key=lambda index: (margin[index], scenes.ids[index]))
        kinds = {scenes.ids[index]: "hard to tell apart" for index in order[:_CLOSEST]}
    place = {name: index for index, name in enumerate(scenes.ids)}
    return {name: Question(SCENE, kind, *pairs[place[name]].tolist()) for name, kind in kinds.items()}


def _index(name: int | str, class_names: list[str]) -> int:
    index = class_names.index(name) if name in class_names else name
    if not isinstance(index, int) or index >= len(class_names):
        near = get_close_matches(str(name), class_names, n=3) or class_names[:3]
        raise ConfigError(f"competing.classes: no class is {name!r}; it may be {' or '.join(near)}")
    return index


class _Run:
    """Explains images one by one and keeps their maps."""

    def __init__(
        self,
        model: torch.nn.Module,
        settings: Competing,
        described: Described,
        seed: int,
        totals: Mapping[str, int],
    ) -> None:
        self._model, self._settings, self._described = model, settings, described
        self._seed, self._totals = seed, totals
        self._parsed: dict[str, BaseModel] = {
            name: methods.REGISTRY.get(name).parse(values) for name, values in settings.methods.items()
        }
        self._maps: list[tuple[str, str, str, np.ndarray]] = []
        self._pixels: dict[str, np.ndarray] = {}

    def explain(self, questions: Mapping[str, Question], item: Item) -> list[dict[str, Any]]:
        """Return a row for each method; the maps are kept when all of them are there."""
        settings, question = self._settings, questions[item.image_id]
        wanted = self._parsed
        if question.part == SCENE:
            wanted = {settings.scene_method: self._parsed[settings.scene_method]}
        seed = seeds.derive(self._seed, item.image_id, _PURPOSE)
        scalars = [SCALARS[settings.scalar](self._model, k) for k in (question.a, question.b)]
        works = [methods.SharedWork(f, item.x, seed, wanted) for f in scalars]
        with torch.no_grad():
            scores = [float(f(item.x[None])[0]) for f in scalars]
        head = self._head(item, question, scores)
        rows, kept = [], []
        for name, parameters in wanted.items():
            found = [work.explain(name) for work in works]
            require_finite(attribution=torch.stack([one.maps["attribution"] for one in found]))
            maps = np.stack([one.maps["attribution"].cpu().numpy() for one in found])
            kept.append((item.image_id, question.part, name, maps.astype(np.float32)))
            a, b = maps.astype(np.float64).sum(1)
            compared = overlap.compare(a, b, settings.keep, settings.blur)
            rows.append(
                head
                | {"method": name, "parameters": parameters.model_dump_json(), **compared._asdict()}
                | {"calls": sum(one.made or 0 for one in found)}
            )
        self._maps += kept
        return rows

    def _head(self, item: Item, question: Question, scores: list[float]) -> dict[str, Any]:
        """Return the columns that do not depend on the method."""
        settings, described = self._settings, self._described
        p = item.logits.double().softmax(0)
        return {
            "label_name": described.name(item.label),
            "part": question.part,
            "kind": question.kind,
            "scalar": settings.scalar,
            "class_a": question.a,
            "class_b": question.b,
            "name_a": described.name(question.a),
            "name_b": described.name(question.b),
            "score_a": scores[0],
            "score_b": scores[1],
            "probability_a": float(p[question.a]),
            "probability_b": float(p[question.b]),
            "chance_iou": overlap.chance_overlap(settings.keep),
            "keep": settings.keep,
            "blur": settings.blur,
            "origin": described.origin(item.image_id),
            **self._totals,
        }

    def add_pixels(self, images: ImageSet) -> None:
        """Keep the pixels of images, beside which their maps are drawn."""
        self._pixels |= dict(zip(images.ids, images.images, strict=True))

    def arrays(self, shape: tuple[int, int, int]) -> tuple[dict[str, np.ndarray], list[str]]:
        """Return the arrays and the ids that go with them."""
        ids = [name for name, _, _, _ in self._maps]
        empty = np.zeros((0, 2, *shape), np.float32)
        return {
            "maps": np.stack([maps for *_, maps in self._maps]) if ids else empty,
            "pixels": np.stack([self._pixels[name] for name in ids]) if ids else empty[:, 0].astype(np.uint8),
            "part": np.array([part for _, part, _, _ in self._maps], dtype=np.str_),
            "method": np.array([method for _, _, method, _ in self._maps], dtype=np.str_),
        }, ids
