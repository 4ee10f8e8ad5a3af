"""The configuration is closed: every mistake is one line that names the key and the remedy."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workflow_runs import TEST_CONFIG, output, snakemake

from curvelens.config import load
from curvelens.errors import ConfigError
from curvelens.sections.left_out import check_left_out
from curvelens.sections.plain import check_files

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def good():
    return yaml.safe_load((ROOT / "config/test.yaml").read_text())


def changed(raw, path, value):
    raw = copy.deepcopy(raw)
    *parents, last = path.split(".")
    target = raw
    for key in parents:
        target = target[key]
    target[last] = value
    return raw


@pytest.mark.parametrize("name", [
    *("config.yaml", "test.yaml", "test_photographs.yaml", "paper.yaml"),
    *("cifar10_small.yaml", "imagenet_sample.yaml", "photographs_with_masks.yaml"),
])  # fmt: skip
def test_shipped_configurations_are_valid(name):
    settings = load(yaml.safe_load((ROOT / "config" / name).read_text()))
    assert settings.experiments


@pytest.mark.parametrize(("path", "value", "told"), [
    ("sede", 1, r"unknown key 'sede'.*did you mean 'seed'"),
    ("experiments.digits.fidelity.radius", [1], r"unknown key 'experiments.digits.fidelity.radius'.*'radii'"),
    ("experiments.digits.fidelity.radii", [], r"experiments.digits.fidelity.radii"),
    ("experiments.digits.fidelity.radii", [0.5, -1], r"fidelity.radii.1 = -1.*greater than 0"),
    ("experiments.digits.fidelity.sigma_factors", [0], r"fidelity.sigma_factors.0 = 0.*greater than 0"),
    ("experiments.digits.attacks.sigma_squared", [0.0], r"attacks.sigma_squared.0"),
    ("experiments.digits.explanations.methods.smoothgrad.sigma", 0, r"smoothgrad.sigma"),
    ("experiments.digits.explanations.methods.smoothgrad.sgima", 1, r"smoothgrad.sgima.*sigma"),
    ("experiments.digits.explanations.methods.lime2", {}, r"unknown explanation method 'lime2'"),
    ("experiments.digits.spectra.images", "many", r"experiments.digits.spectra.images = 'many'"),
    ("experiments.digits.explanations.shards", 13, r"shards = 13 is more than explanations.images = 12"),
    ("experiments.digits.attacks.shards", 5, r"more than attacks.validation_images = 4"),
    ("datasets.digits.source", "mnits", r"datasets.digits.source: unknown data set 'mnits'.*mnist"),
    ("models.digits_relu.dataset", "cifar", r"digits_relu.dataset = 'cifar' is not a key of `datasets`"),
    ("models.digits_relu.architecture", "mpl", r"unknown architecture 'mpl'.*mlp"),
    ("models.digits_relu.parameters.hiden", [3], r"models.digits_relu.parameters.hiden"),
    ("experiments.digits.model", "digits_rleu", r"model = 'digits_rleu' is not a key of `models`"),
    ("experiments", {}, r"experiments"),
    ("studies", {"n": {"kind": "complexity", "cals": [9]}}, r"unknown key 'studies.n.cals'.*mean 'calls'"),
    ("studies", {"n": {"kind": "complexity", "calls": [1]}}, r"studies.n.calls.0 = 1.*greater than or equal"),
    ("studies", {"n": {"kind": "complexity", "calls": [9, 9]}}, r"studies.n: calls names a value twice"),
    ("studies", {"n": {"kind": "interactions", "target": "nested", "calls": 9}}, r"studies.n: calls = 9 are"),
    ("studies", {"n": {"kind": "complexty"}}, r"studies.n.*'complexity'"),
    ("studies", {"digits": {"kind": "complexity"}}, r"studies.digits has the name of an experiment"),
    ("seed", float("nan"), r"seed"),
])  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_key(good, path, value, told):
    with pytest.raises(ConfigError) as error:
        load(changed(good, path, value))
    message = str(error.value)
    assert re.search(told, message), message
    assert "\n" not in message


def test_a_missing_section_is_named(good):
    del good["datasets"]
    with pytest.raises(ConfigError, match="'datasets' is missing"):
        load(good)


def test_split_must_leave_training_images(good):
    good["datasets"]["digits"]["split"] = {"validation": 0.6, "test": 0.5}
    with pytest.raises(ConfigError, match="leaves nothing to train on"):
        load(good)


def test_defaults_are_written_out(good):
    good["experiments"]["digits"]["explanations"]["methods"] = {"smoothgrad": {}}
    settings = load(good)
    assert settings.experiments["digits"].explanations.methods["smoothgrad"] == {"sigma": 0.15, "samples": 64}


def test_a_stage_can_be_left_out(good):
    good["experiments"]["digits"]["attacks"] = None
    assert load(good).experiments["digits"].attacks is None


def test_what_is_set_to_null_is_left_out(good):
    raw = changed(good, "experiments.digits.model", "digits_relu")
    raw["experiments"]["other"] = raw["models"]["other"] = raw["datasets"]["other"] = None
    assert list(load(raw).experiments) == ["digits"]
    raw["experiments"]["other"] = "null"  # what --config 'experiments={other: null}' gives
    assert list(load(raw).experiments) == ["digits"]
    raw["experiments"]["digits"] = None
    with pytest.raises(ConfigError, match="experiments"):
        load(raw)


def test_only_what_some_file_has_may_be_left_out(tmp_path):
    def file(name, **sections):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(sections))
        return path

    base = file("base.yaml", experiments={"mnist": {"model": "m"}, "cifar10": {"model": "c"}})
    overlay = file("overlay.yaml", experiments={"cifar10": None, "photographs": None})
    shipped = file("shipped.yaml", experiments={"photographs": {"model": "p"}})
    merged = {"experiments": {"mnist": {"model": "m"}, "cifar10": None, "photographs": None}}
    check_left_out(merged, [base, overlay], [shipped])
    with pytest.raises(ConfigError, match=r"experiments\.photographs = null leaves out what no"):
        check_left_out(merged, [base, overlay])
    merged["experiments"]["mnst"] = None
    with pytest.raises(ConfigError, match=r"experiments\.mnst = null .* did you mean 'mnist'\?"):
        check_left_out(merged, [base, overlay], [shipped])
    # A workflow that takes this one as a module has them elsewhere in its file, if in one at all.
    check_left_out(merged, [file("module.yaml", curvelens={"experiments": {}})], [shipped])
    check_left_out(merged, [], [shipped])


def test_checking_needs_neither_torch_nor_pandas():
    code = (
        "import sys, yaml; from curvelens.config import load; load(yaml.safe_load(open('config/test.yaml')));"
        "print(sorted({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_generated_files_are_fresh():
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run `make docs`: {done.stdout}{done.stderr}"


def aliases(levels):
    """A value of a few lists that stands for 9 ** levels."""
    value = "x"
    for _ in range(levels):
        value = [value] * 9
    return value


def endless():
    inner = {}
    inner["again"] = inner
    return inner


@pytest.mark.parametrize(("path", "value", "told"), [
    ("seed", aliases(12), r"more than 100,000 values \(at seed"),
    ("datasets.digits.parameters", endless(), r"parameters\.again.* nested more than 32 deep"),
    ("seed", 10**100, r"seed has an integer beyond 64 bits"),
    ("models.digits_relu.parameters", {"hidden": [2**63]}, r"hidden\.0 has an integer beyond 64 bits"),
    ("report", {"title": "x" * 10_001}, r"report\.title has a text of 10,001 characters"),
    ("report", {"title": "\x1b[2J"}, r"report\.title has the character '\\x1b'"),
    ("datasets.digits.data_dir", "a\0b", r"datasets\.digits\.data_dir has the character '\\x00'"),
    ("report", {"title": "half \ud83d"}, r"report\.title has the character '\\ud83d'"),
    ("experiments.digits.explanations.methods.smoothgrad", {"sigma": float("inf")}, r"sigma: .*finite"),
    ("datasets.digits.source", "a\nb", r"unknown data set 'a b'"),
    ("experiments.a/b", {"model": "digits_relu"}, r"experiments\.a/b.*should match pattern"),
    ("experiments.../../b", {"model": "digits_relu"}, r"should match pattern"),
])  # fmt: skip
def test_input_that_fights_back_is_refused_in_one_line(good, path, value, told):
    if path.endswith("b"):
        good["experiments"][path.partition(".")[2]] = value
    else:
        good = changed(good, path, value)
    with pytest.raises(ConfigError) as error:
        load(good)
    assert re.search(told, str(error.value)), error.value
    assert str(error.value).isprintable()


@pytest.mark.parametrize("raw", [None, [], "text", 7])
def test_what_is_no_mapping_is_refused(raw):
    with pytest.raises(ConfigError, match="not keys with values; write `datasets:`"):
        load(raw)


def test_names_become_folders_and_are_as_short(good):
    good["experiments"]["x" * 101] = good["experiments"]["digits"]
    with pytest.raises(ConfigError, match="at most 100 characters"):
        load(good)


@pytest.mark.parametrize(("name", "text", "told"), [
    ("a.yaml", "seed: 1\nmodels: {}\nseed: 2\n", r"'seed' is given twice, in lines 1 and 3"),
    ("a.yaml", "a: &x {b: 1, c: [{d: 1, d: 2}]}\n", r"'d' is given twice, in lines 1 and 1"),
    ("a.json", '{"a": {"b": 1, "b": 2}}', r"'b' is given twice"),
])  # fmt: skip
def test_a_key_given_twice_is_refused(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=told):
        check_files([tmp_path / name])


@pytest.mark.parametrize("text", [
    "base: &b {x: 1}\none: {<<: *b, x: 2}\ntwo: {<<: *b, <<: *b}\n",
    "__use_yte__: true\n?if 1:\n  a: 1\n?else:\n  a: 2\nb:\n  c: 1\n  c: 2\n",
    "[not, a: mapping",
    "a: &a [*a]",
])  # fmt: skip
def test_keys_that_may_repeat_and_what_is_no_yaml_are_left_alone(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    check_files([tmp_path / "a.yaml", tmp_path / "missing.yaml"])


@pytest.mark.workflow
def test_the_workflow_refuses_a_key_given_twice(tmp_path):
    twice = TEST_CONFIG.read_text() + "seed: 1\nseed: 2\n"
    (tmp_path / "twice.yaml").write_text(twice)
    done = snakemake(tmp_path, "--dry-run", config=tmp_path / "twice.yaml")
    assert done.returncode == 1
    assert re.search(r"curvelens: .*the key 'seed' is given twice, in lines \d+ and \d+", output(done))
    assert "Traceback" not in output(done)
