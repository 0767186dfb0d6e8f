"""The groups of all products, from stored pairs: numbered on the driver, refined where they are many."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_batches, transform_table, write_batches
from dedup_job.stages.group_labels import (
    PAIR_COLUMNS,
    PRODUCT_COLUMNS,
    Array,
    GroupRules,
    Matches,
    cut_into_buckets,
    find_open,
    name_members,
    number_products,
    open_pairs,
    place_pairs,
    refine,
)
from dedup_job.stages.inheritance import PREVIOUS_COLUMNS
from dedup_job.tables import NAMED_MEMBERS, OPEN_PAIRS, PAIR_PLACES, REFINED_NODES

# So few pairs the driver refines itself, in the time that Spark takes to start a job.
_MOST_ON_DRIVER = 100_000
_ROWS_PER_FILE = 500_000


def label_products(
    spark: SparkSession,
    pairs: StoredTable,
    products: StoredTable,
    previous: StoredTable | None,
    rules: GroupRules,
    decided: pa.Table | None,
    folder: Folder,
) -> tuple[StoredTable, StoredTable]:
    """Group the products that matched, and give the groups their ids.

    Ties go to the smaller SKU id, so the result depends on the pairs alone. What the driver holds in
    Python is in docs/adr/0019: a table of SKU ids and some arrays, no photo and no embedding. No group
    holds two products that conflict, through no chain either.

    Args:
        spark: refines components.
        pairs: PRODUCT_PAIRS.
        products: PRODUCTS; only read with conflict columns.
        previous: DUPLICATE_GROUPS of the last published run before this run date, whose ids pass
            to tonight's groups; None when there is none.
        rules: chaining rule, threshold and run date.
        decided: what people said, see `stages.decided.decided_products`.
        folder: gets the result, and what passes between driver and executors.

    Returns:
        NAMED_MEMBERS, and PAIR_PLACES beside the files of `pairs`.
    """
    matches = number_products(
        read_batches(pairs, PAIR_COLUMNS), read_batches(products, PRODUCT_COLUMNS), rules, decided
    )
    group = _group(spark, matches, rules, folder)
    before = None if previous is None else _read_names(previous)
    members = name_members(matches, group, before, rules.run_date)
    batches = members.table.to_batches(_ROWS_PER_FILE)
    stored = [write_batches([batch], NAMED_MEMBERS, folder) for batch in batches]
    ends = np.cumsum([file.n_rows for file in pairs.files]).tolist()
    places = [
        write_batches(
            place_pairs(matches, group, members, slice(start, stop)).to_batches(),
            PAIR_PLACES,
            folder.child("places"),
        )
        for start, stop in pairwise([0, *ends])
    ]
    return (
        StoredTable(NAMED_MEMBERS, folder, tuple(stored)),
        StoredTable(PAIR_PLACES, folder.child("places"), tuple(places)),
    )


def _read_names(previous: StoredTable) -> pa.Table | None:
    """None where that night had no group at all."""
    parts = list(read_batches(previous, PREVIOUS_COLUMNS))
    return pa.concat_tables(parts) if parts else None


def _group(spark: SparkSession, matches: Matches, rules: GroupRules, folder: Folder) -> Array:
    """The group of each SKU, named by its smallest: int64 (n,)."""
    group, rows = find_open(matches, rules)
    if len(rows) <= _MOST_ON_DRIVER:
        refined: Iterable[pa.Table] = [refine(open_pairs(matches, rows), rules)]
    else:
        buckets = cut_into_buckets(group[matches.a[rows]])
        stored = _store(matches, [rows[bucket] for bucket in buckets], folder.child("open"))
        task = partial(_refine_bucket, rules=rules)
        table = transform_table(spark, stored, REFINED_NODES, folder.child("refined"), task)
        refined = read_batches(table, REFINED_NODES.column_names)
    for part in refined:
        group[part["node"].to_numpy()] = part["first_node"].to_numpy()
    return group


def _store(matches: Matches, buckets: list, folder: Folder) -> StoredTable:
    files = [
        write_batches(open_pairs(matches, rows).to_batches(), OPEN_PAIRS, folder)
        for rows in buckets
    ]
    return StoredTable(OPEN_PAIRS, folder, tuple(files))


def _refine_bucket(
    batches: Iterable[pa.RecordBatch], rules: GroupRules
) -> Iterator[pa.RecordBatch]:
    """Runs on executors: one file of OPEN_PAIRS to REFINED_NODES."""
    if rows := list(batches):
        yield from refine(pa.Table.from_batches(rows), rules).to_batches()
