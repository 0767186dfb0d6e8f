"""The tables of a run, computed into staging: reports for people, state for the next night."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame

from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, list_table, read_table, write_rows
from dedup_job.kernels.calibration import Calibration
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.results import RowCounts, Search
from dedup_job.stages.embeddings import count_rows_by_origin
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

# State is read by Spark tasks, one per file.
_STATE_ROWS_PER_FILE = 1_000_000


@dataclass(frozen=True)
class Findings:
    """What the stages found: everything a report is made of. Every frame reads stored tables.

    `n_photos` are distinct URIs fetched; rows that share one are fewer photos than rows.
    """

    n_catalog_rows: int
    n_photos: int
    search: Search
    usable: DataFrame
    catalog_rejects: DataFrame
    photo_rejects: DataFrame
    placeholders: DataFrame
    embeddings: DataFrame
    photo_pairs: DataFrame
    grouping: Grouping


def store_reports(
    context: RunContext, calibration: Calibration, found: Findings
) -> dict[str, StoredTable]:
    """Compute the four report tables of the findings, by name."""
    identity = RunIdentity(context.run_id, calibration.model_id)

    frames: list[tuple[Table, DataFrame]] = [
        (DUPLICATE_GROUPS, report_groups(found.grouping.groups, identity)),
        (DUPLICATE_PAIRS, report_pairs(found.grouping.pairs, calibration, identity)),
        (REJECTED_IMAGES, report_rejects(found.catalog_rejects, found.photo_rejects, identity)),
        (PLACEHOLDER_IMAGES, report_placeholders(found.placeholders, identity)),
    ]
    n_rows = found.n_catalog_rows  # no report is much longer than its catalog
    return {t.name: _store(context, arrange(frame, t, n_rows), t) for t, frame in frames}


def store_state(context: RunContext, found: Findings) -> dict[str, StoredTable]:
    """Compute the state tables that are replaced every night, by name."""
    images = remember_images(found.usable, context.run_date.isoformat())
    pairs = found.photo_pairs.select(*SCORED_PAIRS.column_names).distinct()
    return {
        CATALOG_IMAGES.name: _store(context, _spread(images, found), CATALOG_IMAGES),
        SCORED_PAIRS.name: _store(context, _spread(pairs, found), SCORED_PAIRS),
    }


def store_new_embeddings(context: RunContext, found: Findings, target: Folder) -> StoredTable:
    """Compute the embeddings that `target`, the model's folder, does not hold yet."""
    known = read_table(context.spark, list_table(IMAGE_EMBEDDINGS, target), ["content_sha256"])
    new = found.embeddings.join(known, "content_sha256", "left_anti")
    return context.store(_spread(new, found), IMAGE_EMBEDDINGS)


def _spread(frame: DataFrame, found: Findings) -> DataFrame:
    """As few files as the size of the catalog allows."""
    return frame.repartition(max(1, -(-found.n_catalog_rows // _STATE_ROWS_PER_FILE)))


def count_rows(found: Findings, reports: dict[str, StoredTable]) -> RowCounts:
    """Where every catalog row ended, counted from what is about to be published."""
    origins = {
        row["origin"]: row["count"]
        for row in count_rows_by_origin(found.usable, found.placeholders).collect()
    }
    return RowCounts(
        catalog=found.n_catalog_rows,
        embedded=origins.get("embedded", 0),
        reused=0,
        shared_content=origins.get("shared_content", 0),
        placeholder=origins.get("placeholder", 0),
        rejected=reports[REJECTED_IMAGES.name].n_rows,
    )


def store_rows(context: RunContext, rows: Sequence[dict[str, object]], table: Table) -> StoredTable:
    """Store a report table of a few rows that the driver holds."""
    return write_rows(rows, table, context.staging.child(f"{table.name}-rows"))


def _store(context: RunContext, frame: DataFrame, table: Table) -> StoredTable:
    """A table without rows is still published, with its schema: an absent one would look stale."""
    stored = context.store(frame, table)
    return stored if stored.files else store_rows(context, [], table)
