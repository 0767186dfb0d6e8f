"""The tables of a run, computed into staging: reports for people, state for the next night."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame

from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, list_table, read_table, write_rows
from dedup_job.kernels.calibration import Calibration
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.results import RowCounts, Search
from dedup_job.stages.groups import Grouping
from dedup_job.stages.reports import (
    RunIdentity,
    arrange,
    remember_images,
    report_groups,
    report_pairs,
    report_placeholders,
    report_rejects,
)
from dedup_job.tables import (
    CATALOG_IMAGES,
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    IMAGE_EMBEDDINGS,
    PLACEHOLDER_IMAGES,
    REJECTED_IMAGES,
    SCORED_PAIRS,
    Table,
)

# State is read by Spark tasks, one per file; a handful of files is right for what one night adds.
_STATE_FILES = 8


@dataclass(frozen=True)
class Findings:
    """What the stages found: everything a report is made of.

    `usable`, `photo_pairs` and the frames of `grouping` read stored tables.
    """

    rows: RowCounts
    search: Search
    usable: DataFrame
    catalog_rejects: StoredTable
    photo_rejects: StoredTable
    placeholders: StoredTable
    embeddings: StoredTable
    photo_pairs: DataFrame
    grouping: Grouping


def store_reports(
    context: RunContext, calibration: Calibration, found: Findings
) -> dict[str, StoredTable]:
    """Compute the four report tables of the findings, by name."""
    identity = RunIdentity(context.run_id, calibration.model_id)

    def read(stored: StoredTable) -> DataFrame:
        return read_table(context.spark, stored)

    frames: list[tuple[Table, DataFrame]] = [
        (DUPLICATE_GROUPS, report_groups(found.grouping.groups, identity)),
        (DUPLICATE_PAIRS, report_pairs(found.grouping.pairs, calibration, identity)),
        (
            REJECTED_IMAGES,
            report_rejects(read(found.catalog_rejects), read(found.photo_rejects), identity),
        ),
        (PLACEHOLDER_IMAGES, report_placeholders(read(found.placeholders), identity)),
    ]
    n_rows = found.rows.catalog  # no report is much longer than its catalog
    return {t.name: _store(context, arrange(frame, t, n_rows), t) for t, frame in frames}


def store_state(context: RunContext, found: Findings) -> dict[str, StoredTable]:
    """Compute the state tables that are replaced every night, by name."""
    images = remember_images(found.usable, context.run_date.isoformat())
    pairs = found.photo_pairs.select(*SCORED_PAIRS.column_names).distinct()
    return {
        CATALOG_IMAGES.name: _store(context, images.coalesce(_STATE_FILES), CATALOG_IMAGES),
        SCORED_PAIRS.name: _store(context, pairs.coalesce(_STATE_FILES), SCORED_PAIRS),
    }


def store_new_embeddings(
    context: RunContext, embeddings: StoredTable, target: Folder
) -> StoredTable:
    """Compute the embeddings that `target`, the model's folder, does not hold yet."""
    known = read_table(context.spark, list_table(IMAGE_EMBEDDINGS, target), ["content_sha256"])
    new = read_table(context.spark, embeddings).join(known, "content_sha256", "left_anti")
    return context.store(new.coalesce(_STATE_FILES), IMAGE_EMBEDDINGS)


def store_rows(context: RunContext, rows: Sequence[dict[str, object]], table: Table) -> StoredTable:
    """Store a report table of a few rows that the driver holds."""
    return write_rows(rows, table, context.staging.child(f"{table.name}-rows"))


def _store(context: RunContext, frame: DataFrame, table: Table) -> StoredTable:
    """A table without rows is still published, with its schema: an absent one would look stale."""
    stored = context.store(frame, table)
    return stored if stored.files else store_rows(context, [], table)
