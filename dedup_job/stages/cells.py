"""Cells: which contents meet in which task.

A block that fits becomes one cell. A larger one is cut by a quantiser, and a content is found in
its nearest cell but looks into the nearest few. For an exact search a larger block is cut into
chunks, and every chunk meets every other.

Where the last run's pairs are carried over, unchanged contents are found but do not look: each is in
its own cell only, and the new ones go to the cells where their pairs may be.

What a task holds is every row of a cell: those that are found there and the visitors that only look.
Cells are cut so small that both together stay around half of `max_cell_rows` at the first effort.
Each doubling of the effort doubles the cells a content looks into, and so the visitors: then a cell
has twice the rows, never more than its block.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.config import CandidatesConfig
from dedup_job.kernels.neighbours import Indices, Vectors
from dedup_job.kernels.quantiser import nearest_cells, sample_size, train_cells
from dedup_job.kernels.vectors import as_bytes, embedding_matrix
from dedup_job.stages.carrying import mark_looking
from dedup_job.tables import CELL_ROWS


class Role(IntEnum):
    """What a content does in a cell; rows are sorted by it, see `kernels.neighbours`."""

    FOUND = 0
    MEMBER = 1  # is found and looks
    VISITOR = 2  # only looks


@dataclass(frozen=True)
class CellPlan:
    """How the contents of a run are cut into cells. Small: it travels to every task.

    Attributes:
        n_contents: all contents of all blocks.
        n_comparisons: pairs of contents that share a block.
        quantisers: centroids, float32 (k, d), of each block too large for one cell.
        n_chunks: chunks of each such block where the search is exact.
        n_groups: groups of those contents of each such block that look, where not all of them do.
    """

    n_contents: int
    n_comparisons: int
    quantisers: dict[str, Vectors] = field(default_factory=dict)
    n_chunks: dict[str, int] = field(default_factory=dict)
    n_groups: dict[str, int] = field(default_factory=dict)

    @property
    def is_cut(self) -> bool:
        """Whether any block has more than one cell, so that a pair may be found twice."""
        return bool(self.quantisers or self.n_chunks)


def plan_cells(contents: DataFrame, config: CandidatesConfig) -> CellPlan:
    """Count the blocks and cut those that are too large for one cell.

    Args:
        contents: CONTENTS. Read once, and once more for each block above `max_cell_rows`.
        config: `max_cell_rows`, `fan_out` (of the first effort), `search` and `seed`. A bounded
            sample is collected for each large block; their number is at most
            contents / max_cell_rows.
    """
    sizes = contents.groupBy("block").agg(F.count("*").alias("n"))
    is_large = F.col("n") > config.max_cell_rows
    row = sizes.agg(
        F.sum("n").alias("n_contents"),
        F.expr("sum(n * (n - 1) div 2)").alias("n_comparisons"),
        # collect_list leaves nulls out, so only the large blocks come back
        F.collect_list(F.when(is_large, F.struct("block", "n"))).alias("large"),
    ).first()
    assert row is not None  # an aggregate without keys has one row
    large: dict[str, int] = {entry["block"]: entry["n"] for entry in row["large"]}
    n_contents, n_comparisons = row["n_contents"] or 0, row["n_comparisons"] or 0
    if config.search == "exact":
        # two chunks meet in a cell
        chunks = {block: -(-2 * n // config.max_cell_rows) for block, n in large.items()}
        return CellPlan(n_contents, n_comparisons, n_chunks=chunks)
    quantisers = {block: _train(contents, block, n, config) for block, n in sorted(large.items())}
    return CellPlan(n_contents, n_comparisons, quantisers=quantisers)


def plan_visits(plan: CellPlan, unchanged: DataFrame, config: CandidatesConfig) -> CellPlan:
    """Add the groups in which new contents visit the chunks of an exact search.

    Args:
        plan: from `plan_cells`.
        unchanged: SEARCHED_CONTENTS that are found but do not look. Counted, but only where the
            search is exact and a block is too large for one cell.
        config: `max_cell_rows`.
    """
    if not plan.n_chunks:
        return plan
    in_chunks = unchanged.where(F.col("block").isin(list(plan.n_chunks)))
    counts = {row["block"]: row["count"] for row in in_chunks.groupBy("block").count().collect()}
    # A chunk and a group meet in a cell, so groups are as small as chunks.
    groups = {
        block: max(1, n_chunks - 2 * counts.get(block, 0) // config.max_cell_rows)
        for block, n_chunks in plan.n_chunks.items()
    }
    return replace(plan, n_groups=groups)


def cut_into_cells(
    contents: DataFrame, plan: CellPlan, fan_out: int, unchanged: DataFrame | None = None
) -> DataFrame:
    """CONTENTS to CELL_ROWS: every content in each cell where it is found or looks.

    Args:
        contents: CONTENTS.
        plan: from `plan_cells` on the same contents, `plan_visits` where some are unchanged.
        fan_out: cells a content looks into, its own included.
        unchanged: SEARCHED_CONTENTS that are found but do not look.
    """
    columns = contents.select("block", "content_sha256", "embedding")
    if unchanged is None:
        columns = columns.withColumn("looks", F.lit(True))
    else:
        columns = mark_looking(columns, unchanged)
    if not plan.is_cut:
        role = F.when(F.col("looks"), int(Role.MEMBER)).otherwise(int(Role.FOUND)).alias("role")
        cells = columns.select("block", F.lit(0).alias("cell"), role, "content_sha256", "embedding")
    else:
        cells = columns.mapInArrow(
            partial(assign_cells, plan=plan, fan_out=fan_out), schema=CELL_ROWS.ddl
        )
    return cells.select(*CELL_ROWS.column_names)


def assign_cells(
    batches: Iterator[pa.RecordBatch], plan: CellPlan, fan_out: int
) -> Iterator[pa.RecordBatch]:
    """Runs on executors: batches of CONTENTS and `looks` (boolean) to CELL_ROWS batches."""
    for batch in batches:
        rows, cells, roles = _assign(batch, plan, fan_out)
        taken = batch.take(pa.array(rows))
        yield pa.RecordBatch.from_arrays(
            [
                taken.column("block"),
                pa.array(cells, pa.int32()),
                pa.array(roles, pa.int32()),
                taken.column("content_sha256"),
                as_bytes(taken.column("embedding")),
            ],
            names=CELL_ROWS.column_names,
        )


def hash_order(seed: int) -> list[object]:
    """Sort keys for a sample that is random, yet the same however the rows are partitioned."""
    sha = F.col("content_sha256")
    return [F.xxhash64(F.lit(seed), sha), sha, F.col("block")]


def max_members(config: CandidatesConfig) -> int:
    """Contents that may be found in one cell: each brings fan_out - 1 visitors to other cells."""
    return max(1, config.max_cell_rows // config.fan_out)


def _train(contents: DataFrame, block: str, n: int, config: CandidatesConfig) -> Vectors:
    sample = (
        contents.where(F.col("block") == block)
        .orderBy(*hash_order(config.seed))
        .limit(sample_size(n, max_members(config)))
        .select("embedding")
        .toArrow()
    )
    vectors = embedding_matrix(sample.column("embedding"))
    return train_cells(vectors, n, max_members(config), config.seed)


def _assign(
    batch: pa.RecordBatch, plan: CellPlan, fan_out: int
) -> tuple[Indices, Indices, Indices]:
    """Row numbers, cells and roles; rows of blocks that are not cut are members of cell 0."""
    blocks = batch.column("block")
    parts = []
    whole = np.ones(batch.num_rows, dtype=bool)
    for block in {*plan.quantisers, *plan.n_chunks} & set(blocks.unique().to_pylist()):
        rows = np.flatnonzero(pc.equal(blocks, block).to_numpy(zero_copy_only=False))
        whole[rows] = False
        here = batch.take(pa.array(rows))
        if block in plan.quantisers:
            vectors = embedding_matrix(here.column("embedding"))
            offsets, cells, roles = _nearest(vectors, plan.quantisers[block], fan_out)
        else:
            numbers = _hash_numbers(here.column("content_sha256"))
            if block in plan.n_groups:
                visits = _visits(numbers, plan.n_chunks[block], plan.n_groups[block])
            else:
                visits = _meetings(numbers, plan.n_chunks[block])
            offsets, cells, roles = visits
        parts.append((rows[offsets], cells, roles))
    rest = np.flatnonzero(whole)
    parts.append((rest, np.zeros_like(rest), np.full_like(rest, Role.MEMBER)))
    rows, cells, roles = (np.concatenate(column) for column in zip(*parts, strict=True))
    looks = batch.column("looks").to_numpy(zero_copy_only=False)[rows]
    roles = np.where(~looks & (roles == Role.MEMBER), Role.FOUND, roles)
    kept = looks | (roles == Role.FOUND)
    return rows[kept], cells[kept], roles[kept]


def _nearest(vectors: Vectors, centroids: Vectors, fan_out: int) -> tuple[Indices, ...]:
    cells = nearest_cells(vectors, centroids, fan_out)
    rows = np.repeat(np.arange(len(cells)), cells.shape[1])
    roles = np.full(cells.shape, Role.VISITOR)
    roles[:, 0] = Role.MEMBER
    return rows, cells.ravel(), roles.ravel()


def _hash_numbers(shas: pa.Array) -> Indices:
    """A number of each content by which it is given to chunks and groups."""
    return np.array([int(sha[:15], 16) for sha in shas.to_pylist()], dtype=np.int64)


def _meetings(numbers: Indices, n_chunks: int) -> tuple[Indices, ...]:
    """Cell (i, j), numbered i * n_chunks + j, lets chunk j look among chunk i <= j."""
    own = numbers[:, None] % n_chunks
    other = np.arange(n_chunks)[None, :]
    cells = np.minimum(own, other) * n_chunks + np.maximum(own, other)
    roles = np.select([other > own, other < own], [Role.FOUND, Role.VISITOR], Role.MEMBER)
    rows = np.repeat(np.arange(len(numbers)), n_chunks)
    return rows, cells.ravel(), roles.ravel()


def _visits(numbers: Indices, n_chunks: int, n_groups: int) -> tuple[Indices, ...]:
    """Cell (i, g), numbered i * n_groups + g, lets group g look among chunk i.

    Two contents that both look meet twice, unless they share chunk and group.
    """
    chunk, group = numbers[:, None] % n_chunks, numbers[:, None] % n_groups
    groups, chunks = np.arange(n_groups)[None, :], np.arange(n_chunks)[None, :]
    cells = np.hstack([chunk * n_groups + groups, chunks * n_groups + group])
    found = np.where(groups == group, Role.MEMBER, Role.FOUND)
    visitors = np.full((len(numbers), n_chunks), Role.VISITOR)
    roles = np.hstack([found, visitors])
    # in its own chunk it is a member already
    visits = np.hstack([np.full_like(found, True, dtype=bool), chunks != chunk])
    rows = np.repeat(np.arange(len(numbers)), n_groups + n_chunks)
    return rows[visits.ravel()], cells[visits], roles[visits]
