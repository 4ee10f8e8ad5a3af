"""One bad image spoils one row: run a function image by image and turn exceptions into failed rows."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from curvelens.chunks import in_chunks, is_out_of_memory, release_memory
from curvelens.errors import ConfigError, ModelError, printable
from curvelens.finite import not_finite
from curvelens.jobs import progress
from curvelens.tables import FAILED, OK

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from curvelens.store import ImageSet

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """What a model says about a batch of images.

    Attributes:
        prediction: int64 ``[B]``, class with the largest logit.
        confidence: ``[B]``, its SoftMax probability.
        logits: ``[B, c]``.
    """

    prediction: torch.Tensor
    confidence: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True)
class Item:
    """One image as an experiment sees it.

    Attributes:
        image_id: Name of the image.
        label: True class.
        x: ``[C, H, W]`` in [0, 1], on the device and in the dtype of the run.
        prediction: Predicted class.
        confidence: SoftMax probability of the predicted class.
        logits: ``[c]``.
    """

    image_id: str
    label: int
    x: torch.Tensor
    prediction: int
    confidence: float
    logits: torch.Tensor


def predict(model: torch.nn.Module, images: torch.Tensor, chunk: int = 512) -> Prediction:
    """Classify images in evaluation mode and without gradients; the model is left as it was.

    Args:
        model: Classifier ``[B, *shape] -> [B, c]``.
        images: ``[B, *shape]`` in [0, 1], on the model's device and in its dtype.
        chunk: Images a forward pass.

    Returns:
        Predicted class, its probability and the logits.

    Raises:
        ModelError: The output is not ``[B, c]`` or not finite.
    """
    logits = _logits(model, images, chunk)
    require_finite(logits=logits)
    confidence, prediction = logits.softmax(1).max(1)
    return Prediction(prediction, confidence, logits)


def _logits(model: torch.nn.Module, images: torch.Tensor, chunk: int) -> torch.Tensor:
    import torch

    from curvelens.targets import evaluation_mode

    with evaluation_mode(model), torch.no_grad():
        logits = in_chunks(model, images, "logits", chunk)
    if logits.ndim != 2 or len(logits) != len(images):
        raise ModelError(
            f"the model gives {list(logits.shape)} for {len(images)} images; "
            "it must give one row of logits an image"
        )
    return logits


def require_finite(**tensors: torch.Tensor) -> None:
    """Refuse NaN and infinity, before they reach a table that other images are in.

    Args:
        tensors: What a model gives for an image, by name.

    Raises:
        ModelError: A value is not finite; the line says of what, and how many are not.
    """
    told = not_finite(tensors)
    if told:
        raise ModelError(f"{told}; check the network's weights, and what it does with this image")


def classify(
    model: torch.nn.Module,
    images: ImageSet,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    chunk: int = 512,
) -> tuple[Prediction, np.ndarray]:
    """Classify a set of images, of which some may lead to NaN: those are named in the log.

    Args:
        model: Classifier on ``device`` and in ``dtype``.
        images: N images.
        device: Device of the images.
        dtype: Type of the images; None means float32.
        chunk: Images a forward pass.

    Returns:
        What the model says, and bool ``[N]``: whether an image's logits are finite, without which the rest
        has no meaning.
    """
    logits = _logits(model, images.tensor().to(device=device, dtype=dtype), chunk)
    usable = logits.isfinite().all(1).cpu().numpy()
    bad = [name for name, fine in zip(images.ids, usable, strict=True) if not fine]
    if bad:
        logger.warning(
            "logits of %d of %d images are not finite; they are not chosen: %s",
            *(len(bad), len(images), ", ".join(bad[:5]) + (" …" if len(bad) > 5 else "")),
        )
    confidence, prediction = logits.softmax(1).max(1)
    return Prediction(prediction, confidence, logits), usable


def solver(
    model: torch.nn.Module,
    solve: Callable[[torch.nn.Module, Item], T],
    residual: Callable[[T], float],
    limit: float,
) -> Callable[[Item], list[T]]:
    """Return a solver that goes on in double precision where single precision is not enough.

    Args:
        model: Classifier, on the device and in the dtype of the images.
        solve: Solves a problem of an image with a model in the image's dtype.
        residual: How far its solution is from optimal.
        limit: Residual beyond which an image is solved again by a copy of the model in double precision.

    Returns:
        A function that returns the solutions of an image, the last of which counts.
    """
    import torch

    @cache
    def double() -> torch.nn.Module:
        return copy.deepcopy(model).double()

    def solutions(item: Item) -> list[T]:
        found = [solve(model, item)]
        if item.x.dtype != torch.float64 and not residual(found[0]) <= limit:
            found.append(solve(double(), replace(item, x=item.x.double())))
        return found

    return solutions


def one_line(error: BaseException) -> str:
    """Return ``"Type: message"`` on one line of at most 300 characters."""
    text = printable(" ".join(str(error).split()))
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= 300 else line[:299] + "…"


def per_image(
    images: ImageSet,
    model: torch.nn.Module,
    function: Callable[[Item], Mapping[str, Any] | Iterable[Mapping[str, Any]]],
    *,
    description: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    constants: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Run ``function`` on each image and return table rows; an exception gives one failed row.

    Every row gets image_id, label, prediction and confidence in front and seconds, calls, status and error
    behind. ``seconds`` is the time of the image divided by its number of rows, unless the function gives it;
    ``calls`` is 0 unless the function gives it, so both may be summed over the rows.

    Args:
        images: The images.
        model: Classifier on ``device`` and in ``dtype``.
        function: Gives one row or several for an :class:`Item`.
        description: Name of the work, for progress and log.
        device: Device of the images.
        dtype: Type of the images; None means float32.
        constants: Columns with the same value in every row, failed ones too, e.g. ``{"model": "relu"}``.

    Returns:
        Rows in the order of the images.

    Raises:
        ConfigError: Raised by ``function``: the configuration is at fault, not an image.
    """
    rows: list[dict[str, Any]] = []
    for index in progress(range(len(images)), description, "images"):
        head: dict[str, Any] = {"image_id": images.ids[index], "label": int(images.labels[index])}
        start, short = time.perf_counter(), False
        try:
            x = images.tensor(index).to(device=device, dtype=dtype)
            found = predict(model, x[None])
            prediction, confidence = int(found.prediction[0]), float(found.confidence[0])
            head |= {"prediction": prediction, "confidence": confidence}
            item = Item(images.ids[index], head["label"], x, prediction, confidence, found.logits[0])
            given = function(item)
            new = [dict(given)] if isinstance(given, Mapping) else [dict(row) for row in given]
            seconds = (time.perf_counter() - start) / max(1, len(new))
            tail = {"seconds": seconds, "calls": 0, "status": OK, "error": ""}
            made = [head | dict(constants or {}) | tail | row for row in new]
        except ConfigError:
            raise
        except Exception as error:
            logger.exception("%s: image %s failed", description, images.ids[index])
            tail = {
                "seconds": time.perf_counter() - start,
                "calls": 0,
                "status": FAILED,
                "error": one_line(error),
            }
            made = [head | dict(constants or {}) | tail]
            short = is_out_of_memory(error)
        if short:
            release_memory()  # after the handler, which holds what the image needed
        rows.extend(made)
    return rows


def failed_share(table: pd.DataFrame) -> float:
    """Return the share of images with at least one failed row, in [0, 1]; 0 for an empty table.

    Args:
        table: Columns ``image_id`` and ``status``.
    """
    if table.empty:
        return 0.0
    failed = (table["status"] == FAILED).groupby(table["image_id"]).any()
    share = float(failed.mean())
    return 0.0 if math.isnan(share) else share
