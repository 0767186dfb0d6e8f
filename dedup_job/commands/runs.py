"""`dedup-job runs`: what ran in a warehouse and how it ended; `--keep-runs` prunes."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from dedup_job.commands.maintenance import maintain
from dedup_job.commands.safe_text import visible
from dedup_job.io.lease import LeaseOwner, read_lease
from dedup_job.io.manifests import RunManifest, has_data, list_runs
from dedup_job.io.retention import prune_runs
from dedup_job.io.storage import open_warehouse

_COLUMNS = ("run", "date", "status", "rows", "embedded", "groups", "pairs", "seconds")


@dataclass(frozen=True)
class RunLine:
    """One run.

    `status` is that of its manifest, or died (nobody holds its lease), superseded (a later run of
    its date is published) or deleted (published once, its data since deleted).
    """

    run_id: str
    run_date: str
    status: str
    n_rows: int | None
    n_embedded: int | None
    n_groups: int | None
    n_pairs: int | None
    seconds: float | None
    error: str | None


def show_runs(warehouse: str, keep_runs: int | None = None, as_json: bool = False) -> None:
    """Print all runs of a warehouse, the oldest first.

    Args:
        warehouse: as `--warehouse`.
        keep_runs: first delete all but so many published dates.
        as_json: print a JSON list instead.

    Raises:
        WarehouseBusy: a run is at work, and old runs cannot be deleted meanwhile.
        DedupError: old runs are to be deleted where there never was one.
    """
    folder = open_warehouse(warehouse)
    if keep_runs is not None:
        with maintain(folder, "prune") as work:
            work.lease.check()
            gone = prune_runs(folder, keep_runs)
        if not as_json:
            print(f"deleted {len(gone)} runs")
    runs = list_runs(folder)
    published = [run for run in runs if run.status == "published"]
    newest = {run.run_date: run for run in sorted(published, key=lambda run: run.order)}
    owner = read_lease(folder)
    lines = []
    for run in runs:
        status = _status(run, newest.get(run.run_date), owner)
        if status in ("published", "superseded") and not has_data(folder, run):
            status = "deleted"
        lines.append(_line(run, status))
    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=2))
    elif lines:
        print("\n".join(_table(lines)))
    else:
        print(f"no runs in {folder.uri}; start one with: dedup-job run --warehouse {warehouse} ...")


def _status(run: RunManifest, newest: RunManifest | None, owner: LeaseOwner | None) -> str:
    if run.status == "running":
        is_alive = owner is not None and owner.run_id == run.run_id and owner.is_alive()
        return "running" if is_alive else "died"
    if run.status == "published" and newest is not None and newest.run_id != run.run_id:
        return "superseded"
    return run.status


def _line(run: RunManifest, status: str) -> RunLine:
    seconds = None
    if run.finished_at:
        ended = datetime.fromisoformat(run.finished_at)
        seconds = (ended - datetime.fromisoformat(run.started_at)).total_seconds()
    facts = run.facts.get
    return RunLine(
        run.run_id,
        run.run_date,
        status,
        facts("n_catalog_rows"),
        facts("n_embedded"),
        facts("n_groups"),
        facts("n_pairs"),
        seconds,
        run.error,
    )


def _table(lines: list[RunLine]) -> list[str]:
    form = "{:24} {:10} {:10} {:>10} {:>10} {:>8} {:>9} {:>8}"
    text = [form.format(*_COLUMNS)]
    for line in lines:
        counts = (line.n_rows, line.n_embedded, line.n_groups, line.n_pairs)
        shown = ["-" if count is None else str(count) for count in counts]
        seconds = "-" if line.seconds is None else f"{line.seconds:.0f}"
        text.append(form.format(line.run_id, line.run_date, line.status, *shown, seconds))
        if line.error:
            text.append(f"    {line.error}")
    return [visible(line) for line in text]
