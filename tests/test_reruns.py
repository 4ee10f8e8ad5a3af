"""What a finished run does again after a change: what depends on it, and nothing else. Dry runs alone."""

import re
import shutil

import pytest
from workflow_runs import ROOT, changed_config, output, rules_in_plan, scheduled, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
PROJECT = ["Snakefile", "config", "envs", "locks", "profiles", "report", "rules", "scripts", "src"]
# Whatever changes in a run is in its report, and in its manifest.
END = {"render_report", "check_failures", "write_manifest", "all"}
# Charts show tables, pictures show arrays; the gallery in the report has both.
CHARTS = {"draw_chart", "render_gallery", *END}
PICTURES = {"draw_picture", "render_gallery", *END}
DRAWING = CHARTS | PICTURES


@pytest.fixture
def checkout(tmp_path):
    """Another checkout of the project: every file is new, in a new place."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in PROJECT:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, folder / name, copy_function=shutil.copyfile, ignore=ignored)
        else:
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture
def replan(finished, checkout):
    """Say what the finished run would do again with the code of another checkout, edited."""

    def planned(*edits):
        for path, old, new in edits:
            text = (checkout / path).read_text()
            assert old in text, f"{path} no longer has {old!r}: edit something else in this test"
            (checkout / path).write_text(text.replace(old, new))
        return scheduled(finished, project=checkout)

    return planned


def test_a_second_run_schedules_nothing(finished):
    assert scheduled(finished) == set()


def test_touched_inputs_with_the_same_content_schedule_nothing(copied):
    for folder in ("data", "models"):
        for path in (copied / "results" / folder).rglob("*.*"):
            path.touch()
    assert scheduled(copied) == set()


def test_after_snakemakes_own_touch_nothing_is_scheduled(copied):
    done = snakemake(copied, "--touch")
    assert done.returncode == 0, output(done)
    assert scheduled(copied) == set()


def test_a_fresh_checkout_with_the_results_kept_schedules_nothing(finished, checkout):
    for name in ("results", ".snakemake"):
        shutil.copytree(finished / name, checkout / name)
    config = checkout / "config/test.yaml"
    assert scheduled(checkout, config=config, project=checkout) == set()


def test_comments_and_layout_rerun_nothing(finished, checkout):
    for folder, suffix in (("src", "py"), ("scripts", "py"), ("rules", "smk")):
        for path in (checkout / folder).rglob(f"*.{suffix}"):
            path.write_text(f"# a comment\n{path.read_text()}\n\n# another\n")
    assert scheduled(finished, project=checkout) == set()


def test_an_edited_colour_redraws_figures_and_the_report(replan):
    again = replan(("src/curvelens/figures/style.py", 'INK = "#22272e"', 'INK = "#22272f"'))
    assert again == {*DRAWING, "render_film"}


def test_an_edit_of_smoothing_reruns_what_smooths(replan):
    again = replan(("src/curvelens/smoothing/smooth.py", "\nDEFAULT = ", "\nANOTHER = 1\nDEFAULT = "))
    computing = {"explain_digits", "follow_path", "compute_superpixels"}
    computing |= {"measure_fidelity", "measure_attacks", "measure_trust"}
    following = {"gather_explanations", "render_film", "gather_superpixels", "count_failures"}
    following |= {"choose_fidelity", "gather_fidelity", "choose_attacks", "gather_attacks", "gather_trust"}
    assert again == {*computing, *following, *DRAWING}


def test_an_edited_script_reruns_its_rule(replan):
    again = replan(("scripts/gather_distances.py", "summary = ", "print()\nsummary = "))
    assert again == {"gather_distances", "count_failures", *CHARTS}


def test_the_words_of_the_report_rerun_the_report(replan):
    assert replan(("report/index.py", "## How curved is the network?", "## How curved?")) == END


def test_another_way_of_splitting_trains_anew(replan):
    again = replan(("src/curvelens/datasets/_splitting.py", "0.5) / len", "0.25) / len"))
    assert {"prepare_dataset", "train_model", "evaluate_model", "explain_digits"} <= again


@pytest.mark.parametrize(("edit", "expected"), [
    (
        lambda experiment, raw: experiment["fidelity"].update(radii=[0.4]),
        {"measure_fidelity", "choose_fidelity", "gather_fidelity", "count_failures", *CHARTS},
    ),
    (
        lambda experiment, raw: experiment["explanations"]["methods"]["smoothgrad"].update(sigma=0.3),
        {"explain_digits", "gather_explanations", "count_failures", *PICTURES},
    ),
    (
        # Examples are shown of what is computed already.
        lambda experiment, raw: experiment["distances"].update(examples=2, compared_images=3),
        {"explain_examples", "compare_curvatures", *PICTURES},
    ),
    (lambda experiment, raw: raw.update(report={"title": "Another title"}), {"render_gallery", *END}),
    (lambda experiment, raw: raw.update(failure_threshold=0.5), END),
])  # fmt: skip
def test_a_changed_key_reruns_what_depends_on_it(finished, tmp_path, edit, expected):
    assert scheduled(finished, config=changed_config(tmp_path, edit)) == expected


def test_more_test_images_leave_validation_alone(finished, tmp_path):
    def more(experiment, raw):
        for stage in ("fidelity", "attacks", "trust"):
            experiment[stage]["images"] += 1
        experiment["attacks"]["pgd"] = None

    done = snakemake(finished, "--dry-run", config=changed_config(tmp_path, more))
    measured = {"measure_fidelity", "measure_attacks", "measure_trust"}
    gathered = {"gather_fidelity", "gather_attacks", "gather_trust", "count_failures"}
    assert rules_in_plan(done) == {*measured, *gathered, *CHARTS}
    splits = re.findall(r"^Job \d+: .* on (test|validation) images", output(done), re.MULTILINE)
    assert splits == ["test"] * len(measured)
