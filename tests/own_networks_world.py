"""Three networks of a user, made for the packaged digits in a second or two, and their files."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from curvelens import models

NAMES = [str(digit) for digit in range(10)]
MODULE = '''"""A network of one's own."""

from torch import nn

from own_parts import activation


def network(classes, width=24):
    """A small network whose outputs stand for nine, eight, ... nought."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), activation(), nn.Linear(width, classes))
'''
PARTS = '''"""What `own_digits` needs."""

from torch import nn


def activation():
    return nn.SiLU()
'''


class Shortcut(nn.Module):
    """A convolutional network with a shortcut, for export."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.relu1, self.relu2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of ``x[B, 1, 8, 8]``."""
        x = self.relu1(self.conv1(x))
        x = self.relu2(x + self.conv2(x))
        return self.fc(self.pool(x).flatten(1))


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the digits ``[N, 1, 8, 8]`` in [0, 1] and their labels."""
    data = load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)


def fitted(model: nn.Module, labels: torch.Tensor, steps: int = 150, rate: float = 0.01) -> nn.Module:
    """Train a network of the digits for a moment."""
    x, _ = digits()
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(x), (64,), generator=random)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[chosen]), labels[chosen]).backward()
        optimizer.step()
    return model.eval()


def make(folder: Path) -> dict[str, dict[str, object]]:
    """Write the files of three networks, and return their entries of ``models`` in a configuration.

    ``library`` is one of timm with weights as safetensors, ``program`` an exported one, ``code`` a function
    whose weights are a checkpoint of data-parallel training and whose outputs are in another order.
    """
    torch.manual_seed(0)
    _, labels = digits()
    small = {"model": "test_resnet", "mean": [0.5], "std": [0.5], "resize": 16}
    library = fitted(models.build("timm", small, 10, (1, 8, 8)), labels, 60, 0.003)
    models.save_weights(library.network, folder / "library.safetensors")

    program = torch.export.export(
        fitted(Shortcut(), labels), (torch.rand(2, 1, 8, 8),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(program, folder / "program.pt2")

    for name in ("own_digits", "own_parts"):
        sys.modules.pop(name, None)  # of another folder that the same process made
    code = folder / "code"
    code.mkdir()
    (code / "own_digits.py").write_text(MODULE)
    (code / "own_parts.py").write_text(PARTS)
    (code / "names.txt").write_text("\n".join(NAMES[::-1]))
    function = {
        "function": "own_digits:network",
        "folder": str(code),
        "arguments": {"width": 32},
        "class_names": str(code / "names.txt"),
    }
    entry = models.REGISTRY.get("function")
    values = entry.parse(function).model_dump(mode="json")
    net = fitted(models.build("function", values, 10, (1, 8, 8)).network, 9 - labels)
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, folder / "code.pt")
    return {
        "library": {
            "dataset": "digits",
            "architecture": "timm",
            "parameters": small,
            "weights": str(folder / "library.safetensors"),
        },
        "program": {
            "dataset": "digits",
            "architecture": "exported",
            "weights": str(folder / "program.pt2"),
        },
        "code": {
            "dataset": "digits",
            "architecture": "function",
            "parameters": function,
            "weights": str(folder / "code.pt"),
        },
    }
