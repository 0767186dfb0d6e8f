"""The audit between staging and publishing: defects end the run, broken gates hold it back."""

from collections.abc import Mapping

import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.errors import DedupError
from dedup_job.io.tables import StoredTable, read_table
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.gates import AuditFigures, as_manifest, audit, hold_or_accept, last_run
from dedup_job.nightly.memory import Memory
from dedup_job.nightly.photo_stage import Model
from dedup_job.nightly.record import RunRecord
from dedup_job.nightly.report_tables import Findings
from dedup_job.nightly.results import RunResult
from dedup_job.settings import Settings
from dedup_job.tables import DUPLICATE_GROUPS, REJECTED_IMAGES


def audit_run(
    record: RunRecord,
    context: RunContext,
    settings: Settings,
    memory: Memory,
    found: Findings,
    result: RunResult,
    model: Model,
    reports: Mapping[str, StoredTable],
) -> None:
    """Judge the staged reports; verdicts go into the run's record.

    Raises:
        DedupError: a defect of ours: a SKU in two groups, or a file that is not what its table says.
        GateError: a gate is broken and not accepted.
    """
    for stored in reports.values():
        check_schema(stored)
    groups = read_table(context.spark, reports[DUPLICATE_GROUPS.name])
    _check_membership(groups)
    largest = groups.orderBy(F.desc("group_size"), "group_id").first()
    rows = result.rows
    figures = AuditFigures(
        n_rows=rows.catalog,
        n_rejected=rows.rejected,
        top_reject=_top_reject(context, reports[REJECTED_IMAGES.name]),
        n_usable=rows.catalog - rows.rejected,
        largest_group=largest.group_size if largest else 0,
        largest_group_name=f"group {largest.group_id} ({largest.canonical_sku_id})"
        if largest
        else "",
        n_grouped=result.n_grouped_skus,
        recall=result.candidate_recall,
        n_trees=found.outcome.effort.n_trees,
        min_score=result.min_score,
        model_id=model.manifest.model_id,
        last=last_run(memory.base.facts) if memory.base else None,
        n_carried=found.n_carried_rows,
        verifier_id=model.verifier_id,
    )
    verdicts = audit(figures, settings.config)
    record.gates = as_manifest(verdicts)
    if record.is_shadow:  # it publishes nothing that could be held back
        return
    command = settings.command
    if settings.config.run_date is None:  # the command may be given when it is tomorrow
        command += f" --run-date {context.run_date}"
    record.accepted = hold_or_accept(verdicts, settings.config, command)


def check_schema(stored: StoredTable) -> None:
    """Every file of a staged table has the columns and types of its declaration.

    Raises:
        DedupError: it has not; a defect of ours.
    """
    wanted = stored.table.arrow
    for file in stored.files:
        with stored.folder.open_read(file.name) as stream:
            schema = pq.ParquetFile(stream).schema_arrow
        if not schema.equals(wanted):
            raise DedupError(
                f"{stored.table.name}: file {file.name} has the schema {schema.names}, expected "
                f"{wanted.names}; nothing was published, please report this as a bug"
            )


def _check_membership(groups: DataFrame) -> None:
    twice = groups.groupBy("sku_id").count().where("count > 1").orderBy("sku_id").first()
    if twice:
        raise DedupError(
            f"SKU {twice.sku_id} is in {twice['count']} groups; nothing was published, please "
            "report this as a bug"
        )


def _top_reject(context: RunContext, rejects: StoredTable) -> str:
    """The most frequent reason, how often, an example."""
    counted = read_table(context.spark, rejects, ["reason", "detail"]).groupBy("reason")
    top = (
        counted.agg(F.count("*").alias("n"), F.min("detail").alias("detail"))
        .orderBy(F.desc("n"), "reason")
        .first()
    )
    return "no reject either" if top is None else f"{top.reason}, {top.n} times: {top.detail}"
