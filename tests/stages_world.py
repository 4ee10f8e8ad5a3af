"""What every stage of the workflow computes, on three small images: to be compared under other conditions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from curvelens import models, tables, training
from curvelens.config import Competing, Sparsity, Superpixels
from curvelens.experiments import (
    attacks,
    competing,
    complexity,
    distance_examples,
    distances,
    evaluation,
    explanations,
    fidelity,
    inner_neurons,
    interactions,
    judging,
    judging_again,
    path,
    selection,
    sparsity,
    spectra,
    spectra_sweep,
    superpixels,
    theorems,
    trust,
)
from curvelens.sections.judging import Judging
from curvelens.store import ImageSet, RegressionSet
from curvelens.synthetic import TARGETS

SIZE, CLASSES = 8, 5
HIDDEN = 61, 53  # numbers that no other dimension has
NOISE = {"sigma": 0.15, "samples": 12}
METHODS: dict[str, dict[str, Any]] = {
    "gradient": {},
    "smoothgrad": NOISE,
    "vargrad": NOISE,
    "smoothhess": NOISE,
    "integrated_gradients": {"steps": 8},
    "cafo": {},
    "caso": {},
    "smoothcafo": {"samples": 8},
    "smoothcaso": {"samples": 8},
    "occlusion": {"window": 0.25},
    "lime": {"samples": 20, "segments": (3, 9)},
}
# Columns and arrays that hold times, or what is left of numbers that would be equal but for rounding.
ROUNDING = {
    *("seconds", "kkt_residual", "completeness_error", "largest_eigenvalue_error", "smallest_eigenvalue"),
    *("difference", "curvature_error"),
}
TOLERANCE = 1e-3
"""Of stages in single precision, relative to the largest number of a column.

Sums in another order change every product by about ε = 1.2e-7. A change of all weights by as much, at random,
moves the stages' numbers by 4e-5 at most (test_memory holds it to 1e-4): second derivatives along a path are
the most sensitive. Thirty times that leaves room for sums of other lengths.
"""
RADII = {"smallest": 0.1, "largest": 4.0}
Frames = Mapping[str, pd.DataFrame | np.ndarray]


@cache
def network(activation: str = "relu") -> nn.Module:
    """A fully connected network in single precision; its classes differ from image to image."""
    model = models.build(
        "mlp", {"hidden": list(HIDDEN), "activation": activation}, CLASSES, (3, SIZE, SIZE), seed=3
    )
    with torch.no_grad():
        list(model.modules())[-1].weight.mul_(6)
    return model.requires_grad_(False)


@cache
def images() -> ImageSet:
    """Noisy patches of colour, labelled by the network but for the second, which it gets wrong."""
    rng = np.random.default_rng(7)  # of these the network takes each for another class
    count = 3
    blocks = rng.integers(0, 200, (count, 3, 2, 2))
    pixels = np.kron(blocks, np.ones((4, 4), int)) + rng.integers(0, 30, (count, 3, SIZE, SIZE))
    masks = np.kron(rng.integers(0, 2, (count, 2, 2)), np.ones((4, 4), int)).astype(np.uint8)
    masks[:, 0], masks[:, -1] = 0, 1
    plain = ImageSet(pixels.astype(np.uint8), np.zeros(count, np.int64), [f"own/{i}" for i in range(count)])
    labels = network()(plain.tensor()).argmax(1).numpy()
    labels[1] = (labels[1] + 1) % CLASSES
    return ImageSet(plain.images, labels, plain.ids, masks)


def _explanations(model: nn.Module, device: str) -> Frames:
    trusted = {"threshold": 0.8, "samples": 30, **RADII}
    found = explanations.explain_images(model, images(), METHODS, trust=trusted, device=device)
    maps = {f"{name}.{key}": values for name, (arrays, _) in found.items() for key, values in arrays.items()}
    return {"index": pd.concat([index for _, index in found.values()], ignore_index=True), **maps}


def _fidelity(model: nn.Module, device: str) -> Frames:
    neuron = inner_neurons.choose(
        model, images(), [str(i) for i in range(CLASSES)], int(images().labels[0]), device
    )
    table = fidelity.measure(
        model,
        images(),
        split="validation",
        radii=[0.5],
        neuron=(neuron["module"], neuron["index"]),
        betas=[20.0],
        swish_betas=[20.0],
        calls=392,
        samples=40,
        device=device,
    )
    return {"images": table, "neuron": np.array([neuron["index"]])}


def _judging(model: nn.Module, device: str) -> Frames:
    methods = {name: METHODS[name] for name in ("gradient", "smoothgrad", "integrated_gradients")}
    ids = images().ids
    found = explanations.explain_images(model, images(), methods, device=device)
    maps = {name: dict(zip(ids, arrays["attribution"], strict=True)) for name, (arrays, _) in found.items()}
    settings = Judging.model_validate(
        {
            "images": 3,
            "steps": 4,
            "radii": [0.5],
            "samples": 40,
            "stability": {"images": 1, "draws": 2},
            "randomization": {"images": 1, "stages": 2},
        }
    )
    judge = judging.Judge(
        model,
        settings,
        judging_again.Explainer(methods, "predicted_logit", 0),
        maps,
        judging.costs(pd.concat([index for _, index in found.values()])),
        {1: int(images().labels[0])},
        frozenset(ids[:1]),
        frozenset(ids[:1]),
    )
    table, curves = judge.images(images(), device)
    return {"images": table[~table["metric"].isin(["seconds", "memory"])], "curves": curves}


def _competing(model: nn.Module, device: str) -> Frames:
    settings = Competing.model_validate({"mistakes": 2, "methods": {"gradient": {}, "smoothgrad": NOISE}})
    described = competing.Described([f"class {i}" for i in range(CLASSES)], {}, "own")
    table, arrays, _ = competing.competing(model, images(), images(), settings, described, device=device)
    return {"table": table, **arrays}


def _distances(model: nn.Module, device: str) -> Frames:
    table = distances.distances(model, images(), device=device)
    first = images().subset(np.arange(1))
    maps, _ = distance_examples.examples(model, images(), table, 1, device=device)
    return {"table": table, "forms": distances.compare_forms(model, first, device=device), **maps}


def _spectra(model: nn.Module, device: str) -> Frames:
    smooth = placed(network("softplus"), device)
    right = selection.correctly_classified(model, images(), device)
    table, eigenvalues, _ = spectra.spectra(
        smooth, images().subset(np.arange(1)), None, "smooth", "softplus", device=device
    )
    sweep = spectra_sweep.sweep(
        model,
        smooth,
        images().subset(np.arange(1)),
        ("plain", "smooth"),
        settings=spectra_sweep.Settings(betas=[1.0, 20.0], classes=2),
        device=device,
    )
    return {"table": table, "eigenvalues": eigenvalues, "sweep": sweep, "right": right}


def _superpixels(model: nn.Module, device: str) -> Frames:
    settings = Superpixels(
        segments=(3, 9), calls=392, samples=40, interaction_calls=100, beta=20, swish_beta=20
    )
    table, arrays = superpixels.superpixels(model, images(), settings, device=device)
    return {"table": table, **{k: v for k, v in arrays.items() if k != "methods"}}


def _sparsity(model: nn.Module, device: str) -> Frames:
    settings = Sparsity(patch=4, segments=(3, 9), blocks=["values", "patches"])
    table, arrays = sparsity.sparsity_paths(model, images(), settings, device=device)
    return {"table": table, **{k: v for k, v in arrays.items() if k != "blocks"}}


def _path(model: nn.Module, device: str) -> Frames:
    start, end = path.choose_pair(model, images(), None, device, ids=("own/0", "own/2"))
    noise = {"smoothgrad": NOISE, "vargrad": NOISE}
    table, arrays = path.path(model, images(), start, end, steps=25, parameters=noise, device=device)
    return {"table": table, **{k: v for k, v in arrays.items() if v.dtype.kind == "f"}}


def _theorems(model: nn.Module, device: str) -> Frames:
    facts, concavity = theorems.facts(
        classes=[3], networks=1, features=12, multiples=[0.5, 2.0], steps=5, device=device
    )
    return {"facts": facts, "concavity": concavity}


def _interactions(model: nn.Module, device: str) -> Frames:
    target = TARGETS["four_quadrants"]()
    plane = models.build("regression_mlp", {"hidden": [HIDDEN[0]]}, 1, [2], seed=1).to(device)
    settings = interactions.Settings(levels=2, calls=64, repeats=2)
    return {
        "table": interactions.interactions(plane, target, settings),
        "surfaces": interactions.surfaces(plane, target, [0.1], 5),
        "predictions": training.predict(plane, np.linspace(-1, 1, 40, dtype=np.float32).reshape(20, 2)),
    }


def _evaluation(model: nn.Module, device: str) -> Frames:
    known = training.evaluate(model, images())
    regression = RegressionSet(
        np.zeros((20, 2), np.float32), np.ones(20, np.float32), [str(i) for i in range(20)]
    )
    plane = models.build("regression_mlp", {"hidden": [HIDDEN[0]]}, 1, [2], seed=1).to(device)
    return {
        "table": evaluation.predictions(model, images(), device=device),
        "numbers": np.array([*known, training.mean_squared_error(plane, regression)]),
    }


STAGES: dict[str, Callable[[nn.Module, str], Frames]] = {
    "explanations": _explanations,
    "fidelity": _fidelity,
    "attacks": lambda model, device: {
        "images": attacks.attack_images(
            model,
            images(),
            split="validation",
            magnitudes=[0.25, 1.0],
            sigma_squared=[1e-3],
            betas=[20.0],
            calls=392,
            truncation=0.9,
            pgd={"steps": 5, "restarts": 2, "relative_step": 0.1},
            device=device,
        )
    },
    "trust": lambda model, device: {
        "images": trust.measure(
            model,
            images(),
            split="test",
            thresholds=[0.8],
            smoothing_radii=[1.0],
            betas=[20.0],
            calls=392,
            samples=40,
            device=device,
            **RADII,
        )
    },
    "judging": _judging,
    "competing": _competing,
    "distances": _distances,
    "spectra": _spectra,
    "superpixels": _superpixels,
    "sparsity": _sparsity,
    "path": _path,
    "evaluation": _evaluation,
    "theorems": _theorems,
    "complexity": lambda model, device: {
        "errors": complexity.complexity(
            dimensions=[4],
            calls=[64],
            widths=[2.0],
            quadratic=True,
            sigma=0.5,
            repeats=1,
            estimators=["regression", "plain"],
            device=device,
        )
    },
    "interactions": _interactions,
}


def placed(model: nn.Module, device: str) -> nn.Module:
    """A copy of a network on a device."""
    return copy.deepcopy(model).to(device)


def run(stage: str, model: nn.Module | None = None, device: str = "cpu") -> Frames:
    """Run a stage; an image that failed is an error here."""
    found = STAGES[stage](placed(network() if model is None else model, device), device)
    for part in found.values():
        if isinstance(part, pd.DataFrame) and "status" in part:
            assert (part["status"] == tables.OK).all(), part["error"].tolist()
    return found


def differences(one: Frames, other: Frames) -> dict[str, float]:
    """Return by how much numbers differ at most, relative to the largest of their column or array.

    What is no floating-point number has to be equal. Times are left out, and what measures rounding itself.
    """
    assert one.keys() == other.keys()
    found: dict[str, float] = {}
    for name, part in one.items():
        if name.rpartition(".")[2] in ROUNDING:
            continue
        if isinstance(part, np.ndarray) and part.dtype.kind != "f":
            assert np.array_equal(part, other[name]), name
        elif isinstance(part, np.ndarray):
            found[name] = _difference(part, np.asarray(other[name]))
        if isinstance(part, np.ndarray):
            continue
        twin = other[name]
        for column in part.columns.difference(ROUNDING):
            a, b = part[column].to_numpy(), twin[column].to_numpy()
            if a.dtype.kind == "f":
                found[f"{name}.{column}"] = _difference(a, b)
            else:
                assert list(a) == list(b), (name, column)
    return found


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    assert (np.isnan(a) == np.isnan(b)).all()
    a, b = (values[np.isfinite(values)].astype(float) for values in (a, b))
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-300)) if a.size else 0.0
