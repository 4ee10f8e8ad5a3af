"""Tables of a tiny study of theorems, for tests of figures and of the report."""

from __future__ import annotations

import functools
import warnings

import pandas as pd

from curvelens.experiments import theorems
from curvelens.experiments.convergence import convergence
from curvelens.experiments.rank_one import rank_one
from curvelens.experiments.relaxation import relaxation


@functools.cache
def tables() -> dict[str, pd.DataFrame]:
    """Return the five tables of a study that takes a second."""
    with warnings.catch_warnings():
        # torch.func warns of torch itself when it is first used.
        warnings.simplefilter("ignore", FutureWarning)
        facts, concavity = theorems.facts(
            classes=[2, 4], networks=1, features=8, multiples=[0.9, 1.1], steps=20
        )  # fmt: skip
    return {
        "hessian_facts": facts,
        "concavity": concavity,
        "rank_one": rank_one(
            classes=[10, 100], doubts=[0.5, 0.01, 1e-4], features=100, length=20.0, c1=10.0
        ),
        "relaxation": relaxation(features=6, classes=4, curvatures=[1.0, 100.0], sizes=[1, 2], instances=4),
        "convergence": convergence(
            features=12, classes=4, curvatures=[1.0, 1000.0], l1=[0.0, 0.2], iterations=[1, 10, 300],
            instances=2, c1=10.0,
        ),
    }  # fmt: skip
