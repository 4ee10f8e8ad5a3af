"""Verdicts by rule, and the page that is made of them, on tables whose verdicts are known."""

import math
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pandas as pd
import pytest

from curvelens import store
from curvelens.summaries import published_attacks, published_fidelity, replication

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("ours", "theirs", "common", "doubt", "kind", "reason"),
    [
        (3e-6, 2e-6, 1.0, "", replication.REPRODUCED, ""),
        (4e-6, 2e-6, 1.0, "", replication.REPRODUCED, ""),
        (1e-6, 2e-6, 9.0, "printed twice", replication.REPRODUCED, ""),
        (2e-5, 2e-6, 9.0, "", replication.SCALED, "all methods of this column are 9 times higher here"),
        (2e-7, 2e-6, 0.1, "", replication.SCALED, "10 times lower here"),
        (2e-5, 2e-6, 1.0, "", replication.DIFFERS, "10 times higher than the other methods"),
        (2e-6, 2e-6 * 5, 4.0, "", replication.DIFFERS, "20 times lower than"),
        (2e-9, 2e-6, 1.0, "printed twice", replication.NOT_REPRODUCIBLE, "printed twice"),
    ],
)
def test_errors_are_judged_by_factor_and_column(ours, theirs, common, doubt, kind, reason):
    found = replication.of_error(ours, theirs, common, doubt)
    assert found.kind == kind
    assert reason in found.reason
    assert bool(found.reason) == (kind != replication.REPRODUCED)


@pytest.mark.parametrize(
    ("ours", "images", "theirs", "common", "kind"),
    [
        (0.55, 400, 0.50, 0.0, replication.REPRODUCED),  # five points
        (0.60, 400, 0.50, 0.0, replication.DIFFERS),  # the 95 % interval of the difference is 6.9 points
        (0.60, 100, 0.50, 0.0, replication.REPRODUCED),  # with 100 images it is 10.8
        (0.70, 400, 0.50, 0.17, replication.SCALED),
        (0.70, 400, 0.50, 0.10, replication.DIFFERS),
        (0.0, 400, 0.04, 0.0, replication.REPRODUCED),
        (1.0, 400, 1.0, 0.0, replication.REPRODUCED),
    ],
)
def test_shares_are_judged_by_points_and_sampling(ours, images, theirs, common, kind):
    assert replication.of_share(ours, images, theirs, 400, common).kind == kind


def test_parameters_columns_and_slopes():
    assert replication.of_parameter(15, 10).kind == replication.REPRODUCED
    assert replication.of_parameter(16, 10).kind == replication.DIFFERS
    assert replication.of_parameter(16, 10, "a misprint").kind == replication.NOT_REPRODUCIBLE
    assert replication.common_factor([2, 8, 4]) == pytest.approx(4)
    assert replication.common_factor([2, 8]) == pytest.approx(4)
    assert replication.common_factor([math.nan]) == 1
    assert replication.common_shift([0.1, 0.3, math.nan]) == pytest.approx(0.2)
    radii = [0.25, 0.5, 1.0]
    assert replication.exponent(radii, [7 * r**3 for r in radii]) == pytest.approx(3)
    assert math.isnan(replication.exponent([1.0], [1.0]))
    means = {"a": 1.1, "b": 1.0}
    assert replication.lowest_or_tied(means, {"a": 0.1, "b": 0.0}, "a")
    assert not replication.lowest_or_tied(means, {"a": 0.05, "b": 0.0}, "a")
    assert not replication.lowest_or_tied(means, {"a": math.nan, "b": 0.0}, "a")


def page():
    spec = spec_from_file_location("replication_page", ROOT / "docs/replication.py")
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RADII = (0.25, 0.5, 1.0)
METHODS = ("SH+SG", "SG", "SP H+G", "SP G", "G")


def fidelity_table(factor):
    """Their means times a factor, but a G that is exact to first order, and an SP G twenty times worse."""
    rows = []
    for law, radius, method in ((a, r, m) for a in ("paper", "ball") for r in RADII for m in METHODS):
        printed = published_fidelity.cell("mnist", "predicted_logit", method, radius, "paper", "mlp")
        mean = {"G": 6e-3 * radius**3, "SP G": 20 * factor * printed.mean}.get(method, factor * printed.mean)
        theirs = published_fidelity.cell("mnist", "predicted_logit", method, radius, law, "mlp")
        sigma = {"paper": 0.75, "ball": 1.0}[law] * radius / 28
        kind, value = (
            ("sigma", sigma) if method.startswith("S") and "P" not in method else ("beta", 100 / radius)
        )
        rows.append(
            {
                "scalar": "predicted_logit", "method": method, "radius": radius, "law": law, "images": 200,
                "covariance": "isotropic" if kind == "sigma" else "none",
                "mean": mean * (4 if law == "ball" else 1), "standard_deviation": mean,
                "standard_error": mean / 10, "parameter": "" if method == "G" else kind,
                "parameter_value": math.nan if method == "G" else value, "paper_mean": theirs.mean,
                "paper_standard_deviation": theirs.standard_deviation,
                "paper_parameter_value": theirs.parameter,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def attack_table():
    rows = []
    for method in ("SH+SG", "SG", "G", "Random"):
        for size in (0.25, 1.25):
            theirs = published_attacks.accuracy("mnist", method, size)
            ours = {"Random": theirs, "G": min(1, theirs + 0.4)}.get(method, theirs + 0.01)
            rows.append(
                {
                    "method": method, "epsilon": size, "images": 400, "post_hoc_accuracy": ours,
                    "ci_low": max(0, ours - 0.04), "ci_high": min(1, ours + 0.04), "parameter": "",
                    "parameter_value": math.nan, "paper_accuracy": theirs,
                    "paper_images": 400, "paper_parameter_value": math.nan,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "results"
    tables = folder / "tables/mnist"
    tables.mkdir(parents=True)
    fidelity_table(5.0).to_parquet(tables / "fidelity.parquet")
    attack_table().to_parquet(tables / "attacks.parquet")
    model = {"dataset": "digits", "architecture": "mlp", "parameters": {"hidden": [8, 8]}}
    settings = {
        "seed": 3, "datasets": {"digits": {"source": "mnist"}}, "models": {"net": model},
        "experiments": {"mnist": {"model": "net"}},
    }  # fmt: skip
    store.save_json(folder / "report/run.json", {"config": settings, "device": "a machine", "versions": {}})
    store.save_json(folder / "models/net/model.json", model | {"test_accuracy": 0.98})
    return folder


def test_the_page_gives_each_cell_its_verdict(run, tmp_path):
    out = tmp_path / "page.md"
    assert page().main(["--results", str(run), "--output", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert "python docs/replication.py --results" in text
    assert "| mnist | mnist | mlp, 8-8 | 98.0% | 200 | 400 | a machine | 3 |" in text
    (smooth,) = [
        line for line in lines if line.startswith("| SH+SG | 0.25 | 9.6×10⁻⁷ | 4.8×10⁻⁶ ± 4.8×10⁻⁷ | 5 |")
    ]
    assert "reproduced up to scale: all methods of this column are 5 times higher here" in smooth
    (worse,) = [line for line in lines if line.startswith("| SP G | 0.25 | 4.6×10⁻⁶ | 4.6×10⁻⁴")]
    assert "| differs: 20 times higher" in worse
    gradients = [line for line in lines if line.startswith("| G | 0.25 | 0.0042 |")]
    assert "not reproducible" in gradients[0]
    # Ratios within a column do not depend on the network's scale.
    (ratio,) = [line for line in lines if line.startswith("| mnist | class logit | 0.25 | 1 : 1.2 : 4.7 |")]
    assert "| 1 : 1.2 : 4.7 | 1.00 | 1.00 | reproduced |" in ratio
    assert "3 of 3 cells" in text
    # The errors are stated with numbers from the tables.
    assert "as ε^2.00 in the paper and as ε^3.00 in ours" in text
    assert "4.0 times" in text
    assert max(map(len, lines)) < 400


def test_attacks_are_judged_beside_their_column(run, tmp_path):
    out = tmp_path / "page.md"
    page().main(["--results", str(run), "--output", str(out)])
    lines = out.read_text(encoding="utf-8").splitlines()
    (smooth,) = [line for line in lines if line.startswith("| SH+SG | 1.25 | 10.5% | 11.5% (7.5–15.5)")]
    assert smooth.endswith("| reproduced |")
    (gradient,) = [line for line in lines if line.startswith("| G | 1.25 | 18.5% | 58.5%")]
    assert "differs: 39 points higher" in gradient


def test_without_results_the_page_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="no experiment with a fidelity or attacks table"):
        page().main(["--results", str(tmp_path), "--output", str(tmp_path / "page.md")])
    assert not (tmp_path / "page.md").exists()


def test_the_page_in_the_repository_is_of_this_generator():
    text = (ROOT / "docs/replication.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[0] == "## Runs"
    assert "## Errors found in the paper" in headings
