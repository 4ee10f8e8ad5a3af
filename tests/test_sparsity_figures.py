"""Figures of sparsity along λ₁: they draw whatever there is, and their words follow from the table."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import sparsity_world
from matplotlib.colors import to_hex

from curvelens.figures import blocks, get, sparsity, sparsity_path, style
from curvelens.figures.inputs import load
from curvelens.reporting import sparsity as report
from curvelens.summaries.sparsity import SPARSITY, summarise

HOSTILE = '<script>alert("x")</script>'


def inputs(folder: Path, n: int = 3, channels: int = 3, isolated: float = 0.3, **changes):
    rng = np.random.default_rng(0)
    ids = [f"own/{HOSTILE}{place}" for place in range(max(n, 1))]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "test.npz",
        images=rng.integers(0, 255, (len(ids), channels, 8, 8), dtype=np.uint8),
        labels=np.zeros(len(ids), np.int64),
        ids=np.array(ids),
    )
    made = sparsity_world.write(folder, folder / "test.npz", len(ids), isolated)
    table = pd.read_parquet(made["sparsity"]).assign(**changes)
    (table.assign(status="failed") if n == 0 else table).to_parquet(made["sparsity"])
    (folder / "model.json").write_text(json.dumps({"class_names": ["$a$", "<b>", "c"]}))
    return load({**made, "images": [folder / "test.npz"], "models": [folder / "model.json"]})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["sparsity_path", "sparsity", "blocks"])
@pytest.mark.parametrize("case", ["three", "one", "grey", "none", "nothing found"])
def test_the_figures_draw_whatever_there_is(name, case, tmp_path):
    n = {"one": 1, "none": 0}.get(case, 3)
    read = inputs(tmp_path, n, channels=1 if case == "grey" else 3)
    if case == "nothing found":
        # No λ₁ in the range: the one chosen leaves nothing, and has neither support nor direction.
        table = read["sparsity"]
        empty = table["sparsity"] == 1
        read["sparsity"] = table.assign(chosen=empty, satisfied=False)
    spec = get(name)
    with matplotlib.rc_context(style.RC):
        for layout in (style.WIDE, style.NARROW):
            spec.draw(read, layout).draw_without_rendering()
    texts = (spec.caption(read), spec.alt(read), spec.finding(read) if spec.finding else "")
    assert not any(word in text for text in texts for word in ("nan", "None", "  "))
    if case == "none":
        assert not texts[2]


def test_the_chosen_panels_are_boxed_and_every_panel_says_its_sparsity(tmp_path):
    read = inputs(tmp_path)
    drawn = sparsity_path.draw(read, style.WIDE)
    panels = [axes for axes in drawn.axes if axes.images and axes.get_xlabel().startswith("η")]
    # Of two images CAFO, CASO and the clipped gradient at each λ₁ below that which leaves nothing.
    assert len(panels) == 2 * 3 * (len(sparsity_world.L1S) - 1)
    boxed = [axes for axes in panels if to_hex(axes.spines["top"].get_edgecolor()) == style.GREEN]
    assert len(boxed) == 2 * 2
    assert {axes.get_xlabel() for axes in boxed} == {"η = 0.800 ✓"}
    for axes in panels:
        eta = float(axes.get_xlabel().split()[2])
        assert (np.asarray(axes.images[0].get_array()) == 0).mean() == pytest.approx(eta, abs=0.02)


def test_columns_hold_the_chosen_and_spread_the_rest():
    etas = [0.0, 0.01, 0.02, 0.03, 0.8, 0.9, 0.99, 0.995, 1.0]
    rows = pd.DataFrame(
        {
            "method": "CASO",
            "lambda1": np.arange(9.0),
            "sparsity": etas,
            "chosen": [False] * 3 + [True] + [False] * 5,
        }
    )
    found = sparsity_path.columns(rows)
    assert len(found) == sparsity_path.COLUMNS
    assert 3.0 in found
    assert 8.0 not in found
    assert {4.0, 5.0, 6.0, 7.0} <= set(found)


def test_maps_are_capped_like_the_paper_s():
    values = np.zeros((20, 20))
    values.flat[:300] = np.arange(300)
    cap = np.percentile(values, 99)
    np.testing.assert_allclose(sparsity_path.scaled(values), np.minimum(values / cap, 1))
    one = np.zeros((20, 20))
    one[2, 3] = 4.0
    assert sparsity_path.scaled(one)[2, 3] == 1


def test_blocks_are_drawn_by_their_mean():
    labels = np.array([[0, 0, 1], [0, 2, 1]])
    values = np.array([[1.0, 2.0, 0.0], [3.0, 8.0, 0.0]])
    drawn = blocks.block_map(values, labels, "patches")
    np.testing.assert_allclose(drawn, np.array([[2, 2, 0], [2, 8, 0]]) / 8)


def test_the_finding_follows_the_numbers(tmp_path):
    noisier = sparsity_path.finding(inputs(tmp_path / "a", isolated=0.3))
    assert "no cleaner" in noisier
    assert "30% of CASO's pixels have no neighbour, against 20%" in noisier
    assert "median η of 0.800 to CASO" in noisier
    cleaner = sparsity_path.finding(inputs(tmp_path / "b", isolated=0.1))
    assert "are cleaner than a clipped gradient" in cleaner
    assert "fewer in 3, more in 0 of 3 images" in cleaner


def test_penalties_are_written_short():
    assert [sparsity_path.penalty(x) for x in (0.0, 1e-5, 0.1, 0.00625, 1.0)] == [
        "0",
        "1×10⁻⁵",
        "0.1",
        "0.00625",
        "1",
    ]


def test_the_chart_says_how_far_the_choices_are_apart(tmp_path):
    read = inputs(tmp_path)
    assert "one λ₁ would nearly do" in sparsity.caption(read)
    table = read["sparsity"]
    far = table["image_id"] == table["image_id"].iloc[0]
    read["sparsity"] = table.assign(lambda1=table["lambda1"] * np.where(far, 1000.0, 1.0))
    assert "no one λ₁ would do" in sparsity.caption(read)
    assert "3 powers of ten apart" in sparsity.caption(read)


def test_the_report_has_a_row_for_each_kind_of_block_and_every_step():
    table = SPARSITY.validate(sparsity_world.table([f"own/{HOSTILE}"]))
    page = str(report.summary(summarise(table))) + str(report.walks(table))
    # Two heads, four choices and the paper's settings, four steps of CASO for two kinds of block.
    assert page.count("<tr") == 2 + 4 + 1 + 2 * 4
    assert "<script>" not in page
    assert "super" not in page
