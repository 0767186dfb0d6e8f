"""From catalog rows to usable photos with embeddings; everything else becomes a row that says why."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from dedup_job.tables import CONTENTS, IMAGE_EMBEDDINGS, PHOTO_ROWS, PLACEHOLDERS

_PLACE = ["block", "content_sha256"]


def photo_requests(rows: DataFrame, n_tasks: int) -> DataFrame:
    """The distinct photos to fetch, spread over `n_tasks` tasks.

    Rows that share a URI share a task by construction; a task is also the unit of retry.
    """
    requests = rows.select("fetch_key", "source_uri").dropDuplicates(["fetch_key"])
    return requests.repartition(n_tasks, "fetch_key")


def reject_photos(rows: DataFrame, photos: DataFrame) -> DataFrame:
    """Catalog rows whose photo cannot be used, with `reason` and `detail`."""
    bad = photos.where("reason IS NOT NULL").select("fetch_key", "reason", "detail")
    return rows.join(bad, "fetch_key").select(
        "catalog_row", "position", "sku_id", "image_uri", "reason", "detail"
    )


def usable_rows(rows: DataFrame, photos: DataFrame) -> DataFrame:
    """Catalog rows with their photo's `content_sha256`, `width`, `height`, `n_bytes`, `n_pixels`."""
    good = photos.where("reason IS NULL").select(
        "fetch_key", "content_sha256", "width", "height", "n_bytes"
    )
    n_pixels = F.col("width").cast("bigint") * F.col("height")
    return rows.join(good, "fetch_key").withColumn("n_pixels", n_pixels)


def distinct_embeddings(photos: DataFrame) -> DataFrame:
    """One `IMAGE_EMBEDDINGS` row per content: copies that other tasks embedded are dropped."""
    embedded = photos.where("embedding IS NOT NULL")
    return embedded.dropDuplicates(["content_sha256"]).select(*IMAGE_EMBEDDINGS.column_names)


def find_placeholders(usable: DataFrame, max_skus_per_photo: int) -> DataFrame:
    """`PLACEHOLDERS`: contents that more than `max_skus_per_photo` products of one block share.

    Blocks never meet: a photo that many tenants list once each says as much as any other, and a
    product name that two tenants use is two products.
    """
    counted = usable.groupBy("block", "content_sha256").agg(
        F.count_distinct("product").alias("n_skus"),
        F.min_by("image_uri", "position").alias("image_uri"),
    )
    return counted.where(F.col("n_skus") > max_skus_per_photo).select(*PLACEHOLDERS.column_names)


def comparable_rows(usable: DataFrame, placeholders: DataFrame) -> DataFrame:
    """`PHOTO_ROWS`: usable rows that do not show a placeholder of their block."""
    shown = F.broadcast(placeholders.select(*_PLACE))
    return usable.join(shown, _PLACE, "left_anti").select(*PHOTO_ROWS.column_names)


def searchable_contents(photo_rows: DataFrame, embeddings: DataFrame) -> DataFrame:
    """`CONTENTS`: each distinct content of a block with its embedding."""
    distinct = photo_rows.select("block", "content_sha256").distinct()
    return distinct.join(embeddings, "content_sha256").select(*CONTENTS.column_names)


def count_rows_by_origin(usable: DataFrame, placeholders: DataFrame) -> DataFrame:
    """One row an `origin` (`embedded`, `shared_content`, `placeholder`): `count` of usable rows.

    The row that counts as embedded is the first one of its content that shows no placeholder.
    """
    shown = F.broadcast(placeholders.select(*_PLACE, F.lit(True).alias("is_placeholder")))
    marked = usable.select(*_PLACE, "position").join(shown, _PLACE, "left")
    alike = Window.partitionBy("content_sha256", "is_placeholder").orderBy("position")
    first = F.row_number().over(alike) == 1
    origin = (
        F.when(F.col("is_placeholder"), "placeholder")
        .when(first, "embedded")
        .otherwise("shared_content")
    )
    return marked.withColumn("origin", origin).groupBy("origin").count()
