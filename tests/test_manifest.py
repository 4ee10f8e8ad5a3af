"""The manifest of a run: checksums that others compute too, and what it says of changed files."""

import hashlib
import json
import subprocess
from datetime import UTC, datetime
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from curvelens import crate, jobtimes, manifest, tables
from curvelens.errors import DataError
from curvelens.tables import Column

TABLE = tables.Table(
    "timed",
    "A table of these tests.",
    {
        "image_id": Column(str, "Name."),
        "value": Column(float, "A number.", nullable=True),
        "seconds": Column(float, "Time.", unit="s"),
    },
    ("image_id",),
)


def timed(path, values, seconds=1.0):
    ids = [f"é<{index}>" for index in range(len(values))]
    tables.write(pd.DataFrame({"image_id": ids, "value": values, "seconds": seconds}), TABLE, path)
    return path


@pytest.fixture
def run(tmp_path):
    """A folder with a table, another file, and their manifest."""
    timed(tmp_path / "tables/a.parquet", [1.0, np.nan, 0.1234567])
    (tmp_path / "page.html").write_text("<p>é</p>")
    files = [tmp_path / "tables/a.parquet", tmp_path / "page.html", tmp_path / "page.html"]
    manifest.write(tmp_path / "manifest.json", {"seed": 3}, files)
    return tmp_path


def test_files_have_the_properties_of_a_crate(run):
    contents = json.loads((run / "manifest.json").read_text())
    assert contents["seed"] == 3
    page, table = contents["files"]
    assert page == {
        "@id": "page.html",
        "@type": "File",
        "encodingFormat": "text/html",
        "contentSize": len("<p>é</p>".encode()),
        "sha256": hashlib.sha256("<p>é</p>".encode()).hexdigest(),
    }
    assert table["@id"] == "tables/a.parquet"


@pytest.mark.parametrize(("values", "seconds", "same"), [
    ([1.0, np.nan, 0.1234567], 9.0, True),      # times do not count
    ([1.0, np.nan, 0.12345671], 1.0, True),     # nor do digits beyond the fifth
    ([1.0, np.nan, 0.12347], 1.0, False),
    ([1.0, 2.0, 0.1234567], 1.0, False),
    ([np.nan, 1.0, 0.1234567], 1.0, False),     # the order of rows counts
])  # fmt: skip
def test_the_content_of_a_table_is_its_rounded_numbers(run, tmp_path, values, seconds, same):
    other = timed(tmp_path / "other.parquet", values, seconds)
    assert (manifest.content_sha256(run / "tables/a.parquet") == manifest.content_sha256(other)) is same


def test_rows_that_measure_a_time_do_not_count(tmp_path):
    def content(measured):
        rows = pd.DataFrame({"metric": list(measured), "value": list(measured.values())})
        rows.to_parquet(tmp_path / "t.parquet", index=False)
        return manifest.content_sha256(tmp_path / "t.parquet")

    shared = content({"energy": 0.5, "seconds": 1.0})
    assert content({"energy": 0.5, "seconds": 2.0}) == shared
    assert content({"energy": 0.6, "seconds": 1.0}) != shared


def test_zeros_of_both_signs_and_infinities_are_told_apart_as_numbers_are(tmp_path):
    plain = tables.Table("plain", "x", {"value": Column(float, "x", finite=False)}, ())

    def digest(*values):
        tables.write(pd.DataFrame({"value": values}), plain, tmp_path / "t.parquet")
        return manifest.content_sha256(tmp_path / "t.parquet")

    assert digest(0.0) == digest(-0.0)
    assert len({digest(np.inf), digest(-np.inf), digest(0.0)}) == 3


def test_the_crate_names_every_file_and_nothing_that_is_not_there(run):
    """What RO-Crate 1.1 requires of descriptor, root and parts; every reference leads somewhere."""
    (run / "tables/a b#é.csv").write_text("1")
    described = {
        "config": {"report": {"title": "How far?"}, "experiments": {"digits": {}}},
        "datasets": {"digits": {"licence": "CC BY 4.0"}},
        "project": {"commit": "abc", "changed": True},
        "versions": {"Python": "3.11", "curvelens": "0.1.0"},
        "hardware": {"system": "Linux"},
        "jobs": [{"cpu_seconds": 2.5, "peak_mib": None}, {"cpu_seconds": None, "peak_mib": 7.0}],
        "device": "cpu",
        "seed": 3,
    }
    files = [*run.glob("tables/*"), run / "page.html"]
    written = manifest.write(run / "manifest.json", described, files)
    made = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = json.loads(json.dumps(crate.metadata(written, made)))
    assert found["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in found["@graph"]}
    assert len(entities) == len(found["@graph"])
    assert entities["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    assert entities["ro-crate-metadata.json"]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = entities["./"]
    assert root["@type"] == "Dataset"
    assert (root["name"], root["datePublished"]) == ("How far?", "2026-01-02")
    assert "CC BY 4.0" in entities[root["license"]["@id"]]["description"]
    parts = {part["@id"]: entities[part["@id"]] for part in root["hasPart"]}
    assert {unquote(name) for name in parts} == {
        "manifest.json",
        *(str(file.relative_to(run)) for file in files),
    }
    for name, part in parts.items():
        content = (run / unquote(name)).read_bytes()
        assert part["@type"] == "File"
        assert name == "manifest.json" or part["sha256"] == hashlib.sha256(content).hexdigest()
    action = entities["#run"]
    assert action["@type"] == "CreateAction"
    assert action["endTime"] == "2026-01-02T03:04:05+00:00"
    assert entities[action["instrument"]["@id"]]["softwareVersion"] == "0.1.0, commit abc with changes"
    assert [entities[used["@id"]]["value"] for used in action["resourceUsage"]] == [2.5, 7.0]

    def references(value):
        if isinstance(value, dict):
            return (
                [value["@id"]]
                if set(value) == {"@id"}
                else [r for v in value.values() for r in references(v)]
            )
        return [r for v in value for r in references(v)] if isinstance(value, list) else []

    assert set(references(found["@graph"])) - {"https://w3id.org/ro/crate/1.1"} <= set(entities)


def test_what_changed_or_went_missing_is_named(run, capsys):
    assert manifest.main([str(run / "manifest.json")]) == 0
    (run / "page.html").write_text("<p>e</p>")
    (run / "tables/a.parquet").unlink()
    assert manifest.main([str(run / "manifest.json")]) == 1
    told = capsys.readouterr().out
    assert f"{run / 'page.html'}: is not the file that the manifest describes" in told
    assert f"{run / 'tables/a.parquet'}: missing" in told
    assert "2 differs" in told


def test_two_runs_are_compared_by_the_content_of_their_tables(run, tmp_path, capsys):
    other = tmp_path / "other"
    timed(other / "tables/a.parquet", [1.0, np.nan, 0.1234567], seconds=7.0)
    timed(other / "tables/b.parquet", [1.0])
    manifest.write(other / "manifest.json", {}, [other / "tables/a.parquet"])
    both = [str(run / "manifest.json"), str(other / "manifest.json")]
    assert manifest.main(both) == 0
    manifest.write(other / "manifest.json", {}, other.glob("tables/*"))
    assert manifest.main(both) == 1
    assert "tables/b.parquet: only in" in capsys.readouterr().out
    timed(other / "tables/a.parquet", [1.0, np.nan, 0.12345])
    manifest.write(other / "manifest.json", {}, [other / "tables/a.parquet"])
    assert manifest.main(both) == 1
    # 0.1234567 / 0.12345 = 1 + 5.4e-5
    assert "a.parquet: differs in value in 1 of 3 rows, by 0.0054% at most" in capsys.readouterr().out
    timed(other / "tables/a.parquet", [1.0, 2.0])
    manifest.write(other / "manifest.json", {}, [other / "tables/a.parquet"])
    assert manifest.compare(*both) == ["tables/a.parquet: differs in its rows: 3 and 2"]


@pytest.mark.parametrize("text", ["", "[]", '{"files": [{}]}', '{"files": 3}'])
def test_what_is_no_manifest_is_refused_on_one_line(tmp_path, capsys, text):
    (tmp_path / "manifest.json").write_text(text)
    assert manifest.main([str(tmp_path / "manifest.json")]) == 1
    assert capsys.readouterr().err.startswith(f"curvelens: error: {tmp_path / 'manifest.json'}")
    assert manifest.main([]) == 2


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"t\.parquet: not readable as parquet"):
        manifest.content_sha256(tmp_path / "t.parquet")


def test_times_of_jobs_are_read_from_benchmark_files(tmp_path):
    folder = tmp_path / "benchmarks/results/benchmarks"
    (folder / "train_model").mkdir(parents=True)
    header = "s\th:m:s\tmax_rss\tmax_vms\tcpu_time\n"
    (folder / "train_model/net.tsv").write_text(header + "2.5\t0:00:02\t512.0\t1\t2.25\n")
    (folder / "report.tsv").write_text(header + "0.1\t0:00:00\tNA\t-\tnan\n")
    assert manifest.jobs(folder) == [
        {"name": "report", "seconds": 0.1, "cpu_seconds": None, "peak_mib": None},
        {"name": "train_model/net", "seconds": 2.5, "cpu_seconds": 2.25, "peak_mib": 512.0},
    ]
    found = jobtimes.read([folder / "train_model/net.tsv", folder / "gone.tsv"])
    assert [job.rule for job in found] == ["train_model"]


def test_the_commit_and_whether_it_was_changed(tmp_path):
    def git(*arguments):
        command = [
            "git",
            "-C",
            str(tmp_path),
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@example.org",
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert manifest.git_state(tmp_path) == {"commit": None, "changed": None}
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "a")
    assert manifest.git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "a").write_text("2")
    assert manifest.git_state(tmp_path)["changed"] is True
