"""SmoothHess of a 224 x 224 colour photograph (d = 150,528) without any d x d matrix: calls, time, memory.

    python benchmarks/imagenet_size.py --out docs/benchmarks

The network is EfficientNet-Lite0 with its ImageNet weights, the function the predicted logit, σ = 0.75 ε/√d
as in Torop et al. 2023, with ε = 0.25. Attacks are the exact steps of local models of three σ: that of ε = 1,
and two that are wider, as validation chooses them; "corrected" has the leading eigenpairs, their eigenvalues
measured by other calls than those that chose the directions. The interactions between super-pixels are
measured with two numbers of calls and two σ: the error bar says what is noise. Memory is the peak resident
size of the process beyond what it was with the network loaded and one gradient computed. One thread. The
dense Hessian would take 84 GiB.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import curvelens as cl
from curvelens import datasets, models
from curvelens.experiments.local_models import build
from curvelens.fidelity import Perturbations
from curvelens.quadratic import LowRank
from curvelens.smoothing import leading_eigenpairs
from curvelens.superpixels import slic_segments, smooth_interactions, superpixel_interactions

RADIUS, SIGMA_FACTOR = 0.25, 0.75
CALLS, EIGENPAIRS, EIGENPAIR_CALLS, SAMPLES = 400, 4, 256, 128
ATTACK_RADII, WIDE_SIGMAS = [0.25, 1.0, 4.0], [0.01, 0.03]
INTERACTIONS = [(0.25, 4), (0.25, 32), (4.0, 32)]  # ε, and blocks of calls, two for each super-pixel


def peak() -> float:
    """Return the largest resident size of this process so far, in MiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


class Steps:
    """Collects calls, time and memory of what is done."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.base = peak()

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        row: dict[str, Any] = {"step": name, "calls": 0, "found": ""}
        start = time.perf_counter()
        yield row
        row |= {"seconds": time.perf_counter() - start, "peak_mib_beyond_model": peak() - self.base}
        self.rows.append(row)
        print(
            f"{name}: {row['calls']} calls, {row['seconds']:.1f} s, {row['peak_mib_beyond_model']:.0f} MiB; "
            f"{row['found']}",
            flush=True,
        )


def measure() -> pd.DataFrame:
    """Run every step on the first photograph."""
    photographs = datasets.load("packaged_photographs")
    x = photographs.image_set().tensor(0)
    model = models.build("efficientnet_lite0", None, 1000, tuple(x.shape))
    with torch.no_grad():
        k = int(model(x[None]).argmax())
    f = cl.targets.logit(model, k)
    gradient = cl.gradient(f, x[None])[0]
    sigma = _sigma(RADIUS, x)
    steps = Steps()
    with steps.step("local model") as row:
        q = cl.smooth_quadratic(f, x, sigma, CALLS, seed=0)
        row |= {"calls": q.calls, "found": f"relative error of the Hessian {q.error:.2f}"}
    with steps.step("eigenpairs") as row:
        pairs = leading_eigenpairs(f, x, sigma, EIGENPAIRS, EIGENPAIR_CALLS, seed=0)
        told = ", ".join(
            f"{value:.0f} ± {error:.0f} (uncorrected {raw:.0f})"
            for value, error, raw in zip(
                pairs.eigenvalues.tolist(), pairs.stderr.tolist(), pairs.inflated.tolist(), strict=True
            )
        )
        row |= {"calls": pairs.calls, "found": told}
    with steps.step("P_MSE") as row:
        seen = Perturbations(f, x, [(RADIUS, "ball")], samples=SAMPLES)
        plain = cl.LocalQuadratic(q.value, gradient)
        scores = {"SH+SG": q, "SG": q.first_order(), "G": plain}
        row["found"] = ", ".join(f"{name} {seen.mse(local)[0].mean:.2e}" for name, local in scores.items())
    for wide in (_sigma(1.0, x), *WIDE_SIGMAS):
        with steps.step(f"attacks, sigma {wide:.2g}") as row:
            row |= _attacks(f, x, wide, gradient)
    segments = slic_segments(photographs.images[0])
    count = int(segments.max()) + 1
    for radius, blocks in INTERACTIONS:
        with steps.step(f"interactions, radius {radius:g}") as row:
            sampled = smooth_interactions(f, x, segments, _sigma(radius, x), 2 * count * blocks)
            told = f"{count} super-pixels, relative error {sampled.error:.2f}"
            row |= {"calls": sampled.calls, "found": told}
    with steps.step("interactions of SoftPlus") as row:
        factory: Callable[..., Any] = lambda network: cl.targets.logit(network, k)  # noqa: E731
        smooth = build("softplus", model, factory, x, 11.5)["H+G"]
        row["calls"] = superpixel_interactions(smooth, segments).calls
    return pd.DataFrame(steps.rows)


def _sigma(radius: float, x: torch.Tensor) -> float:
    return SIGMA_FACTOR * radius / math.sqrt(x.numel())


def _attacks(f: Any, x: torch.Tensor, sigma: float, gradient: torch.Tensor) -> dict[str, Any]:
    """Say by how much the logit falls after the exact steps of local models of one σ."""
    q = cl.smooth_quadratic(f, x, sigma, CALLS, seed=0)
    pairs = leading_eigenpairs(f, x, sigma, EIGENPAIRS, EIGENPAIR_CALLS, seed=0)
    curvature = LowRank(pairs.eigenvectors.flatten(1).T.contiguous(), pairs.eigenvalues.to(q.gradient))
    models = {
        "SH+SG": q,
        "corrected": cl.LocalQuadratic(q.value, q.gradient, curvature),
        "SG": q.first_order(),
        "G": cl.LocalQuadratic(q.value, gradient),
    }
    told = []
    for radius in ATTACK_RADII:
        with torch.no_grad():
            falls = [
                f"{name} {float(f((x + local.minimize(radius).step)[None]) - q.value):.2f}"
                for name, local in models.items()
            ]
        told.append(f"radius {radius:g}: {', '.join(falls)}")
    return {"calls": q.calls + pairs.calls, "found": "; ".join(told)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="folder of the table")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    table = measure()
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "imagenet_size.csv", index=False, float_format="%.4g")
    print(f"in all: {table['calls'].sum()} calls, {table['seconds'].sum():.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
