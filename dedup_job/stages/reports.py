"""Report tables from what the stages found: names, ids and probabilities are added here."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.kernels.calibration import Calibration
from dedup_job.tables import (
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    GROUP_CHANGES,
    LOOK_ALIKE_IDS,
    PLACEHOLDER_IMAGES,
    REJECTED_IMAGES,
    Table,
)

# Reports are read by people and small queries: few files, sorted, until they are truly large.
ROWS_PER_FILE = 5_000_000
_SORT_KEYS = {
    DUPLICATE_GROUPS.name: ["group_id", "sku_id"],
    DUPLICATE_PAIRS.name: ["sku_id_a", "sku_id_b"],
    GROUP_CHANGES.name: ["group_id"],
    REJECTED_IMAGES.name: ["position"],
    PLACEHOLDER_IMAGES.name: ["content_sha256"],
    LOOK_ALIKE_IDS.name: ["skeleton", "sku_id"],
}


@dataclass(frozen=True)
class RunIdentity:
    """What every report row says about its run."""

    run_id: str
    model_id: str


def report_groups(group_rows: DataFrame, identity: RunIdentity) -> DataFrame:
    """`DUPLICATE_GROUPS` from GROUP_ROWS."""
    return group_rows.withColumn("run_id", F.lit(identity.run_id)).select(
        *DUPLICATE_GROUPS.column_names
    )


def report_pairs(
    grouped_pairs: DataFrame,
    calibration: Calibration,
    identity: RunIdentity,
    previous_pairs: DataFrame | None = None,
) -> DataFrame:
    """`DUPLICATE_PAIRS` from GROUPED_PAIRS.

    Args:
        grouped_pairs: GROUPED_PAIRS.
        calibration: tells probabilities.
        identity: of this run.
        previous_pairs: DUPLICATE_PAIRS of the last published run before this run date, parted pairs
            included; None when there is none, and every pair is new.
    """
    named = (
        _tell_new(grouped_pairs, previous_pairs)
        .withColumn("run_id", F.lit(identity.run_id))
        .withColumn("model_id", F.lit(identity.model_id))
        .withColumn("match_probability", F.lit(0.0).cast("float"))
    )
    task = partial(_fill_probability, calibration=calibration)
    return named.select(*DUPLICATE_PAIRS.column_names).mapInArrow(task, DUPLICATE_PAIRS.ddl)


def _tell_new(pairs: DataFrame, previous: DataFrame | None) -> DataFrame:
    """`pairs` with is_new."""
    if previous is None:
        return pairs.withColumn("is_new", F.lit(True))
    ends = ["sku_id_a", "sku_id_b"]
    known = previous.select(*ends).distinct().withColumn("is_known", F.lit(True))
    return pairs.join(known, ends, "left").withColumn("is_new", F.col("is_known").isNull())


def report_changes(changes: DataFrame, identity: RunIdentity) -> DataFrame:
    """`GROUP_CHANGES` from `stages.changes.group_changes`."""
    return changes.withColumn("run_id", F.lit(identity.run_id)).select(*GROUP_CHANGES.column_names)


def report_rejects(
    catalog_rejects: DataFrame, photo_rejects: DataFrame, identity: RunIdentity
) -> DataFrame:
    """`REJECTED_IMAGES` plus `position`, which orders the file and is not written."""
    return catalog_rejects.unionByName(photo_rejects).withColumn("run_id", F.lit(identity.run_id))


def report_placeholders(placeholders: DataFrame, identity: RunIdentity) -> DataFrame:
    """`PLACEHOLDER_IMAGES`: one row per content, of all blocks where it is a placeholder."""
    contents = placeholders.groupBy("content_sha256").agg(
        F.sum("n_skus").alias("n_skus"),
        F.min_by("image_uri", "block").alias("image_uri"),
        F.min("near_sha256").alias("near_sha256"),
    )
    return contents.withColumn("run_id", F.lit(identity.run_id)).select(
        *PLACEHOLDER_IMAGES.column_names
    )


def report_look_alikes(look_alikes: DataFrame, identity: RunIdentity) -> DataFrame:
    """`LOOK_ALIKE_IDS` from `stages.look_alike_ids.look_alike_ids`."""
    named = look_alikes.withColumn("run_id", F.lit(identity.run_id))
    return named.select(*LOOK_ALIKE_IDS.column_names)


def arrange(frame: DataFrame, table: Table, n_rows: int) -> DataFrame:
    """Sort a report into as few files as its size allows."""
    keys = _SORT_KEYS[table.name]
    n_files = max(1, -(-n_rows // ROWS_PER_FILE))
    spread = frame.repartition(1) if n_files == 1 else frame.repartitionByRange(n_files, *keys)
    return spread.sortWithinPartitions(*keys)


def _fill_probability(
    batches: Iterator[pa.RecordBatch], calibration: Calibration
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        probability = calibration.match_probability(batch.column("score").to_numpy())
        exact = batch.column("match_type").to_numpy(zero_copy_only=False) == "exact"
        probability[exact] = 1.0
        columns = {name: batch.column(name) for name in DUPLICATE_PAIRS.column_names}
        columns["match_probability"] = pa.array(probability, pa.float32())
        yield pa.RecordBatch.from_arrays(list(columns.values()), schema=DUPLICATE_PAIRS.arrow)
