"""Run manifests: what a run did and which files are its result. Written last, read first.

`_runs/RUN_ID.json` describes one run, whatever became of it; `_runs/latest.json` is a copy of the
newest published one and the only thing a reader needs: it names every file with rows and SHA-256.
"""

import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from typing import Any

from dedup_job.errors import DedupError
from dedup_job.io.storage import RUNS_FOLDER, Folder
from dedup_job.io.tables import StoredTable, TableFile
from dedup_job.kernels.bundle import is_plain_name
from dedup_job.tables import REPORT_TABLES, STATE_TABLES, Table

logger = logging.getLogger("dedup_job")
MANIFEST_FORMAT = 2
LATEST = "latest.json"
_READERS = 16
_TABLES = {table.name: table for table in (*REPORT_TABLES, *STATE_TABLES)}


@dataclass(frozen=True)
class RunManifest:
    """The record of one run.

    Attributes:
        run_id: the run.
        run_date: the date it is for.
        status: running, published, shadow, held (by a gate), failed, or died (as the next run found).
        started_at: UTC.
        finished_at: UTC; empty while it runs.
        version: of this package.
        config: setting -> its value and who set it.
        facts: figures of the result, and what the next night must know.
        tables: table -> its folder, relative to the warehouse so that a warehouse can be moved, and
            its files.
        format: of this file.
        libraries: versions.
        error: why it is held or failed, in one line.
        host: where it ran.
        pid: its process there.
        inputs: the catalog's files as they were.
        stages: wall time in seconds.
        resumed_from: the dead run whose work it continued, and the steps taken over.
        accepted: gate -> reason.
        gates: verdicts of the audit.
        base_run_id: the run whose group ids were passed on.
        previous: in `latest.json`, id and date of the run that it named before.
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
    error: str | None = None
    host: str = ""
    pid: int = 0
    inputs: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, float | None] = field(default_factory=dict)
    resumed_from: dict[str, Any] = field(default_factory=dict)
    accepted: dict[str, str] = field(default_factory=dict)
    gates: list[dict[str, Any]] = field(default_factory=list)
    base_run_id: str | None = None
    previous: dict[str, str] = field(default_factory=dict)

    @property
    def order(self) -> tuple[str, str]:
        """What makes one published run newer than another: its date, then when it ended."""
        return self.run_date, self.finished_at


@dataclass(frozen=True)
class Threshold:
    """What pairs of a run had to reach. `scale`: `score` or, where it verified no pairs, `cosine`."""

    scale: str
    value: float

    def __str__(self) -> str:
        return f"{self.scale} {self.value:.3f}"


def threshold_of(facts: Mapping[str, Any]) -> Threshold:
    """The threshold of a run, from its manifest's facts; earlier versions knew cosines only."""
    scale = "cosine" if verifier_of(facts) is None else "score"
    value = facts.get("min_score")
    return Threshold(scale, float(facts["min_cosine"] if value is None else value))


def verifier_of(facts: Mapping[str, Any]) -> str | None:
    """What verified the pairs of a run; None: nothing, its scores are cosines."""
    verifier: str | None = facts.get("search", {}).get("verifier")
    return verifier


def describe_table(stored: StoredTable, warehouse: Folder) -> dict[str, Any]:
    """A stored table as a manifest names it."""
    return {
        "folder": stored.folder.uri.removeprefix(warehouse.uri).strip("/"),
        "files": [asdict(file) for file in stored.files],
    }


def described_table(table: Table, warehouse: Folder, entry: Mapping[str, Any]) -> StoredTable:
    """The stored table that `describe_table` described; keys of later versions are passed over."""
    files = tuple(
        TableFile(file["name"], file["n_rows"], file["n_bytes"], file["sha256"])
        for file in entry["files"]
    )
    return StoredTable(table, warehouse.child(entry["folder"]), files)


def write_manifest(warehouse: Folder, manifest: RunManifest) -> None:
    """Write a run's own manifest."""
    warehouse.child(RUNS_FOLDER).replace_bytes(f"{manifest.run_id}.json", _dump(manifest))


def point_latest(warehouse: Folder, manifest: RunManifest) -> bool:
    """Make a published run the latest one, unless a later date is published.

    Returns:
        Whether it is the latest.
    """
    newest = newest_published(warehouse)
    if newest is not None and newest.order > manifest.order:
        if newest.run_date == manifest.run_date:  # clocks of two hosts differ, or a paused run woke
            logger.warning(
                "run %s ended before run %s of the same date; latest.json keeps naming the latter",
                manifest.run_id,
                newest.run_id,
            )
        return False
    if newest is not None:
        previous = {"run_id": newest.run_id, "run_date": newest.run_date}
        manifest = replace(manifest, previous=previous)
    # One line: Spark SQL reads JSON line by line (commands/views.py).
    warehouse.child(RUNS_FOLDER).replace_bytes(LATEST, _dump(manifest, indent=None))
    return True


def read_manifest(warehouse: Folder, run_id: str | None = None) -> RunManifest:
    """Read a run's manifest, or the last published one.

    Raises:
        DedupError: nothing published there, or the manifest is damaged or of a newer format.
    """
    name = f"{run_id}.json" if run_id else LATEST
    data = warehouse.child(RUNS_FOLDER).read_bytes(name) if is_plain_name(name) else None
    if data is None:
        what = f"run {run_id}" if run_id else "published run"
        raise DedupError(
            f"{warehouse.uri} holds no {what}; publish one with: "
            f"dedup-job run --catalog CATALOG --warehouse {warehouse.uri}"
        )
    return _parse(warehouse, name, data)


def _parse(warehouse: Folder, name: str, data: bytes) -> RunManifest:
    try:
        content = json.loads(data)
        if content["format"] > MANIFEST_FORMAT:
            raise DedupError(
                f"{warehouse.uri}: manifest {name} has format {content['format']}, this version "
                f"reads up to {MANIFEST_FORMAT}; upgrade catalog-dedup"
            )
        known = {one.name for one in fields(RunManifest)}
        return RunManifest(**{key: value for key, value in content.items() if key in known})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DedupError(f"{warehouse.uri}: manifest {name} is damaged ({error!r})") from None


def newest_published(warehouse: Folder) -> RunManifest | None:
    """The run that `latest.json` names, or None before the first one."""
    data = warehouse.child(RUNS_FOLDER).read_bytes(LATEST)
    return None if data is None else _parse(warehouse, LATEST, data)


def list_runs(warehouse: Folder) -> list[RunManifest]:
    """All runs in the order in which they started; damaged manifests are told and passed over."""
    names = warehouse.child(RUNS_FOLDER).file_names()
    run_ids = [n.removesuffix(".json") for n in names if n.endswith(".json") and n != LATEST]
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda run_id: _read_or_warn(warehouse, run_id), run_ids)
    runs = [run for run in found if run is not None]
    return sorted(runs, key=lambda run: (run.started_at, run.run_id))


def published_for(warehouse: Folder, run_date: date) -> RunManifest | None:
    """The newest published run of a date whose data still exist."""
    return _newest(warehouse, lambda published: published == run_date.isoformat())


def last_published_before(warehouse: Folder, run_date: date) -> RunManifest | None:
    """The newest published run of the last date before `run_date`, if its data still exist."""
    return _newest(warehouse, lambda published: published < run_date.isoformat())


def has_data(warehouse: Folder, manifest: RunManifest) -> bool:
    """Whether all report files that a manifest names are still there."""
    return bool(manifest.tables) and all(
        {file["name"] for file in entry["files"]}
        <= set(warehouse.child(entry["folder"]).file_names())
        for name, entry in manifest.tables.items()
        if name not in {table.name for table in STATE_TABLES}
    )


def find_table(warehouse: Folder, manifest: RunManifest, name: str) -> StoredTable:
    """The files of one table of a run.

    Raises:
        DedupError: the run has no such table.
    """
    entry = manifest.tables.get(name)
    if entry is None:
        raise DedupError(
            f"run {manifest.run_id} ({manifest.status}) has no table {name!r}; it has: "
            f"{', '.join(sorted(manifest.tables)) or 'none'}"
        )
    return described_table(_TABLES[name], warehouse, entry)


def _read_or_warn(warehouse: Folder, run_id: str) -> RunManifest | None:
    try:
        return read_manifest(warehouse, run_id)
    except DedupError as error:
        logger.warning("%s", error)
        return None


def _newest(warehouse: Folder, is_wanted: Callable[[str], bool]) -> RunManifest | None:
    runs = [
        run for run in list_runs(warehouse) if run.status == "published" and is_wanted(run.run_date)
    ]
    ordered = sorted(runs, key=lambda run: run.order, reverse=True)
    return next((run for run in ordered if has_data(warehouse, run)), None)


def _dump(manifest: RunManifest, indent: int | None = 2) -> bytes:
    return (json.dumps(asdict(manifest), indent=indent, sort_keys=True) + "\n").encode()
