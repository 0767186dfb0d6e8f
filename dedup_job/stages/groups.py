"""From pairs of products to groups with a survivor."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.kernels.grouping import Chaining, Edges, group_nodes
from dedup_job.kernels.ranking import Candidate, OrderColumn, rank_survivors
from dedup_job.kernels.similarity import group_cosines
from dedup_job.stages.inheritance import name_groups
from dedup_job.tables import GROUP_ROWS, GROUPED_PAIRS, arrow_batch

_MISSING_SHARE, _LEAST_GAP = 0.25, 0.001
# Spark takes milliseconds to hand a group over, and most groups are pairs: many share one call.
_MEMBERS_PER_BUCKET = 2_000
_LABEL_COLUMNS = ["sku_id", "group_id", "is_exact", "group_first_seen", "member_since"]
_MEMBER_COLUMNS = [*_LABEL_COLUMNS, "variant_group", "order_values", "n_pixels"]


@dataclass(frozen=True)
class Grouping:
    """Result: `pairs` is GROUPED_PAIRS, `groups` is GROUP_ROWS."""

    pairs: DataFrame
    groups: DataFrame


@dataclass(frozen=True)
class GroupRules:
    """How groups are made.

    Attributes:
        chaining: the chaining rule, see `kernels.grouping`.
        order: the canonical order that ranks survivors.
        min_cosine: the threshold of the pairs, at most 1.
        run_date: the date on which groups are born.
        n_conflict_columns: how many columns `--conflict` names.
    """

    chaining: Chaining
    order: tuple[OrderColumn, ...]
    min_cosine: float
    run_date: date
    n_conflict_columns: int = 0

    @property
    def missing_cosine(self) -> float:
        """What a pair that did not match counts as in an average: a little below the threshold.

        Relative to the room above the threshold, so that it means the same for every model, and
        not the floor of the search, so that groups do not depend on how deep was searched.
        Measured in docs/adr/0008.
        """
        return self.min_cosine - max(_MISSING_SHARE * (1.0 - self.min_cosine), _LEAST_GAP)


def group_products(
    product_pairs: DataFrame,
    products: DataFrame,
    photo_rows: DataFrame,
    contents: DataFrame,
    rules: GroupRules,
    previous: DataFrame | None = None,
) -> Grouping:
    """Group products, choose survivors, and say of every pair where it ended.

    The pairs are brought to the driver: about 50 bytes each while they are numbered, 16 after that,
    so ten million of them take about 1 GB there (`spark.driver.maxResultSize` must allow for it);
    with `--conflict`, the values of every product that matched come too. All else stays distributed.
    `product_pairs` and `products` are read more than once: hand in stored tables.

    Args:
        product_pairs: PRODUCT_PAIRS.
        products: PRODUCTS.
        photo_rows: PHOTO_ROWS.
        contents: CONTENTS.
        rules: thresholds, chaining rule, order, date.
        previous: DUPLICATE_GROUPS of the last published run before this run date, whose ids pass
            to tonight's groups; None when there is none.

    Returns:
        Pairs and groups. No group holds two products whose values differ in a conflict column,
        through no chain either; null is unknown and fits every value. A pair that this parts has
        `parted_by` conflict if the two differ themselves, else chaining.
    """
    labels = label_products(product_pairs, products, rules, previous)
    return Grouping(
        _place_pairs(product_pairs, labels),
        _describe_groups(labels, products, photo_rows, contents, rules),
    )


def label_products(
    product_pairs: DataFrame,
    products: DataFrame,
    rules: GroupRules,
    previous: DataFrame | None = None,
) -> DataFrame:
    """Which group every grouped product is in; `previous` as in `group_products`.

    Returns:
        sku_id, group_id, is_exact (has an exact copy in its group), group_first_seen, member_since,
        bucket (a group is in one of them).
    """
    pairs = product_pairs.select("sku_id_a", "sku_id_b", "cosine", "match_type", "in_conflict")
    conflicts = None
    if rules.n_conflict_columns:
        conflicts = _conflict_values(product_pairs, products).toArrow()
    labels = label_on_driver(pairs.toArrow(), conflicts, rules)
    n_buckets = 1 + labels.num_rows // _MEMBERS_PER_BUCKET
    members = product_pairs.sparkSession.createDataFrame(labels)
    bucket = F.pmod(F.xxhash64("group_id"), F.lit(n_buckets)).alias("bucket")
    return name_groups(members, previous, rules.run_date).select(*_LABEL_COLUMNS, bucket)


def _conflict_values(product_pairs: DataFrame, products: DataFrame) -> DataFrame:
    """sku_id, conflict_values (array) of the products that are in a pair."""
    matched = product_pairs.select(F.explode(F.array("sku_id_a", "sku_id_b")).alias("sku_id"))
    values = F.from_json("conflict", "array<string>").alias("conflict_values")
    return products.join(matched, "sku_id", "left_semi").select("sku_id", values)


def label_on_driver(pairs: pa.Table, conflicts: pa.Table | None, rules: GroupRules) -> pa.Table:
    """Group what `label_products` collected: sku_id, first_sku_id (the smallest of its group), is_exact."""
    ends = [pairs["sku_id_a"].combine_chunks(), pairs["sku_id_b"].combine_chunks()]
    # Products are numbered in the order of their ids: that makes every tie a matter of ids.
    sku_ids = pc.unique(pa.concat_arrays(ends)).sort()
    a, b = (pc.index_in(end, value_set=sku_ids).to_numpy() for end in ends)
    apart = pairs["in_conflict"].to_numpy()
    cosine, exact = pairs["cosine"].to_numpy(), pc.equal(pairs["match_type"], "exact").to_numpy()
    group = group_nodes(
        len(sku_ids),
        Edges(a[~apart], b[~apart], cosine[~apart]),
        chaining=rules.chaining,
        threshold=rules.min_cosine,
        floor=rules.missing_cosine,
        cannot_link=np.c_[a[apart], b[apart]],
        traits=None if conflicts is None else _traits(sku_ids, conflicts, rules.n_conflict_columns),
    )
    copies = exact & ~apart & (group[a] == group[b])
    is_exact = np.zeros(len(sku_ids), bool)
    is_exact[a[copies]] = is_exact[b[copies]] = True
    grouped = np.flatnonzero(np.bincount(group, minlength=len(group))[group] > 1)
    return pa.table(
        {
            "sku_id": sku_ids.take(pa.array(grouped)),
            "first_sku_id": sku_ids.take(pa.array(group[grouped])),
            "is_exact": is_exact[grouped],
        }
    )


def _traits(sku_ids: pa.Array, conflicts: pa.Table, n_columns: int) -> np.ndarray:
    """Codes of the conflict values: int32 (n, n_columns), -1 where null."""
    values = conflicts["conflict_values"].combine_chunks().flatten().dictionary_encode()
    codes = values.indices.fill_null(-1).to_numpy(zero_copy_only=False).reshape(-1, n_columns)
    traits = np.full((len(sku_ids), n_columns), -1, np.int32)
    traits[pc.index_in(conflicts["sku_id"], value_set=sku_ids).to_numpy()] = codes
    return traits


def _place_pairs(product_pairs: DataFrame, labels: DataFrame) -> DataFrame:
    side = {
        end: labels.select(
            F.col("sku_id").alias(f"sku_id_{end}"), F.col("group_id").alias(f"group_{end}")
        )
        for end in ("a", "b")
    }
    together = F.col("group_a") == F.col("group_b")
    parted_by = F.when(F.col("in_conflict"), "conflict").when(
        ~F.coalesce(together, F.lit(False)), "chaining"
    )
    return (
        product_pairs.join(side["a"], "sku_id_a", "left")
        .join(side["b"], "sku_id_b", "left")
        .withColumn("score", F.col("cosine"))
        .withColumn("group_id", F.when(together, F.col("group_a")))
        .withColumn("parted_by", parted_by)
        .select(*GROUPED_PAIRS.column_names)
    )


def _describe_groups(
    labels: DataFrame,
    products: DataFrame,
    photo_rows: DataFrame,
    contents: DataFrame,
    rules: GroupRules,
) -> DataFrame:
    # Not a partial: pyspark 4.3 fails to read the type hints of one here (UnboundLocalError).
    def describe_this_bucket(photos: pa.Table) -> pa.Table:
        return describe_groups(photos, rules)

    members = labels.join(
        products.select("block", "product", "sku_id", "variant_group", "order_values", "n_pixels"),
        "sku_id",
    )
    photos = photo_rows.select("block", "product", "content_sha256")
    return (
        members.join(photos, ["block", "product"])
        .dropDuplicates(["sku_id", "content_sha256"])
        .join(contents, ["block", "content_sha256"])
        .drop("block", "product")
        .groupBy("bucket")
        .applyInArrow(describe_this_bucket, GROUP_ROWS.ddl)
    )


def describe_groups(photos: pa.Table, rules: GroupRules) -> pa.Table:
    """Turn the photos of some groups' members into their GROUP_ROWS; runs on executors."""
    keys = ("group_id", "sku_id", "content_sha256")
    photos = photos.sort_by([(key, "ascending") for key in keys]).combine_chunks()
    group = photos["group_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    lengths = np.diff(np.r_[starts, len(group)])
    rows = chain.from_iterable(
        _describe_group(photos.slice(start, length), rules)
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    )
    return pa.Table.from_batches([arrow_batch(GROUP_ROWS, rows)])


def _describe_group(photos: pa.Table, rules: GroupRules) -> Iterable[dict[str, object]]:
    """Rows of one group, from its photos sorted by SKU and content."""
    owner = photos["sku_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    content = photos["content_sha256"].combine_chunks().dictionary_encode().indices.to_numpy()
    vectors = photos["embedding"].combine_chunks().flatten().to_numpy().reshape(len(owner), -1)
    first_photo = np.unique(owner, return_index=True)[1]
    members = photos.select(_MEMBER_COLUMNS).take(pa.array(first_photo)).to_pylist()
    canonical = _survivor(members, rules.order)
    to_canonical, lowest = group_cosines(owner, content, vectors, canonical)
    return _group_rows(members, canonical, to_canonical.tolist(), float(lowest))


def _survivor(members: list[dict[str, Any]], order: tuple[OrderColumn, ...]) -> int:
    best = rank_survivors(
        [Candidate(m["sku_id"], m["n_pixels"], m["order_values"]) for m in members], order
    )[0]
    return [m["sku_id"] for m in members].index(best.sku_id)


def _group_rows(
    members: list[dict[str, Any]],
    canonical: int,
    to_canonical: list[float],
    lowest: float,
) -> Iterable[dict[str, object]]:
    for index, (member, cosine) in enumerate(zip(members, to_canonical, strict=True)):
        yield {
            "group_id": member["group_id"],
            "sku_id": member["sku_id"],
            "canonical_sku_id": members[canonical]["sku_id"],
            "is_canonical": index == canonical,
            "group_size": len(members),
            "cosine_to_canonical": cosine,
            "min_pair_cosine": lowest,
            "match_type": "exact" if member["is_exact"] else "near",
            "group_first_seen": member["group_first_seen"],
            "member_since": member["member_since"],
            "variant_group": member["variant_group"],
        }
