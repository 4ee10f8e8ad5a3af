"""A made-up run on disk: tables with the columns of a real one, for the tests of figures and report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

METHODS = ("SH+SG", "SG", "SP H+G", "SP G", "G")
LOCAL_MODELS = (*METHODS, "SW H+G", "SW G")
ATTACKS = (*METHODS, "H+G", "Random", "SH+SG truncated", "PGD")
HOSTILE = '<script>alert("x")</script>'


def heads(n: int, rng: np.random.Generator, wrong: int = 1) -> pd.DataFrame:
    label = np.arange(n) % 10
    prediction = label.copy()
    prediction[:wrong] = (label[:wrong] + 1) % 10
    ids = [f"digits/{HOSTILE}{i}" if i == 0 else f"digits/{i:05d}" for i in range(n)]
    confidence = 1 - 10.0 ** rng.uniform(-6, -0.2, n)
    return pd.DataFrame({"image_id": ids, "label": label, "prediction": prediction, "confidence": confidence})


def tails(frame: pd.DataFrame, failed: int = 0) -> pd.DataFrame:
    """Add the last columns; the first ``failed`` rows lose every number and get a status and an error."""
    frame = frame.assign(seconds=0.25, calls=16, status="ok", error="")
    if failed:
        rows = frame.index[:failed]
        numbers = [name for name in frame.columns if name not in ("image_id", "model", "status", "error")]
        frame[numbers] = frame[numbers].astype(object)
        frame.loc[rows, numbers] = None
        frame.loc[rows, "status"] = "failed"
        frame.loc[rows, "error"] = f"RuntimeError: singular at {HOSTILE}"
        frame = frame.infer_objects()
    return frame


def spectra(
    n: int = 8, failed: int = 0, seed: int = 0, verdict: str = "strongly anisotropic"
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for model, activation in (("relu", "relu"), ("softplus", "softplus")):
        flat = activation == "relu"
        top = np.zeros(n) if flat else rng.uniform(2, 9, n)
        crossed = rng.integers(20, 90, n).astype(float)
        parts.append(
            heads(n, rng).assign(
                model=model,
                activation=activation,
                scalar="max_logit",
                positive_share=0.0 if flat else 0.12,
                negative_share=0.0 if flat else 0.08,
                near_zero_share=1.0 if flat else 0.8,
                largest_eigenvalue=top,
                smallest_eigenvalue=-0.4 * top,
                spectral_radius=top,
                trace=top,
                positive_mass=np.nan if flat else 0.6,
                effective_rank=0.0 if flat else 6.5,
                anisotropy=1.0 if flat else 12.0,
                relative_curvature=0.0 if flat else 0.9,
                verdict="flat (piecewise linear)" if flat else verdict,
                gradient_norm=rng.uniform(1, 3, n),
                gradient_change=rng.uniform(0.3, 0.9, n) if flat else rng.uniform(0.1, 0.4, n),
                expansion_order=np.nan if flat else 3.0,
                curvature_error=np.nan if flat else 1e-5,
                region_radius=rng.uniform(1e-3, 2e-2, n) if flat else np.nan,
                regions_crossed=crossed if flat else np.nan,
                largest_gradient_jump=rng.uniform(0.05, 0.6, n) if flat else np.nan,
            )
        )
    return tails(pd.concat(parts, ignore_index=True), failed)


def spectra_sweep(n: int = 5, failed: int = 0, seed: int = 0) -> pd.DataFrame:
    """Curvature that concentrates and vanishes with the sharpness, and three logits at each image."""
    rng = np.random.default_rng(seed)
    betas, radii, ranks = [1.0, 10, 100, 1e4], [2.0, 9, 40, 1e-9], [20.0, 9, 3, 1]
    parts = []
    for series, points in (("sharpness", 4), ("classes", 3)):
        for i in range(points):
            sharp = series == "sharpness"
            top = (radii[i] if sharp else 3.0) * rng.uniform(0.9, 1.1, n)
            parts.append(
                heads(n, rng).assign(
                    series=series, model="relu" if sharp else "softplus", beta=betas[i] if sharp else np.nan,
                    of_class=0 if sharp else i, class_rank=1 if sharp else i + 1, class_probability=0.9,
                    positive_share=0.2, negative_share=0.3, near_zero_share=0.5,
                    largest_eigenvalue=top * (0.5 if i == 0 else 1), smallest_eigenvalue=-top * 0.8,
                    spectral_radius=top, trace=top, positive_mass=0.5,
                    effective_rank=ranks[i] if sharp else 8.0, anisotropy=12.0, relative_curvature=0.4,
                    verdict="strongly anisotropic", gradient_norm=2.0,
                    gradient_deviation=0.5 / betas[i] if sharp else np.nan,
                )
            )  # fmt: skip
    return tails(pd.concat(parts, ignore_index=True), failed)


def eigenvectors(folder: Path, spectra_table: pd.DataFrame, shape: tuple[int, int, int] = (1, 8, 8)) -> Path:
    """Gradient and eigenpairs of every image of the smooth network, of either end three."""
    rng = np.random.default_rng(0)
    ids = spectra_table.loc[spectra_table["activation"] != "relu", "image_id"].to_numpy(np.str_)
    vectors = rng.standard_normal((len(ids), 6, *shape))
    vectors /= np.linalg.norm(vectors.reshape(len(ids), 6, -1), axis=2)[..., None, None, None]
    path = folder / "softplus" / "eigenvectors.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.tile([3.0, 2, 1, -4, -2, -1], (len(ids), 1))
    gradient = rng.standard_normal((len(ids), *shape))
    np.savez(path, gradient=gradient, eigenvectors=vectors, extreme_eigenvalues=values, ids=ids)
    return path


def eigenvalues(spectra_table: pd.DataFrame, d: int = 64) -> pd.DataFrame:
    rows = []
    for row in spectra_table[spectra_table["status"] == "ok"].itertuples():
        values = row.largest_eigenvalue * np.exp(-np.arange(d) / 6) * np.where(np.arange(d) % 3 == 0, -0.4, 1)
        rows.append(
            pd.DataFrame(
                {
                    "image_id": row.image_id,
                    "model": row.model,
                    "rank": np.arange(1, d + 1),
                    "eigenvalue": values,
                }
            )
        )
    return (
        pd.concat(rows, ignore_index=True)
        if rows
        else pd.DataFrame(columns=["image_id", "model", "rank", "eigenvalue"])
    )


def distances(n: int = 40, failed: int = 0, reverse: bool = False, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = heads(n, rng, wrong=min(3, n))
    doubt = 1 - frame["confidence"]
    distance = 0.6 * (1 - doubt if reverse else doubt) ** 0.7
    return tails(
        frame.assign(
            entropy=doubt,
            effective_classes=1 + doubt,
            largest_eigenvalue=10 * doubt,
            lambda2=10 + 5 * doubt,
            distance=distance,
            angle=2 * np.arcsin(distance / 2),
            kantorovich_bound=distance * 1.3,
            largest_eigenvalue_error=0.0,
            kkt_residual=1e-7,
            precision="float32",
            curvature="factor",
            full_calls=10,
            solving_calls=0,
        ),
        failed,
    )


def fidelity(best: str = "SH+SG", images: int = 12) -> pd.DataFrame:
    rows = []
    first = 0.2 if best == LOCAL_MODELS[0] else 2.0
    for scalar in ("predicted_logit", "inner_neuron"):
        for law in ("ball", "paper"):
            for radius in (0.25, 0.5, 1.0):
                for place, method in enumerate(LOCAL_MODELS):
                    mean = 1e-5 * radius**3 * (1 + place) * (0.2 if method == best else 2.0)
                    rows.append(
                        {
                            "scalar": scalar,
                            "method": method,
                            "covariance": "isotropic" if method in ("SH+SG", "SG") else "none",
                            "radius": radius,
                            "law": law,
                            "images": images,
                            "mean": mean,
                            "standard_deviation": mean,
                            "standard_error": mean / 4,
                            "best_share": 0.75 if method == best else 0.0,
                            "ratio": (1 + place) * (0.2 if method == best else 2.0) / first,
                            "ratio_standard_error": 0.0 if method == "SH+SG" else 0.1,
                            "parameter": "" if method == "G" else "sigma" if "SP" not in method else "beta",
                            "parameter_value": np.nan if method == "G" else 0.02,
                            "calls": 1568,
                            "seconds": 2.0,
                            "paper_mean": mean * 0.3 if law == "paper" else np.nan,
                            "paper_standard_deviation": mean * 0.3 if law == "paper" else np.nan,
                            "paper_parameter_value": np.nan if law == "ball" or method == "G" else 0.03,
                        }
                    )
    return pd.DataFrame(rows)


def trust_images(n: int = 8, failed: int = 0, furthest: str = "SH+SG", smooth: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    parts = []
    for split in ("validation", "test"):
        head = heads(n, rng)
        for place, method in enumerate(METHODS):
            for value in (np.nan,) if method == "G" else (0.05, 0.1):
                radius = (6.0 if method == furthest else 1.0 + place / 9) * (1 + 3 * head["confidence"])
                radius = radius * (0.5 if value == 0.1 else 1.0)
                parts.append(
                    head.assign(
                        split=split,
                        scalar="predicted_logit",
                        method=method,
                        parameter="" if method == "G" else "beta" if "SP" in method else "sigma",
                        parameter_value=value,
                        threshold=0.9,
                        law="ball",
                        trust_radius=radius,
                        low=0.9 * radius,
                        high=1.2 * radius,
                        censored="",
                        fidelity=0.9,
                        fidelity_stderr=0.01,
                        region_radius=np.nan if smooth else rng.uniform(1e-4, 1e-3, n),
                        evaluations=5001,
                    )
                )
    return tails(pd.concat(parts, ignore_index=True), failed)


def attacks(best: str = "SH+SG", n: int = 50) -> pd.DataFrame:
    rows = []
    for method in ATTACKS:
        for epsilon in (0.25, 0.5, 0.75, 1.25, 1.75):
            strength = {"Random": 0.02, best: 0.5, "PGD": 0.55}.get(method, 0.35)
            kept = max(0.0, 1 - strength * epsilon)
            rows.append(
                {
                    "method": method,
                    "epsilon": epsilon,
                    "images": n,
                    "post_hoc_accuracy": kept,
                    "ci_low": max(0.0, kept - 0.1),
                    "ci_high": min(1.0, kept + 0.1),
                    "parameter": "sigma_squared",
                    "parameter_value": 0.02,
                    "validation_accuracy": kept,
                    "calls": 1568.0,
                    "paper_accuracy": np.nan if method == "PGD" else kept * 0.9,
                    "paper_images": 0 if method == "PGD" else 400,
                    "paper_parameter_value": 0.03,
                }
            )
    return pd.DataFrame(rows)


def attacks_paired(n: int = 50, better: int = 12) -> pd.DataFrame:
    """PGD better than all on ``better`` images, SH+SG on half as many, the exact step on one image."""
    rows = []
    for method, other, only in (
        *((method, "PGD", -better) for method in ("SH+SG", "SG", "G")),
        *(("SH+SG", other, better // 2) for other in ("SG", "G", "Random")),
        ("SH+SG", "SH+SG truncated", 1),
    ):
        for epsilon in (0.25, 0.5, 0.75, 1.25, 1.75):
            rows.append(
                {
                    "method": method,
                    "other": other,
                    "epsilon": epsilon,
                    "images": n,
                    "only_method": max(only, 0),
                    "only_other": max(-only, 0),
                    "difference": only / n,
                    "ci_low": only / n - 0.1,
                    "ci_high": only / n + 0.1,
                    "p_value": 0.01,
                }
            )
    return pd.DataFrame(rows)


def attacks_images(n: int = 6, failed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    frame = pd.concat(
        [
            heads(n, rng).assign(
                split="test",
                method=method,
                epsilon=epsilon,
                parameter="sigma_squared",
                parameter_value=0.02,
                changed=False,
                confidence_after=0.5,
                predicted_decrease=0.1 * epsilon,
                actual_decrease=0.08 * epsilon,
                optimality_residual=1e-9,
            )
            for method in METHODS
            for epsilon in (0.25, 1.75)
        ],
        ignore_index=True,
    )
    return tails(frame, failed)


def complexity(power: float = -0.5) -> pd.DataFrame:
    """Errors that follow c·n^power·√d but for some noise, for two functions and three estimators."""
    rng = np.random.default_rng(6)
    rows = [
        {
            "function": function,
            "width": width,
            "estimator": estimator,
            "dimension": d,
            "calls": n,
            "repeat": repeat,
            "relative_error": 0.0
            if exact
            else (error := scale * n**power * d**0.5 * rng.uniform(0.98, 1.02)),
            "spectral_error": 0.0 if exact else error / 2,
            "estimated_error": np.nan if exact else error,
        }
        for function, width in (("ridges", 4.0), ("quadratic", np.nan))
        for estimator, scale in (("regression", 0.5), ("antithetic", 1.5), ("plain", 20.0))
        for d in (8, 32)
        for n in (256, 1024, 4096)
        for repeat in range(3)
        for exact in [function == "quadratic" and estimator == "regression"]
    ]
    return pd.DataFrame(rows)


def history() -> pd.DataFrame:
    epoch = np.arange(1, 11)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "updates": 50 * epoch,
            "learning_rate": 0.05,
            "loss": np.exp(-epoch / 4),
            "accuracy": 1 - np.exp(-epoch / 2),
            "validation_loss": np.exp(-epoch / 6),
            "validation_accuracy": 0.96 - np.exp(-epoch / 2),
            "seconds": 1.0,
        }
    )


def explanations(folder: Path, n: int = 9, channels: int = 1, failed: int = 0) -> dict[str, list[Path]]:
    """Write shards of three methods and the images they explain; return figure inputs."""
    rng = np.random.default_rng(3)
    head = heads(n, rng, wrong=2 if n > 2 else 0)
    images = rng.integers(0, 255, (n, channels, 8, 8), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "test.npz",
        images=images,
        labels=head["label"].to_numpy(np.int64),
        ids=head["image_id"].to_numpy(np.str_),
    )
    found: dict[str, list[Path]] = {"explanations": [], "maps": [], "images": [folder / "test.npz"]}
    for method in ("gradient", "smoothgrad", "vargrad"):
        for shard, rows in enumerate(np.array_split(np.arange(n), min(2, n))):
            path = folder / method / f"{shard}.npz"
            path.parent.mkdir(exist_ok=True)
            maps = rng.normal(size=(len(rows), channels, 8, 8)).astype(np.float32)
            maps = maps**2 if method == "vargrad" else maps
            np.savez(path, attribution=maps, ids=head["image_id"].to_numpy(np.str_)[rows])
            index = head.iloc[rows].reset_index(drop=True)
            index = index.assign(
                target=index["prediction"],
                scalar="predicted_logit",
                value=1.0,
                method=method,
                parameters="{}",
                seed=1,
            )
            tails(index, min(failed, len(rows))).to_parquet(path.with_suffix(".parquet"))
            found["explanations"].append(path.with_suffix(".parquet"))
            found["maps"].append(path)
    return found


def index(n: int = 6) -> pd.DataFrame:
    """Return an index of explanations, in which VarGrad uses SmoothGrad's calls and has no trust radius."""
    rng = np.random.default_rng(4)
    head = heads(n, rng)
    parts = [
        tails(
            head.assign(
                target=head["prediction"],
                scalar="predicted_logit",
                value=1.0,
                method=method,
                parameters="{}",
                trust_radius=np.nan if method == "vargrad" else rng.uniform(1, 4, n),
                trust_low=np.nan if method == "vargrad" else 0.5,
                trust_high=np.nan if method == "vargrad" else 5.0,
                trust_censored=None if method == "vargrad" else "",
                seed=1,
                calls_alone=64,
                forward_calls=0,
                completeness_error=np.nan,
                attributed_change=np.nan,
            )
        ).assign(calls=0 if method == "vargrad" else 64)
        for method in ("smoothgrad", "vargrad")
    ]
    return pd.concat(parts, ignore_index=True)


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path
