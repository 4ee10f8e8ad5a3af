"""Stored maps judged by numbers, image by image, and maps made anew where the judgement needs some."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.errors import DataError
from curvelens.experiments import judging_again as again
from curvelens.experiments.judging_measures import (
    Loss,
    Removal,
    Row,
    Scene,
    localized,
    mask_of,
    random_map,
    read,
)
from curvelens.experiments.rows import Item, one_line, per_image
from curvelens.store import load_explanations
from curvelens.summaries.judging import CURVE_PARTS, GRID, IMAGE, JUDGEMENT_IMAGES, RANDOM
from curvelens.tables import FAILED, OK, frame

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from curvelens.experiments.judging_grids import GridSet
    from curvelens.sections.judging import Judging
    from curvelens.store import ImageSet

logger = logging.getLogger(__name__)

Maps = Mapping[str, Mapping[str, np.ndarray]]
"""Stored attributions ``[C, H, W]`` by method and image id."""


Work = Callable[[], Iterable[Row]]


@dataclass(frozen=True)
class Judge:
    """What every image of a run is judged by.

    Attributes:
        model: Classifier.
        settings: The stage's settings.
        explainer: Makes maps anew.
        maps: The stored ones.
        costs: What each took, by (method, image id).
        classes: Class index by value of the masks.
        stable: Ids of the images whose maps are made anew under noise.
        random: Ids of those explained with randomised networks.
    """

    model: nn.Module
    settings: Judging
    explainer: again.Explainer
    maps: Maps
    costs: Mapping[tuple[str, str], Row]
    classes: Mapping[int, int] = field(default_factory=dict)
    stable: frozenset[str] = frozenset()
    random: frozenset[str] = frozenset()

    @property
    def chosen(self) -> list[str]:
        """The methods that explain anew."""
        return sorted(self.maps if self.settings.again is None else self.settings.again)

    def images(
        self, images: ImageSet, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Judge the stored maps of images, and those made anew of the first of them.

        Args:
            images: N images, with masks where there are some.
            device: Device of the model.
            dtype: Type to compute in; None means float32.

        Returns:
            The tables :data:`JUDGEMENT_IMAGES` and :data:`CURVE_PARTS`; what fails becomes a failed row.
        """
        points: list[Row] = []

        def judge(item: Item) -> list[Row]:
            mask = known = None
            if images.masks is not None:
                stored = images.masks[images.ids.index(item.image_id)]
                mask, known = mask_of(stored, item.prediction, self.classes)
            scene = Scene(item.image_id, item.x, item.prediction, mask, known)
            return self._image(scene, points)

        made = per_image(
            images,
            self.model,
            judge,
            description="judging",
            device=device,
            dtype=dtype,
            constants={"scene": IMAGE},
        )
        return frame(made, JUDGEMENT_IMAGES), frame(points, CURVE_PARTS)

    def grids(
        self, grids: GridSet, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Explain grids of images anew, and judge whether maps stay in the cell of the explained class.

        Args:
            grids: N grids.
            device: Device of the model.
            dtype: Type to compute in; None means float32.

        Returns:
            The table :data:`JUDGEMENT_IMAGES`, and for pictures ``images`` ``[N, C, H, W]``, ``cells``
            ``[N, H, W]`` and the importance of pixels ``[N, H, W]`` under the name of each method, NaN where
            it failed.
        """
        pixels = {"images": grids.images.images, "cells": grids.cells}
        shape = (len(grids.images), *grids.images.shape[1:])
        maps = {name: np.full(shape, np.nan, np.float32) for name in self.chosen}

        def judge(item: Item) -> list[Row]:
            place = grids.images.ids.index(item.image_id)
            scene = Scene(item.image_id, item.x, item.label, grids.cells[place])
            noise = read(RANDOM, random_map(scene.x.shape, self.explainer.seed, scene.image_id))
            rows = _rows(scene, RANDOM, "energy", partial(localized, scene, noise, self.settings.thresholds))
            for name in self.chosen:
                rows += _rows(scene, name, "energy", partial(self._anew, scene, name, maps[name][place]))
            return rows

        made = per_image(
            grids.images,
            self.model,
            judge,
            description="grids",
            device=device,
            dtype=dtype,
            constants={"scene": GRID},
        )
        return frame(made, JUDGEMENT_IMAGES), pixels | maps

    def _image(self, scene: Scene, points: list[Row]) -> list[Row]:
        missing = [name for name, stored in self.maps.items() if scene.image_id not in stored]
        if missing:
            raise DataError(f"{missing[0]} stored no map of {scene.image_id}; explain it again")
        given = {name: stored[scene.image_id] for name, stored in self.maps.items()}
        noise = random_map(tuple(scene.x.shape), self.explainer.seed, scene.image_id)
        everything = {**given, RANDOM: noise}
        removal = Removal(self.model, scene, self.settings, self.explainer.seed)
        rows: list[Row] = []
        usable: dict[str, np.ndarray] = {}
        for name, attribution in everything.items():
            work: Work = partial(self._stored, scene, name, attribution, removal, points)
            judged = _rows(scene, name, "deletion", work)
            rows += judged
            if all(row.get("status") != FAILED for row in judged):
                usable[name] = attribution
        rows += self._around(scene, usable)
        if scene.image_id in self.random and self.settings.randomization is not None:
            part = self.settings.randomization
            for name in self.chosen:
                work = partial(again.randomization, self.explainer, name, self.model, scene, part)
                rows += _rows(scene, name, "randomization", work)
        return rows

    def _anew(self, scene: Scene, method: str, kept: np.ndarray) -> Iterable[Row]:
        """Return how well a map made for the scene finds its object, and keep it in ``kept`` ``[H, W]``."""
        found = self.explainer.importance(method, self.model, scene)
        kept[:] = found
        return localized(scene, found, self.settings.thresholds)

    def _stored(
        self, scene: Scene, name: str, attribution: np.ndarray, removal: Removal, points: list[Row]
    ) -> Iterable[Row]:
        """Yield what needs nothing but a stored map and forward passes."""
        pixels = read(name, attribution)
        yield from localized(scene, pixels, self.settings.thresholds)
        areas, curve = removal.rows(pixels)
        points += [{"image_id": scene.image_id, "method": name} | point for point in curve]
        yield from areas
        for metric, value in self.costs.get((name, scene.image_id), {}).items():
            yield {"metric": metric, "value": value}

    def _around(self, scene: Scene, usable: Mapping[str, np.ndarray]) -> list[Row]:
        """Return what maps say of the loss nearby, and how stable they are."""
        loss = None
        rows: list[Row] = []
        if self.settings.radii:
            loss = Loss(self.model, scene, self.settings.radii, self.settings.samples, self.explainer.seed)
            for name, found in loss.rows(usable, self.explainer.requests).items():
                rows += _rows(scene, name, "pmse", partial(iter, found))
        part = self.settings.stability
        if part is None or scene.image_id not in self.stable:
            return rows
        for name in self.chosen:
            work = partial(again.stability, self.explainer, name, self.model, scene, part)
            timed = "seconds" in self.costs.get((name, scene.image_id), {})
            found = _rows(scene, name, "sensitivity", work)
            rows += [row for row in found if not (timed and row["metric"] == "seconds")]
            if loss is not None:
                work = partial(again.own_model, self.explainer, name, self.model, scene, loss)
                rows += _rows(scene, name, "own_unexplained", work)
        return rows


def stored_maps(paths: Iterable[str | Path], ids: Collection[str]) -> dict[str, dict[str, np.ndarray]]:
    """Read the attributions of some images from the files of all methods.

    Args:
        paths: Files ``{method}/{shard}.npz``.
        ids: The images.

    Returns:
        ``[C, H, W]`` by method and image id.

    Raises:
        DataError: A file is missing, damaged, or holds no attributions.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for path in map(Path, paths):
        arrays, names = load_explanations(path)
        if "attribution" not in arrays:
            raise DataError(f"{path}: has no array 'attribution'; explain again")
        kept = found.setdefault(path.parent.name, {})
        kept |= {name: one for name, one in zip(names, arrays["attribution"], strict=True) if name in ids}
    return found


def costs(index: pd.DataFrame) -> dict[tuple[str, str], Row]:
    """Return what each stored map took, by method and image id.

    Args:
        index: The table :data:`curvelens.summaries.explanations.EXPLANATIONS`.

    Returns:
        ``calls``, which it rests on, and ``seconds``: of a map that used calls made for another method, in
        proportion to the calls that it would have made alone, left out where it made none.
    """
    found: dict[tuple[str, str], Row] = {}
    for row in index[index["status"] == OK].itertuples():
        taken: Row = {"calls": float(row.calls_alone)}
        if row.calls > 0 or row.calls_alone == 0:
            taken["seconds"] = float(row.seconds) * (row.calls_alone / row.calls if row.calls else 1)
        found[row.method, row.image_id] = taken
    return found


def mask_classes(dataset: Mapping[str, Any]) -> dict[int, int]:
    """Return which class each value of a data set's masks stands for.

    Args:
        dataset: What ``dataset.json`` says.
    """
    names, values = dataset["class_names"], dataset.get("mask_values", {})
    return {int(value): names.index(name) for value, name in values.items() if name in names}


def _rows(scene: Scene, method: str, metric: str, work: Work) -> list[Row]:
    """Return the rows that a judgement yields; an exception gives one failed row of its first measure."""
    start = time.perf_counter()
    head: dict[str, Any] = {"target": scene.target, "method": method}
    try:
        found = list(work())
    except Exception as error:
        logger.exception("%s of %s: image %s failed", metric, method, scene.image_id)
        seconds = time.perf_counter() - start
        tail = {"metric": metric, "status": FAILED, "error": one_line(error), "seconds": seconds}
        return [head | tail]
    seconds = (time.perf_counter() - start) / max(1, len(found))
    return [head | {"seconds": seconds} | row for row in found]
