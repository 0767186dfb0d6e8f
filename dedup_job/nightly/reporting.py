"""The end of a run: reports to staging, audit, publish, manifest last."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from dedup_job.errors import one_line
from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.manifests import describe_table, point_latest, write_manifest
from dedup_job.io.publish import (
    delete_outdated_state,
    place_partition,
    publish_state,
    store_run_tables,
)
from dedup_job.io.retention import drop_superseded, prune_runs
from dedup_job.io.session import count_cores
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_table
from dedup_job.kernels.calibration import Calibration
from dedup_job.nightly.audit import audit_run
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.faults import reach
from dedup_job.nightly.journal import delete_staging
from dedup_job.nightly.memory import Memory
from dedup_job.nightly.photo_stage import Model
from dedup_job.nightly.record import RunRecord
from dedup_job.nightly.report_tables import (
    Findings,
    Staged,
    stage_tables,
    store_rows,
)
from dedup_job.nightly.results import RunResult
from dedup_job.settings import Settings
from dedup_job.stages.review_sample import ReviewedPrecision
from dedup_job.tables import (
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    GROUP_CHANGES,
    LOOK_ALIKE_IDS,
    REJECTED_IMAGES,
    RUN_METRICS,
    RUNS,
)
from dedup_job.version import VERSION

logger = logging.getLogger("dedup_job")


def publish_run(
    record: RunRecord,
    context: RunContext,
    settings: Settings,
    model: Model,
    memory: Memory,
    found: Findings,
    show: Callable[[], None],
) -> RunResult:
    """Write, audit and publish all tables of a run.

    `show` is called once the run is published, while what it found still lies in staging.

    Raises:
        GateError: a quality gate is broken; nothing is published.
        LeaseLost: another run has taken the warehouse over; nothing is published.
        DedupError: rows were lost or doubled; nothing is published.
    """
    calibration = model.scores
    store = EmbeddingStore(context.warehouse, calibration.model_id)
    with context.stage("reports"):
        is_newest = not settings.config.shadow and not _is_backfill(context, memory)
        staged = stage_tables(context, calibration, memory, found, store, with_state=is_newest)
        context.lease.check()
        # Before the audit: what a gate holds back need not be embedded again, whatever changes.
        store.append(staged.embeddings, context.run_id)
        staged.rows.check()
    reports = staged.reports
    result = _summarise(record, context, settings, found, staged)
    audit_run(record, context, settings, memory, found, result, model, reports)
    reach("after_audit")

    run_row = _run_row(context, settings, calibration, result)
    record.facts = _facts(run_row, settings, model, found, staged.reviewed)
    _measure(context, found, result, record)
    metrics = [{**asdict(metric), "run_id": context.run_id} for metric in context.metrics]
    reports[RUNS.name] = store_rows(context, [run_row], RUNS)
    reports[RUN_METRICS.name] = store_rows(context, metrics, RUN_METRICS)
    keep_runs = None if record.is_shadow else settings.config.keep_runs
    _publish(record, context, reports, staged.state)
    if not record.is_shadow:
        show()
    _clean_up(context, keep_runs)
    return result


def _publish(
    record: RunRecord,
    context: RunContext,
    reports: Mapping[str, StoredTable],
    state: Mapping[str, StoredTable],
) -> None:
    """Files that no reader looks at first, then what all readers see, then the manifest."""
    warehouse, is_shadow = context.warehouse, record.is_shadow
    context.lease.check()
    tables = store_run_tables(reports, warehouse, context.run_id)
    tables |= publish_state(state, warehouse, context.run_id)
    if not is_shadow:
        for name in reports:
            context.lease.check()
            place_partition(tables[name], _partition(context, name))
    reach("before_manifest")
    context.lease.check()
    status = "shadow" if is_shadow else "published"
    manifest = record.manifest(
        status, {name: describe_table(one, warehouse) for name, one in tables.items()}
    )
    write_manifest(warehouse, manifest)
    record.status = status
    if not is_shadow:
        point_latest(warehouse, manifest)
    reach("after_manifest")


def _clean_up(context: RunContext, keep_runs: int | None) -> None:
    """Delete what nobody needs any more.

    The run is published: one that lost its lease by now, or whose store fails, leaves that to the next.
    """
    try:
        context.lease.check()
        delete_outdated_state(context.warehouse)
        drop_superseded(context.warehouse)
        if keep_runs is not None:
            prune_runs(context.warehouse, keep_runs)
        delete_staging(context.warehouse)
    except Exception as error:  # stores raise many types
        logger.warning(
            "published; what it no longer needs is left to the next run: %s", one_line(error)
        )


def _partition(context: RunContext, name: str) -> Folder:
    return context.warehouse.child(name, f"run_date={context.run_date.isoformat()}")


def _is_backfill(context: RunContext, memory: Memory) -> bool:
    """Whether a later date is published: then its state stays the newest."""
    return memory.newest is not None and memory.newest.run_date > context.run_date.isoformat()


def _facts(
    run_row: Mapping[str, object],
    settings: Settings,
    model: Model,
    found: Findings,
    reviewed: ReviewedPrecision,
) -> dict[str, object]:
    facts = {key: value for key, value in run_row.items() if not isinstance(value, datetime)}
    outcome, effort = found.outcome, found.outcome.effort
    # What the next night must know to carry tonight's pairs over.
    facts["search"] = {
        "mode": settings.config.candidates.search,
        "seed": settings.config.candidates.seed,
        "kept_floor": outcome.kept_floor,
        "level": effort.level,
        "n_trees": effort.n_trees,
        "fan_out": effort.fan_out,
        "verifier": model.verifier_id,
    }
    facts["photos"] = asdict(found.photo_counts)
    facts["reviewed"] = asdict(reviewed)
    return facts


def _summarise(
    record: RunRecord,
    context: RunContext,
    settings: Settings,
    found: Findings,
    staged: Staged,
) -> RunResult:
    reports = staged.reports
    threshold, recall = found.outcome.threshold, found.outcome.estimate
    wall_time_s = (datetime.now(UTC) - context.started_at).total_seconds()
    groups = reports[DUPLICATE_GROUPS.name]
    counts = found.photo_counts
    n_photos = counts.fetched + counts.not_modified
    journal = context.journal
    return RunResult(
        run_id=context.run_id,
        run_date=context.run_date.isoformat(),
        status="shadow" if record.is_shadow else "published",
        base_run_id=record.base_run_id,
        resumed_from=journal.adopted_from,
        resumed_steps=tuple(journal.reused),
        warehouse=context.warehouse.uri,
        rows=staged.rows,
        photos=counts,
        changes=_count(context, reports[GROUP_CHANGES.name], "change"),
        rejects_by_reason=_count(context, reports[REJECTED_IMAGES.name], "reason"),
        min_cosine=threshold.min_score if found.outcome.n_verified is None else found.floor_cosine,
        min_score=threshold.min_score,
        n_verified=found.outcome.n_verified,
        expected_precision=threshold.expected_precision,
        expected_false_pairs=threshold.expected_false_pairs,
        threshold_note=threshold.note,
        threshold_is_least=threshold.is_least,
        candidate_recall=recall.recall,
        candidate_recall_low=recall.low,
        n_pairs=reports[DUPLICATE_PAIRS.name].n_rows,
        n_groups=read_table(context.spark, groups, ["is_canonical"]).where("is_canonical").count(),
        n_grouped_skus=groups.n_rows,
        n_look_alike_skus=reports[LOOK_ALIKE_IDS.name].n_rows,
        decisions=dict(sorted(Counter(row["outcome"] for row in found.decisions).items())),
        reviewed=staged.reviewed,
        wall_time_s=wall_time_s,
        photos_per_s=n_photos / max(context.seconds_of("embeddings"), 1e-9),
        dollars_per_million_photos=_cost(context, settings, n_photos, wall_time_s),
    )


def _cost(
    context: RunContext, settings: Settings, n_photos: int, wall_time_s: float
) -> float | None:
    price = settings.config.dollars_per_core_hour
    if price is None or not n_photos:
        return None
    return price * count_cores(context.spark) * wall_time_s / 3600 * 1e6 / n_photos


def _count(context: RunContext, stored: StoredTable, column: str) -> dict[str, int]:
    counted = read_table(context.spark, stored, [column]).groupBy(column).count().collect()
    return {row[column]: row["count"] for row in sorted(counted, key=lambda row: row[column])}


def _measure(context: RunContext, found: Findings, result: RunResult, record: RunRecord) -> None:
    """The figures of `run_metrics` beside the stages' wall times."""
    threshold, recall = found.outcome.threshold, found.outcome.estimate
    for name, value in asdict(result.rows).items():
        context.measure("catalog", f"rows_{name}", value, "rows")
    context.measure("catalog", "look_alike_skus", result.n_look_alike_skus, "SKUs")
    for reason, value in result.rejects_by_reason.items():
        context.measure("catalog", f"rejected_{reason}", value, "rows")
    for name, value in asdict(result.photos).items():
        unit = "contents" if name == "embedded" else "photos"
        context.measure("embeddings", f"{unit}_{name}", value, unit)
    for change, value in result.changes.items():
        context.measure("groups", f"groups_{change}", value, "groups")
    reviewed = result.reviewed
    context.measure("groups", "reviewed_groups", reviewed.n_groups, "groups")
    context.measure("groups", "reviewed_precision", reviewed.share, "1")
    low, high = (reviewed.low, reviewed.high) if reviewed.n_groups else (None, None)
    context.measure("groups", "reviewed_precision_low", low, "1")
    context.measure("groups", "reviewed_precision_high", high, "1")
    for name, value in result.decisions.items():
        context.measure("groups", f"decisions_{name}", value, "decisions")
    outcome = found.outcome
    context.measure("candidates", "new_contents", outcome.n_new_contents, "contents")
    context.measure("candidates", "carried_contents", outcome.n_carried_contents, "contents")
    for gate in record.gates:
        passed = None if gate["skipped"] else float(gate["passed"])
        context.measure("audit", f"gate_{gate['name']}", passed, "1")
    context.measure("embeddings", "photos_per_second", result.photos_per_s, "photos/s")
    context.measure("candidates", "search_floor", found.floor_cosine, "cosine")
    context.measure("candidates", "min_cosine", result.min_cosine, "cosine")
    context.measure("candidates", "min_score", result.min_score, "1")
    context.measure("candidates", "verified_pairs", result.n_verified, "pairs")
    context.measure("candidates", "expected_false_pairs", threshold.expected_false_pairs, "pairs")
    context.measure("candidates", "expected_false_pairs_low", threshold.expected_false_low, "pairs")
    context.measure(
        "candidates", "expected_false_pairs_high", threshold.expected_false_high, "pairs"
    )
    context.measure("candidates", "expected_precision", threshold.expected_precision, "1")
    context.measure("candidates", "recall", recall.recall, "1")
    context.measure("candidates", "recall_low", recall.low if recall.n_true else None, "1")
    context.measure("candidates", "recall_high", recall.high if recall.n_true else None, "1")
    context.measure("candidates", "recall_true_pairs", recall.n_true, "pairs")
    context.measure("candidates", "n_trees", outcome.effort.n_trees, "trees")
    context.measure("candidates", "fan_out", outcome.effort.fan_out, "cells")
    context.measure("groups", "groups", result.n_groups, "groups")
    context.measure("groups", "pairs", result.n_pairs, "pairs")
    context.measure("run", "wall_time", result.wall_time_s, "s")
    context.measure("run", "cost_per_million_photos", result.dollars_per_million_photos, "USD")


def _run_row(
    context: RunContext,
    settings: Settings,
    calibration: Calibration,
    result: RunResult,
) -> dict[str, object]:
    config, rows = settings.config, result.rows
    is_explicit = config.match.min_cosine is not None
    return {
        "run_id": context.run_id,
        "status": result.status,
        "started_at": context.started_at,
        "finished_at": datetime.now(UTC),
        "model_id": calibration.model_id,
        "calibration_id": calibration.calibration_id,
        "config_fingerprint": config.fingerprint(),
        "min_cosine": result.min_cosine,
        "target_precision": None if is_explicit else config.match.target_precision,
        "target_recall": config.candidates.target_recall,
        "n_catalog_rows": rows.catalog,
        "n_embedded": rows.embedded,
        "n_reused": rows.reused,
        "n_shared_content": rows.shared_content,
        "n_placeholder": rows.placeholder,
        "n_rejected": rows.rejected,
        "n_pairs": result.n_pairs,
        "n_groups": result.n_groups,
        "n_grouped_skus": result.n_grouped_skus,
        "version": VERSION,
        "min_score": result.min_score,
    }
