"""Figures draw on whatever a run gives, and what they say follows from the tables in both directions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluation_world
import interactions_world
import judgement_world
import matplotlib
import numpy as np
import pandas as pd
import path_world
import pytest
import report_world as world
import sparsity_world
import spirometry_world
import theorems_world
from matplotlib.colors import to_hex
from scipy.stats import spearmanr

from curvelens import figures
from curvelens.errors import ConfigError, DataError
from curvelens.figures import (
    attacks,
    distances,
    explanations,
    fidelity,
    fidelity_ratios,
    maps,
    regions,
    spectra,
    style,
    wording,
)
from curvelens.figures.inputs import load, read_table
from curvelens.summaries import trust
from curvelens.summaries.complexity import rates

NAMES = [spec.name for spec in figures.specs()]
CHARTS = [spec.name for spec in figures.specs() if spec.suffix == ".svg"]
EMPTY_FIDELITY, EMPTY_ATTACKS = world.fidelity().head(0), world.attacks().head(0)
TRUST = trust.summarise(world.trust_images())


def tables(n: int = 8, failed: int = 0, **replaced: Any) -> dict[str, Any]:
    spectra_table = world.spectra(n, failed)
    made = {
        "spectra": spectra_table,
        "eigenvalues": world.eigenvalues(spectra_table),
        "spectra_sweep": world.spectra_sweep(n, failed if failed < n else 7 * n),
        "distances": world.distances(n, failed),
        "fidelity": world.fidelity(),
        "attacks": world.attacks(),
        "attacks_images": world.attacks_images(n, failed),
        "attacks_paired": world.attacks_paired(),
        "trust_images": world.trust_images(n, failed),
        "trust": TRUST.head(0) if failed > n else trust.summarise(world.trust_images(n, failed)),
        "history": world.history().assign(model="relu"),
        "path": path_world.table(),
        "complexity": world.complexity(),
        "complexity_rates": rates(world.complexity()),
        "sparsity": sparsity_world.table(),
        **evaluation_world.made(n=0 if failed > n else 500),
        **judgement_world.tables(n, failed),
        **interactions_world.tables(),
        **spirometry_world.tables(),
        **theorems_world.tables(),
    }
    return {**made, **replaced}


def no_paper(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{name: np.nan for name in frame if name.startswith("paper_")})


def one_size(paired: pd.DataFrame) -> pd.DataFrame:
    return paired[(paired["epsilon"] == 0.5) & (paired["other"] != "PGD")]


CASES: dict[str, tuple[Any, list[str]]] = {
    "one image": (
        lambda: tables(1),
        [
            "spectra",
            "spectra_classes",
            "spectra_sharpness",
            "regions",
            "distances",
            "attacks",
            "trust",
            "judging",
        ],
    ),
    "one failure": (
        lambda: tables(6, failed=1),
        [
            "spectra",
            "spectra_classes",
            "spectra_sharpness",
            "regions",
            "distances",
            "attacks",
            "trust",
            "judging",
        ],
    ),
    "failures only": (
        lambda: tables(3, failed=1000, fidelity=EMPTY_FIDELITY, attacks=EMPTY_ATTACKS),
        [name for name in CHARTS if name not in ("training", "complexity", "interactions")],
    ),
    "no numbers of the paper": (
        lambda: tables(fidelity=no_paper(world.fidelity()), attacks=no_paper(world.attacks())),
        ["fidelity", "fidelity_ratios", "attacks"],
    ),
    "nothing to compare": (
        lambda: tables(attacks_paired=world.attacks_paired().head(0)),
        ["attacks", "attack_gaps"],
    ),
    "one size without a bound": (
        lambda: tables(attacks_paired=one_size(world.attacks_paired())),
        ["attacks", "attack_gaps"],
    ),
    "one epoch": (lambda: tables(history=world.history().head(1).assign(model="relu")), ["training"]),
    "one value for all": (
        lambda: tables(
            distances=world.distances().assign(confidence=1.0, distance=0.0, kantorovich_bound=0.0),
            fidelity=world.fidelity().assign(
                mean=0.0, standard_error=np.nan, paper_mean=np.nan, ratio=np.nan, ratio_standard_error=np.nan
            ),
            attacks=world.attacks().assign(post_hoc_accuracy=1.0),
        ),
        ["distances", "fidelity", "fidelity_ratios", "attacks", "overview"],
    ),
    "nothing measured": (
        lambda: tables(
            spectra=world.spectra().assign(
                region_radius=np.nan,
                regions_crossed=np.nan,
                largest_gradient_jump=np.nan,
                gradient_change=np.nan,
            ),
            distances=world.distances().assign(kantorovich_bound=np.nan),
            attacks_images=world.attacks_images().assign(predicted_decrease=np.nan),
        ),
        ["regions", "distances", "attacks"],
    ),
    "a method of its own": (
        lambda: tables(
            fidelity=world.fidelity().replace({"method": {"SP G": "$wish"}}),
            attacks=world.attacks().replace({"method": {"SP G": "$wish"}}),
        ),
        ["fidelity", "fidelity_ratios", "attacks", "overview"],
    ),
    "several covariances": (
        lambda: tables(
            fidelity=pd.concat(
                [world.fidelity(), world.fidelity().query("method == 'SG'").assign(covariance="full")],
                ignore_index=True,
            )
        ),
        ["fidelity", "fidelity_ratios"],
    ),
}


def reads_well(*texts: str) -> bool:
    return not any(re.search(r"\b(nan|None|NaN|inf)\b|  ", text) for text in texts)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("case", "name"), [(case, name) for case in CASES for name in CASES[case][1]])
def test_draws_without_a_warning(case: str, name: str, tmp_path: Path) -> None:
    paths = {}
    for table, frame in CASES[case][0]().items():
        paths[table] = tmp_path / f"{table}.parquet"
        frame.to_parquet(paths[table])
    read, spec = load(paths), figures.get(name)
    with matplotlib.rc_context(style.RC):
        spec.draw(read, style.NARROW).draw_without_rendering()
    assert reads_well(spec.caption(read), spec.alt(read), spec.finding(read) if spec.finding else "")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CHARTS)
def test_writes_a_page_a_telephone_and_the_texts(name: str, tmp_path: Path) -> None:
    paths = {}
    for table, frame in tables().items():
        paths[table] = tmp_path / f"{table}.parquet"
        frame.to_parquet(paths[table])
    output = tmp_path / "drawn" / f"{name}.svg"
    files = figures.draw(name, paths, output)
    assert files == figures.outputs(output)
    assert sorted((tmp_path / "drawn").iterdir()) == sorted(files)
    # Letters are outlines, so that the figure looks the same without the font.
    assert all(b"<svg" in file.read_bytes() and b"<text" not in file.read_bytes() for file in files[:2])
    texts = json.loads(files[2].read_text())
    assert set(texts) == {"name", "caption", "alt", "finding", "wide", "narrow"}
    assert reads_well(texts["caption"], texts["alt"], texts["finding"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n", "channels", "failed"), [(9, 1, 0), (1, 1, 0), (3, 3, 0), (4, 1, 1), (4, 1, 4)])
def test_gallery_draws(n: int, channels: int, failed: int, tmp_path: Path) -> None:
    inputs: dict[str, Any] = world.explanations(tmp_path, n, channels, failed)
    files = figures.draw("explanations", inputs, tmp_path / "explanations.png")
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files[:2])


def test_gallery_shows_errors_and_both_ends_of_confidence(tmp_path: Path) -> None:
    loaded = load(world.explanations(tmp_path, 9))
    shown = explanations.chosen(loaded)
    everything = loaded["explanations"].drop_duplicates("image_id")
    right = everything[everything["label"] == everything["prediction"]]
    assert len(shown) == explanations.SHOWN
    assert set(shown["image_id"]) >= {
        *everything[everything["label"] != everything["prediction"]]["image_id"],
        right.loc[right["confidence"].idxmax(), "image_id"],
        right.loc[right["confidence"].idxmin(), "image_id"],
    }
    assert shown["confidence"].is_monotonic_decreasing


def test_signed_maps_are_centred_and_magnitudes_start_at_zero(tmp_path: Path) -> None:
    figure = explanations.draw(load(world.explanations(tmp_path, 3)), style.WIDE)
    drawn = [axes.images[0] for axes in figure.axes]
    signed = [image for image in drawn if image.get_cmap() == matplotlib.colormaps.get_cmap(maps.SIGNED)]
    others = [image for image in drawn if image.get_cmap() == matplotlib.colormaps.get_cmap(maps.MAGNITUDE)]
    assert len(signed) == 2 * len(others) == 6
    assert all((image.norm.vmin, image.norm.vmax) == (0, 1) for image in signed + others)
    values = np.array([[-2.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(maps.scaled(values, True, largest=2), [[0, 0.5], [0.75, 1]])
    np.testing.assert_allclose(maps.scaled(values, False, largest=2), [[0, 0], [0.5, 1]])
    # The middle of the one scale and the start of the other are where nothing is said: white.
    for colours, nothing in ((maps.SIGNED, 0.5), (maps.MAGNITUDE, 0.0)):
        assert min(matplotlib.colormaps.get_cmap(colours)(nothing)) > 0.95


def test_gallery_names_classes_and_reads_them_as_text(tmp_path: Path) -> None:
    inputs: dict[str, Any] = world.explanations(tmp_path, 3)
    names = ["$5 <b>", "^_{", "c", "d"]
    inputs["models"] = [world.write_json(tmp_path / "model.json", {"class_names": names})]
    files = figures.draw("explanations", inputs, tmp_path / "explanations.png")
    assert "^_{ taken for c" in files[2].read_text()


def test_maps_of_other_images_are_refused(tmp_path: Path) -> None:
    inputs: dict[str, Any] = world.explanations(tmp_path, 4)
    inputs["maps"] = inputs["maps"][:1]
    with pytest.raises(DataError, match="not among its maps"):
        figures.draw("explanations", inputs, tmp_path / "explanations.png")


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_called_like_its_module(name: str) -> None:
    # The workflow computes what a figure depends on from the module of that name.
    assert figures.get(name).draw.__module__ == f"curvelens.figures.{name}"


def test_the_registry_costs_no_heavy_import() -> None:
    code = (
        "import sys; from curvelens import figures; figures.specs();"
        "print([name for name in ('torch', 'pandas', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_figure_and_missing_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown figure 'spectr'.*did you mean spectra"):
        figures.get("spectr")
    with pytest.raises(DataError, match="figure spectra: no input 'spectra'"):
        figures.draw("spectra", {}, tmp_path / "spectra.svg")
    with pytest.raises(DataError, match=r"gone\.parquet: no such table"):
        figures.draw("distances", {"distances": tmp_path / "gone.parquet"}, tmp_path / "distances.svg")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"bad\.parquet: not readable as parquet"):
        figures.draw("distances", {"distances": tmp_path / "bad.parquet"}, tmp_path / "distances.svg")
    pd.DataFrame({"image_id": ["a"]}).to_parquet(tmp_path / "thin.parquet")
    with pytest.raises(DataError, match=r"figure distances: .*confidence"):
        figures.draw("distances", {"distances": tmp_path / "thin.parquet"}, tmp_path / "distances.svg")
    assert not list(tmp_path.glob("*.svg"))


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    world.distances().to_parquet(tmp_path / "distances.parquet")
    drawn = [
        figures.draw("distances", {"distances": tmp_path / "distances.parquet"}, tmp_path / str(i) / "d.svg")
        for i in range(2)
    ]
    assert [file.read_bytes() for file in drawn[0]] == [file.read_bytes() for file in drawn[1]]


def test_histories_are_told_apart_by_folder(tmp_path: Path) -> None:
    for model in ("relu", "softplus"):
        (tmp_path / model).mkdir()
        world.history().to_parquet(tmp_path / model / "history.parquet")
    read = read_table([tmp_path / model / "history.parquet" for model in ("relu", "softplus")])
    assert read.groupby("model").size().to_dict() == {"relu": 10, "softplus": 10}


# What is drawn is what the tables say.


def test_every_image_is_a_point_at_its_confidence_and_distance() -> None:
    made = tables(30)
    _, axes = style.panels(style.WIDE, 1)
    distances.panel(axes[0], made)
    drawn = np.concatenate([np.column_stack(line.get_data()) for line in axes[0].lines])
    rows = made["distances"]
    expected = np.column_stack([1 - rows["confidence"], rows["distance"]])
    assert drawn[np.lexsort(drawn.T)] == pytest.approx(expected[np.lexsort(expected.T)])


def test_accuracy_lines_carry_their_intervals() -> None:
    _, axes = style.panels(style.WIDE, 1)
    attacks.panel(axes[0], {"attacks": world.attacks()})
    rows = world.attacks()
    for container in axes[0].containers:
        line, _, (bars,) = container.lines
        mine = rows[rows["method"] == container.get_label()].sort_values("epsilon")
        assert line.get_ydata() == pytest.approx(mine["post_hoc_accuracy"].to_numpy())
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        assert ends == pytest.approx(mine[["ci_low", "ci_high"]].to_numpy())
    labels = {container.get_label() for container in axes[0].containers}
    assert labels == {name for name in world.ATTACKS if not name.endswith("truncated")}


def test_methods_differ_in_more_than_colour() -> None:
    looks = {name: (mark.marker, mark.line, mark.filled) for name, mark in style.METHODS.items()}
    assert len(set(looks.values())) == len(looks)
    colours = {to_hex(mark.colour) for mark in style.METHODS.values()}
    assert len(colours) == 6  # one for each family: smoothed, SoftPlus, Swish, plain, chance, bound


def test_rank_correlation_agrees_with_scipy() -> None:
    rows = world.distances(50).assign(distance=np.random.default_rng(2).uniform(size=50).round(1))
    assert distances.rank_correlation(rows) == pytest.approx(
        spearmanr(rows["confidence"], rows["distance"]).statistic
    )
    assert np.isnan(distances.rank_correlation(rows.assign(distance=0.5)))


def test_winners_are_the_smallest_means_of_the_ball() -> None:
    table = world.fidelity("SP H+G")
    table.loc[(table["law"] == "paper") & (table["method"] == "G"), "mean"] = 0.0
    found = fidelity.winners({"fidelity": table})
    assert len(found) == 6
    for row in found.itertuples():
        same = table[
            (table["law"] == "ball") & (table["scalar"] == row.scalar) & (table["radius"] == row.radius)
        ]
        assert row.mean == min(same["mean"])
        assert row.gain == pytest.approx(
            min(same[same["method"].isin(["SG", "SP G", "G"])]["mean"]) / row.mean
        )


def test_the_promise_kept_is_the_median_ratio() -> None:
    images = world.attacks_images(4)
    images.loc[images.index[0], "actual_decrease"] = 1e3
    found = attacks.kept({"attacks_images": images})
    assert found["kept"].to_numpy() == pytest.approx(0.8)  # 0.08 / 0.1, whatever one image does
    assert set(found["method"]) == set(world.METHODS)


# Findings, in both directions.


def test_finding_of_distances_follows_the_numbers() -> None:
    usual = distances.finding({"distances": world.distances()})
    assert usual.startswith("First order misleads where the network is unsure: ")
    assert "below a confidence of 0.9 (n = " in usual
    reverse = distances.finding({"distances": world.distances(reverse=True)})
    assert reverse.startswith("Curvature matters more where the network is sure, unlike in Singla")
    same = distances.finding({"distances": world.distances().assign(distance=0.3)})
    assert same.startswith("Curvature changes explanations about alike at every confidence: ")
    alike = distances.finding({"distances": world.distances().assign(confidence=0.99)})
    assert alike.startswith("Confidence does not vary")
    hardly = distances.finding(
        {"distances": world.distances().assign(distance=lambda rows: rows["distance"] / 99)}
    )
    assert hardly.startswith("Curvature moves explanations little, and most where the network is unsure: ")
    largest = world.distances()["distance"].max() / 99
    assert hardly.endswith(f"{largest:.2g} at most where √2 is possible.")
    nowhere = distances.finding({"distances": world.distances().assign(distance=0.001)})
    assert nowhere.startswith("Curvature moves explanations little: ")
    assert distances.finding({"distances": world.distances(3, failed=3)}) == ""


def test_groups_split_at_the_median_where_all_are_sure() -> None:
    sure = world.distances().assign(confidence=np.linspace(0.95, 0.99, 40))
    assert "below a confidence of 0.97 (n = 20)" in distances.finding({"distances": sure})
    few = sure.assign(confidence=np.r_[0.5, np.linspace(0.95, 0.99, 39)])  # one image is no group
    assert "(n = 20) against" in distances.finding({"distances": few})


def test_finding_of_fidelity_follows_the_numbers() -> None:
    second = fidelity.finding({"fidelity": world.fidelity("SH+SG")})
    # SH+SG has 0.2 against SG's 2 × 2.0 in the same units.
    assert second == (
        "SmoothHess + SmoothGrad (SH+SG) is the most faithful local model: at radius 0.25, 0.5 and 1, for "
        "class logit and inner neuron, its mean squared error is 20 times below that of the best first-order "
        "model (n = 12)."
    )
    first = fidelity.finding({"fidelity": world.fidelity("G")})
    assert first.startswith("gradient (G) is the most faithful local model")
    assert first.endswith("second order does not help there (n = 12).")
    both = pd.concat(
        [
            world.fidelity("SH+SG").query("radius < 1"),
            world.fidelity("SP G").query("radius == 1"),
        ]
    )
    mixed = fidelity.finding({"fidelity": both})
    assert mixed.startswith(
        "No local model is the most faithful throughout: SH+SG is in 4 of 6 settings, SP G in 2"
    )


def test_finding_of_ratios_follows_the_numbers() -> None:
    table = world.fidelity("SH+SG")
    first = fidelity_ratios.finding({"fidelity": table})
    # SP H+G and SG have 2 × 3 and 2 × 2 against 0.2 for SH+SG, printed and ours.
    assert first.startswith("SH+SG has the lowest mean in all 12 settings of scalar, radius and law (")
    assert "12 of 12 printed ratios are reproduced within a factor 1.5 (SP H+G to SH+SG 30, printed" in first
    cell = (table["scalar"] == "inner_neuron") & (table["law"] == "paper") & (table["radius"] == 1)
    table.loc[cell & (table["method"] == "SP H+G"), "ratio"] = 0.95  # short by half of its standard error
    table.loc[cell & (table["method"] == "SG"), "ratio"] = 40.0
    tied = fidelity_ratios.finding({"fidelity": table})
    assert "in 11 of 12 settings" in tied
    assert "tied within the standard error in 1 (with SP H+G)" in tied
    assert "10 of 12 printed ratios" in tied
    table.loc[cell & (table["method"] == "SP H+G"), "ratio"] = 0.85
    assert ", is beaten in 1 (by SP H+G);" in fidelity_ratios.finding({"fidelity": table})
    assert fidelity_ratios.finding({"fidelity": EMPTY_FIDELITY}) == ""


def test_growth_is_the_exponent_of_the_radius() -> None:
    table = world.fidelity().query("law == 'paper' and method == 'G'")
    assert fidelity_ratios.growth(table, "mean") == pytest.approx([3, 3])  # means are made as ε³
    caption = fidelity_ratios.caption({"fidelity": world.fidelity()})
    assert "grows as ε to the power 3.0" in caption
    assert "Row G" not in fidelity_ratios.caption({"fidelity": no_paper(world.fidelity())})


def test_finding_of_attacks_follows_the_numbers() -> None:
    strong = attacks.finding({"attacks": world.attacks("SH+SG")})
    assert strong.startswith(
        "SH+SG gives the strongest attack: at ε = 1.75, where methods differ most, 12% of"
    )
    assert "39% for the gradient and 96% for a random direction" in strong
    assert "the gradient lie apart (n = 50)" in strong
    wide = world.attacks("SH+SG").assign(ci_low=0.0, ci_high=1.0)
    assert "the gradient overlap (n = 50)" in attacks.finding({"attacks": wide})
    plain = attacks.finding({"attacks": world.attacks("G")})
    assert plain.startswith("G gives the strongest attack")
    assert "for the gradient" not in plain
    tie = world.attacks().assign(post_hoc_accuracy=0.5)
    assert "share the strongest attack" in attacks.finding({"attacks": tie})


def test_finding_of_spectra_follows_the_verdicts() -> None:
    anisotropic = {"spectra": world.spectra(verdict="strongly anisotropic")}
    assert spectra.finding(anisotropic).startswith("With SoftPlus the network is strongly anisotropic: ")
    assert "around all 8 images" in spectra.finding(anisotropic)
    flat = {"spectra": world.spectra(verdict="flat")}
    assert spectra.finding(flat).startswith("With SoftPlus the network is nearly flat: ")
    mixed = world.spectra(verdict="convex")
    mixed.loc[mixed.index[-1], "verdict"] = "flat"
    assert "With SoftPlus the network is convex: around 7 of 8 images" in spectra.finding({"spectra": mixed})


def test_finding_of_regions_follows_the_radius() -> None:
    near = {"spectra": world.spectra(), "fidelity": world.fidelity()}
    assert regions.finding(near).startswith("A ReLU gradient is exact only very near the image: ")
    far = {"spectra": world.spectra().assign(region_radius=2.0), "fidelity": world.fidelity()}
    assert regions.finding(far).startswith("A ReLU gradient is exact as far as it is used: ")
    assert "for 100% of the images" in regions.finding(far)
    assert "compared" not in regions.finding({"spectra": world.spectra()})


def test_findings_come_in_the_order_of_the_questions_and_leave_out_what_was_not_run() -> None:
    asked = ("spectra", "eigenvalues", "distances", "fidelity", "attacks", "attacks_images")
    made = {name: table for name, table in tables().items() if name in asked}
    assert [told.split()[0] for told in figures.findings(made)] == [
        "With",
        "A",
        "First",
        "SmoothHess",
        "SH+SG",
        "SH+SG",
    ]
    del made["distances"], made["attacks"]
    assert [told.split()[0] for told in figures.findings(made)] == ["With", "A", "SmoothHess", "SH+SG"]
    assert figures.findings({}) == []


@pytest.mark.parametrize("name", CHARTS)
def test_captions_state_n_and_alternative_texts_the_numbers(name: str) -> None:
    spec = figures.get(name)
    caption, alt = spec.caption(tables()), spec.alt(tables())
    assert any(sign in caption for sign in ("n = ", "images", "network"))
    assert any(letter.isdigit() for letter in alt)
    assert caption.endswith(".")
    assert alt.endswith(".")


# Words.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1.0"),
        (0.256, "0.26"),
        (-0.01234, "−0.012"),
        (1834.0, "1,800"),
        (9999.6, "1.0×10⁴"),
        (3.24e-5, "3.2×10⁻⁵"),
        (0.000996, "0.0010"),
        (float("nan"), "–"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers_read_well(value: float, text: str) -> None:
    assert wording.number(value) == text


def test_words() -> None:
    assert [wording.count(n, "image") for n in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]
    assert [wording.listing(items) for items in ([], ["a"], "ab", "abc")] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert [wording.duration(s) for s in (0.44, 12.2, 59.7, 133, 11100)] == [
        "0.4 s", "12 s", "1 min 00 s", "2 min 13 s", "3 h 05 min",
    ]  # fmt: skip
    assert [wording.plain(x) for x in (0.25, 1.0, -0.5)] == ["0.25", "1", "−0.5"]
    assert wording.spread([2.0, 0.5, 1.0]) == "0.50 to 2.0"
