"""What the figures of attacks say follows from the pairs, in both directions."""

from __future__ import annotations

import numpy as np
import pytest
import report_world as world

from curvelens import figures
from curvelens.figures import attack_gaps, attacks
from curvelens.reporting import summaries


def paired(better: int, n: int = 50, half: float = 0.1):
    table = world.attacks_paired(n, better)
    return table.assign(ci_low=table["difference"] - half, ci_high=table["difference"] + half)


def test_the_bound_is_told_where_it_is_clear_and_where_not():
    clear = attack_gaps.finding({"attacks_paired": paired(12)})
    assert clear.startswith("Iterating still finds more than ")
    assert "24 points (95% interval 14 to 34)" in clear
    assert "beyond chance at ε = 0.25, 0.5, 0.75, 1.25 and 1.75 (n = 50)." in clear
    unclear = attack_gaps.finding({"attacks_paired": paired(2)})
    assert "attacks as well as iterating does, as far as this many images tell" in unclear
    assert "beyond chance at no size" in unclear


def test_the_caption_compares_models_and_prices_truncation():
    strong = attack_gaps.caption({"attacks_paired": paired(24)})
    assert "SH+SG is stronger beyond chance than SG at ε = 0.25, 0.5, 0.75, 1.25 and 1.75 and G at" in strong
    assert "costs SH+SG at most 2 points" in strong
    alike = attack_gaps.caption({"attacks_paired": paired(2)})
    assert "Nothing tells SH+SG from any other local model beyond chance." in alike
    table = paired(24)
    exact = table["other"].str.endswith("truncated")
    table.loc[exact, ["difference", "ci_low", "ci_high"]] = [0.0, -0.1, 0.1]
    free = attack_gaps.caption({"attacks_paired": table})
    assert "costs SH+SG nothing on these images" in free
    weaker = table.assign(difference=-table["difference"], ci_low=-table["ci_high"], ci_high=-table["ci_low"])
    assert "SH+SG is weaker beyond chance than SG" in attack_gaps.caption({"attacks_paired": weaker})


def test_pairs_are_turned_so_that_the_bound_comes_first():
    table = attack_gaps.bound({"attacks_paired": paired(12)})
    assert (table["method"] == "PGD").all()
    assert sorted(table["other"].unique()) == ["G", "SG", "SH+SG"]
    assert (table["difference"] > 0).all()
    assert (table["ci_low"] < table["difference"]).all()
    assert (table["only_method"] == 12).all()


def test_the_strongest_attack_is_a_local_model_and_its_lead_over_the_gradient_is_paired():
    tables = {"attacks": world.attacks(), "attacks_paired": paired(12)}
    told = attacks.finding(tables)
    assert told.startswith("SH+SG gives the strongest attack")
    assert "for PGD, the bound" in told
    assert "on the same images it beats the gradient by 12 points, 95% interval 2 to 22 points" in told
    assert "intervals of the strongest and of the gradient" in attacks.finding({"attacks": world.attacks()})


def test_the_caption_says_what_the_bound_is_and_whether_it_holds():
    tables = {"attacks": world.attacks(), "attacks_paired": paired(12)}
    assert "No local model changed a prediction that it did not." in attacks.caption(tables)
    table = paired(12)
    table.loc[table["other"] == "PGD", "only_method"] = 3
    assert "succeeded where it failed on up to 3 images" in attacks.caption(
        {**tables, "attacks_paired": table}
    )
    assert "another network and 400 images" in attacks.caption(tables)


@pytest.mark.parametrize(
    ("difference", "told"),
    [(0.153, "15 points"), (-0.004, "−0.4 points"), (0.0, "0.0 points"), (-0.0001, "0.0 points")],
)
def test_points_read_well(difference: float, told: str):
    assert attacks.points(difference) == told


def test_the_table_explains_its_own_rows_and_prints_the_best_local_model_in_bold():
    page = str(summaries.attacks(world.attacks()))
    assert "“truncated”: the step within the leading eigenvectors" in page
    assert "1,568 gradient calls for each image and size" in page
    # PGD leaves least at every size, and is no local model.
    row = page[page.index("<b>PGD</b>") :].split("</tr>")[0]
    assert "best" not in row
    plain = world.attacks()
    plain = plain[~plain["method"].isin(["PGD", "SH+SG truncated"])]
    assert "“PGD”" not in str(summaries.attacks(plain))
    assert "“truncated”" not in str(summaries.attacks(plain))


def test_numbers_of_the_paper_stand_beside_truncated_steps_in_the_table_alone():
    rows = attacks._rows({"attacks": world.attacks()})
    assert not rows["method"].str.endswith("truncated").any()
    assert np.isfinite(world.attacks().set_index("method").loc["SH+SG truncated", "paper_accuracy"]).all()
    assert figures.get("attacks").optional == ("attacks_images", "attacks_paired")
