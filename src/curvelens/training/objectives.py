"""What is minimised: the cross-entropy of a classifier, the mean squared error of a regression."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from curvelens.chunks import run_in_chunks
from curvelens.errors import ArgumentError
from curvelens.schedules import Augmentation
from curvelens.store import ImageSet, RegressionSet
from curvelens.targets import evaluation_mode
from curvelens.training.augmentation import augment
from curvelens.training.examples import require_known

# Numbers in a forward pass. A network keeps a hundred times as many; a CPU waits for memory beyond its cache.
_PIXELS = {"cpu": 2**18, "cuda": 2**22}


class Evaluation(NamedTuple):
    """Quality of a classifier on the images of a set whose class is known; NaN where there are none.

    Attributes:
        loss: Mean cross-entropy in nat.
        accuracy: Share of images whose largest logit is that of their label.
    """

    loss: float
    accuracy: float


def evaluate(model: torch.nn.Module, images: ImageSet, chunk: int = 1024) -> Evaluation:
    """Measure loss and accuracy in evaluation mode; the model is left as it was.

    Args:
        model: Classifier ``[B, C, H, W] -> [B, c]``.
        images: The images.
        chunk: Images a forward pass at most.

    Raises:
        DataError: A label is beyond the model's classes.
    """
    like = next(model.parameters())
    loss, right = 0.0, 0
    images = images.subset(np.flatnonzero(images.labels >= 0))
    if not len(images):
        return Evaluation(math.nan, math.nan)
    chunk = max(1, min(chunk, _PIXELS.get(like.device.type, 2**18) // math.prod(images.shape)))

    def work(start: int, stop: int) -> None:
        nonlocal loss, right
        part = slice(start, stop)
        logits = model(images.tensor(part).to(like))
        require_known(images, logits.shape[1], "accuracy")
        labels = torch.from_numpy(images.labels[part]).to(like.device)
        more, hits = (
            float(cross_entropy(logits, labels, reduction="sum")),
            int((logits.argmax(1) == labels).sum()),
        )
        loss, right = loss + more, right + hits

    with evaluation_mode(model), torch.no_grad():
        run_in_chunks(len(images), chunk, work, "evaluation", like.new_empty(0, *images.shape))
    return Evaluation(loss / len(images), right / len(images))


def predict(model: torch.nn.Module, inputs: np.ndarray, chunk: int = 1024) -> np.ndarray:
    """Return what a regression model predicts, in evaluation mode; the model is left as it was.

    Args:
        model: Regression ``[B, *shape] -> [B]`` or ``[B, 1]``.
        inputs: ``[N, *shape]``.
        chunk: Inputs a forward pass.

    Returns:
        ``[N]``, in the precision of the model.

    Raises:
        ArgumentError: The model has more than one output.
    """
    like = next(model.parameters())
    parts: list[np.ndarray] = []

    def work(start: int, stop: int) -> None:
        part = torch.from_numpy(np.ascontiguousarray(inputs[start:stop])).to(like)
        parts.append(_predictions(model, part).cpu().numpy())

    with evaluation_mode(model), torch.no_grad():
        run_in_chunks(len(inputs), chunk, work, "predictions", like.new_empty(0, *inputs.shape[1:]))
    return np.concatenate(parts) if parts else np.zeros(0)


def mean_squared_error(model: torch.nn.Module, examples: RegressionSet, chunk: int = 1024) -> float:
    """Return the mean squared error of a regression model, summed in double precision.

    Args:
        model: Regression ``[B, *shape] -> [B]`` or ``[B, 1]``; it is left as it was.
        examples: At least one example.
        chunk: Examples a forward pass.

    Returns:
        The error in squared units of the target.

    Raises:
        ArgumentError: The model has more than one output.
    """
    error = predict(model, examples.inputs, chunk).astype(np.float64) - examples.targets
    return float(np.mean(error**2))


class Classification:
    """Cross-entropy over labelled images, and the share that is right; a ``descent.Objective``."""

    def __init__(
        self,
        model: torch.nn.Module,
        training: ImageSet,
        validation: ImageSet,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.model, self.validation, self.count = model, validation, len(training)
        self.augmentation = augmentation
        self.like = next(model.parameters())
        self.images = torch.from_numpy(training.images).to(self.like.device)
        self.labels = torch.from_numpy(training.labels).to(self.like.device)

    def loss(self, chosen: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean cross-entropy, and the sums of loss and accuracy."""
        labels = self.labels[chosen]
        images = self.images[chosen].to(self.like.dtype) / 255
        if self.augmentation is not None:
            images = augment(images, self.augmentation)
        logits = self.model(images)
        loss = cross_entropy(logits, labels)
        right = int((logits.detach().argmax(1) == labels).sum())
        return loss, {"loss": float(loss.detach()) * len(chosen), "accuracy": right}

    def validate(self) -> dict[str, float]:
        """Return loss and accuracy of the validation images."""
        return evaluate(self.model, self.validation)._asdict()


class Regression:
    """Mean squared error over examples with one target each; a ``descent.Objective``."""

    def __init__(self, model: torch.nn.Module, training: RegressionSet, validation: RegressionSet) -> None:
        self.model, self.validation, self.count = model, validation, len(training)
        like = next(model.parameters())
        self.inputs = torch.from_numpy(training.inputs).to(like)
        self.targets = torch.from_numpy(training.targets).to(like)

    def loss(self, chosen: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean squared error, and its sum."""
        error = _predictions(self.model, self.inputs[chosen]) - self.targets[chosen]
        loss = error.square().mean()
        return loss, {"loss": float(loss.detach()) * len(chosen)}

    def validate(self) -> dict[str, float]:
        """Return the mean squared error of the validation examples."""
        return {"loss": mean_squared_error(self.model, self.validation)}


def _predictions(model: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Return one number for each input, ``[B]``."""
    predictions: torch.Tensor = model(inputs)
    if predictions.shape not in ((len(inputs),), (len(inputs), 1)):
        raise ArgumentError(
            f"regression: the model returns {list(predictions.shape)} for {len(inputs)} inputs; "
            "give it one output"
        )
    return predictions.reshape(-1)
