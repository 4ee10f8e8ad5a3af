"""The Hessian of a loss with 1,000 classes, decomposed: time against the classes kept, and what that loses.

    python benchmarks/decomposition.py --out docs/benchmarks

Singla et al. (2019) decompose the Hessian of ResNet-50 in 4.2 s on a GTX 1080 Ti. Here the Jacobian of the
logits of the k most probable classes, one reverse pass each, gives a factor of the Hessian and its
eigenvalues; the other classes are merged, and 17 passes more give a bound on what that leaves out
(curvelens.softmax_hessian). Beside it stands the search for the largest eigenvalue alone by products
(curvelens.softmax_products). Networks are EfficientNet-Lite0 with its weights and ResNet-50 with random ones:
what a pass costs does not depend on them, but which classes are probable does, so its bounds mean nothing and
are left out. In every round each setting runs once, in an order that changes; a ratio is the median over
rounds of the ratio to all classes within a round. One thread on a CPU, the GPU where there is one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from curvelens import datasets, models
from curvelens.loss_curvature import tail_of
from curvelens.softmax_curvature import SoftmaxHessian, softmax_hessian
from curvelens.softmax_products import softmax_products

KEPT = (10, 30, 100, 300, 1000)
PRODUCTS = "products"
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "EfficientNet-Lite0": ("efficientnet_lite0", {}),
    "ResNet-50, random weights": ("torchvision", {"model": "resnet50"}),
}
PAPER_SECONDS = 4.2
TOLERANCE = 2e-3  # of L, in the units of L: 1e-4 of 2 c₁ as in the stage distances


def settings(model: nn.Module, x: Tensor) -> dict[str, Callable[[], dict[str, float]]]:
    """Return what is timed, by its name: the number of classes, or products."""

    def factor(tail: float) -> dict[str, float]:
        H: SoftmaxHessian = softmax_hessian(model, x, tail=tail)
        largest = H.largest_eigenvalue
        return {"calls": H.calls, "largest": largest, "bound": H.bound, "dropped": H.dropped}

    def products() -> dict[str, float]:
        H = softmax_products(model, x)
        found = H.largest_eigenvalue(TOLERANCE)
        return {"calls": H.calls, "largest": found.value, "bound": found.error, "dropped": 0.0}

    tails = {kept: tail_of(model, x, kept) for kept in KEPT}
    made: dict[str, Callable[[], dict[str, float]]] = {
        str(kept): lambda tail=tail: factor(tail) for kept, tail in tails.items()
    }
    return {**made, PRODUCTS: products}


def timed(run: Callable[[], dict[str, float]], device: torch.device) -> tuple[float, dict[str, float]]:
    """Return the seconds that a run takes, and what it gives."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    found = run()  # ends in numbers on the host: nothing is left to run on the device
    return time.perf_counter() - start, found


def measure(name: str, size: int, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Return a row for each setting of one network."""
    x = datasets.load("packaged_photographs", {"size": size}).image_set().tensor(0).to(device)
    architecture, parameters = NETWORKS[name]
    model = models.build(architecture, parameters, 1000, tuple(x.shape)).to(device)
    runs = settings(model, x)
    runs[str(KEPT[0])]()
    names, times, found = list(runs), {key: [] for key in runs}, {}
    for number in range(rounds):
        for key in names[number % len(names) :] + names[: number % len(names)]:
            seconds, found[key] = timed(runs[key], device)
            times[key].append(seconds)
            print(f"{name}, {key}: {seconds:.2f} s, {found[key]}", flush=True)
    full = str(KEPT[-1])
    whole = found[full]["largest"]
    return [
        {
            "network": name,
            "kept": key,
            "calls": int(found[key]["calls"]),
            "seconds": statistics.median(times[key]),
            "ratio": statistics.median(b / a for a, b in zip(times[key], times[full], strict=True)),
            "dropped_probability": found[key]["dropped"],
            "bound_by_largest": found[key]["bound"] / whole if "random" not in name else float("nan"),
            "size": size,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread",
        }
        for key in names
    ]


def plot(table: pd.DataFrame, path: Path) -> None:
    """Draw seconds, and the bound on what is dropped, against the classes kept."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for marker, colour, (name, part) in zip(
        "os", ("#0072b2", "#d55e00"), table.groupby("network"), strict=False
    ):
        factors = part[part["kept"] != PRODUCTS]
        classes = factors["kept"].astype(int)
        left.plot(classes, factors["seconds"], marker=marker, color=colour, label=name)
        seconds = float(part[part["kept"] == PRODUCTS]["seconds"].iloc[0])
        left.axhline(seconds, color=colour, linestyle=":", label="its L by products")
        bound = factors["bound_by_largest"]
        if bound.notna().any():
            right.plot(classes[bound > 0], bound[bound > 0], marker=marker, color=colour, label=name)
    if (table["size"] == 224).all():
        left.axhline(PAPER_SECONDS, color="0.4", label="paper: ResNet-50, GTX 1080 Ti")
    left.set(xscale="log", yscale="log", xlabel="classes kept, of 1,000", ylabel="seconds")
    right.set(
        xscale="log", yscale="log", xlabel="classes kept, of 1,000", ylabel="bound on what is dropped ÷ L"
    )
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, help="height and width; by default 224 on a GPU, 96 without one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = arguments.size or (224 if device.type == "cuda" else 96)
    made = [row for name in NETWORKS for row in measure(name, size, arguments.rounds, device)]
    table = pd.DataFrame(made)
    arguments.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out / "decomposition.csv", index=False, float_format="%.4g", lineterminator="\n")
    plot(table, arguments.out / "decomposition.svg")
    print(table.to_string(index=False, float_format="%.3g"))


if __name__ == "__main__":
    main()
