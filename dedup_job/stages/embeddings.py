"""From catalog rows to usable photos with embeddings; everything else becomes a row that says why."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from dedup_job.stages.sent_keys import sent_if_few
from dedup_job.tables import CONTENTS, IMAGE_EMBEDDINGS, PHOTO_ROWS, PLACEHOLDERS, USABLE_ROWS

_PLACE = ["block", "content_sha256"]


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


def add_carried_rows(usable: DataFrame, carried: DataFrame | None) -> DataFrame:
    """Usable rows with those of a delta night's unmentioned SKUs (CATALOG_IMAGES)."""
    if carried is None:
        return usable
    n_pixels = F.col("width").cast("bigint") * F.col("height")
    names = USABLE_ROWS.column_names
    return usable.select(*names).unionByName(
        carried.withColumn("n_pixels", n_pixels).select(*names)
    )


def new_embeddings(photos: DataFrame) -> DataFrame:
    """One `IMAGE_EMBEDDINGS` row per content: copies that other tasks embedded are dropped.

    Args:
        photos: `content_sha256`, `embedding` and `picture` of PHOTOS.
    """
    embedded = photos.where("embedding IS NOT NULL")
    return embedded.dropDuplicates(["content_sha256"]).select(*IMAGE_EMBEDDINGS.column_names)


def all_embeddings(embedded: DataFrame, n_embedded: int, stored: DataFrame) -> DataFrame:
    """`EMBEDDED_CONTENTS` of tonight and of the store, each content once.

    Args:
        embedded: of tonight.
        n_embedded: rows of it.
        stored: of the store.
    """
    tonight = sent_if_few(embedded.select("content_sha256"), n_embedded)
    return embedded.unionByName(stored.join(tonight, "content_sha256", "left_anti"))


def find_placeholders(usable: DataFrame, max_skus_per_photo: int) -> DataFrame:
    """`PLACEHOLDERS`: contents that more than `max_skus_per_photo` products of one block share.

    Blocks never meet: a photo that many tenants list once each says as much as any other, and a
    product name that two tenants use is two products.
    """
    counted = usable.groupBy("block", "content_sha256").agg(
        F.count_distinct("product").alias("n_skus"),
        F.min_by("image_uri", "position").alias("image_uri"),
    )
    shared = counted.where(F.col("n_skus") > max_skus_per_photo)
    no_other = F.lit(None).cast("string").alias("near_sha256")
    return shared.select(*PLACEHOLDERS.column_names[:-1], no_other)


def comparable_rows(usable: DataFrame, placeholders: DataFrame) -> DataFrame:
    """`PHOTO_ROWS`: usable rows that do not show a placeholder of their block."""
    shared, near = _by_kind(placeholders)
    rows = usable.join(shared, _PLACE, "left_anti").join(near, _PLACE, "left_anti")
    return rows.select(*PHOTO_ROWS.column_names)


def without_placeholders(contents: DataFrame, placeholders: DataFrame) -> DataFrame:
    """`CONTENTS` that are no placeholder of their block."""
    return contents.join(placeholders.select(*_PLACE), _PLACE, "left_anti")


def _by_kind(placeholders: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Places of placeholders: few files that many rows share, and many files of a few rows each.

    The first are broadcast, for rows of one such file would all meet in one task.
    """
    shared = F.broadcast(placeholders.where("near_sha256 IS NULL").select(*_PLACE))
    return shared, placeholders.where("near_sha256 IS NOT NULL").select(*_PLACE)


def searchable_contents(photo_rows: DataFrame, n_rows: int, embeddings: DataFrame) -> DataFrame:
    """`CONTENTS`: each distinct content of a block with its embedding.

    Args:
        photo_rows: PHOTO_ROWS.
        n_rows: of the catalog: there are not more of them.
        embeddings: EMBEDDED_CONTENTS of all.
    """
    distinct = sent_if_few(photo_rows.select("block", "content_sha256").distinct(), n_rows)
    return distinct.join(embeddings, "content_sha256").select(*CONTENTS.column_names)


def count_rows_by_origin(
    usable: DataFrame, placeholders: DataFrame, embedded: DataFrame
) -> DataFrame:
    """One row an `origin`: `count` of usable rows that end there.

    `embedded` and `reused` count the first row of each content that shows no placeholder, by
    whether this run embedded the content; other rows are `shared_content` or `placeholder`.
    """
    shared, near = _by_kind(placeholders)
    is_either = F.coalesce("is_shared", "is_near").alias("is_placeholder")
    marked = (
        usable.select(*_PLACE, "position")
        .join(shared.withColumn("is_shared", F.lit(True)), _PLACE, "left")
        .join(near.withColumn("is_near", F.lit(True)), _PLACE, "left")
        .select(*_PLACE, "position", is_either)
    )
    alike = Window.partitionBy("content_sha256", "is_placeholder").orderBy("position")
    first = F.row_number().over(alike) == 1
    is_new = F.lit(True).alias("is_new")
    tonight = embedded.select("content_sha256", is_new)
    origin = (
        F.when(F.col("is_placeholder"), "placeholder")
        .when(~F.col("is_first"), "shared_content")
        .when(F.col("is_new"), "embedded")
        .otherwise("reused")
    )
    placed = marked.withColumn("is_first", first).join(tonight, "content_sha256", "left")
    return placed.withColumn("origin", origin).groupBy("origin").count()
