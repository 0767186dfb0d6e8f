"""Candidate pairs: contents -> cells -> all pairs at or above the search floor.

The search measures itself: `search_until_recall` raises its effort until enough of the true pairs
are found at the threshold that these very pairs lead to. Pairs that the last run scored between
contents that are still there are carried over, and only new contents look for theirs (ADR 14).
"""

import logging
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
from dedup_job.kernels.vectors import embedding_matrix
from dedup_job.stages.carrying import carried_pairs, kept_floor, unchanged_contents
from dedup_job.stages.cells import (
    CellPlan,
    Role,
    cut_into_cells,
    plan_cells,
    plan_visits,
)
from dedup_job.stages.recall import RecallEstimate, measure_recall
from dedup_job.tables import PHOTO_PAIRS, SEARCHED_CONTENTS, Table

logger = logging.getLogger("dedup_job")
# A pair is found when either content looks where the other is. Of an unchanged content and a new
# one only the new one looks, so it looks twice as far: into twice the cells, at twice the vectors.
_NEW_LOOK_FURTHER = 2
# Beyond this share of new contents everything is searched again.
_MOST_NEW = 0.5

Materialise = Callable[[DataFrame, Table], DataFrame]


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
class Carried:
    """What the last run found, and how far it looked.

    Attributes:
        contents: SEARCHED_CONTENTS.
        pairs: SCORED_PAIRS among them.
        floor_cosine: down to which the pairs are complete.
        effort: that met the target.
    """

    contents: DataFrame
    pairs: DataFrame
    floor_cosine: float
    effort: SearchEffort


def start_effort(config: CandidatesConfig, carried: Carried | None) -> SearchEffort:
    """Where tonight starts: at the level that the last run needed, of tonight's settings."""
    effort = first_effort(config)
    for _ in range(min(carried.effort.level, config.max_effort) if carried else 0):
        effort = effort.doubled()
    return effort


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
        kept_pairs: PHOTO_PAIRS, materialised, down to `kept_floor`: what the next night carries.
        kept_floor: at or below the search floor.
        n_new_contents: contents that looked for pairs in the last attempt.
        n_carried_contents: contents whose pairs among themselves were carried over.
        carried: whether the last attempt carried pairs over.
        n_verified: pairs that the verifier looked at tonight; None where scores are cosines.
    """

    pairs: DataFrame
    threshold: ThresholdChoice
    estimate: RecallEstimate
    effort: SearchEffort
    target_met: bool
    history: tuple[SearchAttempt, ...]
    kept_pairs: DataFrame
    kept_floor: float
    n_new_contents: int
    n_carried_contents: int
    carried: bool
    n_verified: int | None = None


def find_photo_pairs(
    contents: DataFrame,
    plan: CellPlan,
    config: CandidatesConfig,
    effort: SearchEffort,
    floor_cosine: float,
    unchanged: DataFrame | None = None,
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
        unchanged: SEARCHED_CONTENTS whose pairs among themselves are not wanted: they are found by
            the others, but do not look.

    Returns:
        PHOTO_PAIRS, distinct.
    """
    further = 1
    if unchanged is not None:
        further, plan = _NEW_LOOK_FURTHER, plan_visits(plan, unchanged, config)
    search = CellSearch(
        min_cosine=floor_cosine,
        n_trees=effort.n_trees,
        search_k_factor=further,
        # A cell of an exact search is below any bound.
        exact_below_rows=np.iinfo(np.int64).max
        if config.search == "exact"
        else config.exact_below_rows,
        seed=config.seed,
    )

    # Not a partial: pyspark 4.3 fails to read the type hints of one here (UnboundLocalError).
    def search_this_cell(table: pa.Table) -> pa.Table:
        return search_cell(table, search)

    cells = cut_into_cells(contents, plan, further * effort.fan_out, unchanged)
    pairs = cells.groupBy("block", "cell").applyInArrow(search_this_cell, schema=PHOTO_PAIRS.ddl)
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
            pa.nulls(len(pairs.cosine), pa.float32()),
        ],
        schema=PHOTO_PAIRS.arrow,
    )


def count_cosines(pairs: DataFrame, column: str = "cosine") -> Counts:
    """Histogram of the pairs' cosines, or scores, in thousandths, as `kernels.threshold` takes it.

    Args:
        pairs: PHOTO_PAIRS; at most 1,001 rows are collected.
        column: `cosine` or `score`.

    Returns:
        int64 (1001,); values below 0, and pairs without one, are left out.
    """
    step = F.least(F.floor(F.col(column).cast("double") * GRID_STEPS), F.lit(GRID_STEPS))
    counts = np.zeros(GRID_STEPS + 1, dtype=np.int64)
    for row in pairs.where(F.col(column) >= 0).groupBy(step.alias("step")).count().collect():
        counts[row["step"]] = row["count"]
    return counts


@dataclass(frozen=True)
class _Reuse:
    """What tonight takes over: `unchanged` SEARCHED_CONTENTS, and PHOTO_PAIRS among them."""

    unchanged: DataFrame
    pairs: DataFrame
    n_unchanged: int
    kept_floor: float


def search_until_recall(
    contents: DataFrame,
    config: CandidatesConfig,
    floor_cosine: float,
    solve_threshold: Callable[[DataFrame], ThresholdChoice],
    materialise: Materialise,
    plan: CellPlan | None = None,
    carried: Carried | None = None,
    keys: DataFrame | None = None,
) -> SearchOutcome:
    """Search, solve the threshold, measure recall there; double the effort while it is too low.

    What is carried over may be what misses pairs, so an attempt that used it is followed by a
    search of everything.

    Args:
        contents: CONTENTS, cached or read from a table: every attempt reads it.
        config: target, limits and where to start.
        floor_cosine: lowest cosine that the threshold is solved from and reports see.
        solve_threshold: from the pairs found to the threshold.
        materialise: writes or caches a DataFrame of a table and returns what was kept.
        plan: from `plan_cells`, when the caller has it already.
        carried: what the last run found, with the same model, search and seed.
        keys: SEARCHED_CONTENTS of `contents`, when they can be read without the embeddings.

    Returns:
        The last attempt. Whether an unmet target ends the run is the caller's decision.
    """
    plan = plan or plan_cells(contents, config)
    effort = start_effort(config, carried)
    keys = contents if keys is None else keys
    reuse = _reuse(keys, plan.n_contents, floor_cosine, materialise, carried)
    history: list[SearchAttempt] = []
    while True:
        kept_at = reuse.kept_floor if reuse else kept_floor(floor_cosine)
        kept = materialise(_find(contents, plan, config, effort, kept_at, reuse), PHOTO_PAIRS)
        pairs = kept.where(F.col("cosine") >= floor_cosine)
        threshold = solve_threshold(pairs)
        estimate = measure_recall(contents, pairs, threshold.min_score, config)
        history.append(SearchAttempt(effort, threshold.min_score, estimate))
        target_met = estimate.recall is None or estimate.recall >= config.target_recall
        # An exact search has nothing to raise: what it misses would be a defect.
        is_highest = effort.level >= config.max_effort or config.search == "exact"
        if target_met or (is_highest and reuse is None):
            n_carried = reuse.n_unchanged if reuse else 0
            return SearchOutcome(
                pairs,
                threshold,
                estimate,
                effort,
                target_met,
                tuple(history),
                kept,
                kept_at,
                plan.n_contents - n_carried,
                n_carried,
                reuse is not None,
            )
        if reuse is not None:
            logger.info("candidates: carried pairs miss too many (%.4f); all anew", estimate.recall)
        reuse, effort = None, effort if is_highest else effort.doubled()


def _reuse(
    keys: DataFrame,
    n_contents: int,
    floor_cosine: float,
    materialise: Materialise,
    carried: Carried | None,
) -> _Reuse | None:
    """What can be carried over; None, with a line in the log, when everything is to be searched."""
    if carried is None:
        return None
    if carried.floor_cosine > floor_cosine:
        logger.info(
            "candidates: pairs were kept from cosine %.3f, needed from %.3f; all anew",
            carried.floor_cosine,
            floor_cosine,
        )
        return None
    found = unchanged_contents(keys, carried.contents)
    unchanged = materialise(found, SEARCHED_CONTENTS)
    n_unchanged = unchanged.count()
    n_new = n_contents - n_unchanged
    if n_new > _MOST_NEW * n_contents:
        logger.info("candidates: %d of %d contents are new; all anew", n_new, n_contents)
        return None
    logger.info("candidates: %d contents carried over, %d new", n_unchanged, n_new)
    kept_at = kept_floor(floor_cosine, carried.floor_cosine)
    return _Reuse(unchanged, carried_pairs(carried.pairs, unchanged, kept_at), n_unchanged, kept_at)


def _find(
    contents: DataFrame,
    plan: CellPlan,
    config: CandidatesConfig,
    effort: SearchEffort,
    floor_cosine: float,
    reuse: _Reuse | None,
) -> DataFrame:
    """PHOTO_PAIRS at or above the floor: all searched, or those carried over and those searched."""
    if reuse is None:
        return find_photo_pairs(contents, plan, config, effort, floor_cosine)
    if reuse.n_unchanged == plan.n_contents:
        return reuse.pairs
    return reuse.pairs.unionByName(
        find_photo_pairs(contents, plan, config, effort, floor_cosine, reuse.unchanged)
    )
