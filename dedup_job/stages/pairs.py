"""From pairs of photos to pairs of products."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dedup_job.kernels.neighbours import Vectors, pair_cosines
from dedup_job.kernels.vectors import embedding_matrix
from dedup_job.tables import PRODUCT_PAIRS

SkuMatch = Literal["any", "main", "majority"]
Scores = Mapping[tuple[str, str], float]
_PLACES = ("image_uri", "uri_key")
PHOTO_COLUMNS = [
    *("block", "content_sha256", "sku_id", "conflict"),
    *("is_other", "shown_by", "image_uri", "uri_key", "embedding"),
]


def match_products(
    products: DataFrame,
    photo_rows: DataFrame,
    photo_pairs: DataFrame,
    *,
    min_score: float,
    sku_match: SkuMatch,
    decided: DataFrame | None = None,
) -> DataFrame:
    """Pairs of products of one block that show the same photo, or photos at or above the threshold.

    Every pair of photos counts once: two products that share a content, and every photo pair at or
    above `min_score`. A content that 20 products share makes 190 pairs; placeholders, which would
    make millions, are no longer in `photo_rows`.

    Args:
        products: PRODUCTS, of the same rows.
        photo_rows: PHOTO_ROWS.
        photo_pairs: PHOTO_PAIRS with scores, down to a floor at or below `min_score`.
        min_score: the threshold.
        sku_match: `any` photo pair; `main`: the products' main photos must match each other;
            `majority`: more than half of the photos of the product that has fewer must match (of
            both, where they have equally many).
        decided: what people said, see `stages.decided.decided_products`; sent to every executor.

    Returns:
        PRODUCT_PAIRS. The best photo pair is an exact copy where there is one, else the pair of
        highest score; among equals, of highest cosine, photos of the representing SKU, then the smallest
        SKU and URI.
    """
    ends = _photo_ends(products, photo_rows)
    pairs = (
        _same_content(ends)
        .unionByName(_near(ends, photo_pairs.where(F.col("score") >= min_score)))
        .groupBy(F.col("a.sku_id").alias("sku_id_a"), F.col("b.sku_id").alias("sku_id_b"))
        .agg(
            F.count("*").cast("int").alias("n_matching_photos"),
            # Smallest first: exact (near = false), then the highest score, then the photos.
            F.min(
                F.struct(
                    "near",
                    (-F.col("score")).alias("score_distance"),
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
        "score": -F.col("best.score_distance"),
        "match_type": F.when(F.col("best.near"), "near").otherwise("exact"),
        "in_conflict": _differ(F.col("conflict_a"), F.col("conflict_b")),
    }
    matched = pairs.where("agrees").withColumns(columns)
    if decided is None:
        matched = matched.withColumn("decision", F.lit(None).cast("string"))
    else:
        matched = matched.join(F.broadcast(decided), ["sku_id_a", "sku_id_b"], "left")
    return matched.select(*PRODUCT_PAIRS.column_names)


def photos_to_compare(
    sku_ids: DataFrame, products: DataFrame, photo_rows: DataFrame, contents: DataFrame
) -> DataFrame:
    """One row per photo of some products: `PHOTO_COLUMNS`.

    Args:
        sku_ids: `sku_id` of the products, as they are represented; sent to every executor.
        products: PRODUCTS.
        photo_rows: PHOTO_ROWS.
        contents: CONTENTS.
    """
    ends = _photo_ends(products, photo_rows).select(
        *("block", "content_sha256", "end.sku_id", "end.conflict"),
        *(f"end.photo.{name}" for name in ("is_other", "image_uri", "uri_key")),
        F.col("end.photo.sku_id").alias("shown_by"),
    )
    wanted = ends.join(F.broadcast(sku_ids), "sku_id", "left_semi")
    return wanted.join(contents, ["block", "content_sha256"]).select(*PHOTO_COLUMNS)


def scores_among(photo_pairs: DataFrame, photos: pa.Table) -> Scores:
    """Scores of the pairs of some contents, by both hashes in order.

    Args:
        photo_pairs: PHOTO_PAIRS with scores.
        photos: has `content_sha256`; a few.
    """
    shas = photos["content_sha256"].unique().to_pylist()
    both = F.col("sha_a").isin(shas) & F.col("sha_b").isin(shas) & F.col("score").isNotNull()
    rows = photo_pairs.where(both).select("sha_a", "sha_b", "score").collect()
    return {(row["sha_a"], row["sha_b"]): row["score"] for row in rows}


def said_pairs(
    pairs: Iterable[tuple[str, str]], photos: pa.Table, scores: Scores | None
) -> Iterator[dict[str, object]]:
    """PRODUCT_PAIRS of products that did not match, and that people called the same.

    Args:
        pairs: sku_id_a < sku_id_b.
        photos: `PHOTO_COLUMNS` of these products.
        scores: of the photos that were verified, others count as 0; None: scores are cosines.
    """
    vectors = embedding_matrix(photos["embedding"])
    shown: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    blocks: dict[str, set[str]] = defaultdict(set)
    for i, photo in enumerate(photos.drop_columns(["embedding"]).to_pylist()):
        shown[photo["block"], photo["sku_id"]].append({**photo, "vector": i})
        blocks[photo["sku_id"]].add(photo["block"])
    for a, b in pairs:
        if shared := blocks[a] & blocks[b]:
            block = min(shared)
            yield _said_pair(shown[block, a], shown[block, b], vectors, scores)


def _said_pair(
    photos_a: list[dict[str, Any]],
    photos_b: list[dict[str, Any]],
    vectors: Vectors,
    scores: Scores | None,
) -> dict[str, object]:
    i, j = (np.array([p["vector"] for p in side]) for side in (photos_a, photos_b))
    cosines = pair_cosines(vectors, np.repeat(i, len(j)), np.tile(j, len(i))).tolist()

    def value(a: dict[str, Any], b: dict[str, Any], cosine: float) -> float:
        first, second = sorted((a["content_sha256"], b["content_sha256"]))
        if first == second:
            return 1.0
        return cosine if scores is None else scores.get((first, second), 0.0)

    def order(candidate: tuple[tuple[dict[str, Any], dict[str, Any]], float]) -> tuple[object, ...]:
        both, cosine = candidate
        is_near = both[0]["content_sha256"] != both[1]["content_sha256"]
        names = ("is_other", "shown_by", "image_uri", "uri_key")
        places = (photo[name] for photo in both for name in names)
        return is_near, -value(*both, cosine), -cosine, *places

    (a, b), cosine = min(zip(product(photos_a, photos_b), cosines, strict=True), key=order)
    values = [json.loads(photo["conflict"] or "[]") for photo in (a, b)]
    return {
        "sku_id_a": a["sku_id"],
        "sku_id_b": b["sku_id"],
        **{f"{name}_{end}": photo[name] for name in _PLACES for end, photo in (("a", a), ("b", b))},
        "n_matching_photos": 0,
        "cosine": 1.0 if a["content_sha256"] == b["content_sha256"] else cosine,
        "score": value(a, b, cosine),
        "match_type": "decision",
        "in_conflict": any(x != y and None not in (x, y) for x, y in zip(*values, strict=True)),
        "decision": "same",
    }


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
        .select(
            "a",
            "b",
            F.lit(1.0).cast("float").alias("cosine"),
            F.lit(1.0).cast("float").alias("score"),
            F.lit(False).alias("near"),
        )
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
            "score",
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
