"""The tables of a run, computed into staging: reports for people, state for the next night."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pyspark.sql import DataFrame

from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.tables import StoredTable, read_table, write_rows
from dedup_job.kernels.calibration import Calibration
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.memory import Memory
from dedup_job.nightly.results import PhotoCounts, RowCounts
from dedup_job.nightly.sampling import judge_sample, sample_groups
from dedup_job.stages.candidates import SearchOutcome
from dedup_job.stages.changes import group_changes
from dedup_job.stages.decided import Row
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
from dedup_job.stages.review_sample import ReviewedPrecision
from dedup_job.tables import (
    CATALOG_IMAGES,
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    GROUP_CHANGES,
    IMAGE_EMBEDDINGS,
    LOOK_ALIKE_IDS,
    PAIR_DECISIONS,
    PLACEHOLDER_IMAGES,
    REJECTED_IMAGES,
    REVIEW_SAMPLE,
    SCORED_PAIRS,
    SEARCHED_CONTENTS,
    Table,
)

# State is read by Spark tasks, one per file.
_STATE_ROWS_PER_FILE = 1_000_000
_TABLES_AT_ONCE = 3


@dataclass(frozen=True)
class Findings:
    """What the stages found: everything a report is made of. Every frame reads stored tables.

    `rows`, `photos` and `carried_rows` (null but on a delta night) are what the next night
    compares with; `embedded` is what this run embedded. Pairs were searched from `floor_cosine`,
    in blocks of the catalog where it `has_blocks`. `decisions` are PAIR_DECISIONS without run_id.
    """

    n_catalog_rows: int
    photo_counts: PhotoCounts
    floor_cosine: float
    outcome: SearchOutcome
    rows: DataFrame
    carried_rows: DataFrame | None
    n_carried_rows: int
    has_blocks: bool
    photos: DataFrame
    usable: DataFrame
    catalog_rejects: DataFrame
    photo_rejects: DataFrame
    placeholders: DataFrame
    embedded: StoredTable
    searched: DataFrame
    grouping: Grouping
    decisions: list[Row]


@dataclass(frozen=True)
class Staged:
    """What a run is about to publish, in staging.

    Attributes:
        reports: report tables by name, but RUNS and RUN_METRICS.
        state: state tables that are replaced every night, by name; none where a later night is
            published already, or nothing is.
        embeddings: IMAGE_EMBEDDINGS that the store does not hold yet.
        rows: where every catalog row ended.
        reviewed: what reviews say of groups that were drawn at random.
    """

    reports: dict[str, StoredTable]
    state: dict[str, StoredTable]
    embeddings: StoredTable
    rows: RowCounts
    reviewed: ReviewedPrecision


def stage_tables(
    context: RunContext,
    calibration: Calibration,
    memory: Memory,
    found: Findings,
    store: EmbeddingStore,
    with_state: bool,
) -> Staged:
    """Compute everything that is published from the findings.

    A few tables at a time: each ends in one task that sorts and writes, and would leave the other
    cores idle meanwhile. What takes longest comes first.
    """
    identity = RunIdentity(context.run_id, calibration.model_id)
    state_frames = _state_frames(context, memory, found) if with_state else {}
    report_frames = _report_frames(calibration, memory, found, identity)
    with ThreadPoolExecutor(_TABLES_AT_ONCE) as pool:
        state = [
            pool.submit(_store_state, context, found, frame, table)
            for table, frame in state_frames.items()
        ]
        origins = pool.submit(_count_origins, context, found)
        groups = pool.submit(_store_groups, context, memory, found, identity)
        others = [
            pool.submit(_store, context, found, frame, table)
            for table, frame in report_frames.items()
        ]
        embeddings = pool.submit(_store_new_embeddings, context, found, store)
        try:
            decisions = [{**row, "run_id": context.run_id} for row in found.decisions]
            sample = sample_groups(context, memory, groups.result()[0])
            reports = _by_name(
                [
                    *groups.result(),
                    *(other.result() for other in others),
                    store_rows(context, decisions, PAIR_DECISIONS),
                    store_rows(context, sample, REVIEW_SAMPLE),
                ]
            )
            return Staged(
                reports=reports,
                reviewed=judge_sample(context, sample, found.decisions),
                state=_by_name(one.result() for one in state),
                embeddings=embeddings.result(),
                rows=_row_counts(found, origins.result(), reports[REJECTED_IMAGES.name].n_rows),
            )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _by_name(tables: Iterable[StoredTable]) -> dict[str, StoredTable]:
    return {stored.table.name: stored for stored in tables}


def _report_frames(
    calibration: Calibration, memory: Memory, found: Findings, identity: RunIdentity
) -> dict[Table, DataFrame]:
    """Report tables that need no other one; what takes longest comes first."""
    return {
        DUPLICATE_PAIRS: report_pairs(
            found.grouping.pairs, calibration, identity, memory.base_pairs()
        ),
        LOOK_ALIKE_IDS: report_look_alikes(look_alike_ids(_named_skus(found)), identity),
        REJECTED_IMAGES: report_rejects(found.catalog_rejects, found.photo_rejects, identity),
        PLACEHOLDER_IMAGES: report_placeholders(found.placeholders, identity),
    }


def _store_groups(
    context: RunContext, memory: Memory, found: Findings, identity: RunIdentity
) -> list[StoredTable]:
    """Groups, and the changes that follow from them."""
    frame = report_groups(found.grouping.groups, identity)
    groups = _store(context, found, frame, DUPLICATE_GROUPS)
    changes = group_changes(read_table(context.spark, groups), memory.base_groups())
    return [groups, _store(context, found, report_changes(changes, identity), GROUP_CHANGES)]


def _named_skus(found: Findings) -> DataFrame:
    """`sku_id` of every row that names a photo, of a delta night's carried rows too."""
    rows = found.rows.select("sku_id")
    if found.carried_rows is None:
        return rows
    return rows.unionByName(found.carried_rows.select("sku_id"))


def _state_frames(context: RunContext, memory: Memory, found: Findings) -> dict[Table, DataFrame]:
    images = remember_images(
        found.rows, found.photos, found.carried_rows, memory.catalog_images(), context.run_date
    )
    pairs = found.outcome.kept_pairs
    if found.has_blocks:  # the same pair may have met in several
        pairs = pairs.dropDuplicates(["sha_a", "sha_b"])
    return {CATALOG_IMAGES: images, SCORED_PAIRS: pairs, SEARCHED_CONTENTS: found.searched}


def _store_state(
    context: RunContext, found: Findings, frame: DataFrame, table: Table
) -> StoredTable:
    return _never_empty(context, context.store(_spread(frame, found), table))


def _store_new_embeddings(
    context: RunContext, found: Findings, store: EmbeddingStore
) -> StoredTable:
    known = read_table(context.spark, store.stored(), ["content_sha256"])
    embedded = read_table(context.spark, found.embedded)
    new = embedded.join(known, "content_sha256", "left_anti")
    return context.store(_spread(new, found), IMAGE_EMBEDDINGS)


def _spread(frame: DataFrame, found: Findings) -> DataFrame:
    """As few files as the size of the catalog allows."""
    return frame.repartition(max(1, -(-found.n_catalog_rows // _STATE_ROWS_PER_FILE)))


def _count_origins(context: RunContext, found: Findings) -> dict[str, int]:
    embedded = read_table(context.spark, found.embedded, ["content_sha256"])
    counted = count_rows_by_origin(found.usable, found.placeholders, embedded)
    return {row["origin"]: row["count"] for row in counted.collect()}


def _row_counts(found: Findings, origins: dict[str, int], n_rejected: int) -> RowCounts:
    return RowCounts(
        catalog=found.n_catalog_rows,
        embedded=origins.get("embedded", 0),
        reused=origins.get("reused", 0),
        shared_content=origins.get("shared_content", 0),
        placeholder=origins.get("placeholder", 0),
        rejected=n_rejected,
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
