"""Which runs are kept. Data go before the manifest that names them.

So a crash half way leaves a manifest whose data are gone, which readers recognise (`has_data`) and the
next pruning finds again; the other order would leave files that nobody names and nobody deletes. What
cannot be deleted keeps its manifest for the same reason.
"""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from dedup_job.io.manifests import (
    RunManifest,
    list_runs,
    newest_published,
    write_manifest,
)
from dedup_job.io.storage import RUNS_FOLDER, Folder
from dedup_job.tables import REPORT_TABLES

logger = logging.getLogger("dedup_job")
_DEATH = "ended without a word: killed, or its machine was lost"
_GRACE = timedelta(hours=1)  # a reader may still hold the manifest of a run that was superseded


def prune_runs(warehouse: Folder, keep_runs: int) -> list[str]:
    """Keep the newest published runs and delete the others, with what they published.

    Runs of one date count once. Runs that failed, were held back or were shadows go when they are
    older than the oldest run that is kept. Of the run whose group ids a kept one took over, only the
    partitions go: the kept one may be run again.

    Args:
        warehouse: the warehouse.
        keep_runs: published dates to keep, at least 1.

    Returns:
        Ids of the runs that are gone.
    """
    runs, newest = list_runs(warehouse), newest_published(warehouse)
    published = [run for run in runs if run.status == "published"]
    dates = sorted({run.run_date for run in published}, reverse=True)
    kept_dates = set(dates[:keep_runs]) | ({newest.run_date} if newest else set())
    kept = [run for run in published if run.run_date in kept_dates]
    if not kept:
        return []
    # A kept date that is run again takes its group ids from the run before it.
    bases = {run.base_run_id for run in kept}
    oldest = min(run.started_at for run in kept)
    gone = [
        run
        for run in runs
        if run.run_id not in bases
        and (run.run_date not in kept_dates if run in published else run.started_at < oldest)
    ]
    stuck = set()
    for run_date in set(dates) - kept_dates:
        folders = [warehouse.child(table.name, f"run_date={run_date}") for table in REPORT_TABLES]
        if not all([folder.try_delete() for folder in folders]):
            stuck.add(run_date)
    deleted = []
    for run in gone:
        is_stuck = run in published and run.run_date in stuck
        if warehouse.child(RUNS_FOLDER, run.run_id).try_delete() and not is_stuck:
            warehouse.child(RUNS_FOLDER).delete_file(f"{run.run_id}.json")
            deleted.append(run.run_id)
    return deleted


def drop_superseded(warehouse: Folder) -> None:
    """Delete the data of published runs that another run of their date has superseded for an hour.

    Their manifests stay: they are the history.
    """
    with_data = set(warehouse.child(RUNS_FOLDER).folder_names())
    by_date: dict[str, list[RunManifest]] = {}
    for run in list_runs(warehouse):
        if run.status == "published":
            by_date.setdefault(run.run_date, []).append(run)
    for runs in by_date.values():
        ordered = sorted(runs, key=lambda run: run.order)
        for run, successor in pairwise(ordered):
            ended = datetime.fromisoformat(successor.finished_at)
            if datetime.now(UTC) - ended > _GRACE and run.run_id in with_data:
                warehouse.child(RUNS_FOLDER, run.run_id).try_delete()


def bury_dead_runs(warehouse: Folder, run_id: str) -> None:
    """Record of runs that were killed that they died, and delete what they had not yet published.

    Only the holder of the lease may say so.

    Args:
        warehouse: the warehouse.
        run_id: the run that holds the lease.
    """
    with_data = set(warehouse.child(RUNS_FOLDER).folder_names())
    for run in list_runs(warehouse):
        is_dead = run.status == "running" and run.run_id != run_id
        if run.run_id in with_data and (is_dead or run.status in ("failed", "held")):
            warehouse.child(RUNS_FOLDER, run.run_id).try_delete()
        if is_dead:
            logger.info("run %s died: it ended without a word", run.run_id)
            write_manifest(warehouse, replace(run, status="died", error=_DEATH))
