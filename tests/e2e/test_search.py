"""The search inside a whole run: many small cells, and a recall that is not met."""

import re
from dataclasses import replace

import pytest

import dedup_job.pipeline
from dedup_job.cli import main
from dedup_job.io.manifests import read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.sample.catalog import write_sample_catalog
from dedup_job.stages.candidates import search_until_recall
from tests.e2e.jobs import read_report, run_job

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return write_sample_catalog(tmp_path_factory.mktemp("search"), n_products=24).catalog


def _pairs(warehouse):
    return {
        (row["sku_id_a"], row["sku_id_b"], row["cosine"], row["group_id"])
        for row in read_report(warehouse, "duplicate_pairs")
    }


def test_many_small_annoy_cells_find_what_an_exact_search_finds(spark, catalog, tmp_path):
    fixed = {"match__min_cosine": 0.9}
    run_job(catalog, tmp_path / "exact", candidates__search="exact", **fixed)
    small = {"candidates__exact_below_rows": 0, "candidates__max_cell_rows": 32}
    result = run_job(catalog, tmp_path / "cells", **small, **fixed)
    assert result.candidate_recall >= 0.99
    exact, cells = _pairs(tmp_path / "exact"), _pairs(tmp_path / "cells")
    assert len(exact) > 10
    # the run measured recall on all its contents, so it says how many may be missing
    assert len(cells & exact) >= 0.99 * len(exact)
    assert {pair[:3] for pair in cells} <= {pair[:3] for pair in exact}


def test_a_missed_recall_publishes_nothing_and_names_the_override(
    spark, catalog, tmp_path, monkeypatch, capsys
):
    def search_badly(*arguments):
        outcome = search_until_recall(*arguments)
        estimate = replace(outcome.estimate, recall=0.5)
        return replace(outcome, estimate=estimate, target_met=False)

    monkeypatch.setattr(dedup_job.pipeline, "search_until_recall", search_badly)
    warehouse = tmp_path / "warehouse"
    command = ["run", "--catalog", str(catalog), "--warehouse", str(warehouse)]
    assert main(command) == 3
    err = capsys.readouterr().err.splitlines()[-1]
    assert "candidate recall is 0.500" in err
    assert re.search(r"--run-date \d{4}-\d\d-\d\d --accept recall --reason 'TEXT'$", err)
    kept = ["_runs", "_staging", "image_embeddings"]
    assert sorted(path.name for path in warehouse.iterdir()) == kept, "embedded, not published"
    assert main([*command, "--accept", "recall", "--reason", "looked at it"]) == 0
    assert read_manifest(open_warehouse(str(warehouse))).accepted == {"recall": "looked at it"}
