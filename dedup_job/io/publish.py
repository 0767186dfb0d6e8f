"""Publishing: staged tables become the warehouse's tables (docs/adr/0010).

The files a manifest names never change. What readers see who glob `run_date=*/*.parquet` are the same
files once more, each put in place in one step.
"""

from collections.abc import Mapping
from dataclasses import replace

from dedup_job.io.manifests import newest_published
from dedup_job.io.storage import RUNS_FOLDER, STATE_FOLDER, Folder
from dedup_job.io.tables import StoredTable, TableFile, merge_files
from dedup_job.tables import STATE_TABLES


def store_run_tables(
    staged: Mapping[str, StoredTable], warehouse: Folder, run_id: str
) -> dict[str, StoredTable]:
    """Move a run's report tables to where its manifest will name them.

    Locally a table becomes one file, so that its partition can be switched in one step. A table
    without files becomes one that carries the schema.

    Args:
        staged: table name -> files below the same warehouse.
        warehouse: the warehouse.
        run_id: the run.
    """
    stored = {}
    for name, table in staged.items():
        if not table.files or (warehouse.is_local and len(table.files) > 1):
            table = merge_files(table, table.folder.child("merged"))
        stored[name] = _move(table, warehouse.child(RUNS_FOLDER, run_id, name), "part")
    return stored


def place_partition(stored: StoredTable, target: Folder) -> None:
    """Put a run's files where globbing readers look, each in one step; then delete surplus files."""
    target.create()
    names = [f"part-{i:05d}.parquet" for i in range(len(stored.files))]
    for file, name in zip(stored.files, names, strict=True):
        target.place(stored.folder, file.name, name)
    for name in target.file_names():
        if name not in names:
            target.delete_file(name)


def publish_state(
    staged: Mapping[str, StoredTable], warehouse: Folder, run_id: str
) -> dict[str, StoredTable]:
    """Move state tables beside those of the last run; the manifest decides which ones count."""
    return {
        name: _move(table, warehouse.child(STATE_FOLDER, name), run_id)
        for name, table in staged.items()
    }


def delete_outdated_state(warehouse: Folder) -> None:
    """Delete state files that `latest.json` does not name; call after it is written.

    What cannot be deleted is told, and does not fail the run.
    """
    newest = newest_published(warehouse)
    for table in STATE_TABLES:
        entry = newest.tables.get(table.name) if newest else None
        folder = warehouse.child(STATE_FOLDER, table.name)
        if entry is None or warehouse.child(entry["folder"]) != folder:
            continue
        named = {file["name"] for file in entry["files"]}
        for name in folder.file_names():
            if name not in named:
                folder.try_delete_file(name)


def _move(table: StoredTable, target: Folder, prefix: str) -> StoredTable:
    target.create()
    files: list[TableFile] = []
    for i, file in enumerate(table.files):
        name = f"{prefix}-{i:05d}.parquet"
        target.move_in(table.folder, file.name, name)
        files.append(replace(file, name=name))
    return StoredTable(table.table, target, tuple(files))
