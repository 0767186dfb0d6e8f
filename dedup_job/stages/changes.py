"""What became of the groups of the last published run."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dedup_job.tables import GROUP_CHANGES

_COLUMNS = [name for name in GROUP_CHANGES.column_names if name != "run_id"]


def group_changes(groups: DataFrame, previous: DataFrame | None) -> DataFrame:
    """One row for every group whose members changed; replayed on `previous` they give `groups`.

    What a change is called is in docs/adr/0011.

    Args:
        groups: group_id, sku_id of tonight; a SKU is in one group at most.
        previous: the same of the last published run before this one; None on the first night.

    Returns:
        GROUP_CHANGES without run_id.
    """
    if previous is None:
        previous = groups.limit(0)
    now = groups.select("sku_id", F.col("group_id").alias("now"))
    then = previous.select("sku_id", F.col("group_id").alias("then"))
    return (
        now.join(then, "sku_id", "full_outer")
        .select(F.inline(_steps()))
        .where("group_id IS NOT NULL")
        .groupBy("group_id")
        .agg(
            F.count_if(F.col("step") == "stayed").alias("n_stayed"),
            F.sort_array(F.collect_list(_where("came", "sku_id"))).alias("added_sku_ids"),
            F.sort_array(F.collect_list(_where("left", "sku_id"))).alias("removed_sku_ids"),
            F.collect_set(_where("came", "other")).alias("came_from"),
            F.count(_where("left", "other")).alias("n_lost_to_groups"),
        )
        .where("size(added_sku_ids) > 0 OR size(removed_sku_ids) > 0")
        .withColumn("was_there", F.expr("n_stayed > 0 OR size(removed_sku_ids) > 0"))
        .withColumn("is_there", F.expr("n_stayed > 0 OR size(added_sku_ids) > 0"))
        .withColumn("change", _name_change())
        .withColumn("previous_group_ids", _previous_group_ids())
        .select(*_COLUMNS)
    )


def _steps() -> Column:
    """What a SKU did, as seen by each of its groups: (group_id, step, sku_id, other group)."""

    def step(group: str, name: str, other: str) -> Column:
        return F.struct(
            F.col(group).alias("group_id"),
            F.lit(name).alias("step"),
            F.col("sku_id"),
            F.col(other).alias("other"),
        )

    moved = F.array(step("now", "came", "then"), step("then", "left", "now"))
    return F.when(F.expr("now = then"), F.array(step("now", "stayed", "then"))).otherwise(moved)


def _where(step: str, column: str) -> Column:
    """The column where a SKU took this step, else null, which aggregates pass over."""
    return F.when(F.col("step") == step, F.col(column))


def _name_change() -> Column:
    return F.expr("""
        CASE
            WHEN NOT is_there THEN 'dissolved'
            WHEN NOT was_there AND size(came_from) = 0 THEN 'created'
            WHEN NOT was_there AND size(came_from) = 1 THEN 'split'
            WHEN size(came_from) > 0 THEN 'merged'
            WHEN n_lost_to_groups > 0 THEN 'split'
            WHEN size(added_sku_ids) > 0 THEN 'grown'
            ELSE 'shrunk'
        END
    """)


def _previous_group_ids() -> Column:
    """Where the members came from, sorted; its own id too if the group was there."""
    own = F.array_append("came_from", F.col("group_id"))
    return F.sort_array(F.when(F.col("was_there"), own).otherwise(F.col("came_from")))
