"""The end of a run: reports to staging, the law of rows, publish, manifest last."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from dedup_job.io.manifests import RunManifest, describe_table, write_manifest
from dedup_job.io.publish import Published, append_table, delete_outdated, publish_table
from dedup_job.io.session import count_cores
from dedup_job.io.tables import StoredTable, read_table
from dedup_job.kernels.calibration import Calibration
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.report_tables import (
    Findings,
    count_rows,
    store_new_embeddings,
    store_reports,
    store_rows,
    store_state,
)
from dedup_job.nightly.results import RowCounts, RunResult
from dedup_job.settings import Settings
from dedup_job.tables import (
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    IMAGE_EMBEDDINGS,
    REJECTED_IMAGES,
    RUN_METRICS,
    RUNS,
)
from dedup_job.version import VERSION, library_versions


def publish_run(
    context: RunContext, settings: Settings, calibration: Calibration, found: Findings
) -> RunResult:
    """Write and publish all tables of a run.

    Raises:
        DedupError: rows were lost or doubled; nothing is published.
    """
    embeddings_folder = context.warehouse.child(
        IMAGE_EMBEDDINGS.name, f"model_id={calibration.model_id}"
    )
    with context.stage("reports"):
        reports = store_reports(context, calibration, found)
        state = store_state(context, found)
        embeddings = store_new_embeddings(context, found, embeddings_folder)
        rows = count_rows(found, reports)
        rows.check()
    result = _summarise(context, settings, found, rows, reports)
    run_row = _run_row(context, settings, calibration, result)
    _measure(context, found, result)
    metrics = [{**asdict(metric), "run_id": context.run_id} for metric in context.metrics]
    reports[RUNS.name] = store_rows(context, [run_row], RUNS)
    reports[RUN_METRICS.name] = store_rows(context, metrics, RUN_METRICS)

    published = _publish(context, reports, state)
    published.append(append_table(embeddings, embeddings_folder, context.run_id))
    write_manifest(context.warehouse, _manifest(context, settings, run_row, published))
    delete_outdated(published)
    return result


def _publish(
    context: RunContext,
    reports: Mapping[str, StoredTable],
    state: Mapping[str, StoredTable],
) -> list[Published]:
    partition = f"run_date={context.run_date.isoformat()}"
    places = [
        *((stored, context.warehouse.child(name, partition)) for name, stored in reports.items()),
        *((stored, context.warehouse.child("_state", name)) for name, stored in state.items()),
    ]
    return [publish_table(stored, target, context.run_id) for stored, target in places]


def _summarise(
    context: RunContext,
    settings: Settings,
    found: Findings,
    rows: RowCounts,
    reports: Mapping[str, StoredTable],
) -> RunResult:
    threshold, recall = found.search.threshold, found.search.recall
    wall_time_s = (datetime.now(UTC) - context.started_at).total_seconds()
    groups = reports[DUPLICATE_GROUPS.name]
    return RunResult(
        run_id=context.run_id,
        run_date=context.run_date.isoformat(),
        warehouse=context.warehouse.uri,
        rows=rows,
        rejects_by_reason=_count_reasons(context, reports[REJECTED_IMAGES.name]),
        min_cosine=threshold.min_cosine,
        expected_precision=threshold.expected_precision,
        expected_false_pairs=threshold.expected_false_pairs,
        threshold_note=threshold.note,
        candidate_recall=recall.recall,
        candidate_recall_low=recall.low,
        n_pairs=reports[DUPLICATE_PAIRS.name].n_rows,
        n_groups=read_table(context.spark, groups, ["is_canonical"]).where("is_canonical").count(),
        n_grouped_skus=groups.n_rows,
        wall_time_s=wall_time_s,
        photos_per_s=found.n_photos / max(context.seconds_of("embeddings"), 1e-9),
        dollars_per_million_photos=_cost(context, settings, found.n_photos, wall_time_s),
    )


def _cost(
    context: RunContext, settings: Settings, n_photos: int, wall_time_s: float
) -> float | None:
    price = settings.config.dollars_per_core_hour
    if price is None or not n_photos:
        return None
    return price * count_cores(context.spark) * wall_time_s / 3600 * 1e6 / n_photos


def _count_reasons(context: RunContext, rejects: StoredTable) -> dict[str, int]:
    counted = read_table(context.spark, rejects, ["reason"]).groupBy("reason").count().collect()
    return {row["reason"]: row["count"] for row in sorted(counted, key=lambda row: row["reason"])}


def _measure(context: RunContext, found: Findings, result: RunResult) -> None:
    """The figures of `run_metrics` beside the stages' wall times."""
    threshold, recall = found.search.threshold, found.search.recall
    for name, value in asdict(result.rows).items():
        context.measure("catalog", f"rows_{name}", value, "rows")
    for reason, value in result.rejects_by_reason.items():
        context.measure("catalog", f"rejected_{reason}", value, "rows")
    context.measure("embeddings", "photos_per_second", result.photos_per_s, "photos/s")
    context.measure("candidates", "search_floor", found.search.floor_cosine, "cosine")
    context.measure("candidates", "min_cosine", threshold.min_cosine, "cosine")
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
    context.measure("candidates", "n_trees", found.search.effort.n_trees, "trees")
    context.measure("candidates", "fan_out", found.search.effort.fan_out, "cells")
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
        "status": "published",
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
    }


def _manifest(
    context: RunContext,
    settings: Settings,
    run_row: Mapping[str, object],
    published: list[Published],
) -> RunManifest:
    facts = {key: value for key, value in run_row.items() if not isinstance(value, datetime)}
    return RunManifest(
        run_id=context.run_id,
        run_date=context.run_date.isoformat(),
        status="published",
        started_at=context.started_at.isoformat(),
        finished_at=datetime.now(UTC).isoformat(),
        version=VERSION,
        config=settings.as_dict(),
        facts=facts,
        tables={
            one.stored.table.name: describe_table(one.stored, context.warehouse)
            for one in published
        },
        libraries=library_versions(),
    )
