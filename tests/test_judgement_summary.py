"""Intervals and paired tests of judgements, their summary, and the report's table."""

import itertools

import judgement_world as world
import numpy as np
import pandas as pd
import pytest

from curvelens import tables
from curvelens.figures import grids, judging
from curvelens.reporting.judging import table_of
from curvelens.summaries.judging import CURVE_PARTS, JUDGEMENT_IMAGES, RANDOM, curves, summarise
from curvelens.summaries.resampling import holm, interval, proportion_interval, sign_flip


def test_the_bootstrap_agrees_with_students_interval_for_many_values():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    # 2,000 resamples leave about 5 % of the half width to chance.
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert interval(values) == (low, high)


def test_few_or_equal_values():
    assert interval(np.array([1.0])) == (None, None)
    assert interval(np.array([2.0, 2.0])) == (2, 2)
    assert sign_flip(np.array([1.0])) is None


def test_no_hit_of_four_leaves_sixty_percent_possible():
    low, high = proportion_interval(0, 4)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 4))  # (1 - p)⁴ = 2.5 %


def test_signs_are_flipped_in_every_way():
    values = np.array([0.3, -0.1, 0.5, 0.2, 0.4])
    signs = np.array(list(itertools.product((1, -1), repeat=5)))
    means = np.abs((signs * values).mean(1))
    assert sign_flip(values) == pytest.approx((means >= abs(values.mean()) - 1e-12).mean())
    assert sign_flip(np.array([1.0, 1.1, 0.9, 1.2, 1.3, 0.8])) == pytest.approx(2 / 64)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_gain_is_positive_where_a_method_is_better():
    made = world.judgement_images()
    rows = summarise(tables.frame(made.to_dict("records"), JUDGEMENT_IMAGES))
    rows = rows[rows["scene"] == "image"].set_index(["metric", "method"])
    # Values fall from method to method: worse where higher is better, better where lower is.
    assert rows.loc[("insertion", "caso"), "gain"] < 0 < rows.loc[("deletion", "caso"), "gain"]
    assert np.isnan(rows.loc[("insertion", "gradient"), "gain"])
    assert np.isnan(rows.loc[("insertion", RANDOM), "gain"])
    both = made[(made["metric"] == "insertion") & (made["scene"] == "image")].pivot_table(
        "value", "image_id", "method"
    )
    expected = (both["caso"] - both["gradient"]).mean()
    assert rows.loc[("insertion", "caso"), "gain"] == pytest.approx(expected)
    tested = rows.loc["insertion"]["p_value"].dropna()
    assert rows.loc["insertion"]["p_holm"].dropna().to_list() == pytest.approx(holm(tested.to_list()))


def test_failed_rows_count_for_nothing():
    whole, part = world.judgement_images(6), world.judgement_images(6, failed=2)
    kept = whole[~whole["image_id"].isin(part.loc[part["status"] == "failed", "image_id"])]
    pd.testing.assert_frame_equal(summarise(part), summarise(kept))


def test_curves_are_means_over_images():
    parts = tables.frame(world.curve_parts().to_dict("records"), CURVE_PARTS)
    parts.loc[parts["image_id"] == "0", "probability"] = 0.0
    found = curves(parts).set_index(["method", "curve", "share"])
    assert found.loc[("gradient", "deletion", 0.0), "probability"] == pytest.approx(0.9 * 3 / 4)
    assert found.loc[("gradient", "deletion", 0.0), "probability_stderr"] == pytest.approx(0.225)
    assert (found["images"] == 4).all()


def test_the_finding_follows_the_numbers():
    made = world.tables()
    said = judging.finding(made)
    assert "gradient has most of its importance on the object (90%" in said
    assert "CASO beats the gradient by deletion AUC" in said
    level = {**made, "judgement": made["judgement"].assign(p_value=0.5)}
    assert "CASO beats the gradient at none of it beyond chance" in judging.finding(level)
    assert "not told apart by" in judging.caption(level)
    # The random map has the lowest values, and so the best where lower is better.
    assert "none beats a random map by deletion AUC" in said
    without = made["judgement"][made["judgement"]["method"] != "caso"]
    assert "CASO" not in judging.finding({**made, "judgement": without})


def test_the_table_marks_direction_chance_and_the_best():
    text = "".join(map(str, table_of(world.tables()["judgement"])))
    assert "deletion AUC ↓" in text
    assert "insertion AUC ↑" in text
    assert "chance 0.3" in text
    assert text.count("<strong>") >= 10
    assert "SmoothGrad" in text
    assert "own_method" in text


def test_grids_say_who_keeps_to_the_cell():
    made = {**world.tables(), "grid_maps": [{"folder": "x", **world.grid_maps()}]}
    assert grids.caption(made).startswith("gradient keeps most to the cell of the explained class: 8")
    assert "by chance" in grids.caption(made)
    empty = {**made, "grid_maps": [{**made["grid_maps"][0], "ids": np.array([], dtype=str)}]}
    assert grids.caption(empty) == "No grid was explained."
