"""Training of classifiers and regressions: reproducible from a seed, and resumed after a kill as if unharmed.

Initial weights, the order of the batches and any dropout derive from (seed, model name, epoch, update), so
nothing depends on what ran before. The state is stored from time to time in a checkpoint that holds tensors
and plain numbers only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from curvelens.errors import DataError, ModelError
from curvelens.jobs import Progress
from curvelens.schedules import Training
from curvelens.store import ImageSet, RegressionSet
from curvelens.tables import Column, frame, schema
from curvelens.training.descent import Descent, Objective, State, optimizer
from curvelens.training.examples import labelled
from curvelens.training.heads import HeadClassification, frozen_layers
from curvelens.training.objectives import (
    Classification,
    Evaluation,
    Regression,
    evaluate,
    mean_squared_error,
    predict,
)
from curvelens.writing import atomic

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = [
    "HISTORY",
    "REGRESSION_HISTORY",
    "Evaluation",
    "evaluate",
    "mean_squared_error",
    "predict",
    "train",
    "train_regression",
]

logger = logging.getLogger(__name__)

HISTORY = schema(
    "history",
    "One epoch of training.",
    {
        "epoch": Column(int, "Number of the epoch, from 1.", ge=1),
        "updates": Column(int, "Updates made by the end of the epoch.", ge=1),
        "learning_rate": Column(float, "Learning rate of the last update of the epoch.", gt=0),
        "loss": Column(
            float, "Mean cross-entropy over the epoch's batches, each before its update.", "nat", ge=0
        ),
        "accuracy": Column(float, "Share of training images that were right in their batch.", ge=0, le=1),
        "validation_loss": Column(float, "Mean cross-entropy of the validation images.", "nat", ge=0),
        "validation_accuracy": Column(float, "Share of validation images that are right.", ge=0, le=1),
        "seconds": Column(float, "Wall time of the epoch, its validation included.", "s", ge=0),
    },
    keys=("epoch",),
)


REGRESSION_HISTORY = schema(
    "regression_history",
    "One epoch of training of a regression.",
    {
        "epoch": HISTORY.columns["epoch"],
        "updates": HISTORY.columns["updates"],
        "learning_rate": HISTORY.columns["learning_rate"],
        "loss": Column(
            float,
            "Mean squared error over the epoch's batches, each before its update.",
            "squared unit of the target",
            ge=0,
        ),
        "validation_loss": Column(
            float, "Mean squared error of the validation examples.", "squared unit of the target", ge=0
        ),
        "seconds": HISTORY.columns["seconds"],
    },
    keys=("epoch",),
)


def train(
    model: torch.nn.Module,
    training: ImageSet,
    validation: ImageSet,
    parameters: Training,
    *,
    seed: int,
    name: str = "",
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    threads: int | None = None,
) -> pd.DataFrame:
    """Minimise the cross-entropy by stochastic gradient descent, in place.

    The result depends on the model's weights, the images, the parameters, ``seed`` and ``name``. The number
    of threads changes it by floating-point rounding only, an interruption not at all. Weights that ask for no
    gradient stay as they are; where they are the first layers of a chain and images are not augmented, what
    those layers give is computed once.

    Args:
        model: Classifier on the device to train on; it is left in evaluation mode and without gradients.
        training, validation: Image sets.
        parameters: Optimizer, epochs, batch size, learning rate and augmentation.
        seed: Seed of the order of the batches.
        name: Name of the model, so that models of one run see different orders.
        checkpoint: File that keeps the state; training goes on from it if it belongs to the same training,
            and starts anew otherwise. The file stays when training ends: remove it once the model is stored.
        checkpoint_seconds: Seconds between two checkpoints.
        threads: CPU threads; None leaves the number as it is.

    Returns:
        A :data:`HISTORY` table.

    Raises:
        DataError: There are no training or validation images with a label, or a label is no class of the
            network.
        ModelError: Loss or weights are no longer finite; a checkpoint keeps the last good state.
    """
    training = labelled(model, training, f"training {name}", "to train on")
    validation = labelled(model, validation, f"training {name}", "to validate on")
    frozen = frozen_layers(model) if parameters.augmentation is None else 0
    objective: Objective = (
        HeadClassification(model, frozen, training, validation)
        if frozen
        else Classification(model, training, validation, parameters.augmentation)
    )
    arrays = (training.images, training.labels)
    state = _fit(model, objective, arrays, parameters, (seed, name), checkpoint, checkpoint_seconds, threads)
    return frame(state.history, HISTORY)


def train_regression(
    model: torch.nn.Module,
    training: RegressionSet,
    validation: RegressionSet,
    parameters: Training,
    *,
    seed: int,
    name: str = "",
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    threads: int | None = None,
) -> pd.DataFrame:
    """Minimise the mean squared error by stochastic gradient descent, in place.

    Everything else is as in :func:`train`: reproducible, resumable, the model left ready for use.

    Args:
        model: Regression ``[B, *shape] -> [B]`` or ``[B, 1]`` on the device to train on.
        training, validation: Examples with one target each.
        parameters: Optimizer, epochs or updates, batch size and learning rate.
        seed: Seed of the order of the batches.
        name: Name of the model, so that models of one run see different orders.
        checkpoint: File that keeps the state; see :func:`train`.
        checkpoint_seconds: Seconds between two checkpoints.
        threads: CPU threads; None leaves the number as it is.

    Returns:
        A :data:`REGRESSION_HISTORY` table.

    Raises:
        ArgumentError: The model has more than one output.
        ModelError: Loss or weights are no longer finite; see :func:`train`.
    """
    objective = Regression(model, training, validation)
    arrays = (training.inputs, training.targets)
    state = _fit(model, objective, arrays, parameters, (seed, name), checkpoint, checkpoint_seconds, threads)
    return frame(state.history, REGRESSION_HISTORY)


def _fit(
    model: torch.nn.Module,
    objective: Objective,
    arrays: Sequence[np.ndarray],
    parameters: Training,
    identity: tuple[int, str],
    checkpoint: str | Path | None,
    checkpoint_seconds: float,
    threads: int | None,
) -> State:
    """Run all updates that are still to be made; ``arrays`` are the data that a checkpoint belongs to."""
    updating = optimizer(model, parameters)
    state = State()
    path = Path(checkpoint) if checkpoint is not None else None
    fingerprint = _fingerprint(model, arrays, parameters, identity)
    if path is not None:
        state = _resume(path, fingerprint, model, updating)
    run = Descent(model, updating, objective, parameters, identity, state)
    kept, saved = state.update > 0, time.monotonic()
    description = f"training {identity[1]}".strip()
    with _settings(model, threads), Progress(run.total, description, "updates") as report:
        report.update(state.update)
        while not run.finished:
            try:
                run.step()
                report.update()
                due = run.finished or time.monotonic() - saved >= checkpoint_seconds
                if due:
                    run.require_finite_weights()
            except ModelError as error:
                raise ModelError(
                    f"{error}; {path} keeps the last good state" if kept else f"{error}"
                ) from error
            if path is not None and due:
                _save_checkpoint(path, fingerprint, model, updating, state)
                kept, saved = True, time.monotonic()
    model.zero_grad(set_to_none=True)
    model.eval()
    return state


@contextlib.contextmanager
def _settings(model: torch.nn.Module, threads: int | None) -> Iterator[None]:
    """Set the number of threads and isolate torch's global random state."""
    before = torch.get_num_threads()
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.set_num_threads(before)


def _fingerprint(
    model: torch.nn.Module, arrays: Sequence[np.ndarray], parameters: Training, identity: tuple[int, str]
) -> str:
    """Tell trainings apart: their network, data, parameters and randomness."""
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    facts = [repr(model), shapes, parameters.model_dump(), *identity]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def _save_checkpoint(
    path: Path, fingerprint: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: State
) -> None:
    content = {
        "fingerprint": fingerprint,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "state": vars(state),
    }
    with atomic(path) as temporary:
        torch.save(content, temporary)


def _resume(path: Path, fingerprint: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Restore model and optimizer from a checkpoint of the same training, or leave them alone."""
    if not path.is_file():
        return State()
    try:
        content = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
        if content["fingerprint"] != fingerprint:
            logger.info("%s belongs to another training: starting anew", path)
            return State()
        state = State(**content["state"])
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
    except Exception as error:  # the restricted unpickler passes on whatever a damaged file leads to
        raise DataError(
            f"{path}: damaged checkpoint ({type(error).__name__}); delete it and run again"
        ) from error
    logger.info("going on from %s: epoch %d, update %d", path, state.epoch + 1, state.update)
    return state
