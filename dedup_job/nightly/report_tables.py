"""The tables of a run, computed into staging: reports for people, state for the next night."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame

from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.tables import StoredTable, read_table, write_rows
from dedup_job.kernels.calibration import Calibration
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.memory import Memory
from dedup_job.nightly.results import PhotoCounts, RowCounts
from dedup_job.stages.candidates import SearchOutcome
from dedup_job.stages.changes import group_changes
from dedup_job.stages.embeddings import count_rows_by_origin
from dedup_job.stages.groups import Grouping
from dedup_job.stages.look_alike_ids import look_alike_ids
from dedup_job.stages.photo_plan import remember_images
from dedup_job.stages.reports import (
    RunIdentity,
    arrange,
    report_changes,
    report_groups,
    report_look_alikes,
    report_pairs,
    report_placeholders,
    report_rejects,
)
from dedup_job.tables import (
    CATALOG_IMAGES,
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    GROUP_CHANGES,
    IMAGE_EMBEDDINGS,
    LOOK_ALIKE_IDS,
    PLACEHOLDER_IMAGES,
    REJECTED_IMAGES,
    SCORED_PAIRS,
    SEARCHED_CONTENTS,
    Table,
)

# State is read by Spark tasks, one per file.
_STATE_ROWS_PER_FILE = 1_000_000


@dataclass(frozen=True)
class Findings:
    """What the stages found: everything a report is made of. Every frame reads stored tables.

    `rows`, `photos` and `carried_rows` (null but on a delta night) are what the next night
    compares with; `embedded` is what this run embedded. Pairs were searched from `floor_cosine`.
    """

    n_catalog_rows: int
    photo_counts: PhotoCounts
    floor_cosine: float
    outcome: SearchOutcome
    rows: DataFrame
    carried_rows: DataFrame | None
    n_carried_rows: int
    photos: DataFrame
    usable: DataFrame
    catalog_rejects: DataFrame
    photo_rejects: DataFrame
    placeholders: DataFrame
    embedded: DataFrame
    searched: DataFrame
    grouping: Grouping


def store_reports(
    context: RunContext, calibration: Calibration, memory: Memory, found: Findings
) -> dict[str, StoredTable]:
    """Compute the report tables of the findings, by name."""
    identity = RunIdentity(context.run_id, calibration.model_id)
    pairs = report_pairs(found.grouping.pairs, calibration, identity, memory.base_pairs())
    groups = _store(
        context, found, report_groups(found.grouping.groups, identity), DUPLICATE_GROUPS
    )
    changes = group_changes(read_table(context.spark, groups), memory.base_groups())
    frames: list[tuple[Table, DataFrame]] = [
        (DUPLICATE_PAIRS, pairs),
        (GROUP_CHANGES, report_changes(changes, identity)),
        (REJECTED_IMAGES, report_rejects(found.catalog_rejects, found.photo_rejects, identity)),
        (PLACEHOLDER_IMAGES, report_placeholders(found.placeholders, identity)),
        (LOOK_ALIKE_IDS, report_look_alikes(look_alike_ids(_named_skus(found)), identity)),
    ]
    stored = {table.name: _store(context, found, frame, table) for table, frame in frames}
    return {DUPLICATE_GROUPS.name: groups, **stored}


def _named_skus(found: Findings) -> DataFrame:
    """`sku_id` of every row that names a photo, of a delta night's carried rows too."""
    rows = found.rows.select("sku_id")
    if found.carried_rows is None:
        return rows
    return rows.unionByName(found.carried_rows.select("sku_id"))


def store_state(context: RunContext, memory: Memory, found: Findings) -> dict[str, StoredTable]:
    """Compute the state tables that are replaced every night, by name."""
    images = remember_images(
        found.rows, found.photos, found.carried_rows, memory.catalog_images(), context.run_date
    )
    pairs = found.outcome.kept_pairs.dropDuplicates(["sha_a", "sha_b"])
    frames = {CATALOG_IMAGES: images, SEARCHED_CONTENTS: found.searched, SCORED_PAIRS: pairs}
    stored = {t: context.store(_spread(frame, found), t) for t, frame in frames.items()}
    return {t.name: _never_empty(context, one) for t, one in stored.items()}


def store_new_embeddings(
    context: RunContext, found: Findings, store: EmbeddingStore
) -> StoredTable:
    """Compute the embeddings that the store does not hold yet."""
    known = read_table(context.spark, store.stored(), ["content_sha256"])
    new = found.embedded.join(known, "content_sha256", "left_anti")
    return context.store(_spread(new, found), IMAGE_EMBEDDINGS)


def _spread(frame: DataFrame, found: Findings) -> DataFrame:
    """As few files as the size of the catalog allows."""
    return frame.repartition(max(1, -(-found.n_catalog_rows // _STATE_ROWS_PER_FILE)))


def count_rows(found: Findings, reports: dict[str, StoredTable]) -> RowCounts:
    """Where every catalog row ended, counted from what is about to be published."""
    counted = count_rows_by_origin(found.usable, found.placeholders, found.embedded)
    origins = {row["origin"]: row["count"] for row in counted.collect()}
    return RowCounts(
        catalog=found.n_catalog_rows,
        embedded=origins.get("embedded", 0),
        reused=origins.get("reused", 0),
        shared_content=origins.get("shared_content", 0),
        placeholder=origins.get("placeholder", 0),
        rejected=reports[REJECTED_IMAGES.name].n_rows,
    )


def store_rows(context: RunContext, rows: Sequence[dict[str, object]], table: Table) -> StoredTable:
    """Store a report table of a few rows that the driver holds."""
    return write_rows(rows, table, context.new_folder(f"{table.name}-rows"))


def _store(context: RunContext, found: Findings, frame: DataFrame, table: Table) -> StoredTable:
    # no report is much longer than its catalog
    return _never_empty(context, context.store(arrange(frame, table, found.n_catalog_rows), table))


def _never_empty(context: RunContext, stored: StoredTable) -> StoredTable:
    """A table without rows is still published, with its schema: an absent one would look stale."""
    return stored if stored.files else store_rows(context, [], stored.table)
