import json

import pyarrow.parquet as pq
import pytest

from dedup_job.errors import DedupError
from dedup_job.io.manifests import (
    RunManifest,
    describe_table,
    find_table,
    read_manifest,
    write_manifest,
)
from dedup_job.io.publish import append_table, delete_outdated, exchange_directories, publish_table
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.tables import read_rows, write_rows
from dedup_job.tables import SCORED_PAIRS


def _stage(folder, *names):
    rows = [{"sha_a": n, "sha_b": n + "'", "cosine": 0.9} for n in names]
    return write_rows(rows, SCORED_PAIRS, folder)


def _manifest(run_id, tables):
    return RunManifest(run_id, "2026-01-02", "published", "s", "f", "0", {}, {}, tables)


def test_directories_are_exchanged(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"from_{name}").touch()
    exchange_directories(tmp_path / "a", tmp_path / "b")
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["from_a"]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["from_b"]


def test_a_second_publication_replaces_the_first(tmp_path):
    warehouse = Folder(str(tmp_path))
    target = warehouse.child("pairs", "run_date=2026-01-02")
    publish_table(_stage(warehouse.child("_staging", "1"), "x", "y"), target, "r1")
    published = publish_table(_stage(warehouse.child("_staging", "2"), "z"), target, "r2")
    assert pq.read_table(tmp_path / "pairs").column("sha_a").to_pylist() == ["z"]
    assert read_rows(published.stored).num_rows == 1
    assert list((tmp_path / "_staging").iterdir()) == []


def test_a_stray_file_of_a_failed_attempt_is_not_published(tmp_path):
    warehouse = Folder(str(tmp_path))
    staged = _stage(warehouse.child("_staging", "1"), "x")
    _stage(warehouse.child("_staging", "1"), "stray")
    publish_table(staged, warehouse.child("pairs"), "r1")
    assert pq.read_table(tmp_path / "pairs").column("sha_a").to_pylist() == ["x"]


def test_appended_files_do_not_touch_earlier_ones(tmp_path):
    warehouse = Folder(str(tmp_path))
    append_table(_stage(warehouse.child("_staging", "1"), "x"), warehouse.child("e"), "r1")
    append_table(_stage(warehouse.child("_staging", "2"), "y"), warehouse.child("e"), "r2")
    assert sorted(pq.read_table(tmp_path / "e").column("sha_a").to_pylist()) == ["x", "y"]


def test_on_an_object_store_old_files_go_after_the_manifest(s3_server):
    s3_server.create_bucket("publish-test")
    warehouse = open_warehouse("s3://publish-test/warehouse")
    target = warehouse.child("pairs", "run_date=2026-01-02")
    first = publish_table(_stage(warehouse.child("_staging", "1"), "x"), target, "r1")
    second = publish_table(_stage(warehouse.child("_staging", "2"), "y"), target, "r2")
    assert read_rows(first.stored).column("sha_a").to_pylist() == ["x"]
    write_manifest(
        warehouse, _manifest("r2", {"scored_pairs": describe_table(second.stored, warehouse)})
    )
    delete_outdated([second])
    latest = read_manifest(warehouse)
    stored = find_table(warehouse, latest, "scored_pairs")
    assert read_rows(stored).column("sha_a").to_pylist() == ["y"]
    assert target.file_names() == ["r2-00000.parquet"]


def test_the_latest_manifest_leads_to_the_files(tmp_path):
    warehouse = Folder(str(tmp_path))
    published = publish_table(
        _stage(warehouse.child("_staging", "1"), "x"), warehouse.child("p"), "1"
    )
    write_manifest(
        warehouse, _manifest("r1", {"scored_pairs": describe_table(published.stored, warehouse)})
    )
    assert read_manifest(warehouse) == read_manifest(warehouse, "r1")
    stored = find_table(warehouse, read_manifest(warehouse), "scored_pairs")
    assert read_rows(stored).num_rows == 1
    with pytest.raises(DedupError, match="has no table 'runs'; it has: scored_pairs"):
        find_table(warehouse, read_manifest(warehouse), "runs")


def test_an_empty_or_damaged_warehouse_is_explained(tmp_path):
    warehouse = Folder(str(tmp_path))
    with pytest.raises(DedupError, match="holds no published run"):
        read_manifest(warehouse)
    (tmp_path / "_runs").mkdir()
    (tmp_path / "_runs" / "latest.json").write_text("{")
    with pytest.raises(DedupError, match="damaged"):
        read_manifest(warehouse)
    (tmp_path / "_runs" / "latest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(DedupError, match="upgrade"):
        read_manifest(warehouse)
