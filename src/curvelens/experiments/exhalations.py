"""Exhalation curves of a study, and networks that predict FEV1 from them (Torop et al. 2023, App. E.1).

The paper's curves are not public; these are simulated (:mod:`curvelens.spirometry`), and recorded ones may be
added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens import models, spirometry
from curvelens.spirometry import INTERVAL, SAMPLES
from curvelens.store import RegressionSet
from curvelens.summaries.spirometry import EARLY, GROUPS, SPIROMETRY_CURVES, SPIROMETRY_PREDICTIONS
from curvelens.tables import FAILED, OK, frame
from curvelens.training import predict, train_regression

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from curvelens.studies import Spirometry


@dataclass(frozen=True, eq=False)
class CurveSet:
    """Curves of all splits.

    Attributes:
        examples: Inputs ``[N, 1, 300]`` in L, targets in L, ids.
        split: N names of splits.
        plateaus: ``[N, 3, 2]``, start and end of each plateau, s after time zero; NaN where there is none or
            none is known. A twin has those of the effort that it is a twin of.
        group: N names of the groups that are explained, empty for all other curves.
    """

    examples: RegressionSet
    split: np.ndarray
    plateaus: np.ndarray
    group: np.ndarray

    def of(self, split: str) -> np.ndarray:
        """Return the positions of a split."""
        return np.flatnonzero(self.split == split)

    def explained(self) -> list[tuple[int, str]]:
        """Return the positions of the curves to explain with their groups, group by group."""
        return [(int(i), name) for name in GROUPS for i in np.flatnonzero(self.group == name)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what :meth:`from_arrays` takes."""
        return {
            "inputs": self.examples.inputs,
            "targets": self.examples.targets,
            "ids": np.array(self.examples.ids, dtype=np.str_),
            "split": self.split,
            "plateaus": self.plateaus,
            "group": self.group,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> CurveSet:
        """Return the curves that were stored."""
        examples = RegressionSet(arrays["inputs"], arrays["targets"], arrays["ids"].tolist())
        return cls(examples, arrays["split"], arrays["plateaus"], arrays["group"])


def make_curves(study: Spirometry, seed: int = 0) -> tuple[CurveSet, pd.DataFrame]:
    """Simulate the curves of a study and read the recorded ones, if there are any.

    Returns:
        The curves, and the table :data:`SPIROMETRY_CURVES`, with a failed row for each unreadable one.

    Raises:
        DataError: ``data_dir`` is missing or has no usable curve.
    """
    counts = {
        "train": study.training_curves,
        "validation": study.validation_curves,
        "test": study.test_curves,
    }
    made = spirometry.simulate(sum(counts.values()), cough_share=study.cough_share, seed=seed)
    split = np.repeat(list(counts), list(counts.values()))
    simulated = CurveSet(
        RegressionSet(made.volumes[:, None], made.fev1, made.ids), split, _plateaus(made), _empty(len(split))
    )
    coughing = _name_groups(simulated, study.explained)
    parts, failures = [simulated, _twins(simulated, made, coughing)], {}
    if study.data_dir is not None:
        read = spirometry.read_curves(study.data_dir, study.flow_interval)
        failures = {f"recorded/{name}": error for name, error in read.failures.items()}
        parts.append(_recorded(read, study.explained))
    curves = CurveSet(
        RegressionSet(
            np.concatenate([part.examples.inputs for part in parts]),
            np.concatenate([part.examples.targets for part in parts]),
            [name for part in parts for name in part.examples.ids],
        ),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("split", "plateaus", "group")),
    )
    return curves, frame([*_curve_rows(curves), *map(_failed_curve, failures.items())], SPIROMETRY_CURVES)


def _empty(count: int) -> np.ndarray:
    return np.full(count, "", dtype=f"<U{max(map(len, GROUPS))}")


def _plateaus(made: spirometry.Simulated) -> np.ndarray:
    plateaus = np.full((len(made.ids), spirometry.MOST_COUGHS, 2), np.nan, np.float32)
    for index in range(len(made.ids)):
        for number, ends in enumerate(made.plateaus(index)):
            plateaus[index, number] = ends
    return plateaus


def _name_groups(curves: CurveSet, explained: int) -> np.ndarray:
    """Name the test curves to explain, the first that qualify; return the positions of those that cough.

    A curve with an early cough has a whole plateau within the first 4 s, one without has none that begins
    there (Torop et al. 2023, Fig. 3).
    """
    test = curves.of("test")
    start, end = curves.plateaus[test, 0, 0], curves.plateaus[test, 0, 1]
    coughing = test[(start >= 0) & (end <= EARLY)][:explained]
    curves.group[coughing] = GROUPS[0]
    curves.group[test[np.isnan(start) | (start >= EARLY)][:explained]] = GROUPS[2]
    return coughing


def _twins(curves: CurveSet, made: spirometry.Simulated, chosen: np.ndarray) -> CurveSet:
    """Return the chosen efforts without their coughs."""
    volumes = [made.without_coughs(int(index)) for index in chosen]
    group = _empty(len(chosen))
    group[:] = GROUPS[1]
    examples = RegressionSet(
        np.array(volumes, np.float32).reshape(-1, 1, SAMPLES),
        curves.examples.targets[chosen],
        [f"{curves.examples.ids[index]} without coughs" for index in chosen],
    )
    return CurveSet(examples, np.repeat("twin", len(chosen)), curves.plateaus[chosen], group)


def _recorded(read: spirometry.Curves, explained: int) -> CurveSet:
    count = len(read.ids)
    group = _empty(count)
    group[:explained] = GROUPS[3]
    fev1 = np.array([one.fev1 for one in read.indices], np.float32)
    examples = RegressionSet(read.volumes[:, None], fev1, [f"recorded/{name}" for name in read.ids])
    unknown = np.full((count, spirometry.MOST_COUGHS, 2), np.nan, np.float32)
    return CurveSet(examples, np.repeat("recorded", count), unknown, group)


def _curve_rows(curves: CurveSet) -> list[dict[str, Any]]:
    rows = []
    at_one = round(1 / INTERVAL)
    for index, name in enumerate(curves.examples.ids):
        volume = curves.examples.inputs[index, 0]
        known = curves.split[index] != "recorded"
        starts = curves.plateaus[index, :, 0]
        starts = starts[np.isfinite(starts) & (curves.split[index] != "twin")]
        rows.append(
            {
                "image_id": name,
                "split": str(curves.split[index]),
                "fev1": float(curves.examples.targets[index]),
                "volume_1s": float(volume[at_one]),
                "fvc": float(volume.max()),
                "coughs": len(starts) if known else None,
                "first_cough": float(starts[0]) if len(starts) else None,
                "status": OK,
                "error": "",
            }
        )
    return rows


def _failed_curve(failure: tuple[str, str]) -> dict[str, Any]:
    name, error = failure
    return {"image_id": name, "split": "recorded", "status": FAILED, "error": error}


def train_network(
    study: Spirometry,
    network: str,
    curves: CurveSet,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    checkpoint: str | None = None,
    threads: int | None = None,
) -> tuple[torch.nn.Module, dict[str, Any], pd.DataFrame]:
    """Train the network with wide or with narrow kernels.

    Inputs and targets are standardised by the training curves; both networks differ in their kernels alone.

    Returns:
        The network in evaluation mode, what ``models.save`` needs to store it, and its history.
    """
    parts = {name: curves.examples.subset(curves.of(name)) for name in ("train", "validation")}
    inputs, wanted = parts["train"].inputs, parts["train"].targets
    width = study.wide if network == "wide" else study.narrow
    architecture: dict[str, Any] = {
        "architecture": "residual_cnn_1d",
        "parameters": {
            "blocks": study.blocks,
            "channels": study.channels,
            "width": width,
            "dropout": study.dropout,
            "mean": float(inputs.mean()),
            "std": float(inputs.std()),
            "output_mean": float(wanted.mean()),
            "output_std": float(wanted.std()),
        },
        "classes": 1,
        "image_shape": (1, SAMPLES),
    }
    # The same name for both, so that they see the same curves in the same order.
    model = models.build(**architecture, seed=seed, name="spirometry").to(device)
    history = train_regression(
        model,
        parts["train"],
        parts["validation"],
        study.training,
        seed=seed,
        name=f"spirometry {network}",
        checkpoint=checkpoint,
        threads=threads,
    )
    meta = {"network": network, "seed": seed, "reach": reach(study.blocks, width)}
    return model, architecture | {"meta": meta | {"training": study.training.model_dump()}}, history


def reach(blocks: int, width: int) -> float:
    """Return the largest distance, s, at which kernels let two samples of a curve interact."""
    return min(blocks * (width - 1), SAMPLES - 1) * INTERVAL


def predict_curves(model: torch.nn.Module, network: str, curves: CurveSet) -> pd.DataFrame:
    """Return the table :data:`SPIROMETRY_PREDICTIONS` of one network."""
    told = predict(model, curves.examples.inputs)
    rows = zip(curves.examples.ids, curves.split, curves.examples.targets, told, strict=True)
    return frame(
        [
            {
                "image_id": name,
                "network": network,
                "split": str(split),
                "fev1": float(fev1),
                "prediction": float(value),
            }
            for name, split, fev1, value in rows
        ],
        SPIROMETRY_PREDICTIONS,
    )
