"""The inner neuron that is explained, and the class that singles it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens import targets
from curvelens.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from curvelens.store import ImageSet


def class_index(wanted: int | str, class_names: Sequence[str], key: str = "fidelity.neuron_class") -> int:
    """Return the index of a class given by its name or its index.

    Args:
        wanted: A name, upper and lower case alike, or an index; a name wins where both fit.
        class_names: Name of each class.
        key: Where the configuration asks for it.

    Raises:
        ConfigError: There is no such class.
    """
    names = [name.lower() for name in class_names]
    if isinstance(wanted, str) and wanted.lower() in names:
        return names.index(wanted.lower())
    index = int(wanted) if str(wanted).isdecimal() else -1
    if not 0 <= index < len(names):
        shown = [f"{index} {name}" for index, name in enumerate(class_names)]
        known = ", ".join(shown if len(shown) <= 30 else [*shown[:10], "…", shown[-1]])
        raise ConfigError(f"{key}: {wanted!r} is no class of this data set; give one of {known}")
    return index


def choose(
    model: torch.nn.Module,
    images: ImageSet,
    class_names: Sequence[str],
    neuron_class: int | str,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Choose the penultimate neuron that a class activates most (Torop et al. 2023, Sec. 5.1).

    Args:
        model: Classifier on ``device``.
        images: Training images; those of the class that the model assigns to it count.
        class_names: Name of each class.
        neuron_class: Name or index of the class.
        device: Device of the model.

    Returns:
        ``module`` and ``index`` of the neuron, arguments of :func:`curvelens.targets.neuron`; ``class`` and
        ``class_name``; ``images``, how many of the class there are.

    Raises:
        ConfigError: There is no such class, or no image of it.
    """
    index = class_index(neuron_class, class_names)
    own = images.subset(np.flatnonzero(images.labels == index))
    if not len(own):
        raise ConfigError(
            f"fidelity.neuron_class: no training image is of class {class_names[index]!r}; name another class"
        )
    module, neuron = targets.inner_neuron(model, index, own.tensor().to(device))
    name = class_names[index]
    return {"module": module, "index": neuron, "class": index, "class_name": name, "images": len(own)}
