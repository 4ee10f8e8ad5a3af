"""The stages that explain photographs, on real ones and a pretrained network, from nothing to the report."""

import pytest
from workflow_runs import ROOT, import_all_schemas, output, scheduled, snakemake

from curvelens import store, tables
from curvelens.summaries.explanations import EXPLANATIONS

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
CONFIG = ROOT / "config/test_photographs.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the configuration for photographs has run to the end."""
    folder = tmp_path_factory.mktemp("photographs")
    done = snakemake(folder, config=CONFIG)
    assert done.returncode == 0, output(done)
    return folder


def test_every_table_is_valid_and_no_image_failed(finished):
    import_all_schemas()
    written = sorted((finished / "results/tables").glob("*/*.parquet"))
    assert written
    for path in written:
        table = tables.read(path, tables.SCHEMAS[path.stem])
        assert len(table), path
        if "status" in table:
            assert (table["status"] == "ok").all(), table["error"].tolist()


def test_there_is_a_report(finished):
    page = (finished / "results/report/index.html").read_text()
    assert "photographs" in page


def test_every_explained_image_has_a_page(finished):
    folder = finished / "results/report"
    pages = store.load_json(folder / "gallery/pages.json")
    index = tables.read(finished / "results/tables/photographs/explanations.parquet", EXPLANATIONS)
    assert set(pages["photographs"]) >= set(index["image_id"])
    report = (folder / "index.html").read_text()
    for address in pages["photographs"].values():
        assert f'href="{address}"' in report
        assert "Grad-CAM++" in (folder / address).read_text()


def test_a_second_run_schedules_nothing(finished):
    assert scheduled(finished, config=CONFIG) == set()
