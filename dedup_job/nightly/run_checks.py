"""Checks of what a run would work on: warehouse, catalog, photos, disk. Pure, as `machine_checks`."""

from collections.abc import Sequence

from dedup_job.io.decisions import DecisionFile
from dedup_job.io.lease_files import LeaseOwner
from dedup_job.io.warehouse_access import WarehouseAccess
from dedup_job.nightly.executors import Executor
from dedup_job.nightly.findings import Finding, Level, for_all
from dedup_job.nightly.look_ahead import CatalogFigures, SampleFigures

_SPARE_DISK = 1.5


def check_warehouse(
    uri: str, driver: WarehouseAccess, executors: Sequence[Executor]
) -> list[Finding]:
    """Whether driver and executors may write to one and the same warehouse."""
    remedy = "choose another --warehouse, or give this user the right to write there"
    if driver.problem:
        return [Finding(Level.FAIL, "warehouse", f"{uri}: {driver.problem}; {remedy}")]

    def check(executor: Executor) -> list[Finding]:
        access = executor.warehouse
        if access is None:
            return []
        if access.problem:
            return [Finding(Level.FAIL, "warehouse", f"{uri}: {access.problem}; {remedy}")]
        if access.nearest != driver.nearest:
            detail = (
                f"{uri}: the driver finds {driver.nearest}, these find only {access.nearest}; "
                "use a folder that all machines mount, or s3:// or gs://"
            )
            return [Finding(Level.FAIL, "warehouse", detail)]
        return []

    if bad := for_all(executors, check):
        return bad
    if driver.free_mb is None:
        return [Finding(Level.OK, "warehouse", f"{uri} can be listed; writing was not tried")]
    new = "" if driver.nearest == uri else f"; a run creates it below {driver.nearest}"
    free = f"{uri} may be written to, {driver.free_mb} MB free{new}"
    return [Finding(Level.OK, "warehouse", free)]


def check_catalog(figures: CatalogFigures, max_reject_rate: float) -> list[Finding]:
    """Rows that are rejected as they stand, and photos that the `fetch` settings refuse."""
    n_bad = sum(figures.rejects.values())
    detail = (
        f"{figures.n_rows} rows, {figures.n_photos} distinct photos: {figures.n_new} to fetch, "
        f"{figures.n_asked} to ask for changes, {figures.n_remembered} known"
    )
    findings = [Finding(Level.OK, "catalog", detail)]
    if n_bad:
        reasons = ", ".join(f"{n} {reason}" for reason, n in figures.rejects.items())
        share = n_bad / figures.n_rows
        detail = f"{n_bad} of {figures.n_rows} are rejected by themselves: {reasons}"
        if share > max_reject_rate:
            detail += (
                f"; the gate `rejects` ({max_reject_rate:g}) would hold the run back: correct the "
                "catalog, or raise gates.max_reject_rate"
            )
        level = Level.WARN if share > max_reject_rate else Level.OK
        findings.append(Finding(level, "catalog rows", detail))
    findings += [
        Finding(Level.WARN, "fetch settings", f"{n} photos are refused: {refusal}")
        for refusal, n in figures.refusals.items()
    ]
    if others := figures.n_refused - sum(figures.refusals.values()):
        detail = f"{others} photos are refused for other reasons of this kind"
        findings.append(Finding(Level.WARN, "fetch settings", detail))
    return findings


def check_decisions(file: DecisionFile) -> Finding:
    """How many rows of a decisions file count, and why the first of the others cannot be read."""
    n_said = len(file.decisions) + len(file.repeated)
    detail = f"{n_said} decisions about {len(file.decisions)} pairs"
    if not file.rejected:
        return Finding(Level.OK, "decisions", detail)
    first = file.rejected[0]
    detail += (
        f"; {len(file.rejected)} rows cannot be read, the first is row {first.row}: {first.reason}"
    )
    return Finding(Level.WARN, "decisions", detail)


def check_sample(sample: SampleFigures, max_reject_rate: float) -> Finding:
    """What became of a sample of photos."""
    n_bad = sum(sample.rejects.values())
    done = f"{sample.n_photos} photos tried, {n_bad} rejected"
    if not n_bad:
        return Finding(Level.OK, "photos", done)
    reasons = "; ".join(
        f"{n} {reason} ({sample.details.get(reason, '')})" for reason, n in sample.rejects.items()
    )
    if n_bad == sample.n_photos:
        detail = (
            f"{done}: {reasons}. No photo could be used: look at --image-root, the `fetch` settings "
            "and the executors' credentials"
        )
        return Finding(Level.FAIL, "photos", detail)
    if n_bad / sample.n_photos > max_reject_rate:
        detail = (
            f"{done}: {reasons}. The gate `rejects` ({max_reject_rate:g}) may hold the run back"
        )
        return Finding(Level.WARN, "photos", detail)
    return Finding(Level.OK, "photos", f"{done}: {reasons}")


def check_lease(owner: LeaseOwner | None) -> list[Finding]:
    """Whether another run works in the warehouse; nothing when none does."""
    if owner is None or not owner.is_alive():
        return []
    detail = (
        f"run {owner.run_id} (host {owner.host}, process {owner.pid}) works there since "
        f"{owner.started_at}: wait for it, a second run would end with exit code 1"
    )
    return [Finding(Level.WARN, "warehouse in use", detail)]


def check_disk(access: WarehouseAccess, needed_bytes: float) -> list[Finding]:
    """Whether the warehouse's disk holds what a run writes; nothing for object stores."""
    if access.free_mb is None:
        return []
    needed_mb = int(needed_bytes / (1 << 20)) + 1
    found = f"{access.free_mb} MB free at {access.nearest}, the run needs about {needed_mb} MB"
    if access.free_mb >= _SPARE_DISK * needed_mb:
        return [Finding(Level.OK, "disk", found)]
    level = Level.FAIL if access.free_mb < needed_mb else Level.WARN
    remedy = "free some, delete old runs (dedup-job runs --keep-runs N), or move the warehouse"
    return [Finding(level, "disk", f"{found}: {remedy}")]
