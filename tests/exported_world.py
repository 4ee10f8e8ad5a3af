"""A network with a shortcut, and its exported program."""

from __future__ import annotations

import torch
from torch import nn

SHAPE = (2, 6, 6)


class Residual(nn.Module):
    """Convolutions with normalisation, a shortcut, in-place ReLUs, a view of the number of images."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu1 = activation(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu2 = activation(inplace=True)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.register_buffer("shift", torch.full((1, 4, 1, 1), 0.1))
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(36, 3)
        with torch.no_grad():
            self.bn1.running_mean.uniform_(-0.1, 0.1)
            self.bn1.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.relu1(self.bn1(self.conv1(x)))
        y = self.conv2(x)
        y += x
        y = self.relu2(y) + self.shift
        y = self.pool(self.drop(y))
        return self.fc(y.view(x.shape[0], -1))


def export(model, path, batch="dynamic", decompose=None, shape=SHAPE):
    dynamic = ({0: torch.export.Dim.DYNAMIC},) if batch == "dynamic" else None
    images = torch.rand(2 if batch == "dynamic" else batch, *shape)
    program = torch.export.export(model.eval(), (images,), dynamic_shapes=dynamic)
    if decompose is not None:
        program = program.run_decompositions(*decompose)
    torch.export.save(program, path)
    return path


def exported_residual(path):
    """A network with a shortcut, and the file that it was exported to."""
    torch.manual_seed(0)
    model = Residual().eval()
    return model, export(model, path)


def described(shape=SHAPE, classes=3, **parameters):
    return {"architecture": "exported", "parameters": parameters, "classes": classes, "image_shape": shape}


def images(count, shape=SHAPE, dtype=torch.float32):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(7), dtype=dtype)
