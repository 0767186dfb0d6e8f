import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import functions as F

from dedup_job.config import CandidatesConfig
from dedup_job.kernels.neighbours import exact_pairs
from dedup_job.kernels.threshold import ThresholdChoice, cosine_histogram
from dedup_job.kernels.vectors import embedding_matrix
from dedup_job.stages.candidates import (
    SearchEffort,
    count_cosines,
    find_photo_pairs,
    first_effort,
    search_until_recall,
)
from dedup_job.stages.cells import cut_into_cells, plan_cells
from dedup_job.stages.recall import measure_recall
from dedup_job.tables import CONTENTS, PHOTO_PAIRS

pytestmark = pytest.mark.spark

FLOOR = 0.6
# One block of many cells, one that fits a cell, and one of a single content.
BLOCKS = {"brand a": 260, "brand b": 39, "lonely": 1}
MANY_CELLS = CandidatesConfig(max_cell_rows=40, exact_below_rows=0)
ALL_CELLS = SearchEffort(level=3, n_trees=80, fan_out=1024)


def at(min_cosine):
    """A threshold that does not depend on the pairs."""
    choice = ThresholdChoice(min_cosine, 0.0, 1.0, 0.0, 0.0, True, False, "")
    return lambda pairs: choice


@pytest.fixture(scope="module")
def table() -> pa.Table:
    rng = np.random.default_rng(11)
    n = sum(BLOCKS.values())
    rows = rng.normal(size=(n, 24))
    rows[100:190] = rows[:90] + rng.uniform(0.05, 0.9, size=(90, 1)) * rng.normal(size=(90, 24))
    rows[265:280] = rows[280:295] + 0.4 * rng.normal(size=(15, 24))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    columns = {
        "block": np.repeat(list(BLOCKS), list(BLOCKS.values())),
        "content_sha256": [hashlib.sha256(str(row).encode()).hexdigest() for row in range(n)],
        "embedding": [row.tobytes() for row in rows.astype(np.float32)],
    }
    return pa.Table.from_pydict(columns, schema=CONTENTS.arrow)


@pytest.fixture(scope="module")
def contents(spark, table):
    return spark.createDataFrame(table).cache()


@pytest.fixture(scope="module")
def truth(table) -> set:
    found = set()
    for block in BLOCKS:
        rows = table.filter(pc.equal(table["block"], block)).sort_by("content_sha256")
        shas = rows["content_sha256"].to_pylist()
        pairs = exact_pairs(embedding_matrix(rows["embedding"]), FLOOR)
        found |= {
            (block, shas[i], shas[j], float(cosine), None)
            for i, j, cosine in zip(pairs.i, pairs.j, pairs.cosine, strict=True)
        }
    assert len(found) > 60
    return found


def rows_of(pairs) -> list:
    return sorted(tuple(row) for row in pairs.collect())


@pytest.mark.parametrize(
    ("config", "n_cells"),
    [
        (MANY_CELLS, "many"),
        (MANY_CELLS.model_copy(update={"search": "exact"}), "many"),
        (CandidatesConfig(exact_below_rows=0), "one"),
        (CandidatesConfig(), "one"),
    ],
    ids=["annoy in many cells", "exact in chunks", "annoy in one cell", "exact in one cell"],
)
def test_every_way_of_searching_finds_exactly_the_true_pairs(contents, truth, config, n_cells):
    plan = plan_cells(contents, config)
    assert plan.is_cut == (n_cells == "many")
    pairs = find_photo_pairs(contents, plan, config, ALL_CELLS, FLOOR)
    assert rows_of(pairs) == sorted(truth)


def test_the_plan_counts_contents_and_comparisons_and_cuts_only_large_blocks(contents):
    plan = plan_cells(contents, MANY_CELLS)
    assert plan.n_contents == sum(BLOCKS.values())
    assert plan.n_comparisons == sum(n * (n - 1) // 2 for n in BLOCKS.values())
    assert set(plan.quantisers) == {"brand a"}
    assert len(plan.quantisers["brand a"]) >= 260 * MANY_CELLS.fan_out / 40
    empty = plan_cells(contents.limit(0), MANY_CELLS)
    assert (empty.n_contents, empty.n_comparisons) == (0, 0)


@pytest.mark.parametrize("search", ["annoy", "exact"])
@pytest.mark.parametrize("fan_out", [1, 4])
def test_a_task_holds_a_bounded_number_of_rows_visitors_included(contents, search, fan_out):
    config = MANY_CELLS.model_copy(
        update={"search": search, "fan_out": fan_out, "max_cell_rows": 80}
    )
    cells = cut_into_cells(contents, plan_cells(contents, config), first_effort(config).fan_out)
    rows = [row["count"] for row in cells.groupBy("block", "cell").count().collect()]
    assert len(rows) > 4
    # how many look into a cell is not controlled, so single cells may pass the bound somewhat
    assert np.mean(rows) <= 80 and max(rows) <= 2 * 80


def test_partitions_and_row_order_change_nothing_even_at_low_effort(contents, truth):
    effort = SearchEffort(level=0, n_trees=1, fan_out=2)
    found = []
    for rows in (
        contents.coalesce(1).orderBy("content_sha256"),
        contents.repartition(7).orderBy(F.col("content_sha256").desc()),
        contents.repartition(3, "embedding"),
    ):
        plan = plan_cells(rows, MANY_CELLS)
        found.append(rows_of(find_photo_pairs(rows, plan, MANY_CELLS, effort, FLOOR)))
    assert found[0] == found[1] == found[2]
    # One tree and two cells miss pairs: agreement here is not agreement on the whole truth.
    assert set(found[0]) < truth


def test_recall_counts_the_pairs_that_were_missed(contents, truth):
    config = MANY_CELLS
    pairs = find_photo_pairs(contents, plan_cells(contents, config), config, ALL_CELLS, FLOOR)
    every_pair = measure_recall(contents, pairs, FLOOR, config)
    assert (every_pair.n_queries, every_pair.n_true) == (sum(BLOCKS.values()), len(truth))
    assert every_pair.recall == 1.0
    assert every_pair.low < 1.0

    lowest = sorted(truth, key=lambda pair: pair[3])[: len(truth) // 2]
    missed = pairs.where(~F.col("sha_a").isin([pair[1] for pair in lowest]))
    n_left = missed.count()
    fewer = measure_recall(contents, missed, FLOOR, config)
    assert fewer.n_found == n_left < len(truth)

    few_queries = config.model_copy(update={"recall_queries": 50})
    sampled = measure_recall(contents, pairs, FLOOR, few_queries)
    assert sampled.n_queries == 50
    assert 0 < sampled.n_true < len(truth)
    assert sampled == measure_recall(contents.repartition(5), pairs, FLOOR, few_queries)


def test_recall_is_unknown_when_no_true_pair_was_sampled(contents):
    pairs = contents.sparkSession.createDataFrame(
        [], "block string, sha_a string, sha_b string, cosine float"
    )
    estimate = measure_recall(contents, pairs, 0.9999, MANY_CELLS)
    assert (estimate.n_true, estimate.recall) == (0, None)


def cache(rows, table):
    assert rows.columns == table.column_names
    return rows.cache()


def test_the_effort_rises_until_the_recall_is_met_and_then_stops(contents, truth):
    config = MANY_CELLS.model_copy(
        update={"n_trees": 1, "fan_out": 1, "max_effort": 8, "target_recall": 0.99}
    )
    outcome = search_until_recall(contents, config, FLOOR, at(0.62), cache)
    recalls = [attempt.estimate.recall for attempt in outcome.history]
    assert outcome.target_met
    assert recalls[0] < 0.99 <= recalls[-1] == outcome.estimate.recall
    assert all(recall < 0.99 for recall in recalls[:-1])
    levels = [attempt.effort.level for attempt in outcome.history]
    assert levels == list(range(len(levels)))
    last = outcome.history[-1].effort
    assert (last.n_trees, last.fan_out) == (2**last.level, 2**last.level)


def test_below_the_target_at_the_highest_effort_is_told(contents):
    config = MANY_CELLS.model_copy(update={"n_trees": 1, "fan_out": 1, "max_effort": 0})
    outcome = search_until_recall(contents, config, FLOOR, at(0.62), cache)
    assert len(outcome.history) == 1
    assert not outcome.target_met
    assert outcome.estimate.recall < config.target_recall


def test_unknown_recall_ends_the_search_and_stays_unknown(contents):
    outcome = search_until_recall(contents, MANY_CELLS, 0.9999, at(0.9999), cache)
    assert outcome.effort == first_effort(MANY_CELLS)
    assert outcome.target_met
    assert outcome.estimate.recall is None


def test_cosines_are_counted_as_the_threshold_takes_them(contents, truth):
    plan = plan_cells(contents, CandidatesConfig())
    pairs = find_photo_pairs(contents, plan, CandidatesConfig(), ALL_CELLS, FLOOR)
    expected = cosine_histogram([pair[3] for pair in truth])
    np.testing.assert_array_equal(count_cosines(pairs), expected)


def test_scores_are_counted_alike_and_pairs_without_one_are_left_out(spark):
    pairs = spark.createDataFrame(
        [("", "a", "b", 0.75, 0.25), ("", "a", "c", 0.75, None), ("", "b", "c", 0.75, 1.0)],
        PHOTO_PAIRS.ddl,
    )
    assert count_cosines(pairs)[750] == 3
    expected = np.zeros(1001, np.int64)
    expected[[250, 1000]] = 1
    np.testing.assert_array_equal(count_cosines(pairs, "score"), expected)
