"""Candidate pairs: contents -> cells -> all pairs at or above the search floor.

The search measures itself: `search_until_recall` raises its effort until enough of the true pairs
are found at the threshold that these very pairs lead to.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.config import CandidatesConfig
from dedup_job.kernels.neighbours import CellSearch, Pairs, find_pairs
from dedup_job.kernels.threshold import GRID_STEPS, Counts, ThresholdChoice
from dedup_job.stages.cells import CellPlan, Role, cut_into_cells, embedding_matrix, plan_cells
from dedup_job.stages.recall import RecallEstimate, measure_recall
from dedup_job.tables import PHOTO_PAIRS, Table


@dataclass(frozen=True)
class SearchEffort:
    """How hard the search looks.

    Attributes:
        level: doublings so far, from 0.
        n_trees: trees of each Annoy index; `search_k` is in proportion to them.
        fan_out: cells each content looks into where its block has several.
    """

    level: int
    n_trees: int
    fan_out: int

    def doubled(self) -> "SearchEffort":
        """Twice the trees, twice the vectors inspected, twice the cells."""
        return SearchEffort(self.level + 1, 2 * self.n_trees, 2 * self.fan_out)


def first_effort(config: CandidatesConfig) -> SearchEffort:
    """Where the search starts."""
    return SearchEffort(0, config.n_trees, config.fan_out)


@dataclass(frozen=True)
class SearchAttempt:
    """One round of the search: the effort, the threshold its pairs led to, and its recall there."""

    effort: SearchEffort
    min_cosine: float
    estimate: RecallEstimate


@dataclass(frozen=True)
class SearchOutcome:
    """What `search_until_recall` ends with.

    Attributes:
        pairs: PHOTO_PAIRS, materialised, down to the search floor.
        threshold: solved from them.
        estimate: recall at the threshold.
        effort: of the last attempt.
        target_met: False only when recall was measured and is below the target; an unknown
            recall (no true pair sampled) counts as met and stays None in `estimate`.
        history: all attempts, the last one included.
    """

    pairs: DataFrame
    threshold: ThresholdChoice
    estimate: RecallEstimate
    effort: SearchEffort
    target_met: bool
    history: tuple[SearchAttempt, ...]


def find_photo_pairs(
    contents: DataFrame,
    plan: CellPlan,
    config: CandidatesConfig,
    effort: SearchEffort,
    floor_cosine: float,
) -> DataFrame:
    """All pairs of contents of one block that the search sees at or above the floor.

    Each cell is sorted by content hash and searched with a fixed seed by one task, so the result
    depends on neither partitioning nor row order.

    Args:
        contents: CONTENTS, distinct in (block, content_sha256).
        plan: from `plan_cells` on the same contents.
        config: `search`, `exact_below_rows` and `seed`.
        effort: trees and fan-out.
        floor_cosine: lowest cosine to report.

    Returns:
        PHOTO_PAIRS, distinct.
    """
    search = CellSearch(
        min_cosine=floor_cosine,
        n_trees=effort.n_trees,
        # A cell of an exact search is below any bound.
        exact_below_rows=np.iinfo(np.int64).max
        if config.search == "exact"
        else config.exact_below_rows,
        seed=config.seed,
    )

    # Not a partial: pyspark 4.3 fails to read the type hints of one here (UnboundLocalError).
    def search_this_cell(table: pa.Table) -> pa.Table:
        return search_cell(table, search)

    cells = cut_into_cells(contents, plan, effort.fan_out).groupBy("block", "cell")
    pairs = cells.applyInArrow(search_this_cell, schema=PHOTO_PAIRS.ddl)
    if plan.is_cut:
        # Re-scored cosines are equal bit for bit, so it does not matter which copy stays.
        pairs = pairs.dropDuplicates(["block", "sha_a", "sha_b"])
    return pairs.select(*PHOTO_PAIRS.column_names)


def search_cell(table: pa.Table, search: CellSearch) -> pa.Table:
    """Runs on executors: the CELL_ROWS of one cell to its PHOTO_PAIRS."""
    table = table.sort_by([("role", "ascending"), ("content_sha256", "ascending")])
    roles = table.column("role").to_numpy()
    pairs = find_pairs(
        embedding_matrix(table.column("embedding")),
        search,
        n_indexed=int((roles < Role.VISITOR).sum()),
        first_query=int((roles == Role.FOUND).sum()),
    )
    return _as_photo_pairs(table.column("block"), table.column("content_sha256"), pairs)


def _as_photo_pairs(blocks: pa.ChunkedArray, shas: pa.ChunkedArray, pairs: Pairs) -> pa.Table:
    i, j = shas.take(pa.array(pairs.i)), shas.take(pa.array(pairs.j))
    in_order = pc.less(i, j)
    return pa.Table.from_arrays(
        [
            blocks.take(pa.array(pairs.i)),
            pc.if_else(in_order, i, j),
            pc.if_else(in_order, j, i),
            pa.array(pairs.cosine, pa.float32()),
        ],
        schema=PHOTO_PAIRS.arrow,
    )


def count_cosines(pairs: DataFrame) -> Counts:
    """Histogram of the pairs' cosines in thousandths, as `kernels.threshold` takes it.

    Args:
        pairs: PHOTO_PAIRS; at most 1,001 rows are collected.

    Returns:
        int64 (1001,); cosines below 0 are left out.
    """
    step = F.least(F.floor(F.col("cosine").cast("double") * GRID_STEPS), F.lit(GRID_STEPS))
    counts = np.zeros(GRID_STEPS + 1, dtype=np.int64)
    for row in pairs.where(F.col("cosine") >= 0).groupBy(step.alias("step")).count().collect():
        counts[row["step"]] = row["count"]
    return counts


def search_until_recall(
    contents: DataFrame,
    config: CandidatesConfig,
    floor_cosine: float,
    solve_threshold: Callable[[DataFrame], ThresholdChoice],
    materialise: Callable[[DataFrame, Table], DataFrame],
    plan: CellPlan | None = None,
) -> SearchOutcome:
    """Search, solve the threshold, measure recall there; double the effort while it is too low.

    Args:
        contents: CONTENTS, cached or read from a table: every attempt reads it.
        config: target, limits and where to start.
        floor_cosine: lowest cosine to search for.
        solve_threshold: from the pairs found to the threshold.
        materialise: writes or caches a DataFrame of a table and returns what was kept.
        plan: from `plan_cells`, when the caller has it already.

    Returns:
        The last attempt. Whether an unmet target ends the run is the caller's decision.
    """
    plan = plan or plan_cells(contents, config)
    effort = first_effort(config)
    history: list[SearchAttempt] = []
    while True:
        found = find_photo_pairs(contents, plan, config, effort, floor_cosine)
        pairs = materialise(found, PHOTO_PAIRS)
        threshold = solve_threshold(pairs)
        estimate = measure_recall(contents, pairs, threshold.min_cosine, config)
        history.append(SearchAttempt(effort, threshold.min_cosine, estimate))
        target_met = estimate.recall is None or estimate.recall >= config.target_recall
        # An exact search has nothing to raise: what it misses would be a defect.
        if target_met or effort.level >= config.max_effort or config.search == "exact":
            return SearchOutcome(pairs, threshold, estimate, effort, target_met, tuple(history))
        effort = effort.doubled()
