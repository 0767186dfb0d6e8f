"""Publishing: immutable files of a run, partitions that are switched, state that the manifest names."""

import os
from dataclasses import replace
from datetime import date

import pyarrow.parquet as pq
import pytest

from dedup_job.io import storage
from dedup_job.io.publish import (
    delete_outdated_state,
    place_partition,
    publish_state,
    store_run_tables,
)
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_rows, write_rows
from dedup_job.tables import CATALOG_IMAGES, DUPLICATE_GROUPS, SCORED_PAIRS
from tests.unit.warehouses import image, publish, row_of

NAME = DUPLICATE_GROUPS.name


def group_rows(run_id, *skus):
    return [row_of(DUPLICATE_GROUPS, sku_id=sku, run_id=run_id) for sku in skus]


def stage(warehouse, run_id, *files):
    """A staged table of several files, each a tuple of SKUs."""
    folder = warehouse.child("_staging", run_id)
    stored = [write_rows(group_rows(run_id, *skus), DUPLICATE_GROUPS, folder) for skus in files]
    return StoredTable(
        DUPLICATE_GROUPS, folder, tuple(file for one in stored for file in one.files)
    )


def skus_of(stored):
    return read_rows(stored)["sku_id"].to_pylist()


def partition(warehouse):
    return warehouse.child(NAME, "run_date=2026-01-02")


def globbed(warehouse):
    return pq.read_table(f"{warehouse.uri}/{NAME}")["sku_id"].to_pylist()


def test_staged_files_become_a_runs_own_in_their_order(warehouse):
    stored = store_run_tables({NAME: stage(warehouse, "r1", "bc", "a", "d")}, warehouse, "r1")[NAME]
    assert skus_of(stored) == ["b", "c", "a", "d"]
    assert stored.folder == warehouse.child("_runs", "r1", NAME)
    assert [file.name for file in stored.files] == stored.folder.file_names()
    assert len(stored.files) == (1 if warehouse.is_local else 3)


def test_a_table_without_files_is_published_with_its_schema(warehouse):
    nothing = StoredTable(DUPLICATE_GROUPS, warehouse.child("_staging", "r1"), ())
    stored = store_run_tables({NAME: nothing}, warehouse, "r1")[NAME]
    assert (stored.n_rows, len(stored.files)) == (0, 1)
    assert read_rows(stored).schema == DUPLICATE_GROUPS.arrow


def test_a_stray_file_of_a_failed_attempt_is_not_published(warehouse):
    staged = stage(warehouse, "r1", "a")
    write_rows(group_rows("r1", "stray"), DUPLICATE_GROUPS, staged.folder)
    assert skus_of(store_run_tables({NAME: staged}, warehouse, "r1")[NAME]) == ["a"]


def test_a_partition_shows_the_last_run_and_earlier_runs_keep_their_files(warehouse):
    runs = {}
    for run_id, files in {"r1": ("ab", "c"), "r2": ("d",), "r3": ("",)}.items():
        staged = {NAME: stage(warehouse, run_id, *files)}
        runs[run_id] = store_run_tables(staged, warehouse, run_id)[NAME]
        place_partition(runs[run_id], partition(warehouse))
        names = [f"part-{n:05d}.parquet" for n in range(len(runs[run_id].files))]
        assert partition(warehouse).file_names() == names
        shown = replace(runs[run_id], folder=partition(warehouse))
        assert skus_of(shown) == list("".join(files))
    assert [skus_of(one) for one in runs.values()] == [["a", "b", "c"], ["d"], []]


def test_a_local_partition_costs_no_second_copy(tmp_path):
    warehouse = Folder(str(tmp_path))
    stored = store_run_tables({NAME: stage(warehouse, "r1", "a")}, warehouse, "r1")[NAME]
    place_partition(stored, partition(warehouse))
    assert os.path.samefile(
        stored.folder.path("part-00000.parquet"), partition(warehouse).path("part-00000.parquet")
    )


def test_where_links_are_refused_files_are_copied(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError("no hard links here")

    warehouse = Folder(str(tmp_path))
    stored = store_run_tables({NAME: stage(warehouse, "r1", "a")}, warehouse, "r1")[NAME]
    monkeypatch.setattr(storage.os, "link", refuse)
    place_partition(stored, partition(warehouse))
    assert globbed(warehouse) == ["a"]
    assert partition(warehouse).file_names() == ["part-00000.parquet"]


def test_a_crash_before_the_switch_leaves_what_was_there_and_a_rerun_cleans_up(
    tmp_path, monkeypatch
):
    def crash(*args):
        raise KeyboardInterrupt

    warehouse = Folder(str(tmp_path))
    first, second = (
        store_run_tables({NAME: stage(warehouse, run_id, sku)}, warehouse, run_id)[NAME]
        for run_id, sku in (("r1", "a"), ("r2", "b"))
    )
    place_partition(first, partition(warehouse))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(storage.os, "replace", crash)
        place_partition(second, partition(warehouse))
    assert len(partition(warehouse).file_names()) == 2  # the link that was not yet moved
    assert globbed(warehouse) == ["a"]
    place_partition(second, partition(warehouse))
    assert partition(warehouse).file_names() == ["part-00000.parquet"]
    assert globbed(warehouse) == ["b"]


def state_of(warehouse, run_id, sku):
    """State tables of a run, published and not yet named by a manifest."""
    folder = warehouse.child("_staging", run_id)
    images = write_rows([image(sku, sku)], CATALOG_IMAGES, folder.child("images"))
    pairs = write_rows([], SCORED_PAIRS, folder.child("pairs"))
    return publish_state({CATALOG_IMAGES.name: images, SCORED_PAIRS.name: pairs}, warehouse, run_id)


def test_state_counts_once_the_manifest_names_it_and_old_state_goes_then(warehouse):
    folders = [warehouse.child("_state", t.name) for t in (CATALOG_IMAGES, SCORED_PAIRS)]
    first = state_of(warehouse, "r1", "a")
    publish(warehouse, "r1", first, run_date="2026-01-01")
    second = state_of(warehouse, "r2", "b")
    assert read_rows(first[CATALOG_IMAGES.name])["sku_id"].to_pylist() == ["a"]
    publish(warehouse, "r2", second, run_date="2026-01-02")
    delete_outdated_state(warehouse)
    for folder in folders:
        assert folder.file_names() == ["r2-00000.parquet"]
    assert read_rows(second[CATALOG_IMAGES.name])["sku_id"].to_pylist() == ["b"]


def test_a_backfill_leaves_the_state_of_the_newest_run(warehouse):
    newest = state_of(warehouse, "r2", "b")
    publish(warehouse, "r2", newest, run_date="2026-01-02")
    publish(warehouse, "r1", {}, run_date="2026-01-01")
    delete_outdated_state(warehouse)
    assert read_rows(newest[CATALOG_IMAGES.name])["sku_id"].to_pylist() == ["b"]


def test_what_cannot_be_deleted_is_told_and_does_not_fail_the_run(tmp_path, monkeypatch, caplog):
    warehouse = Folder(str(tmp_path))
    folder = warehouse.child("_state", CATALOG_IMAGES.name)
    staged = write_rows([image("a", "a", date(2026, 1, 1))], CATALOG_IMAGES, folder)
    publish(warehouse, "r1", {CATALOG_IMAGES.name: staged})
    write_rows([], CATALOG_IMAGES, folder)  # a left-over

    def refuse(self, name):
        raise PermissionError(f"{name} is locked")

    monkeypatch.setattr(Folder, "delete_file", refuse)
    delete_outdated_state(warehouse)
    assert "is locked" in caplog.text
    assert len(folder.file_names()) == 2
