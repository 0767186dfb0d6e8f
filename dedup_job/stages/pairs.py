"""From pairs of photos to pairs of products."""

from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dedup_job.tables import PRODUCT_PAIRS

SkuMatch = Literal["any", "main", "majority"]


def match_products(
    products: DataFrame,
    photo_rows: DataFrame,
    photo_pairs: DataFrame,
    *,
    min_cosine: float,
    sku_match: SkuMatch,
) -> DataFrame:
    """Pairs of products of one block that show the same photo, or photos at or above the threshold.

    Every pair of photos counts once: two products that share a content, and every photo pair at or
    above `min_cosine`. A content that 20 products share makes 190 pairs; placeholders, which would
    make millions, are no longer in `photo_rows`.

    Args:
        products: PRODUCTS, of the same rows.
        photo_rows: PHOTO_ROWS.
        photo_pairs: PHOTO_PAIRS, down to a floor at or below `min_cosine`.
        min_cosine: the threshold.
        sku_match: `any` photo pair; `main`: the products' main photos must match each other;
            `majority`: more than half of the photos of the product that has fewer must match (of
            both, where they have equally many).

    Returns:
        PRODUCT_PAIRS. The best photo pair is an exact copy where there is one, else the pair of
        highest cosine; among equals, photos of the representing SKU, then the smallest SKU and URI.
    """
    ends = _photo_ends(products, photo_rows)
    pairs = (
        _same_content(ends)
        .unionByName(_near(ends, photo_pairs.where(F.col("cosine") >= min_cosine)))
        .groupBy(F.col("a.sku_id").alias("sku_id_a"), F.col("b.sku_id").alias("sku_id_b"))
        .agg(
            F.count("*").cast("int").alias("n_matching_photos"),
            # Smallest first: exact (near = false), then the highest cosine, then the photos.
            F.min(
                F.struct(
                    "near",
                    (-F.col("cosine")).alias("distance"),
                    F.col("a.photo").alias("a"),
                    F.col("b.photo").alias("b"),
                )
            ).alias("best"),
            _agreement(sku_match).alias("agrees"),
            F.first("a.conflict").alias("conflict_a"),
            F.first("b.conflict").alias("conflict_b"),
        )
    )
    columns = {
        "image_uri_a": F.col("best.a.image_uri"),
        "image_uri_b": F.col("best.b.image_uri"),
        "uri_key_a": F.col("best.a.uri_key"),
        "uri_key_b": F.col("best.b.uri_key"),
        "cosine": -F.col("best.distance"),
        "match_type": F.when(F.col("best.near"), "near").otherwise("exact"),
        "in_conflict": _differ(F.col("conflict_a"), F.col("conflict_b")),
    }
    return pairs.where("agrees").withColumns(columns).select(*PRODUCT_PAIRS.column_names)


def _photo_ends(products: DataFrame, photo_rows: DataFrame) -> DataFrame:
    """One row per product and photo content: block, content_sha256, `end` (what a pair needs)."""
    stands_for = products.select(
        "block",
        "product",
        F.col("sku_id").alias("representative"),
        "conflict",
        "main_sha256",
        "n_contents",
    )
    photo = F.struct(
        (F.col("sku_id") != F.col("representative")).alias("is_other"),
        "sku_id",
        "image_uri",
        "uri_key",
    )
    end = F.struct(
        F.col("representative").alias("sku_id"),
        "conflict",
        "n_contents",
        F.col("content_sha256").alias("sha"),
        (F.col("content_sha256") == F.col("main_sha256")).alias("is_main"),
        "photo",
    )
    return (
        photo_rows.drop("conflict")
        .join(stands_for, ["block", "product"])
        .groupBy(
            "block", "content_sha256", "representative", "conflict", "main_sha256", "n_contents"
        )
        .agg(F.min(photo).alias("photo"))
        .select("block", "content_sha256", end.alias("end"))
    )


def _same_content(ends: DataFrame) -> DataFrame:
    a = ends.withColumnRenamed("end", "a")
    b = ends.withColumnRenamed("end", "b")
    return (
        a.join(b, ["block", "content_sha256"])
        .where(F.col("a.sku_id") < F.col("b.sku_id"))
        .select("a", "b", F.lit(1.0).cast("float").alias("cosine"), F.lit(False).alias("near"))
    )


def _near(ends: DataFrame, photo_pairs: DataFrame) -> DataFrame:
    left = ends.select("block", F.col("content_sha256").alias("sha_a"), F.col("end").alias("left"))
    right = ends.select(
        "block", F.col("content_sha256").alias("sha_b"), F.col("end").alias("right")
    )
    in_order = F.col("left.sku_id") < F.col("right.sku_id")
    return (
        photo_pairs.join(left, ["block", "sha_a"])
        .join(right, ["block", "sha_b"])
        .where(F.col("left.sku_id") != F.col("right.sku_id"))
        .select(
            F.when(in_order, F.col("left")).otherwise(F.col("right")).alias("a"),
            F.when(in_order, F.col("right")).otherwise(F.col("left")).alias("b"),
            "cosine",
            F.lit(True).alias("near"),
        )
    )


def _agreement(sku_match: SkuMatch) -> Column:
    """Aggregate: whether the matching photos of two products are enough."""
    if sku_match == "any":
        return F.lit(True)
    if sku_match == "main":
        return F.bool_or(F.col("a.is_main") & F.col("b.is_main"))
    enough = {
        end: 2 * F.size(F.collect_set(f"{end}.sha")) > F.first(f"{end}.n_contents")
        for end in ("a", "b")
    }
    fewer = F.first(F.col("a.n_contents") - F.col("b.n_contents"))
    return (
        F.when(fewer < 0, enough["a"])
        .when(fewer > 0, enough["b"])
        .otherwise(enough["a"] & enough["b"])
    )


def _differ(a: Column, b: Column) -> Column:
    """Whether two JSON arrays of values differ in a place where neither is null (unknown)."""
    values = [F.from_json(side, "array<string>") for side in (a, b)]
    return F.coalesce(F.exists(F.zip_with(*values, lambda x, y: x != y), lambda d: d), F.lit(False))
