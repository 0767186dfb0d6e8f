"""Manifests: which run is the latest, which counts as the one before, and what old readers make of new files."""

import json
from dataclasses import replace
from datetime import date

import pytest

from dedup_job.errors import DedupError
from dedup_job.io.manifests import (
    RunManifest,
    find_table,
    has_data,
    last_published_before,
    list_runs,
    newest_published,
    point_latest,
    published_for,
    read_manifest,
    threshold_of,
    write_manifest,
)
from dedup_job.io.publish import store_run_tables
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.tables import read_rows, write_rows
from dedup_job.tables import GROUP_CHANGES
from tests.unit.warehouses import publish


@pytest.fixture
def warehouse(tmp_path):
    return Folder(str(tmp_path))


def manifest(run_id, run_date="2026-01-02", status="published", hour=2, **values):
    at = f"2026-01-09T{hour:02d}:00:00+00:00"
    return RunManifest(run_id, run_date, status, at, at, "0", {}, {}, {}, **values)


def stored(warehouse, run_id):
    staged = write_rows([], GROUP_CHANGES, warehouse.child("_staging", run_id))
    return store_run_tables({GROUP_CHANGES.name: staged}, warehouse, run_id)


def rewrite(warehouse, name, **changes):
    folder = warehouse.child("_runs")
    content = json.loads(folder.read_bytes(name)) | changes
    folder.replace_bytes(name, json.dumps(content).encode())


def test_a_manifest_comes_back_as_it_was_written(warehouse):
    written = manifest(
        "r1",
        status="held",
        error="too many rejects",
        host="h",
        pid=7,
        inputs={"files": []},
        stages={"catalog": 1.5},
        resumed_from={"run_id": "r0"},
        accepted={"drift": "looked at"},
        gates=[{"name": "rejects", "passed": False}],
        base_run_id="r0",
    )
    write_manifest(warehouse, written)
    assert read_manifest(warehouse, "r1") == written
    assert newest_published(warehouse) is None


@pytest.mark.parametrize(
    ("newer", "moves"),
    [
        (manifest("r2", "2026-01-03", hour=1), True),
        (manifest("r2", "2026-01-02", hour=3), True),
        (manifest("r2", "2026-01-02", hour=2), True),
        (manifest("r2", "2026-01-02", hour=1), False),
        (manifest("r2", "2026-01-01", hour=3), False),
    ],
    ids=["a later date", "a rerun", "the same moment", "a clock that is behind", "a backfill"],
)
def test_latest_moves_to_what_is_newer_by_date_and_then_by_end(warehouse, newer, moves):
    assert point_latest(warehouse, manifest("r1"))
    assert point_latest(warehouse, newer) is moves
    assert read_manifest(warehouse).run_id == ("r2" if moves else "r1")


def test_the_latest_manifest_is_one_line_as_spark_reads_json(warehouse):
    point_latest(warehouse, manifest("r1"))
    assert warehouse.child("_runs").read_bytes("latest.json").count(b"\n") == 1


def test_runs_are_listed_by_their_start_and_damaged_ones_told(warehouse, caplog):
    for run_id, hour, status in (("c", 3, "failed"), ("a", 2, "shadow"), ("b", 1, "published")):
        write_manifest(warehouse, manifest(run_id, hour=hour, status=status))
    point_latest(warehouse, manifest("b", hour=1))
    warehouse.child("_runs").replace_bytes("broken.json", b"{")
    assert [run.run_id for run in list_runs(warehouse)] == ["b", "a", "c"]
    assert "manifest broken.json is damaged" in caplog.text


def test_the_run_before_a_date_is_the_last_run_of_the_last_date_with_data(warehouse):
    assert last_published_before(warehouse, date(2026, 1, 9)) is None
    for run_id, day in (("r1", 1), ("r2", 3), ("r3", 5)):
        publish(warehouse, run_id, stored(warehouse, run_id), run_date=f"2026-01-0{day}")
    rerun = publish(warehouse, "r4", stored(warehouse, "r4"), run_date="2026-01-03")
    write_manifest(warehouse, replace(rerun, finished_at="2026-01-03T09:00:00+00:00"))
    assert published_for(warehouse, date(2026, 1, 3)).run_id == "r4"
    warehouse.child("_runs", "r4").delete()
    write_manifest(warehouse, manifest("r5", "2026-01-04", status="failed"))
    assert last_published_before(warehouse, date(2026, 1, 1)) is None
    assert last_published_before(warehouse, date(2026, 1, 3)).run_id == "r1"
    assert last_published_before(warehouse, date(2026, 1, 5)).run_id == "r2"
    assert last_published_before(warehouse, date(2026, 1, 6)).run_id == "r3"
    assert published_for(warehouse, date(2026, 1, 3)).run_id == "r2"
    assert published_for(warehouse, date(2026, 1, 4)) is None


def test_data_are_there_or_not(warehouse):
    run = publish(warehouse, "r1", stored(warehouse, "r1"))
    assert has_data(warehouse, run)
    assert not has_data(warehouse, manifest("r0"))
    warehouse.child("_runs", "r1", GROUP_CHANGES.name).delete_file("part-00000.parquet")
    assert not has_data(warehouse, run)


def test_a_newer_minor_version_is_read_and_a_newer_format_refused(warehouse):
    publish(warehouse, "r1", stored(warehouse, "r1"))
    entry = read_manifest(warehouse).tables[GROUP_CHANGES.name]
    entry["files"][0]["bloom_filter"] = "unheard of"
    rewrite(warehouse, "latest.json", mood="good", tables={GROUP_CHANGES.name: entry, "new": entry})
    table = find_table(warehouse, read_manifest(warehouse), GROUP_CHANGES.name)
    assert read_rows(table).num_rows == 0
    rewrite(warehouse, "latest.json", format=99)
    with pytest.raises(DedupError, match=r"format 99, .* up to 2; upgrade catalog-dedup"):
        read_manifest(warehouse)


def test_a_run_id_is_a_name_and_no_path(warehouse):
    publish(warehouse, "r1", {})
    for run_id in ("../_runs/r1", "./r1", "a/b"):
        with pytest.raises(DedupError, match="holds no run"):
            read_manifest(warehouse, run_id)


def test_an_empty_or_damaged_warehouse_is_explained(warehouse):
    with pytest.raises(DedupError, match="holds no published run; publish one with"):
        read_manifest(warehouse)
    with pytest.raises(DedupError, match="holds no run r1"):
        read_manifest(warehouse, "r1")
    for damage in (b"{", b"[]", b'{"format": 2}', b'{"format": "two"}'):
        warehouse.child("_runs").replace_bytes("latest.json", damage)
        with pytest.raises(DedupError, match=r"latest.json is damaged"):
            read_manifest(warehouse)


def test_a_table_that_a_run_lacks_is_named_with_those_it_has(warehouse):
    publish(warehouse, "r1", stored(warehouse, "r1"))
    with pytest.raises(DedupError, match=r"\(published\) has no table 'runs'; it has: group_chang"):
        find_table(warehouse, read_manifest(warehouse), "runs")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"min_cosine": 0.9}, "cosine 0.900"),
        ({"min_cosine": 0.9, "min_score": None}, "cosine 0.900"),
        ({"min_cosine": 0.9, "min_score": 0.9, "search": {"seed": 1}}, "cosine 0.900"),
        ({"min_cosine": 0.9, "min_score": 0.9, "search": {"verifier": None}}, "cosine 0.900"),
        ({"min_cosine": 0.5, "min_score": 0.8, "search": {"verifier": "v"}}, "score 0.800"),
    ],
)
def test_the_threshold_of_old_runs_is_a_cosine_and_of_verified_ones_a_score(facts, expected):
    assert str(threshold_of(facts)) == expected


def test_an_object_store_keeps_manifests_alike(s3_server):
    s3_server.create_bucket("manifest-test")
    warehouse = open_warehouse("s3://manifest-test/w")
    assert newest_published(warehouse) is None
    assert list_runs(warehouse) == []
    run = publish(warehouse, "r1", stored(warehouse, "r1"))
    assert newest_published(warehouse) == run
    assert list_runs(warehouse) == [run]
    assert has_data(warehouse, run)
