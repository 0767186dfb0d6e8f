"""Which runs are kept. Data go before the manifest that names them.

So a crash half way leaves a manifest whose data are gone, which readers recognise (`has_data`) and the
next pruning finds again; the other order would leave files that nobody names and nobody deletes.
"""

import logging
from dataclasses import replace

from dedup_job.errors import one_line
from dedup_job.io.manifests import (
    RUNS_FOLDER,
    RunManifest,
    has_data,
    list_runs,
    newest_published,
    write_manifest,
)
from dedup_job.io.storage import Folder
from dedup_job.tables import REPORT_TABLES

logger = logging.getLogger("dedup_job")
_DEATH = "ended without a word: killed, or its machine was lost"
_VERSIONS_OF_A_DATE = 2  # a reader may still hold the manifest before the last


def prune_runs(warehouse: Folder, keep_runs: int) -> list[str]:
    """Keep the newest published runs and delete the others, with what they published.

    Runs of one date count once. Runs that failed, were held back or were shadows go when they are
    older than the oldest run that is kept.

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
    oldest = min(run.started_at for run in kept)
    gone = [
        run
        for run in runs
        if (run.run_date not in kept_dates if run in published else run.started_at < oldest)
    ]
    for run_date in dates:
        if run_date not in kept_dates:
            for table in REPORT_TABLES:
                _delete(warehouse.child(table.name, f"run_date={run_date}"))
    for run in gone:
        _delete(warehouse.child(RUNS_FOLDER, run.run_id))
        warehouse.child(RUNS_FOLDER).delete_file(f"{run.run_id}.json")
    return [run.run_id for run in gone]


def drop_superseded(warehouse: Folder) -> None:
    """Of several published runs of one date, delete the data of all but the newest two.

    Their manifests stay: they are the history.
    """
    by_date: dict[str, list[RunManifest]] = {}
    for run in list_runs(warehouse):
        if run.status == "published":
            by_date.setdefault(run.run_date, []).append(run)
    for runs in by_date.values():
        ordered = sorted(runs, key=lambda run: run.order, reverse=True)
        for run in ordered[_VERSIONS_OF_A_DATE:]:
            if has_data(warehouse, run):
                _delete(warehouse.child(RUNS_FOLDER, run.run_id))


def bury_dead_runs(warehouse: Folder, run_id: str) -> None:
    """Record of runs that were killed that they died, and delete what they had not yet published.

    Only the holder of the lease may say so.

    Args:
        warehouse: the warehouse.
        run_id: the run that holds the lease.
    """
    for run in list_runs(warehouse):
        if run.status == "running" and run.run_id != run_id:
            logger.info("run %s died: it ended without a word", run.run_id)
            _delete(warehouse.child(RUNS_FOLDER, run.run_id))
            write_manifest(warehouse, replace(run, status="died", error=_DEATH))
        elif run.status in ("failed", "held"):
            _delete(warehouse.child(RUNS_FOLDER, run.run_id))


def _delete(folder: Folder) -> None:
    try:
        folder.delete()
    except Exception as error:  # tomorrow's pruning finds it again
        logger.warning("could not delete %s: %s", folder.uri, one_line(error))
