"""SKU ids that look alike and are not equal: told, never merged.

One of two such ids is mostly a mistake of whoever typed or converted a file, and its history, stock
and groups are then split in two without anyone seeing why.
"""

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from dedup_job.kernels.skeleton import skeleton

_DDL = "sku_id string, skeleton string"


def look_alike_ids(rows: DataFrame) -> DataFrame:
    """Find SKUs that have their skeleton (`kernels.skeleton`) in common with another SKU.

    Args:
        rows: has `sku_id`.

    Returns:
        sku_id, skeleton, n_skus (that share it): one row for each such SKU, others not at all.
    """
    drawn = rows.select("sku_id").distinct().mapInArrow(_draw, _DDL)
    n_skus = F.count("*").over(Window.partitionBy("skeleton"))
    return drawn.withColumn("n_skus", n_skus).where("n_skus > 1")


def _draw(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        ids = batch.column("sku_id").to_pylist()
        yield pa.RecordBatch.from_pydict(
            {"sku_id": ids, "skeleton": [skeleton(text) for text in ids]},
            schema=pa.schema([("sku_id", pa.string()), ("skeleton", pa.string())]),
        )
