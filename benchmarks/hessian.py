"""Full Hessians and gradients against PyTorch's own functions and the limit that matrix products set.

    python benchmarks/hessian.py --out docs/benchmarks

The network is that of Torop et al. 2023 (784-500-300-250-250-250-10) with SoftPlus, the scalar a logit. In
every round each method runs once, in an order that changes from round to round, so that a busy machine
slows all of them; a ratio is the median over rounds of the ratio within a round. The limit is the time of
the matrix products that cannot be avoided, at the rate which this process reaches on the same shapes: for d
tangents two products with every hidden layer's weights and one with the first layer's (the tangents behind
the first layer are its weights, and a logit's tangent needs no product with the last). Products are timed
in blocks of 1,024 rows at most, where they run fastest. Peak memory is measured in a process of its own for
each method, above what that process held after the same call on a small network.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

import curvelens as cl
from curvelens import models

HIDDEN = [500, 300, 250, 250, 250]
GRADIENT_ROWS = 4096
Run = Callable[[], object]


def network(shape: tuple[int, int, int], hidden: list[int], activation: str = "softplus") -> nn.Module:
    return models.build("mlp", {"hidden": hidden, "activation": activation, "beta": 5.0}, 10, shape)


def methods(f: cl.targets.Scalar, x: Tensor) -> dict[str, Run]:
    """Return each way to compute the Hessian of f at x[*shape]."""

    def single(z: Tensor) -> Tensor:
        return f(z[None])[0]

    def transforms() -> object:
        with torch.no_grad():  # keeps the parameters' graph out, as ours does
            return torch.func.hessian(single)(x)

    return {
        "curvelens.hessian": lambda: cl.hessian(f, x),
        "curvelens.hessian, 64 rows at once": lambda: cl.hessian(f, x, 64),
        "torch.func.hessian": transforms,
        "torch.autograd.functional.hessian": lambda: torch.autograd.functional.hessian(single, x),
    }


def products(sizes: list[tuple[int, int]], rows: int) -> Run:
    """Return a function that multiplies ``[rows, i]`` by ``[i, j]`` for each ``(i, j)``, in blocks."""
    block = min(rows, 1024)
    factors = [(torch.rand(block, i), torch.rand(i, j)) for i, j in sizes]

    def run() -> None:
        for left, right in factors:
            for _ in range(rows // block):
                torch.mm(left, right)

    return run


def hessian_products(d: int) -> list[tuple[int, int]]:
    layers = list(pairwise([d, *HIDDEN]))
    return layers[1:] + [(j, i) for i, j in layers]


def gradient_products(d: int) -> list[tuple[int, int]]:
    layers = list(pairwise([d, *HIDDEN, 10]))
    return layers + [(j, i) for i, j in layers]


def rounds(runs: dict[str, Run], count: int) -> dict[str, list[float]]:
    """Time every run once a round, in an order that rotates."""
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    for run in runs.values():
        run()
    for number in range(count):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            runs[name]()
            times[name].append(time.perf_counter() - start)
    return times


def rows(
    measure: str, times: dict[str, list[float]], reference: str, scale: dict[str, float]
) -> list[dict[str, object]]:
    """Return one row per run: median seconds, and the ratio to the reference with its quartiles.

    ``scale`` divides the times of runs that do more than one unit of work.
    """
    unit = {name: [t / scale.get(name, 1.0) for t in values] for name, values in times.items()}
    made: list[dict[str, object]] = []
    for name, values in unit.items():
        ratios = [a / b for a, b in zip(values, unit[reference], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        made.append(
            {
                "measure": measure,
                "method": name,
                "seconds": statistics.median(values),
                "reference": reference,
                "ratio": middle,
                "ratio_low": low,
                "ratio_high": high,
            }
        )
    return made


def time_hessians(count: int) -> list[dict[str, object]]:
    shape = (1, 28, 28)
    f, x = cl.targets.logit(network(shape, HIDDEN), 3), torch.rand(shape)
    limit = products(hessian_products(784), 784)
    single = rounds({"matrix products": limit, **methods(f, x)}, count)
    made = rows("Hessian, d = 784", single, "matrix products", {})
    for name, side, hidden, images in [("d = 784", 28, HIDDEN, 8), ("d = 64", 8, [64, 32], 64)]:
        model, xs = network((1, side, side), hidden), torch.rand(images, 1, side, side)
        g = cl.targets.logit(model, 3)
        batch = rounds(
            {
                "one image": lambda g=g, xs=xs: cl.hessian(g, xs[0]),
                f"{images} images": lambda g=g, xs=xs: cl.hessians(g, xs),
            },
            count,
        )
        made += rows(f"Hessian per image, {name}", batch, "one image", {f"{images} images": images})
    return made


def time_gradients(count: int) -> list[dict[str, object]]:
    made = []
    x = torch.rand(GRADIENT_ROWS, 1, 28, 28)
    for activation in ("relu", "softplus"):
        f = cl.targets.logit(network((1, 28, 28), HIDDEN, activation), 3)
        limit = products(gradient_products(784), GRADIENT_ROWS)
        times = rounds({"matrix products": limit, "curvelens.gradient": lambda f=f: cl.gradient(f, x)}, count)
        made += rows(f"{GRADIENT_ROWS} gradients, {activation}", times, "matrix products", {})
    return made


def peak_bytes(method: str, side: int, channels: int) -> int:
    """Measure a method's peak memory in this process, above what it holds after a small call."""
    small = (channels, 4, 4)
    methods(cl.targets.logit(network(small, [8]), 3), torch.rand(small))[method]()
    shape = (channels, side, side)
    run = methods(cl.targets.logit(network(shape, HIDDEN), 3), torch.rand(shape))[method]
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of the resident memory
    before = status("VmHWM")
    run()
    return status("VmHWM") - before


def status(key: str) -> int:
    """Return an entry of Linux's report on this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def measure_memory() -> list[dict[str, object]]:
    made = []
    for name, side, channels in [("d = 784", 28, 1), ("d = 3072", 32, 3)]:
        for method in methods(cl.targets.logit(nn.Linear(1, 1), 0), torch.zeros(1)):
            command = [sys.executable, __file__, "--peak", method, "--size", str(side), str(channels)]
            peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            matrix = 4 * (channels * side**2) ** 2
            made.append(
                {
                    "measure": f"peak memory, {name}",
                    "method": method,
                    "mebibytes": peak / 2**20,
                    "reference": "the matrix itself",
                    "ratio": peak / matrix,
                }
            )
    return made


def plot(table: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in table["method"].unique() if "hessian" in name][::-1]
    places = range(len(names))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained", sharey=True)
    times = table[table["measure"] == "Hessian, d = 784"].set_index("method").loc[names]
    errors = [times["ratio"] - times["ratio_low"], times["ratio_high"] - times["ratio"]]
    left.errorbar(times["ratio"], places, xerr=errors, fmt="o", capsize=3)
    for place, ratio in zip(places, times["ratio"], strict=True):
        left.annotate(f"{ratio:.3g}", (ratio, place), xytext=(0, 7), textcoords="offset points", ha="center")
    left.axvline(1, color="0.3", linestyle=":")
    left.set(
        xscale="log", xlabel="time ÷ time of the matrix products (dotted)", ylim=(-0.5, len(names) - 0.3)
    )
    left.set_yticks(places, names)
    memory = table[table["measure"].str.startswith("peak")]
    for marker, (name, part) in zip("so", memory.groupby("measure", sort=False), strict=True):
        values = part.set_index("method").loc[names, "mebibytes"]
        right.plot(values, places, marker, label=name.removeprefix("peak memory, "))
    right.set(xscale="log", xlabel="peak memory, MiB, the matrix included")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(axis="y", color="0.9")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--threads", type=int, default=1, help="more are timed fairly on an idle machine only"
    )
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak_bytes(arguments.peak, *arguments.size))
        return
    torch.set_num_threads(arguments.threads)
    made = time_hessians(arguments.rounds) + time_gradients(arguments.rounds) + measure_memory()
    table = pd.DataFrame(made).assign(threads=arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out / "hessian.csv", index=False, float_format="%.4g", lineterminator="\n")
    plot(table, arguments.out / "hessian.svg")
    print(table.drop(columns="threads").to_string(index=False, float_format="%.3g"))


if __name__ == "__main__":
    main()
