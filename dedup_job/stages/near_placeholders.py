"""Placeholders that were saved anew each time: no two files are equal, and they look all the same.

Twenty-five thousand such photos are 312 million pairs, so they are found before the search, from the
embeddings alone and anew each night: leaders of dense spots in a sample, then every content close to a
leader, then the count of products that tells a placeholder from a garment (docs/adr/0020).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from dedup_job.kernels.dense import find_leaders
from dedup_job.kernels.neighbours import Vectors
from dedup_job.kernels.vectors import embedding_matrix
from dedup_job.tables import CONTENTS, NEAR_LEADERS, PLACEHOLDERS

# Re-encodings of the graphics that shops show instead of a photo lie within .997 of each other
# (docs/adr/0020), listings of one garment's photo as well.
MIN_COSINE = 0.99
# What lies this close to a spot that is one goes with it: its pairs would be false.
_GOES_WITH_COSINE = 0.98
_MOST_SAMPLED, _LEAST_SAMPLED = 65_536, 16_384
# A spot of as many products as are allowed is expected to have so many contents in the sample.
_SAMPLED_OF_A_SPOT = 5
_MOST_LEADERS = 1_000
_PLACE = ["block", "content_sha256"]


@dataclass(frozen=True)
class Leaders:
    """Leaders of one block: `shas` and `vectors`, float32 (n, d)."""

    shas: list[str]
    vectors: Vectors


def sample_share(n_contents: int, max_near_skus: int) -> float:
    """The share of contents among which leaders are looked for, 0 to 1."""
    wanted = n_contents * _SAMPLED_OF_A_SPOT / max_near_skus
    n_sampled = min(max(wanted, _LEAST_SAMPLED), _MOST_SAMPLED)
    return min(1.0, n_sampled / max(n_contents, 1))


def sample_contents(contents: DataFrame, share: float) -> DataFrame:
    """CONTENTS whose hashes are the lowest: as good as chance, and the same every night."""
    if share >= 1:
        return contents
    return contents.where(F.col("content_sha256") < f"{int(share * 16**8):08x}")


def choose_leaders(sample: pa.Table, share: float, max_near_skus: int) -> dict[str, Leaders]:
    """Leaders of each block that has any. Runs on the driver, on some ten thousand contents.

    Args:
        sample: CONTENTS, from `sample_contents`.
        share: of it.
        max_near_skus: contents of a spot that are not too many; half as many make a leader, since
            sampling errs, and the count of products decides.
    """
    least = max_near_skus + 1 if share >= 1 else max(3, int(max_near_skus * share / 2))
    sample = sample.sort_by([("block", "ascending"), ("content_sha256", "ascending")])
    blocks = sample["block"].combine_chunks().dictionary_encode()
    names = blocks.dictionary.to_pylist()  # in the order of the sorted rows
    bounds = np.searchsorted(blocks.indices.to_numpy(), np.arange(len(names) + 1))
    leaders = {}
    for block, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True):
        if stop - start < least:
            continue
        here = sample.slice(start, stop - start)
        vectors = embedding_matrix(here["embedding"])
        chosen = find_leaders(vectors, MIN_COSINE, least, _MOST_LEADERS)
        if len(chosen):
            shas = here["content_sha256"].take(pa.array(chosen)).to_pylist()
            leaders[block] = Leaders(shas, vectors[chosen])
    return leaders


def near_leaders(contents: DataFrame, leaders: dict[str, Leaders]) -> DataFrame:
    """NEAR_LEADERS: every content with each leader of its block that it is close to."""
    task = partial(_compare_with_leaders, leaders=leaders)
    return contents.select(*CONTENTS.column_names).mapInArrow(task, NEAR_LEADERS.ddl)


def _compare_with_leaders(
    batches: Iterable[pa.RecordBatch], leaders: dict[str, Leaders]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        blocks = np.array(batch.column("block").to_pylist(), object)
        for block in set(blocks) & set(leaders):
            here = batch.take(pa.array(np.flatnonzero(blocks == block)))
            known = leaders[block]
            cosines = embedding_matrix(here.column("embedding")) @ known.vectors.T
            row, leader = np.nonzero(cosines >= _GOES_WITH_COSINE)
            columns = [
                pa.array([block] * len(row), pa.string()),
                here.column("content_sha256").take(pa.array(row)),
                pa.array([known.shas[i] for i in leader], pa.string()),
                pa.array(cosines[row, leader], pa.float32()),
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=NEAR_LEADERS.arrow)


def find_near_placeholders(near: DataFrame, usable: DataFrame, max_near_skus: int) -> DataFrame:
    """PLACEHOLDERS: contents close to a leader whose near-identical contents show too many products.

    Args:
        near: NEAR_LEADERS; read twice: hand in a stored table.
        usable: USABLE_ROWS.
        max_near_skus: products of one block that are not too many.
    """
    products = usable.select(*_PLACE, "product")
    too_many = (
        near.where(F.col("cosine") >= MIN_COSINE)
        .join(products, _PLACE)
        .groupBy("block", "leader_sha256")
        .agg(F.count_distinct("product").alias("n_products"))
        .where(F.col("n_products") > max_near_skus)
        .select("block", "leader_sha256")
    )
    nearest = F.row_number().over(
        Window.partitionBy(*_PLACE).orderBy(F.desc("cosine"), "leader_sha256")
    )
    members = (
        near.join(F.broadcast(too_many), ["block", "leader_sha256"])
        .withColumn("place", nearest)
        .where("place = 1")
        .select(*_PLACE, F.col("leader_sha256").alias("near_sha256"))
    )
    shown = usable.join(members, _PLACE).groupBy(*_PLACE, "near_sha256")
    return shown.agg(
        F.count_distinct("product").alias("n_skus"),
        F.min_by("image_uri", "position").alias("image_uri"),
    ).select(*PLACEHOLDERS.column_names)
