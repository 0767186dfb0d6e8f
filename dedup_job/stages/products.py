"""What is compared: products, each with one SKU that stands for it.

The sizes of one garment share their photos in every real catalog. They are therefore one product:
they never meet each other, and a garment is reported once, by one SKU.
"""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.kernels.ranking import Candidate, OrderColumn, rank_survivors
from dedup_job.stages.catalog import canonical_json
from dedup_job.tables import PRODUCTS, arrow_batch

_KEY = ("block", "product")


def represent_products(photo_rows: DataFrame, order: tuple[OrderColumn, ...]) -> DataFrame:
    """Fold SKUs into products.

    The SKU that stands for a product is chosen like the survivor of a group: by canonical order,
    then resolution, then id. A SKU's own order values are those of its first catalog row. The
    product's conflict values do not depend on that choice: see `agreed_values`.

    Args:
        photo_rows: PHOTO_ROWS.
        order: the canonical order whose values `order_values` holds.

    Returns:
        PRODUCTS. A variant group that spans blocks is one product in each of them.
    """
    sku = (
        # Partitioned by product at once, so that the second grouping moves nothing.
        photo_rows.repartition(*_KEY)
        .groupBy(*_KEY, "sku_id")
        .agg(
            F.min_by(F.struct("variant_group", "conflict", "order_values"), "position").alias(
                "row"
            ),
            F.max("n_pixels").alias("n_pixels"),
            F.min("position").alias("position"),
            F.min_by("content_sha256", "position").alias("main_sha256"),
            F.collect_set("content_sha256").alias("contents"),
        )
    )
    member = F.struct("sku_id", "row.*", "n_pixels", "position", "main_sha256", "contents")
    return (
        sku.groupBy(*_KEY)
        .agg(F.collect_list(member).alias("skus"))
        .mapInArrow(partial(choose_representatives, order=order), PRODUCTS.ddl)
    )


def choose_representatives(
    batches: Iterable[pa.RecordBatch], order: tuple[OrderColumn, ...]
) -> Iterator[pa.RecordBatch]:
    """Turn (block, product, list of SKUs) into PRODUCTS rows; runs on executors."""
    for batch in batches:
        yield arrow_batch(PRODUCTS, (_product_row(row, order) for row in batch.to_pylist()))


def agreed_values(encoded: Iterable[str]) -> str:
    """What lists of conflict values agree on, place by place; a value they differ on is null.

    A style that holds red and blue has no colour that could part it from another product, whichever
    of its SKUs stands for it. Null is unknown and contradicts nothing.

    Args:
        encoded: JSON arrays of equal length, or '' where there are no conflict columns.
    """
    known = [{v for v in column if v is not None} for column in zip(*_decode(encoded), strict=True)]
    return canonical_json([values.pop() if len(values) == 1 else None for values in known])


def _decode(encoded: Iterable[str]) -> Iterator[list[str | None]]:
    return (json.loads(text or "[]") for text in encoded)


def _first_listed(by_id: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The SKU that stands first in the catalog; a delta and the rows it leaves may share positions."""
    return by_id[min(by_id, key=lambda sku_id: (by_id[sku_id]["position"], sku_id))]


def _product_row(product: dict[str, Any], order: tuple[OrderColumn, ...]) -> dict[str, object]:
    by_id = {sku["sku_id"]: sku for sku in product["skus"]}
    best = rank_survivors(
        [Candidate(id_, sku["n_pixels"], sku["order_values"]) for id_, sku in by_id.items()], order
    )[0]
    chosen, first = by_id[best.sku_id], _first_listed(by_id)
    return {
        "block": product["block"],
        "product": product["product"],
        **{name: chosen[name] for name in ("sku_id", "variant_group", "order_values")},
        "conflict": agreed_values(sku["conflict"] for sku in by_id.values()),
        "n_pixels": max(sku["n_pixels"] for sku in by_id.values()),
        "main_sha256": first["main_sha256"],
        "n_contents": len({sha for sku in by_id.values() for sha in sku["contents"]}),
    }
