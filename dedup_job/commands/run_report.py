"""A published run gathered from its tables: what `show` prints and `demo` judges."""

from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dedup_job.errors import ConfigError, DedupError
from dedup_job.io.manifests import (
    RunManifest,
    Threshold,
    find_table,
    list_runs,
    published_for,
    read_manifest,
    threshold_of,
)
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.tables import read_rows
from dedup_job.tables import DUPLICATE_GROUPS, REJECTED_IMAGES, RUN_METRICS, RUNS, Table


@dataclass(frozen=True)
class GroupSummary:
    """One group: its survivor first, then the others by falling cosine to it."""

    group_id: str
    canonical_sku_id: str
    duplicate_sku_ids: list[str]
    group_size: int
    min_pair_cosine: float


@dataclass(frozen=True)
class RunReport:
    """A run. `run`: the row of `runs`; `metrics`: value by `stage.metric`; `threshold`: of its pairs."""

    run: dict[str, Any]
    run_date: str
    metrics: dict[str, float | None]
    rejects: dict[str, int]
    top_groups: list[GroupSummary]
    threshold: Threshold


def load_report(
    warehouse: str, run_id: str | None = None, run_date: date | None = None, top: int = 10
) -> RunReport:
    """Gather a run.

    Args:
        warehouse: as `--warehouse`.
        run_id: a certain run; default: the last published one.
        run_date: the run that is published for this date; not together with `run_id`.
        top: groups to list, the largest first, of equal size the most certain first; at least 0.

    Raises:
        DedupError: nothing is published there, the run got no tables, or they were replaced since.
    """
    if top < 0:
        raise ConfigError(f"--top: expected 0 or more, got {top}")
    folder = open_warehouse(warehouse)
    manifest = _find_run(folder, run_id, run_date)
    run = _read(folder, manifest, RUNS).to_pylist()[0]
    if run["run_id"] != manifest.run_id:
        raise DedupError(_replaced(manifest, f"by run {run['run_id']}"))
    metrics = _read(folder, manifest, RUN_METRICS).to_pylist()
    reasons = _read(folder, manifest, REJECTED_IMAGES)["reason"].value_counts().to_pylist()
    return RunReport(
        run=run,
        run_date=manifest.run_date,
        metrics={f"{row['stage']}.{row['metric']}": row["value"] for row in metrics},
        rejects={
            row["values"]: row["counts"]
            for row in sorted(reasons, key=lambda row: (-row["counts"], row["values"]))
        },
        top_groups=top_groups(_read(folder, manifest, DUPLICATE_GROUPS), top),
        # The first release's manifests leave figures to the row.
        threshold=threshold_of({**run, **manifest.facts}),
    )


def top_groups(rows: pa.Table, top: int) -> list[GroupSummary]:
    """The `top` largest groups of `duplicate_groups` rows; of equal size the most certain first."""
    order = [
        ("group_size", "descending"),
        ("min_pair_cosine", "descending"),
        ("group_id", "ascending"),
    ]
    survivors = rows.filter(rows["is_canonical"]).sort_by(order).slice(0, top)
    chosen = rows.filter(pc.is_in(rows["group_id"], survivors["group_id"].combine_chunks()))
    chosen = chosen.sort_by([("cosine_to_canonical", "descending"), ("sku_id", "ascending")])
    others: dict[str, list[str]] = {}
    for row in chosen.filter(pc.invert(chosen["is_canonical"])).to_pylist():
        others.setdefault(row["group_id"], []).append(row["sku_id"])
    return [
        GroupSummary(
            row["group_id"],
            row["canonical_sku_id"],
            others.get(row["group_id"], []),
            row["group_size"],
            row["min_pair_cosine"],
        )
        for row in survivors.to_pylist()
    ]


def _find_run(folder: Folder, run_id: str | None, run_date: date | None) -> RunManifest:
    if run_id and run_date:
        raise ConfigError("give --run-id or --run-date, not both")
    if run_date is None:
        manifest = read_manifest(folder, run_id)
        if not manifest.tables:
            raise DedupError(
                f"run {manifest.run_id} has no tables to show, its status is {manifest.status}"
                f"{': ' if manifest.error else ''}{manifest.error or ''}; list all runs with: "
                f"dedup-job runs --warehouse {folder.uri}"
            )
        return manifest
    latest = read_manifest(folder)  # says so when nothing at all is published
    if latest.run_date == run_date.isoformat():
        return latest
    of_date = published_for(folder, run_date)
    if of_date is None:
        dates = sorted({run.run_date for run in list_runs(folder) if run.status == "published"})
        raise DedupError(f"{folder.uri} holds no run of {run_date}; it has {', '.join(dates[-5:])}")
    return of_date


def _read(folder: Folder, manifest: RunManifest, table: Table) -> pa.Table:
    try:
        return read_rows(find_table(folder, manifest, table.name))
    except FileNotFoundError:
        raise DedupError(_replaced(manifest, "since")) from None


def _replaced(manifest: RunManifest, how: str) -> str:
    return (
        f"the tables of run {manifest.run_id} were replaced {how}; "
        f"show what is published for its date with --run-date {manifest.run_date}"
    )
