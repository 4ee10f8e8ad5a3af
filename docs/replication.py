"""Write docs/replication.md: what Torop et al. 2023 print, what finished runs gave, a verdict on each cell.

    python docs/replication.py --results results [ELSEWHERE/results ...] [--device NAME] [--output FILE]

Reads the tables `fidelity` and `attacks` of every experiment in the given folders, and `report/run.json` for
the data set, network and machine. The rules of the verdicts are in curvelens.summaries.replication.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from curvelens.figures.wording import MISSING, number, percent, plain  # noqa: E402
from curvelens.summaries import published_fidelity, replication  # noqa: E402

if TYPE_CHECKING:
    import pandas as pd

SCALARS = {"predicted_logit": "class logit", "inner_neuron": "inner neuron"}
METHODS = ("SH+SG", "SG", "SP H+G", "SP G", "SW H+G", "SW G", "H+G", "G", "Random")
PARTS = ("means (Tables 1, 5, 7)", "deviations (Tables 6, 7)", "parameters (Tables 3, 7)")
ATTACKS = ("post-hoc accuracy (Tables 2, 8)", "parameters of attacks (Table 4)")
RATIOS = "ratios SH+SG : SP H+G : SG (Table 1)"


@dataclass
class Run:
    """One experiment of one folder of results.

    Attributes:
        name: Key of the experiment.
        source, architecture, network: Its data set and network, empty where the folder does not say.
        facts: Cells of its row in the table of runs.
        fidelity, attacks: Its tables; None where the stage did not run.
    """

    name: str
    source: str
    architecture: str
    network: str
    facts: dict[str, str]
    fidelity: pd.DataFrame | None
    attacks: pd.DataFrame | None


@dataclass
class Page:
    """The page as it grows, with a count of its verdicts."""

    lines: list[str] = field(default_factory=list)
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, *lines: str) -> None:
        self.lines.extend(lines)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self.add("", row(head), row(["---"] * len(head)), *map(row, rows), "")

    def judged(self, part: str, verdict: replication.Verdict) -> str:
        self.verdicts.setdefault(part, Counter())[verdict.kind] += 1
        return f"{verdict.kind}: {verdict.reason}" if verdict.reason else verdict.kind


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# ---------------------------------------------------------------- what was run


def runs(folders: Sequence[Path], device: str | None) -> list[Run]:
    """Return every experiment with one of the two tables, in the order of the folders."""
    found = []
    for folder in folders:
        path = folder / "report/run.json"
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for tables in sorted(path for path in (folder / "tables").glob("*") if path.is_dir()):
            read = {name: _read(tables / f"{name}.parquet") for name in ("fidelity", "attacks")}
            if any(table is not None for table in read.values()):
                found.append(_run(folder, tables.name, told, device, read))
    return found


def _read(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    return pd.read_parquet(path) if path.is_file() else None


def _run(folder: Path, name: str, told: dict[str, Any], device: str | None, tables: dict[str, Any]) -> Run:
    config = told.get("config", {})
    model_name = config.get("experiments", {}).get(name, {}).get("model", "")
    model = config.get("models", {}).get(model_name, {})
    source = config.get("datasets", {}).get(model.get("dataset"), {}).get("source", "")
    parameters = model.get("parameters", {})
    architecture = str(parameters.get("model", model.get("architecture", "")))
    size = "-".join(map(str, parameters.get("hidden", []))) or (
        f"depth {parameters['depth']}" if "depth" in parameters else ""
    )
    network = ", ".join(filter(None, [architecture, size, "given weights" if model.get("weights") else ""]))
    description = folder / "models" / model_name / "model.json"
    known = json.loads(description.read_text(encoding="utf-8")) if description.is_file() else {}
    images = {key: _images(table) for key, table in tables.items()}
    facts = {
        "experiment": name,
        "data set": source or MISSING,
        "network": network or MISSING,
        "test accuracy": percent(known.get("test_accuracy"), 1),
        "images, P_MSE": images["fidelity"],
        "images, attacks": images["attacks"],
        "device": device or told.get("device", MISSING),
        "seed": str(config.get("seed", MISSING)),
    }
    return Run(name, source, architecture, network, facts, tables["fidelity"], tables["attacks"])


def _images(table: pd.DataFrame | None) -> str:
    return MISSING if table is None else ", ".join(str(int(n)) for n in sorted(table["images"].unique()))


# ---------------------------------------------------------------- P_MSE


def comparable(run: Run) -> pd.DataFrame | None:
    """Return the rows that the paper has a number for: its law of the radius, equal noise in all features."""
    if run.fidelity is None:
        return None
    table = run.fidelity[run.fidelity["paper_mean"].notna() & (run.fidelity["law"] == "paper")]
    table = table[table["covariance"] != "per_feature"] if "covariance" in table else table
    table = table[table["covariance"] != "full"] if "covariance" in table else table
    return table if len(table) else None


def doubt(run: Run, scalar: str, method: str, radius: float, column: str) -> str:
    """Return why a printed number is not to be believed; empty where nothing speaks against it."""
    deviation = column == "standard_deviation"
    if method == "G" and column in ("mean", "standard_deviation"):
        return "the printed row grows as ε², the error of a gradient cannot"
    misprint = "mnist" in run.source and "fashion" not in run.source and scalar == "predicted_logit"
    if deviation and misprint and method == "SG" and radius == 1:
        return "a misprint for 7.1e-4"
    if column == "parameter_value" and "resnet101" in run.architecture and radius == 0.5:
        return "a misprint for 4.6e-5" if method in ("SH+SG", "SG") else ""
    return ""


def ordered(table: pd.DataFrame) -> Iterator[Any]:
    """Yield rows by method, in the order of the paper, and radius."""
    for method in METHODS:
        yield from table[table["method"] == method].sort_values("radius").itertuples()


def fidelity(page: Page, run: Run, table: pd.DataFrame) -> None:
    """Add three tables for each function: means, deviations, parameters."""
    for scalar in [name for name in SCALARS if name in set(table["scalar"])]:
        rows = table[table["scalar"] == scalar]
        where = published_fidelity.table(run.source, run.architecture)
        page.add(f"### {run.name}: {SCALARS[scalar]}", "")
        page.add(f"{run.network or 'Network unknown'}; printed in {where}.")
        means = _errors(page, run, rows, scalar, "mean", PARTS[0])
        page.table(["method", "ε", "printed mean", "ours ± standard error", "ratio", "verdict"], means)
        page.add("<details><summary>Deviations over images, and chosen parameters</summary>", "")
        spread = _errors(page, run, rows, scalar, "standard_deviation", PARTS[1])
        page.table(["method", "ε", "printed deviation", "ours", "ratio", "verdict"], spread)
        page.table(
            ["method", "ε", "printed", "ours", "ratio", "verdict"], _parameters(page, run, rows, scalar)
        )
        page.add("</details>", "")


def _errors(page: Page, run: Run, rows: pd.DataFrame, scalar: str, column: str, part: str) -> list[list[str]]:
    rows = rows[rows[f"paper_{column}"].notna() & (rows[column] > 0)]
    sound = rows[
        [not doubt(run, scalar, m, r, column) for m, r in zip(rows["method"], rows["radius"], strict=True)]
    ]
    common = {
        radius: replication.common_factor(part_[column] / part_[f"paper_{column}"])
        for radius, part_ in sound.groupby("radius")
    }
    made = []
    for cell in ordered(rows):
        ours, theirs = getattr(cell, column), getattr(cell, f"paper_{column}")
        reason = doubt(run, scalar, cell.method, cell.radius, column)
        verdict = replication.of_error(ours, theirs, common.get(cell.radius, 1.0), reason)
        shown = number(ours) + (f" ± {number(cell.standard_error)}" if column == "mean" else "")
        made.append(
            [
                cell.method,
                plain(cell.radius),
                number(theirs),
                shown,
                f"{ours / theirs:.3g}",
                page.judged(part, verdict),
            ]
        )
    return made


def _parameters(page: Page, run: Run, rows: pd.DataFrame, scalar: str) -> list[list[str]]:
    made = []
    for cell in ordered(rows[rows["paper_parameter_value"].notna()]):
        ours, theirs = cell.parameter_value, cell.paper_parameter_value
        verdict = replication.of_parameter(
            ours, theirs, doubt(run, scalar, cell.method, cell.radius, "parameter_value")
        )
        name = "σ" if cell.parameter == "sigma" else "β"
        told = [f"{name} = {value:.3g}" for value in (theirs, ours)]
        made.append(
            [cell.method, plain(cell.radius), *told, f"{ours / theirs:.2g}", page.judged(PARTS[2], verdict)]
        )
    return made


def ratios(page: Page, found: Sequence[tuple[Run, pd.DataFrame]]) -> None:
    """Add how the second-order models compare, which a network's scale does not change."""
    made, lowest, cells = [], 0, 0
    for run, table in found:
        for (scalar, radius), part in table.groupby(["scalar", "radius"], sort=False):
            rows = part.set_index("method")
            if not {"SH+SG", "SP H+G", "SG"} <= set(rows.index):
                continue
            ours, theirs = (rows[name] / rows.loc["SH+SG", name] for name in ("mean", "paper_mean"))
            factors = [ours[name] / theirs[name] for name in ("SP H+G", "SG")]
            worst = max(factors, key=lambda factor: abs(replication.math.log(factor)))
            within = all(1 / replication.RATIO_BAND <= f <= replication.RATIO_BAND for f in factors)
            verdict = replication.Verdict(
                replication.REPRODUCED if within else replication.DIFFERS,
                "" if within else f"off by a factor {worst:.2g} at most",
            )
            made.append(
                [run.name, SCALARS.get(str(scalar), str(scalar)), plain(radius)]
                + [f"1 : {values['SP H+G']:.2g} : {values['SG']:.2g}" for values in (theirs, ours)]
                + [f"{factor:.2f}" for factor in factors]
                + [page.judged(RATIOS, verdict)]
            )
            cells += 1
            errors = rows["standard_error"].to_dict()
            lowest += replication.lowest_or_tied(rows["mean"].to_dict(), errors, "SH+SG")
    if made:
        page.add("## Ratios within Table 1", "")
        page.add(
            "SH+SG : SP H+G : SG, and the factors of ours against the paper's for SP H+G and SG; "
            f"reproduced if both are within {replication.RATIO_BAND:g}. SH+SG is lowest, or tied within its "
            f"standard error, in {lowest} of {cells} cells; the paper has it lowest in all 18."
        )
        head = ["experiment", "function", "ε", "printed", "ours", "SP H+G", "SG", "verdict"]
        page.table(head, made)


# ---------------------------------------------------------------- attacks


def attacks(page: Page, run: Run) -> None:
    """Add post-hoc accuracy and the parameters chosen."""
    table = run.attacks
    if table is None or not table["paper_accuracy"].notna().any():
        return
    rows = table[table["paper_accuracy"].notna()]
    difference = rows["post_hoc_accuracy"] - rows["paper_accuracy"]
    common = difference[rows["method"] != "Random"].groupby(rows["epsilon"]).apply(replication.common_shift)
    made, chosen = [], []
    for cell in ordered(rows.rename(columns={"epsilon": "radius"})):
        verdict = replication.of_share(
            cell.post_hoc_accuracy, int(cell.images), cell.paper_accuracy,
            int(cell.paper_images),
            0.0 if cell.method == "Random" else float(common.get(cell.radius, 0.0)),
        )  # fmt: skip
        interval = f"({100 * cell.ci_low:.1f}–{100 * cell.ci_high:.1f})"
        head = [cell.method, plain(cell.radius)]
        shown = [percent(cell.paper_accuracy, 1), f"{percent(cell.post_hoc_accuracy, 1)} {interval}"]
        made.append([*head, *shown, page.judged(ATTACKS[0], verdict)])
        if cell.paper_parameter_value == cell.paper_parameter_value:
            values = (cell.paper_parameter_value, cell.parameter_value)
            same = replication.of_parameter(values[1], values[0])
            symbol = "σ²" if cell.parameter == "sigma_squared" else "β"
            chosen.append(
                [*head, *(f"{symbol} = {value:.3g}" for value in values), page.judged(ATTACKS[1], same)]
            )
    page.add(
        f"### {run.name}: attacks", "", f"{run.network or 'Network unknown'}; printed in Tables 2, 8 and 4."
    )
    page.table(["attack", "ε", "printed", "ours (95 % interval)", "verdict"], made)
    if chosen:
        page.add("<details><summary>Chosen parameters</summary>", "")
        page.table(["attack", "ε", "printed", "ours", "verdict"], chosen)
        page.add("</details>", "")


# ---------------------------------------------------------------- errors


def errors(page: Page, all_runs: Sequence[Run], found: Sequence[tuple[Run, pd.DataFrame]]) -> None:
    """Add what the paper gets wrong, with the evidence in it and in our tables."""
    page.add("## Errors found in the paper", "")
    page.add("What can be told from the paper itself:", "")
    for erratum in published_fidelity.ERRATA:
        page.add(
            f"- **Table {erratum.table}, {erratum.cell}.** Printed: {erratum.printed}. Likely: "
            f"{erratum.likely or 'unknown'}. {erratum.evidence[0].upper()}{erratum.evidence[1:]}."
        )
    page.add("", "What our tables add:", "")
    told = [*_gradient(found), *_laws(all_runs), *_truncation(all_runs)]
    page.add(*(told or ["- Nothing: these runs have no counterpart to the cells in question."]), "")


def _gradient(found: Sequence[tuple[Run, pd.DataFrame]]) -> Iterator[str]:
    for run, table in found:
        for scalar, part in table.groupby("scalar", sort=False):
            rows = part[part["method"] == "G"].sort_values("radius")
            smooth = part[part["method"] == "SG"].set_index("radius").reindex(rows["radius"])
            if len(rows) < 2 or smooth["mean"].isna().any():
                continue
            powers = [
                replication.exponent(list(rows["radius"]), list(rows[name]))
                for name in ("paper_mean", "mean")
            ]
            beside = [
                ", ".join(number(ratio, 3) for ratio in rows[name].to_numpy() / smooth[name].to_numpy())
                for name in ("paper_mean", "mean")
            ]
            yield (
                f"- **Row G**, {run.name}, {SCALARS[str(scalar)]}: the error of the plain "
                f"gradient grows as ε^{powers[0]:.2f} in the paper and as ε^{powers[1]:.2f} in ours; it is "
                f"{beside[0]} times that of SG in the paper and {beside[1]} times in ours."
            )


def _laws(all_runs: Sequence[Run]) -> Iterator[str]:
    for run in all_runs:
        table = run.fidelity
        if table is None or set(table["law"]) != {"ball", "paper"}:
            continue
        keys = [key for key in ("scalar", "method", "covariance", "radius") if key in table]
        means = table.pivot_table("mean", keys, "law").dropna()
        chosen = table[table["method"] == "SH+SG"].assign(
            unit=lambda rows: rows["parameter_value"] / rows["radius"]
        )
        units = chosen.groupby("law")["unit"].median()
        yield (
            f"- **Radius law**, {run.name}: perturbations uniform in the ball, as the text says, give an "
            f"error {(means['ball'] / means['paper']).median():.1f} times (median over {len(means)} cells) "
            "that of a uniform radius, as the code draws it. The best σ of SH+SG is "
            f"{units['ball'] / units['paper']:.2f} times as large."
        )


def _truncation(all_runs: Sequence[Run]) -> Iterator[str]:
    for run in all_runs:
        if run.attacks is None:
            continue
        share = run.attacks.set_index(["method", "epsilon"])["post_hoc_accuracy"]
        pairs = [
            (m, e)
            for m, e in share.index
            if m.endswith(" truncated") and (m[: -len(" truncated")], e) in share
        ]
        for method in dict.fromkeys(method for method, _ in pairs):
            exact = method.removesuffix(" truncated")
            gaps = {e: share[method, e] - share[exact, e] for m, e in pairs if m == method}
            size = max(gaps, key=lambda epsilon: abs(gaps[epsilon]))
            yield (
                f"- **Truncated steps**, {run.name}, {exact}: minimised over the leading eigenvectors alone, "
                f"as published, the attack leaves {percent(share[method, size], 1)} of predictions at "
                f"ε = {plain(size)}, where the two differ most, the exact step "
                f"{percent(share[exact, size], 1)}."
            )


# ---------------------------------------------------------------- the page


def counterparts() -> int:
    """Return how many means the paper prints in Tables 5 and 7."""
    networks = [("mnist", ""), ("fashion_mnist", ""), ("cifar10", ""), ("cifar10", "resnet101")]
    cells = (
        published_fidelity.cell(source, scalar, method, radius, "paper", network).mean
        for source, network in networks
        for scalar in SCALARS
        for method in METHODS
        for radius in (0.25, 0.5, 1.0)
    )
    return sum(mean == mean for mean in cells)


def write(all_runs: Sequence[Run], command: str) -> str:
    """Return the page."""
    body = Page()
    found = [(run, table) for run in all_runs if (table := comparable(run)) is not None]
    if found:
        body.add("## P_MSE: Tables 1, 5, 6, 3 and 7", "")
        for run, table in found:
            fidelity(body, run, table)
        ratios(body, found)
    if any(run.attacks is not None for run in all_runs):
        body.add("## Attacks: Tables 2, 8 and 4", "")
        for run in all_runs:
            attacks(body, run)
    errors(body, all_runs, found)
    head = Page()
    head.add("# Replication of Torop et al. 2023", "", "<!-- Generated; written anew by")
    head.add(f"     {command} -->", "")
    head.add(
        "Every number that [Torop et al. 2023](https://arxiv.org/abs/2311.00858) print and that these runs",
        "have a counterpart to, ours beside it, and a verdict by rule. Written by",
        "",
        f"    {command}",
        "",
    )
    head.add("## Runs")
    head.table(list(all_runs[0].facts), [list(run.facts.values()) for run in all_runs])
    _summary(head, body, sum(len(table) for _, table in found))
    return "\n".join([*head.lines, *body.lines]).rstrip() + "\n"


def _summary(head: Page, body: Page, cells: int) -> None:
    head.add("## Verdicts", "")
    head.add(*(f"- **{kind}**: {rule}." for kind, rule in replication.RULES.items()))
    rows = [
        [part, *(str(counted[kind]) for kind in replication.KINDS), str(sum(counted.values()))]
        for part, counted in body.verdicts.items()
    ]
    head.table(["printed numbers", *replication.KINDS, "all"], rows)
    head.add(
        f"Of {counterparts()} means printed in Tables 5 and 7 (Table 1 is a part of Table 5) these runs have",
        f"a counterpart to {cells}.",
        "",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--results", type=Path, nargs="+", default=[Path("results")])
    parser.add_argument("--device", help="what the runs were made on, where run.json does not say it rightly")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/replication.md")
    chosen = parser.parse_args(arguments)
    all_runs = runs(chosen.results, chosen.device)
    if not all_runs:
        sys.exit(
            "replication: no experiment with a fidelity or attacks table in "
            f"{', '.join(map(str, chosen.results))}; finish a run first"
        )
    device = f" --device {chosen.device!r}" if chosen.device else ""
    command = f"python docs/replication.py --results {' '.join(map(str, chosen.results))}{device}"
    chosen.output.write_text(write(all_runs, command), encoding="utf-8")
    print(f"wrote {chosen.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
