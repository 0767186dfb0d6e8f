"""The groups of all products, from stored pairs: numbered on the driver, refined where they are many."""

from collections.abc import Iterable, Iterator
from functools import partial

import pyarrow as pa
from pyspark.sql import SparkSession

from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_batches, transform_table, write_batches
from dedup_job.stages.group_labels import (
    PAIR_COLUMNS,
    PRODUCT_COLUMNS,
    GroupRules,
    Matches,
    cut_into_buckets,
    find_open,
    group_labels,
    number_products,
    open_pairs,
    refine,
)
from dedup_job.tables import GROUP_LABELS, OPEN_PAIRS, REFINED_NODES

# So few pairs the driver refines itself, in the time that Spark takes to start a job.
_MOST_ON_DRIVER = 100_000
_ROWS_PER_FILE = 500_000


def label_products(
    spark: SparkSession,
    pairs: StoredTable,
    products: StoredTable,
    rules: GroupRules,
    folder: Folder,
) -> StoredTable:
    """Group the products that matched.

    Ties go to the smaller SKU id, so the result depends on the pairs alone. What the driver holds in
    Python is in docs/adr/0019: a table of SKU ids and four arrays, no photo and no embedding.

    Args:
        spark: refines components.
        pairs: PRODUCT_PAIRS.
        products: PRODUCTS; only read with conflict columns.
        rules: chaining rule and threshold.
        folder: gets the result, and what passes between driver and executors.

    Returns:
        GROUP_LABELS: no group holds two products that conflict, through no chain either.
    """
    matches = number_products(
        read_batches(pairs, PAIR_COLUMNS), read_batches(products, PRODUCT_COLUMNS), rules
    )
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
    batches = group_labels(matches, group).to_batches(_ROWS_PER_FILE)
    files = [write_batches([batch], GROUP_LABELS, folder) for batch in batches]
    return StoredTable(GROUP_LABELS, folder, tuple(files))


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
