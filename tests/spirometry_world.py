"""Made-up tables of a spirometry study, with the columns of real ones, for tests of figures and report."""

from __future__ import annotations

import numpy as np
import pandas as pd

from curvelens.summaries.spirometry import GROUPS, NETWORKS, networks

HOSTILE = "<script>$x$</script>"
INTERVALS = 30


def tables(
    hits: int = 2, twin_hits: int = 0, wide_reach: float = 8.0, curves: int = 2
) -> dict[str, pd.DataFrame]:
    """Return the tables by name.

    Args:
        hits: In how many coughing curves the strongest interaction lies at a plateau.
        twin_hits: The same for their twins.
        wide_reach: Intervals over which the wide network's interactions fall by e; the narrow one's by 1.
        curves: Curves explained of each group.
    """
    rng = np.random.default_rng(11)
    explanations, intervals, interactions, samples = [], [], [], []
    for group in GROUPS:
        for number in range(curves):
            name = f"{group}/{HOSTILE}{number}"
            time = 0.05 * np.arange(300)
            samples.append(pd.DataFrame({"image_id": name, "time": time, "volume": 3 * (1 - np.exp(-time))}))
            for network in NETWORKS:
                head = {"image_id": name, "network": network, "group": group}
                found = matrix(rng, wide_reach if network == "wide" else 1.0)
                hit = number < (hits if group == "early cough" else twin_hits)
                explanations.append(head | explanation(found, group, hit))
                intervals.append(interval_rows(rng, found, group).assign(**head))
                interactions.append(pair_rows(found).assign(**head))
    predicted, made = predictions(rng), curve_rows()
    models = {
        name: {"parameters": {"width": width}, "reach": reach, "weights": 100}
        for name, width, reach in (("wide", 200, 14.95), ("narrow", 5, 2.0))
    }
    return {
        "spirometry_curves": made,
        "spirometry_networks": networks(predicted, made, models),
        "spirometry_predictions": predicted,
        "spirometry_explanations": pd.DataFrame(explanations),
        "spirometry_intervals": pd.concat(intervals, ignore_index=True),
        "spirometry_interactions": pd.concat(interactions, ignore_index=True),
        "spirometry_samples": pd.concat(samples, ignore_index=True),
    }


def matrix(rng: np.random.Generator, reach: float) -> np.ndarray:
    apart = np.abs(np.subtract.outer(np.arange(INTERVALS), np.arange(INTERVALS)))
    values = rng.normal(size=(INTERVALS, INTERVALS)) * np.exp(-apart / reach)
    return values + values.T


def explanation(found: np.ndarray, group: str, hit: bool) -> dict[str, object]:
    apart = np.abs(np.subtract.outer(np.arange(INTERVALS), np.arange(INTERVALS)))
    size, energy = np.abs(found), found**2
    plateaus = group in ("early cough", "twin without cough")
    return {
        "fev1": 2.5, "prediction": 2.4, "sigma": 0.1, "repeats": 3, "attribution_error": 0.01,
        "interaction_error": 0.05, "radius": 1.73, "pmse": 1e-6, "pmse_first_order": 1e-5,
        "first_share": 0.1, "strongest": 1.5, "strongest_in_plateau": hit if plateaus else None,
        "plateau_share": 0.1 if plateaus else None, "near": 2.0,
        "near_share": size[apart <= 4].sum() / size.sum(),
        "near_energy": energy[apart <= 4].sum() / energy.sum(),
        "mean_distance": 0.5 * (apart * size).sum() / size.sum(),
        "energy_distance": 0.5 * (apart * energy).sum() / energy.sum(),
        "seconds": 1.0, "calls": 1200, "status": "ok", "error": "",
    }  # fmt: skip


def interval_rows(rng: np.random.Generator, found: np.ndarray, group: str) -> pd.DataFrame:
    number = np.arange(INTERVALS)
    plateau = np.where(number == 3, 0.8, 0.0) if group != "recorded" else np.nan
    return pd.DataFrame(
        {
            "interval": number,
            "start": 0.5 * number,
            "attribution": rng.normal(size=INTERVALS),
            "attribution_error": 0.01,
            "interaction": found[0],
            "interaction_error": 0.02,
            "plateau": plateau,
        }
    )


def pair_rows(found: np.ndarray) -> pd.DataFrame:
    first, second = np.triu_indices(INTERVALS)
    return pd.DataFrame(
        {"first": first, "second": second, "interaction": found[first, second], "standard_error": 0.02}
    )


def curve_rows() -> pd.DataFrame:
    splits = ["train"] * 6 + ["test"] * 5 + ["recorded"] * 4
    fev1 = np.linspace(1, 5, len(splits))
    return pd.DataFrame(
        {
            "image_id": [f"{split}/{index}" for index, split in enumerate(splits)],
            "split": splits,
            "fev1": fev1,
            "volume_1s": fev1 - 0.4,
            "fvc": fev1 * 1.3,
            "coughs": 1,
            "first_cough": 0.5,
            "status": "ok",
            "error": "",
        }
    )


def predictions(rng: np.random.Generator) -> pd.DataFrame:
    rows = curve_rows()[["image_id", "split", "fev1"]]
    return pd.concat(
        [
            rows.assign(network=network, prediction=rows["fev1"] + rng.uniform(-0.2, 0.2, len(rows)))
            for network in NETWORKS
        ],
        ignore_index=True,
    )
