"""Run manifests: what a run did and which files are its result. Written last, read first.

`_runs/RUN_ID.json` describes one run; `_runs/latest.json` is a copy of the newest published one and
the only thing a reader needs: it names every file with rows and SHA-256.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from dedup_job.errors import DedupError
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, TableFile
from dedup_job.tables import REPORT_TABLES, STATE_TABLES

MANIFEST_FORMAT = 1
RUNS_FOLDER = "_runs"
LATEST = "latest.json"
_TABLES = {table.name: table for table in (*REPORT_TABLES, *STATE_TABLES)}


@dataclass(frozen=True)
class RunManifest:
    """The record of one run.

    `tables` maps a table name to its folder, relative to the warehouse so that a warehouse can be
    moved, and its files.
    """

    run_id: str
    run_date: str
    status: str
    started_at: str
    finished_at: str
    version: str
    config: dict[str, Any]
    facts: dict[str, Any]
    tables: dict[str, dict[str, Any]]
    format: int = MANIFEST_FORMAT
    libraries: dict[str, str] = field(default_factory=dict)


def describe_table(stored: StoredTable, warehouse: Folder) -> dict[str, Any]:
    """A stored table as a manifest names it."""
    return {
        "folder": stored.folder.uri.removeprefix(warehouse.uri).strip("/"),
        "files": [asdict(file) for file in stored.files],
    }


def write_manifest(warehouse: Folder, manifest: RunManifest) -> None:
    """Write the run's manifest, then point `latest.json` at it."""
    data = (json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n").encode()
    folder = warehouse.child(RUNS_FOLDER)
    folder.replace_bytes(f"{manifest.run_id}.json", data)
    if manifest.status == "published":
        folder.replace_bytes(LATEST, data)


def read_manifest(warehouse: Folder, run_id: str | None = None) -> RunManifest:
    """Read a run's manifest, or the last published one.

    Raises:
        DedupError: nothing published there, or the manifest is damaged or of a newer format.
    """
    name = f"{run_id}.json" if run_id else LATEST
    data = warehouse.child(RUNS_FOLDER).read_bytes(name)
    if data is None:
        what = f"run {run_id}" if run_id else "published run"
        raise DedupError(
            f"{warehouse.uri} holds no {what}; publish one with: "
            f"dedup-job run --catalog CATALOG --warehouse {warehouse.uri}"
        )
    try:
        content = json.loads(data)
        if content["format"] != MANIFEST_FORMAT:
            raise DedupError(
                f"{warehouse.uri}: manifest {name} has format {content['format']}, this version "
                f"reads {MANIFEST_FORMAT}; upgrade catalog-dedup"
            )
        return RunManifest(**content)
    except (ValueError, TypeError, KeyError) as error:
        raise DedupError(f"{warehouse.uri}: manifest {name} is damaged ({error!r})") from None


def find_table(warehouse: Folder, manifest: RunManifest, name: str) -> StoredTable:
    """The files of one table of a run.

    Raises:
        DedupError: the run has no such table.
    """
    entry = manifest.tables.get(name)
    if entry is None:
        raise DedupError(
            f"run {manifest.run_id} has no table {name!r}; it has: {', '.join(sorted(manifest.tables))}"
        )
    files = tuple(TableFile(**file) for file in entry["files"])
    return StoredTable(_TABLES[name], warehouse.child(entry["folder"]), files)
