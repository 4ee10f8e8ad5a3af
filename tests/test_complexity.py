"""Functions with known smoothed derivatives, and how the error of an estimate of them shrinks."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
import report_world as world
import torch
import yaml
from scipy.integrate import quad
from scipy.stats import norm
from workflow_runs import TEST_CONFIG, output, snakemake

from curvelens import figures, known, tables
from curvelens.errors import ArgumentError
from curvelens.experiments.complexity import complexity
from curvelens.seeds import derive
from curvelens.studies import Complexity
from curvelens.summaries.complexity import COMPLEXITY, COMPLEXITY_RATES, rates

SIGMA = 0.4


def averaged(f: known.Ridges, x: np.ndarray) -> float:
    """E f(x + σz) by quadrature of each unit along its own direction, split at its kink."""
    total = 0.0
    for w, b, a in zip(f.weights.numpy(), f.biases.numpy(), f.amplitudes.numpy(), strict=True):
        m, s = w @ x + b, SIGMA * np.linalg.norm(w)
        total += a * quad(lambda z, m=m, s=s: (m + s * z) * norm.pdf(z), -m / s, 12, epsabs=1e-13)[0]
    return total


def differences(function, x: np.ndarray, step: float) -> np.ndarray:
    shifts = step * np.eye(len(x))
    return np.array([(function(x + e) - function(x - e)) / (2 * step) for e in shifts])


def test_ridges_against_quadrature_and_central_differences():
    f = known.random_ridges(3, 5, seed=1)
    x = np.array([0.3, -0.2, 0.5])
    point = torch.from_numpy(x)
    z = f.weights.numpy() @ x + f.biases.numpy()
    assert float(f(point[None])[0]) == pytest.approx(
        float(np.maximum(z, 0) @ f.amplitudes.numpy()), rel=1e-13
    )
    # The quadrature is good to about 1e-12; a step of 1e-4 adds 1e-8 by truncation and by cancellation each.
    assert float(f.smoothed_value(point, SIGMA)) == pytest.approx(averaged(f, x), abs=1e-11)
    slope = differences(lambda y: averaged(f, y), x, 1e-4)
    np.testing.assert_allclose(f.smoothed_gradient(point, SIGMA), slope, atol=1e-7)
    bend = differences(lambda y: f.smoothed_gradient(torch.from_numpy(y), SIGMA).numpy(), x, 1e-4)
    np.testing.assert_allclose(f.smoothed_hessian(point, SIGMA), bend, atol=1e-7)


def test_quadratic_against_numpy():
    f = known.random_quadratic(4, seed=2)
    A, b, x = f.matrix.numpy(), f.slope.numpy(), np.array([1.0, -2.0, 0.5, 3.0])
    point = torch.from_numpy(x)
    np.testing.assert_array_equal(A, A.T)
    assert float(f(point[None])[0]) == pytest.approx(0.5 * x @ A @ x + b @ x, rel=1e-13)
    assert float(f.smoothed_value(point, SIGMA)) == pytest.approx(
        0.5 * x @ A @ x + b @ x + 0.5 * SIGMA**2 * np.trace(A), rel=1e-13
    )
    np.testing.assert_allclose(f.smoothed_gradient(point, SIGMA), A @ x + b, rtol=1e-13)


def test_a_width_that_smooths_nothing_is_refused():
    f = known.random_ridges(3, 2, seed=0)
    with pytest.raises(ArgumentError, match="sigma"):
        f.smoothed_hessian(torch.zeros(3, dtype=torch.float64), 0.0)


def run(**changed):
    settings = {
        "dimensions": [8], "calls": [512], "widths": [], "quadratic": True, "sigma": SIGMA, "repeats": 40,
        "estimators": ["antithetic"], "seed": 3,
    }  # fmt: skip
    return complexity(**(settings | changed))


def test_the_error_of_antithetic_pairs_on_a_quadratic_is_what_moments_of_normals_say():
    """E‖sym(zzᵀA) − A‖² = ½[(d + 4)‖A‖² + (tr A)²] − ‖A‖², divided by the number of pairs."""
    table = run()
    expected = []
    for repeat in range(40):
        A = known.random_quadratic(
            8, derive(3, "quadratic nan 8", repeat, "sample complexity")
        ).matrix.numpy()
        ratio = np.trace(A) ** 2 / (A**2).sum()
        expected.append(((8 + 4 + ratio) / 2 - 1) / 256)
    share = (table.sort_values("repeat")["relative_error"] ** 2).to_numpy() / np.array(expected)
    assert abs(share.mean() - 1) < 4 * share.std(ddof=1) / math.sqrt(40)
    assert share.std(ddof=1) < 1  # so that the bound above is below 0.64


def test_orthogonal_directions_recover_a_quadratic_exactly():
    table = run(estimators=["orthogonal", "regression"], calls=[16, 64], repeats=2)
    assert table["relative_error"].max() < 1e-12
    assert table["spectral_error"].max() < 1e-12


def test_errors_fall_with_the_root_of_calls_on_a_network():
    table = run(widths=[4.0], quadratic=False, calls=[128, 512, 2048, 8192], repeats=8, estimators=["plain"])
    row = rates(table).set_index(["against", "norm"]).loc[("calls", "frobenius")]
    # Independent rows: the mean's standard deviation is exactly ∝ n^(-1/2). 0.05 is over three standard
    # errors: each of 4 × 8 log errors has a standard deviation of about 0.15, the levers are ln 4 apart.
    assert abs(row["slope"] + 0.5) < 0.05
    assert table["spectral_error"].gt(0).all()


def test_rows_do_not_depend_on_what_else_is_computed():
    alone = run(repeats=2, calls=[64])
    among = run(repeats=3, calls=[16, 64], estimators=["plain", "antithetic"], widths=[1.0])
    both = alone.merge(among, on=[*COMPLEXITY.keys], suffixes=("", "_among"))
    assert len(both) == 2
    assert (both["relative_error"] == both["relative_error_among"]).all()


def power_law(power: float = -0.5, scale: float = 2.0, calls=(64, 256, 1024)) -> pd.DataFrame:
    rows = [
        {
            "function": "ridges", "width": 1.0, "estimator": "plain", "dimension": d, "calls": n,
            "repeat": repeat, "relative_error": (error := scale * (1 + repeat) * n**power * d**0.7),
            "spectral_error": error / 3, "estimated_error": np.nan,
        }
        for d in (4, 16) for n in calls for repeat in range(2)
    ]  # fmt: skip
    return tables.frame(rows, COMPLEXITY)


def test_rates_of_exact_power_laws_are_their_powers():
    found = rates(power_law()).set_index(["against", "at", "norm"])
    for norm_name in ("frobenius", "spectral"):
        assert found.loc[("calls", 4, norm_name), "slope"] == pytest.approx(-0.5)
        assert found.loc[("dimension", 1024, norm_name), "slope"] == pytest.approx(0.7)
        low, high = found.loc[("calls", 16, norm_name), ["ci_low", "ci_high"]]
        assert low == pytest.approx(high)
    # Geometric mean over repeats: scale·√2·d^0.7/√n = 0.1.
    needed = found.loc[("calls", 4, "frobenius")]
    assert needed["calls_needed"] == pytest.approx((2 * math.sqrt(2) * 4**0.7 / 0.1) ** 2)
    assert needed["extrapolated"]


def test_calls_within_reach_are_read_off():
    found = rates(power_law(scale=0.5)).set_index(["against", "at", "norm"]).loc[("calls", 4, "frobenius")]
    assert found["calls_needed"] == pytest.approx((0.5 * math.sqrt(2) * 4**0.7 / 0.1) ** 2)
    assert not found["extrapolated"]
    found = rates(power_law(scale=0.1)).set_index(["against", "at", "norm"]).loc[("calls", 4, "frobenius")]
    assert found["calls_needed"] == pytest.approx(64)  # the fewest that were made


def test_rates_over_too_few_calls_have_no_slope():
    found = rates(power_law(calls=(8, 16))).set_index(["against", "at", "norm"])
    assert math.isnan(found.loc[("calls", 16, "frobenius"), "slope"])
    assert found.loc[("calls", 16, "frobenius"), "points"] == 0
    assert not found["exact"].any()


def test_exact_estimates_are_called_exact():
    found = rates(tables.frame(world.complexity().to_dict("records"), COMPLEXITY))
    exact = found[(found["function"] == "quadratic") & (found["estimator"] == "regression")]
    assert exact["exact"].all()
    assert exact["slope"].isna().all()
    assert not found.drop(exact.index)["exact"].any()
    COMPLEXITY_RATES.validate(found)


def told(power: float) -> tuple[str, str]:
    made = {"complexity": world.complexity(power), "complexity_rates": rates(world.complexity(power))}
    spec = figures.get("complexity")
    return spec.finding(made), spec.caption(made)


def test_the_finding_follows_the_numbers():
    finding, caption = told(-0.5)
    # 0.5·√32/√n = 0.1 at n = 800; antithetic (1.5/0.5)² = 9 times more, plain 40² = 1,600 times.
    # The errors are ±2 % off, which the distance to plain's 1,280,000 magnifies.
    assert re.search(
        r"features (79|8[01])0 with regression, 7,[0-4]00 \(extrapolated\) with antithetic "
        r"and 1,[234]00,000 \(extrapolated\) with plain; regression takes (8.[89]|9.[01]) times",
        finding,
    )
    assert re.search(r"agree with the −1/2 of Theorem 1", caption)
    steep = told(-0.9)[1]
    assert "fall faster" in steep
    assert "agree" not in steep
    flat = told(-0.2)[1]
    assert "fall more slowly" in flat
    assert "agree" not in flat


def test_settings_of_a_study_are_closed():
    assert Complexity(kind="complexity").estimators[0] == "regression"
    with pytest.raises(ValueError, match="widths names a value twice"):
        Complexity(kind="complexity", widths=[1, 1])


@pytest.mark.slow
@pytest.mark.workflow
def test_a_study_of_the_workflow_makes_its_tables_and_its_figure(tmp_path):
    raw = yaml.safe_load(TEST_CONFIG.read_text())
    small = {"kind": "complexity", "dimensions": [4, 8], "calls": [64, 128], "repeats": 2, "sigma": 0.5}
    raw["studies"] = {"needed": small}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(raw))
    done = snakemake(tmp_path, "results/figures/needed/complexity.svg", config=config)
    assert done.returncode == 0, output(done)
    folder = tmp_path / "results/tables/needed"
    errors = tables.read(folder / "complexity.parquet", COMPLEXITY)
    assert sorted(errors["dimension"].unique()) == [4, 8]
    pd.testing.assert_frame_equal(
        rates(errors), tables.read(folder / "complexity_rates.parquet", COMPLEXITY_RATES)
    )
    assert (tmp_path / "results/figures/needed/complexity.json").is_file()
