"""Training of a network's last layers alone: what the frozen ones give is computed once, not every epoch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from curvelens.chunks import run_in_chunks
from curvelens.jobs import Progress
from curvelens.store import ImageSet
from curvelens.targets import evaluation_mode

_CHUNK = 32  # images a forward pass


def frozen_layers(model: nn.Module) -> int:
    """Return how many of a chain's first layers have weights that ask for no gradient, or none at all.

    Args:
        model: A classifier; only of a ``torch.nn.Sequential`` are the layers known to follow each other.

    Returns:
        0 where the first layer with weights is to be trained, or the model is no chain.
    """
    if type(model) is not nn.Sequential:
        return 0
    weights = [list(layer.parameters()) for layer in model]
    trained = [any(weight.requires_grad for weight in layer) for layer in weights]
    frozen = trained.index(True) if True in trained else 0
    return frozen if any(weights[:frozen]) else 0


class HeadClassification:
    """Cross-entropy of the layers that are trained, on what the others make of the images; an ``Objective``.

    Args:
        model: The whole classifier.
        frozen: How many of its first layers stay as they are.
        training, validation: Images.
    """

    def __init__(
        self, model: nn.Sequential | nn.Module, frozen: int, training: ImageSet, validation: ImageSet
    ) -> None:
        layers = list(model.children())
        self.model, self.count = model, len(training)
        self.body, self.head = nn.Sequential(*layers[:frozen]), nn.Sequential(*layers[frozen:])
        device = next(model.parameters()).device
        self.features = self._features(training)
        self.labels = torch.from_numpy(training.labels).to(device)
        known = validation.labels >= 0
        self.validation_features = self._features(validation.subset(known.nonzero()[0]))
        self.validation_labels = torch.from_numpy(validation.labels[known]).to(device)

    def _features(self, images: ImageSet) -> Tensor:
        """Return what the frozen layers give, ``[N, ...]``, in evaluation mode."""
        like = next(self.model.parameters())
        parts: list[Tensor] = []
        with evaluation_mode(self.body), torch.no_grad(), Progress(len(images), "features", "images") as done:

            def work(start: int, stop: int) -> None:
                parts.append(self.body(images.tensor(slice(start, stop)).to(like)))
                done.update(stop - start)

            run_in_chunks(len(images), _CHUNK, work, "features", like.new_empty(0, *images.shape))
        return torch.cat(parts) if parts else torch.zeros(0, device=like.device, dtype=like.dtype)

    def loss(self, chosen: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the mean cross-entropy, and the sums of loss and accuracy."""
        labels = self.labels[chosen]
        logits = self.head(self.features[chosen])
        loss = cross_entropy(logits, labels)
        right = int((logits.detach().argmax(1) == labels).sum())
        return loss, {"loss": float(loss.detach()) * len(chosen), "accuracy": right}

    def validate(self) -> dict[str, float]:
        """Return loss and accuracy of the validation images; NaN where none has a label."""
        if not len(self.validation_labels):
            return {"loss": math.nan, "accuracy": math.nan}
        with evaluation_mode(self.head), torch.no_grad():
            logits = self.head(self.validation_features)
            loss = float(cross_entropy(logits, self.validation_labels))
            right = float((logits.argmax(1) == self.validation_labels).float().mean())
        return {"loss": loss, "accuracy": right}
