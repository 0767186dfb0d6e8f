"""How many true pairs the search found, measured against brute force in every run."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.config import CandidatesConfig
from dedup_job.kernels.neighbours import Vectors, at_least, pair_cosines
from dedup_job.kernels.vectors import embedding_matrix
from dedup_job.stages.cells import hash_order
from dedup_job.tables import CONTENT_PAIR_KEYS

_SLACK = 1e-5  # as in kernels.neighbours
_Z_95 = 1.959964


@dataclass(frozen=True)
class RecallEstimate:
    """Recall of the candidate search at a cosine.

    Attributes:
        n_queries: contents whose pairs were searched by brute force.
        n_true: distinct pairs at or above the cosine among them.
        n_found: of those, the pairs the search had found.
        recall: n_found / n_true; None ("unknown") when no pair was sampled.
        low: lower end of the 95 % interval; 0 when unknown.
        high: upper end; 1 when unknown.
    """

    n_queries: int
    n_true: int
    n_found: int
    recall: float | None
    low: float
    high: float


def measure_recall(
    contents: DataFrame, pairs: DataFrame, min_cosine: float, config: CandidatesConfig
) -> RecallEstimate:
    """Compare found pairs with brute force over all vectors, for a sample of queries.

    Args:
        contents: CONTENTS; `recall_queries` of them are collected and sent to every task.
        pairs: PHOTO_PAIRS that the search found.
        min_cosine: pairs at or above it count.
        config: `recall_queries` and `seed`; the same sample whatever the partitioning.
    """
    queries = _sample_queries(contents, config)
    truth = (
        contents.select("block", "content_sha256", "embedding")
        .mapInArrow(
            partial(find_true_pairs, queries=queries, min_cosine=min_cosine),
            schema=CONTENT_PAIR_KEYS.ddl,
        )
        .distinct()  # a pair of two queries is met twice
    )
    keys = CONTENT_PAIR_KEYS.column_names
    found = pairs.where(F.col("cosine") >= min_cosine).select(*keys, F.lit(1).alias("found"))
    row = (
        truth.join(found, keys, "left")
        .agg(F.count("*").alias("n_true"), F.count("found").alias("n_found"))
        .first()
    )
    assert row is not None  # an aggregate without keys has one row
    return estimate_recall(sum(len(q.shas) for q in queries.values()), row.n_true, row.n_found)


def estimate_recall(n_queries: int, n_true: int, n_found: int) -> RecallEstimate:
    """Recall with its Wilson score interval (Wilson, JASA 22, 1927), which holds near 1.

    Pairs are counted as independent; pairs of one query are not quite, so with few queries the
    true interval is somewhat wider.
    """
    if n_true == 0:
        return RecallEstimate(n_queries, 0, 0, None, 0.0, 1.0)
    share = n_found / n_true
    spread = _Z_95**2 / n_true
    centre = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    return RecallEstimate(n_queries, n_true, n_found, share, min(low, share), max(high, share))


@dataclass(frozen=True)
class BlockQueries:
    """The queries of one block. `shas`: their content hashes; `vectors`: float32 (m, d)."""

    shas: list[str]
    vectors: Vectors


def find_true_pairs(
    batches: Iterator[pa.RecordBatch], queries: dict[str, BlockQueries], min_cosine: float
) -> Iterator[pa.RecordBatch]:
    """Runs on executors: CONTENTS batches to the CONTENT_PAIR_KEYS their queries form with them."""
    for batch in batches:
        blocks = batch.column("block")
        for block in blocks.unique().to_pylist():
            if block in queries:
                rows = batch.filter(pc.equal(blocks, block))
                yield _pairs_with_queries(block, rows, queries[block], min_cosine)


def _pairs_with_queries(
    block: str, rows: pa.RecordBatch, queries: BlockQueries, min_cosine: float
) -> pa.RecordBatch:
    vectors = embedding_matrix(rows.column("embedding"))
    near = queries.vectors @ vectors.T >= np.float32(min_cosine - _SLACK)
    query, row = np.nonzero(near)
    both = np.concatenate([queries.vectors, vectors])
    cosines = pair_cosines(both, query, row + len(queries.shas))
    shas = rows.column("content_sha256").to_pylist()
    pairs = [
        sorted((queries.shas[q], shas[r]))
        for q, r, reached in zip(query, row, at_least(cosines, min_cosine), strict=True)
        if reached and queries.shas[q] != shas[r]
    ]
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    return pa.RecordBatch.from_pydict(
        {"block": [block] * len(pairs), "sha_a": first, "sha_b": second},
        schema=CONTENT_PAIR_KEYS.arrow,
    )


def _sample_queries(contents: DataFrame, config: CandidatesConfig) -> dict[str, BlockQueries]:
    # One seed further than the quantiser's sample: queries should not be what cells were cut by.
    table = (
        contents.orderBy(*hash_order(config.seed + 1))
        .limit(config.recall_queries)
        .select("block", "content_sha256", "embedding")
        .toArrow()
    )
    return {
        block: BlockQueries(
            rows.column("content_sha256").to_pylist(), embedding_matrix(rows.column("embedding"))
        )
        for block in table.column("block").unique().to_pylist()
        for rows in [table.filter(pc.equal(table.column("block"), block))]
    }
