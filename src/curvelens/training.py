"""Training of classifiers: reproducible from a seed, and resumed after a kill with the same result.

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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch.nn.functional import cross_entropy

from curvelens import seeds
from curvelens.errors import DataError, ModelError
from curvelens.jobs import Progress
from curvelens.store import ImageSet, atomic
from curvelens.tables import Column, frame, schema
from curvelens.targets import evaluation_mode

if TYPE_CHECKING:
    import pandas as pd

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


class Schedule(Protocol):
    """What :func:`train` reads from its parameters; ``curvelens.config.Training`` is one."""

    @property
    def optimizer(self) -> str:
        """``"sgd"`` or ``"adam"``."""

    @property
    def epochs(self) -> int:
        """Passes over the training images."""

    @property
    def batch_size(self) -> int:
        """Images per update; the last batch of an epoch may be smaller."""

    @property
    def learning_rate(self) -> float:
        """Step size at the start."""

    @property
    def momentum(self) -> float:
        """Momentum of SGD."""

    @property
    def weight_decay(self) -> float:
        """Factor of the L2 penalty ``½ weight_decay ‖w‖²``."""

    @property
    def decay_at(self) -> list[int]:
        """Numbers of updates after which the learning rate falls to a tenth."""


class Evaluation(NamedTuple):
    """Quality of a classifier on an image set.

    Attributes:
        loss: Mean cross-entropy in nat.
        accuracy: Share of images whose largest logit is that of their label.
    """

    loss: float
    accuracy: float


@dataclass
class _State:
    """How far training is; everything that a checkpoint holds besides weights and optimizer."""

    epoch: int = 0
    batch: int = 0
    update: int = 0
    loss: float = 0.0
    right: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def evaluate(model: torch.nn.Module, images: ImageSet, chunk: int = 1024) -> Evaluation:
    """Measure loss and accuracy in evaluation mode; the model is left as it was.

    Args:
        model: Classifier ``[B, C, H, W] -> [B, c]``.
        images: At least one image.
        chunk: Images a forward pass.
    """
    like = next(model.parameters())
    loss, right = 0.0, 0
    with evaluation_mode(model), torch.no_grad():
        for start in range(0, len(images), chunk):
            part = slice(start, start + chunk)
            logits = model(images.tensor(part).to(like))
            labels = torch.from_numpy(images.labels[part]).to(like.device)
            loss += float(cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
    return Evaluation(loss / len(images), right / len(images))


def train(
    model: torch.nn.Module,
    training: ImageSet,
    validation: ImageSet,
    parameters: Schedule,
    *,
    seed: int,
    name: str = "",
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    threads: int | None = None,
) -> pd.DataFrame:
    """Minimise the cross-entropy by stochastic gradient descent, in place.

    The result depends on the model's weights, the images, the parameters, ``seed`` and ``name``. The number
    of threads changes it by floating-point rounding only, an interruption not at all.

    Args:
        model: Classifier on the device to train on; it is left in evaluation mode and without gradients.
        training, validation: Image sets.
        parameters: Optimizer, epochs, batch size and learning rate.
        seed: Seed of the order of the batches.
        name: Name of the model, so that models of one run see different orders.
        checkpoint: File that keeps the state; training goes on from it if it belongs to the same training,
            and starts anew otherwise. The file stays when training ends: remove it once the model is stored.
        checkpoint_seconds: Seconds between two checkpoints.
        threads: CPU threads; None leaves the number as it is.

    Returns:
        A :data:`HISTORY` table.

    Raises:
        ModelError: The loss is no longer finite.
    """
    optimizer = _optimizer(model, parameters)
    state = _State()
    path = Path(checkpoint) if checkpoint is not None else None
    fingerprint = _fingerprint(model, training, parameters, seed, name)
    if path is not None:
        state = _resume(path, fingerprint, model, optimizer)
    run = _Run(model, optimizer, training, validation, parameters, (seed, name), state)
    total = parameters.epochs * run.batches
    saved = time.monotonic()
    with _settings(model, threads), Progress(total, f"training {name}".strip(), "updates") as report:
        report.update(state.update)
        while state.epoch < parameters.epochs:
            run.step()
            report.update()
            if path is not None and (run.finished or time.monotonic() - saved >= checkpoint_seconds):
                _save_checkpoint(path, fingerprint, model, optimizer, state)
                saved = time.monotonic()
    model.zero_grad(set_to_none=True)
    model.eval()
    return frame(state.history, HISTORY)


class _Run:
    """The loop over batches; all that changes is in the model, the optimizer and ``state``."""

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        training: ImageSet,
        validation: ImageSet,
        parameters: Schedule,
        identity: tuple[int, str],
        state: _State,
    ) -> None:
        like = next(model.parameters())
        self.model, self.optimizer, self.state, self.validation = model, optimizer, state, validation
        self.parameters, self.identity, self.like = parameters, identity, like
        self.images = torch.from_numpy(training.images).to(like.device)
        self.labels = torch.from_numpy(training.labels).to(like.device)
        self.batches = -(-len(training) // parameters.batch_size)
        self._order: tuple[int, torch.Tensor] | None = None

    @property
    def finished(self) -> bool:
        """Whether the last epoch is over."""
        return self.state.epoch == self.parameters.epochs

    def step(self) -> None:
        """Make one update; after the last of an epoch, validate and add a row to the history."""
        start, state = time.perf_counter(), self.state
        rate = self.parameters.learning_rate * 0.1 ** sum(
            state.update >= at for at in self.parameters.decay_at
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed, name = self.identity
        torch.manual_seed(seeds.derive(seed, "update", name, state.update))
        chosen = self._batch()
        labels = self.labels[chosen]
        self.model.train()
        logits = self.model(self.images[chosen].to(self.like.dtype) / 255)
        loss = cross_entropy(logits, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        state.loss += float(loss.detach()) * len(chosen)
        state.right += int((logits.detach().argmax(1) == labels).sum())
        state.batch, state.update = state.batch + 1, state.update + 1
        state.seconds += time.perf_counter() - start
        if state.batch == self.batches:
            self._end_epoch(rate)

    def _batch(self) -> torch.Tensor:
        epoch = self.state.epoch
        if self._order is None or self._order[0] != epoch:
            seed, name = self.identity
            generator = seeds.generator(seed, "order of batches", name, epoch)
            order = torch.randperm(len(self.labels), generator=generator).to(self.like.device)
            self._order = (epoch, order)
        size = self.parameters.batch_size
        return self._order[1][self.state.batch * size : (self.state.batch + 1) * size]

    def _end_epoch(self, rate: float) -> None:
        start, state = time.perf_counter(), self.state
        found = evaluate(self.model, self.validation)
        loss = state.loss / len(self.labels)
        if not (abs(loss) < float("inf") and abs(found.loss) < float("inf")):
            raise ModelError(
                f"training {self.identity[1]}: the loss is not finite after {state.update} updates; "
                "lower training.learning_rate"
            )
        state.history.append(
            {
                "epoch": state.epoch + 1,
                "updates": state.update,
                "learning_rate": rate,
                "loss": loss,
                "accuracy": state.right / len(self.labels),
                "validation_loss": found.loss,
                "validation_accuracy": found.accuracy,
                "seconds": state.seconds + time.perf_counter() - start,
            }
        )
        state.epoch, state.batch, state.loss, state.right, state.seconds = state.epoch + 1, 0, 0.0, 0, 0.0


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


def _optimizer(model: torch.nn.Module, parameters: Schedule) -> torch.optim.Optimizer:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rate, decay = parameters.learning_rate, parameters.weight_decay
    if parameters.optimizer == "adam":
        return torch.optim.Adam(weights, lr=rate, weight_decay=decay)
    return torch.optim.SGD(weights, lr=rate, momentum=parameters.momentum, weight_decay=decay)


def _fingerprint(
    model: torch.nn.Module, training: ImageSet, parameters: Schedule, seed: int, name: str
) -> str:
    """Tell trainings apart: their network, images, parameters and randomness."""
    keys = sorted(key for key in dir(Schedule) if not key.startswith("_"))
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    facts = [repr(model), shapes, {key: getattr(parameters, key) for key in keys}, seed, name]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    digest.update(training.images.tobytes())
    digest.update(training.labels.tobytes())
    return digest.hexdigest()


def _save_checkpoint(
    path: Path, fingerprint: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: _State
) -> None:
    content = {
        "fingerprint": fingerprint,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "state": vars(state),
    }
    with atomic(path) as temporary:
        torch.save(content, temporary)


def _resume(path: Path, fingerprint: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> _State:
    """Restore model and optimizer from a checkpoint of the same training, or leave them alone."""
    if not path.is_file():
        return _State()
    try:
        content = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
        if content["fingerprint"] != fingerprint:
            logger.info("%s belongs to another training: starting anew", path)
            return _State()
        state = _State(**content["state"])
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
    except Exception as error:  # the restricted unpickler passes on whatever a damaged file leads to
        raise DataError(
            f"{path}: damaged checkpoint ({type(error).__name__}); delete it and run again"
        ) from error
    logger.info("going on from %s: epoch %d, update %d", path, state.epoch + 1, state.update)
    return state
