"""From pairs of products to groups with a survivor."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from dedup_job.kernels.neighbours import Indices, Vectors, pair_cosines
from dedup_job.kernels.ranking import Candidate, OrderColumn, rank_survivors
from dedup_job.kernels.similarity import group_cosines
from dedup_job.kernels.vectors import embedding_matrix
from dedup_job.stages.group_labels import GroupRules
from dedup_job.tables import GROUP_ROWS, GROUPED_PAIRS

# Their photos are what an executor's Python holds at once: 30 MB of embeddings per photo of a member.
_MEMBERS_PER_PARTITION = 50_000
_MEMBER_COLUMNS = [
    *("sku_id", "group_id", "match_type", "group_first_seen", "member_since"),
    *("variant_group", "order_values", "n_pixels"),
]


@dataclass(frozen=True)
class Grouping:
    """Result: `pairs` is GROUPED_PAIRS, `groups` is GROUP_ROWS."""

    pairs: DataFrame
    groups: DataFrame


def group_products(
    placed_pairs: DataFrame,
    members: DataFrame,
    n_members: int,
    products: DataFrame,
    photo_rows: DataFrame,
    contents: DataFrame,
    rules: GroupRules,
) -> Grouping:
    """Choose the survivors of the groups.

    Args:
        placed_pairs: PRODUCT_PAIRS with the columns of PAIR_PLACES.
        members: NAMED_MEMBERS.
        n_members: rows of it.
        products: PRODUCTS.
        photo_rows: PHOTO_ROWS.
        contents: CONTENTS.
        rules: the canonical order.
    """
    pairs = placed_pairs.select(*GROUPED_PAIRS.column_names)
    photos = _photos_of_members(members, products, photo_rows, contents)
    n_partitions = 1 + n_members // _MEMBERS_PER_PARTITION
    task = partial(_describe_partition, rules=rules)
    groups = photos.repartition(n_partitions, "group_id").mapInArrow(task, GROUP_ROWS.ddl)
    return Grouping(pairs, groups)


def _photos_of_members(
    members: DataFrame, products: DataFrame, photo_rows: DataFrame, contents: DataFrame
) -> DataFrame:
    """Every distinct photo of a member, with its embedding and what describes the member."""
    # Partitioned by product at once, so that neither the distinct rows nor the join move them again.
    photos = (
        photo_rows.select("block", "product", "content_sha256")
        .repartition("block", "product")
        .distinct()
    )
    described = products.join(members.hint("shuffle_hash"), "sku_id").select(
        "block", "product", *_MEMBER_COLUMNS
    )
    # Hashed is what is narrow: to sort rows that carry an embedding would cost more than the join.
    wanted = photos.join(described, ["block", "product"]).hint("shuffle_hash")
    return contents.join(wanted, ["block", "content_sha256"]).select(
        *_MEMBER_COLUMNS, "content_sha256", "embedding"
    )


def _describe_partition(
    batches: Iterator[pa.RecordBatch], rules: GroupRules
) -> Iterator[pa.RecordBatch]:
    """Runs on executors: a partition holds whole groups."""
    if rows := list(batches):
        yield from describe_groups(pa.Table.from_batches(rows), rules).to_batches()


def describe_groups(photos: pa.Table, rules: GroupRules) -> pa.Table:
    """Turn the photos of some groups' members into their GROUP_ROWS; runs on executors."""
    keys = ("group_id", "sku_id", "content_sha256")
    photos = photos.sort_by([(key, "ascending") for key in keys]).combine_chunks()
    first_photo = _starts(photos["sku_id"])  # of each member, group by group
    members = photos.select(_MEMBER_COLUMNS).take(pa.array(first_photo))
    first_member = _starts(members["group_id"])
    sizes = np.diff(np.r_[first_member, len(first_photo)])
    canonical = _survivors(members, first_member, sizes, rules.order)
    to_canonical, lowest = _cosines(photos, first_photo, first_member, sizes, canonical)
    of_member = np.repeat(np.arange(len(sizes)), sizes)
    survivor = canonical[of_member]
    columns = {
        "canonical_sku_id": members["sku_id"].take(pa.array(survivor)),
        "is_canonical": pa.array(survivor == np.arange(len(survivor))),
        "group_size": pa.array(sizes[of_member], pa.int32()),
        "cosine_to_canonical": pa.array(to_canonical),
        "min_pair_cosine": pa.array(lowest[of_member]),
    }
    schema = GROUP_ROWS.arrow
    ready = [columns[n] if n in columns else members[n] for n in schema.names]
    return pa.table(ready, schema=schema)


def _starts(column: pa.ChunkedArray) -> Indices:
    """Row numbers at which a sorted column changes."""
    codes = column.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]][: len(codes)])


def _survivors(
    members: pa.Table, first_member: Indices, sizes: Indices, order: tuple[OrderColumn, ...]
) -> Indices:
    """Row number of each group's survivor. Members are sorted by group and SKU."""
    if not order:  # by resolution, then by SKU id: as `rank_survivors` would, without a loop
        of_member = np.repeat(np.arange(len(sizes)), sizes)
        ranked = np.lexsort((-members["n_pixels"].to_numpy(), of_member))
        return ranked[first_member]
    rows = members.select(["sku_id", "n_pixels", "order_values"]).to_pylist()
    candidates = [Candidate(**row) for row in rows]
    firsts = np.empty(len(sizes), np.int64)
    for group, (start, size) in enumerate(zip(first_member, sizes, strict=True)):
        best = rank_survivors(candidates[start : start + size], order)[0]
        firsts[group] = start + candidates[start : start + size].index(best)
    return firsts


def _cosines(
    photos: pa.Table,
    first_photo: Indices,
    first_member: Indices,
    sizes: Indices,
    canonical: Indices,
) -> tuple[Vectors, Vectors]:
    """Of each member, the cosine to its survivor; of each group, the lowest of its pairs."""
    vectors = embedding_matrix(photos["embedding"])
    content = photos["content_sha256"].combine_chunks().dictionary_encode().indices.to_numpy()
    to_canonical = np.ones(len(first_photo), np.float32)
    photo_of_group = first_photo[first_member]
    n_photos = np.diff(np.r_[photo_of_group, len(photos)])
    # Most groups are two products of one photo each; they are computed at once.
    pairs = np.flatnonzero((sizes == 2) & (n_photos == 2))
    one, other = photo_of_group[pairs], photo_of_group[pairs] + 1
    cosine = pair_cosines(vectors, one, other)
    cosine[content[one] == content[other]] = 1.0
    lowest = np.empty(len(sizes), np.float32)
    lowest[pairs] = cosine
    to_canonical[2 * first_member[pairs] + 1 - canonical[pairs]] = cosine
    owner = np.repeat(np.arange(len(first_photo)), np.diff(np.r_[first_photo, len(photos)]))
    for group in np.flatnonzero((sizes != 2) | (n_photos != 2)):
        start = first_member[group]
        rows = slice(photo_of_group[group], photo_of_group[group] + n_photos[group])
        to_canonical[start : start + sizes[group]], lowest[group] = group_cosines(
            owner[rows] - start, content[rows], vectors[rows], canonical[group] - start
        )
    return to_canonical, lowest
