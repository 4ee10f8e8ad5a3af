"""Stochastic gradient descent on any objective: one update after another, in an order fixed by the seed."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from curvelens import seeds
from curvelens.errors import ModelError
from curvelens.finite import not_finite
from curvelens.schedules import Training, learning_rate


class Objective(Protocol):
    """What is minimised, with its training and validation examples."""

    @property
    def count(self) -> int:
        """Number of training examples."""

    def loss(self, chosen: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss over training examples, to be differentiated, and sums over them by measure.

        Args:
            chosen: Positions of the examples, ``LongTensor[B]``.

        Returns:
            A scalar, and sums that include one called ``loss``.
        """

    def validate(self) -> dict[str, float]:
        """Return the means of the same measures over the validation examples."""


@dataclass
class State:
    """How far training is; everything that a checkpoint holds besides weights and optimizer.

    Attributes:
        epoch, batch: Complete epochs, and batches done of the present one.
        update: Updates made.
        sums: Sum of each measure over the examples of the present epoch.
        seconds: Wall time spent on the present epoch.
        history: One row for each epoch.
    """

    epoch: int = 0
    batch: int = 0
    update: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


class Descent:
    """The loop over batches; all that changes is in the model, the optimizer and ``state``.

    Args:
        model: The model that ``objective`` evaluates.
        optimizer: Its optimizer.
        objective: What is minimised.
        parameters: Number of updates, batch size and learning rate.
        identity: Seed and name of the training, from which all randomness derives.
        state: Where to start.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        parameters: Training,
        identity: tuple[int, str],
        state: State,
    ) -> None:
        self.model, self.optimizer, self.objective = model, optimizer, objective
        self.parameters, self.identity, self.state = parameters, identity, state
        self.device = next(model.parameters()).device
        self.batches = -(-objective.count // parameters.batch_size)
        self.total = parameters.updates or parameters.epochs * self.batches
        self._order: tuple[int, torch.Tensor] | None = None

    @property
    def finished(self) -> bool:
        """Whether every update has been made."""
        return self.state.update == self.total

    def step(self) -> None:
        """Make one update; after the last of an epoch, validate and add a row to the history."""
        start, state = time.perf_counter(), self.state
        rate = learning_rate(self.parameters, state.update, self.batches, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed, name = self.identity
        self._seed_torch(seeds.derive(seed, "update", name, state.update))
        chosen = self._batch()
        self.model.train()
        loss, sums = self.objective.loss(chosen)
        if not math.isfinite(sums["loss"]):
            raise self._diverged(f"the loss is {sums['loss']:g}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        for measure, value in sums.items():
            state.sums[measure] = state.sums.get(measure, 0.0) + value
        state.batch, state.update = state.batch + 1, state.update + 1
        state.seconds += time.perf_counter() - start
        if state.batch == self.batches or self.finished:
            self._end_epoch(rate)

    def require_finite_weights(self) -> None:
        """Refuse weights that are not finite: neither checkpoint nor result may hold them.

        Raises:
            ModelError: A weight or buffer is NaN or infinite.
        """
        if not_finite(self.model.state_dict()):
            raise self._diverged("weights are not finite")

    def _diverged(self, what: str) -> ModelError:
        state, rate = self.state, self.optimizer.param_groups[0]["lr"]
        told = not_finite(self.model.state_dict())
        return ModelError(
            f"training {self.identity[1]}: {what} in epoch {state.epoch + 1}, after {state.update} updates, "
            f"at learning rate {rate:g}{f' ({told})' if told else ''}; lower training.learning_rate, or "
            "warm up longer (training.warmup_epochs)"
        )

    def _seed_torch(self, seed: int) -> None:
        # torch.manual_seed records a stack trace for each kind of accelerator that is not in use, which costs
        # as much as an update of a small network.
        torch.random.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _batch(self) -> torch.Tensor:
        epoch = self.state.epoch
        if self._order is None or self._order[0] != epoch:
            seed, name = self.identity
            generator = seeds.generator(seed, "order of batches", name, epoch)
            order = torch.randperm(self.objective.count, generator=generator).to(self.device)
            self._order = (epoch, order)
        size = self.parameters.batch_size
        return self._order[1][self.state.batch * size : (self.state.batch + 1) * size]

    def _end_epoch(self, rate: float) -> None:
        start, state = time.perf_counter(), self.state
        seen = min(state.batch * self.parameters.batch_size, self.objective.count)
        means = {measure: value / seen for measure, value in state.sums.items()}
        found = self.objective.validate()
        if not math.isfinite(found["loss"]):
            raise self._diverged(f"the validation loss is {found['loss']:g}")
        row = {"epoch": state.epoch + 1, "updates": state.update, "learning_rate": rate, **means}
        row |= {f"validation_{measure}": value for measure, value in found.items()}
        state.history.append({**row, "seconds": state.seconds + time.perf_counter() - start})
        state.epoch, state.batch, state.sums, state.seconds = state.epoch + 1, 0, {}, 0.0


def optimizer(model: torch.nn.Module, parameters: Training) -> torch.optim.Optimizer:
    """Return the optimizer that the parameters name, over the weights that can be trained.

    RMSProp is that of Tieleman and Hinton 2012, lecture 6.5, with PyTorch's constants (α = 0.99, ε = 1e-8)
    and without momentum.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rate, decay = parameters.learning_rate, parameters.weight_decay
    if parameters.optimizer == "adam":
        return torch.optim.Adam(weights, lr=rate, weight_decay=decay)
    if parameters.optimizer == "rmsprop":
        return torch.optim.RMSprop(weights, lr=rate, weight_decay=decay, foreach=True)
    return torch.optim.SGD(weights, lr=rate, momentum=parameters.momentum, weight_decay=decay)
