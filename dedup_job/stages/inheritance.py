"""The ids of tonight's groups: inherited from the last published run, or born (docs/adr/0011)."""

from datetime import date

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from dedup_job.kernels.inheritance import Overlap, find_heirs

_HASH_DIGITS = 16  # 64 bits: ten million groups born in one night, one collision in 370,000 nights
_OVERLAP = ["old_id", "old_first_seen", "first_sku_id", "n_shared"]


def name_groups(members: DataFrame, previous: DataFrame | None, run_date: date) -> DataFrame:
    """Give every group its id, and say since when it and its members are there.

    Overlaps that compete (an old group that meets several new ones, or the reverse) are brought to
    the driver, about 50 bytes each; all else stays distributed.

    Args:
        members: sku_id, first_sku_id (the smallest of its group) and any other columns.
        previous: group_id, sku_id, group_first_seen, member_since of the last published run before
            this one, as DUPLICATE_GROUPS; None on the first night of all.
        run_date: the date on which groups are born.

    Returns:
        `members` with group_id, group_first_seen and member_since.
    """
    tonight, born = F.lit(run_date), born_id(F.col("first_sku_id"), run_date)
    if previous is None:
        return members.withColumns(
            {"group_id": born, "group_first_seen": tonight, "member_since": tonight}
        )
    old = previous.select(
        "sku_id",
        F.col("group_id").alias("old_id"),
        F.col("group_first_seen").alias("old_first_seen"),
        F.col("member_since").alias("old_member_since"),
    )
    named = (
        members.join(_heirs(members, old), "first_sku_id", "left")
        .withColumn("born_id", born)
        .join(_taken_ids(old, run_date), "born_id", "left")
        .join(old.select("sku_id", "old_id", "old_member_since"), "sku_id", "left")
    )
    # No published id ends in x.
    fresh = F.when(F.col("is_taken"), F.concat("born_id", F.lit("x"))).otherwise(F.col("born_id"))
    stayed = F.col("old_id") == F.col("inherited_id")
    since = F.when(stayed, F.col("old_member_since")).otherwise(tonight)
    return named.select(
        *members.columns,
        F.coalesce("inherited_id", fresh).alias("group_id"),
        F.coalesce("inherited_first_seen", tonight).alias("group_first_seen"),
        since.alias("member_since"),
    )


def born_id(first_sku_id: Column, run_date: date) -> Column:
    """Id of a group born on a date: from the date and the smallest SKU at birth."""
    digest = F.substring(F.sha2(first_sku_id, 256), 1, _HASH_DIGITS)
    return F.concat(F.lit(f"g{run_date:%Y%m%d}-"), digest)


def _taken_ids(old: DataFrame, run_date: date) -> DataFrame:
    """born_id, is_taken (true) of groups born on this very date.

    None on an ordinary night. A shadow run compares with a published run of its own date: there a
    new group and an heir could both be named after one SKU.
    """
    born_tonight = old.where(F.col("old_first_seen") >= F.lit(run_date))
    ids = born_tonight.select(F.col("old_id").alias("born_id")).distinct()
    return ids.withColumn("is_taken", F.lit(True))


def _heirs(members: DataFrame, old: DataFrame) -> DataFrame:
    """first_sku_id, inherited_id, inherited_first_seen of the groups that inherit an id."""
    overlaps = (
        members.join(old, "sku_id")
        .groupBy("old_id", "first_sku_id")
        .agg(F.min("old_first_seen").alias("old_first_seen"), F.count("*").alias("n_shared"))
    )
    rivals = [
        F.count("*").over(Window.partitionBy(side)) > 1 for side in ("old_id", "first_sku_id")
    ]
    judged = overlaps.withColumn("is_contested", rivals[0] | rivals[1])
    only_claims = judged.where("NOT is_contested").select(
        "first_sku_id",
        F.col("old_id").alias("inherited_id"),
        F.col("old_first_seen").alias("inherited_first_seen"),
    )
    contested = judged.where("is_contested").select(*_OVERLAP).toArrow()
    if not contested.num_rows:
        return only_claims
    won = members.sparkSession.createDataFrame(_settle(contested))
    return only_claims.unionByName(won)


def _settle(contested: pa.Table) -> pa.Table:
    """The heirs among competing overlaps: first_sku_id, inherited_id, inherited_first_seen."""
    overlaps = [Overlap(*row) for row in zip(*contested.to_pydict().values(), strict=True)]
    first_seen = {overlap.old_id: overlap.old_first_seen for overlap in overlaps}
    heirs = find_heirs(overlaps)
    return pa.table(
        {
            "first_sku_id": pa.array(heirs.keys(), pa.string()),
            "inherited_id": pa.array(heirs.values(), pa.string()),
            "inherited_first_seen": pa.array(map(first_seen.get, heirs.values()), pa.date32()),
        }
    )
