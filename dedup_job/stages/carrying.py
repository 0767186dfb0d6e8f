"""What the last run's search leaves to tonight's: unchanged contents, and the pairs among them."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.tables import PHOTO_PAIRS, SEARCHED_CONTENTS

# Pairs are kept so far below the floor, for a floor that moves down a little the next night.
KEPT_BELOW = 0.01
# A kept floor that lies further below tonight's than this is raised: pairs nobody asks for pile up.
_KEPT_SPARE = 0.03


def kept_floor(floor_cosine: float, carried_floor: float | None = None) -> float:
    """Cosine down to which tonight's pairs are complete and kept.

    Args:
        floor_cosine: tonight's floor.
        carried_floor: down to which carried pairs are complete, at most `floor_cosine`; None where
            nothing is carried.
    """
    tonight = round(floor_cosine - KEPT_BELOW, 6)
    if carried_floor is None or carried_floor < tonight - _KEPT_SPARE:
        return tonight
    return carried_floor


def unchanged_contents(contents: DataFrame, searched: DataFrame) -> DataFrame:
    """SEARCHED_CONTENTS of the contents that the last run searched in the same block.

    Args:
        contents: CONTENTS, or SEARCHED_CONTENTS of them.
        searched: SEARCHED_CONTENTS of the last run.
    """
    keys = SEARCHED_CONTENTS.column_names
    return contents.select(*keys).join(searched, keys, "left_semi")


def carried_pairs(pairs: DataFrame, unchanged: DataFrame, min_cosine: float) -> DataFrame:
    """PHOTO_PAIRS between two unchanged contents of one block.

    Args:
        pairs: SCORED_PAIRS of the last run. They name no block: a pair holds in every block in
            which both contents were searched.
        unchanged: SEARCHED_CONTENTS.
        min_cosine: pairs below it are left out.
    """
    a = unchanged.select("block", F.col("content_sha256").alias("sha_a"))
    b = unchanged.select("block", F.col("content_sha256").alias("sha_b"))
    return (
        pairs.where(F.col("cosine") >= min_cosine)
        .join(a, "sha_a")
        .join(b, ["block", "sha_b"], "left_semi")
        .select(*PHOTO_PAIRS.column_names)
    )


def mark_looking(contents: DataFrame, unchanged: DataFrame) -> DataFrame:
    """CONTENTS with a boolean column `looks`: false for those that are unchanged."""
    keys = SEARCHED_CONTENTS.column_names
    still = unchanged.select(*keys, F.lit(False).alias("looks"))
    looks = F.coalesce(F.col("looks"), F.lit(True)).alias("looks")
    return contents.join(still, keys, "left").select(*contents.columns, looks)
