"""Pictures and a network as a user brings them: eight pictures of two digits, a small network's weights."""

from pathlib import Path
from typing import Any

from PIL import Image
from sklearn.datasets import load_digits

from curvelens import models

NETWORK = {"hidden": [16], "activation": "relu"}


def make(pictures: Path, weights: Path) -> dict[str, Any]:
    """Write both and return a configuration that compares CASO with CAFO on six of the pictures."""
    digits = load_digits(n_class=2)
    for index in range(8):
        path = pictures / f"{digits.target[index]}/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[index] * 15).astype("uint8")).save(path)
    models.save_weights(models.build("mlp", NETWORK, 2, (3, 8, 8), seed=1), weights)
    left_out = dict.fromkeys(["explanations", "spectra", "fidelity", "attacks", "path"])
    return {
        "datasets": {
            "own": {
                "source": "image_folder",
                "data_dir": str(pictures),
                "parameters": {"size": 8, "classes": "folders"},
                "split": {"validation": 2},
            }
        },
        "models": {
            "own": {"dataset": "own", "architecture": "mlp", "parameters": NETWORK, "weights": str(weights)}
        },
        "experiments": {"own": {"model": "own", **left_out, "distances": {"images": 6}}},
    }
