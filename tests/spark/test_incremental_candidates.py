"""Nights in a row: what is carried over plus what is searched equals a search of everything."""

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from dedup_job.config import CandidatesConfig
from dedup_job.kernels.neighbours import exact_pairs
from dedup_job.kernels.threshold import ThresholdChoice
from dedup_job.stages import candidates
from dedup_job.stages.candidates import Carried, SearchEffort, first_effort, search_until_recall
from dedup_job.tables import CONTENTS, PHOTO_PAIRS, SCORED_PAIRS, SEARCHED_CONTENTS

pytestmark = pytest.mark.spark

DIM = 12
EXACT = CandidatesConfig(search="exact", max_cell_rows=16)
BLOCKS = ("brand a", "brand b", "brand c")


def vector_of(number: int, dim: int = DIM) -> np.ndarray:
    """The vector of a content, always the same; neighbours in number resemble each other."""
    centre = np.random.default_rng(number // 4).normal(size=dim)
    row = centre + 0.5 * np.random.default_rng(10_000 + number).normal(size=dim)
    return (row / np.linalg.norm(row)).astype(np.float32)


def sha_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def frame_of(spark, catalog, dim: int = DIM):
    """CONTENTS of (block, number)s, in the order of the set: chance, as in a catalog."""
    catalog = list(catalog)
    columns = {
        "block": [block for block, _ in catalog],
        "content_sha256": [sha_of(number) for _, number in catalog],
        "embedding": [np.float32(vector_of(number, dim)).tobytes() for _, number in catalog],
    }
    return spark.createDataFrame(pa.Table.from_pydict(columns, schema=CONTENTS.arrow)).cache()


def true_pairs(catalog, floor: float, dim: int = DIM) -> set:
    found = set()
    for block in {block for block, _ in catalog}:
        here = sorted((sha_of(number), number) for place, number in catalog if place == block)
        vectors = np.array([vector_of(number, dim) for _, number in here])
        pairs = exact_pairs(vectors, floor)
        found |= {
            (block, here[i][0], here[j][0], float(cosine), None)
            for i, j, cosine in zip(pairs.i, pairs.j, pairs.cosine, strict=True)
        }
    return found


def at(min_cosine):
    """A threshold that does not depend on the pairs."""
    choice = ThresholdChoice(min_cosine, 0.0, 1.0, 0.0, 0.0, True, False, "")
    return lambda pairs: choice


class Storage:
    """Keeps what is materialised as rows, cut off from how it came about; names it in order."""

    def __init__(self):
        self.tables = []

    def __call__(self, frame, table):
        assert frame.columns == table.column_names
        self.tables.append(table.name)
        return frame.sparkSession.createDataFrame(frame.toArrow(), table.ddl)


def state_of(contents, outcome) -> Carried:
    """As the next night reads it: no block in the pairs."""
    pairs = outcome.kept_pairs.select(*SCORED_PAIRS.column_names).distinct()
    searched = contents.select(*SEARCHED_CONTENTS.column_names)
    return Carried(searched, Storage()(pairs, SCORED_PAIRS), outcome.kept_floor, outcome.effort)


def rows_of(pairs) -> set:
    rows = [tuple(row) for row in pairs.collect()]
    assert len(rows) == len(set(rows))
    return set(rows)


def night(spark, catalog, config, floor, carried, dim=DIM, threshold=None):
    contents = frame_of(spark, catalog, dim)
    outcome = search_until_recall(
        contents, config, floor, at(threshold or floor), Storage(), None, carried
    )
    return outcome, state_of(contents, outcome)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_chain_of_nights_finds_exactly_what_full_searches_find(spark, seed):
    rng = np.random.default_rng(seed)
    everything = [(block, number) for block in BLOCKS for number in range(60)]
    # brand a is cut into chunks; the others mostly fit one cell
    chosen = rng.choice(60, 45, replace=False)
    catalog = {("brand a", int(n)) for n in chosen} | {("brand b", int(n)) for n in chosen[:20]}
    floor, carried, kinds = 0.7, None, set()
    for _ in range(6):
        outcome, carried = night(spark, catalog, EXACT, floor, carried)
        assert rows_of(outcome.pairs) == true_pairs(catalog, floor)
        assert outcome.kept_floor <= floor
        assert rows_of(outcome.kept_pairs) == true_pairs(catalog, outcome.kept_floor)
        assert outcome.n_new_contents + outcome.n_carried_contents == len(catalog)
        assert outcome.estimate.recall == 1.0
        kinds.add(outcome.carried)
        # some leave, some come (back), some move to another block
        leaving = {place for place in catalog if rng.random() < 0.15}
        moved = {(BLOCKS[int(rng.integers(3))], number) for _, number in list(leaving)[::2]}
        coming = {everything[i] for i in rng.choice(len(everything), 6, replace=False)}
        catalog = (catalog - leaving) | moved | coming
        floor = round(floor + float(rng.choice([-0.02, -0.005, 0.0, 0.01, 0.05])), 3)
    assert kinds == {True, False}


def test_a_pair_holds_only_in_blocks_where_both_contents_were_searched(spark):
    together = {("brand a", 0), ("brand a", 1), ("brand b", 0), ("brand b", 8), ("brand b", 12)}
    _, carried = night(spark, together, EXACT, 0.3, None)
    moved = {("brand a", 0), ("brand b", 0), ("brand b", 8), ("brand b", 12), ("brand c", 1)}
    outcome, carried = night(spark, moved, EXACT, 0.3, carried)
    assert outcome.carried
    assert rows_of(outcome.pairs) == true_pairs(moved, 0.3)
    assert sha_of(1) not in {sha for pair in rows_of(outcome.pairs) for sha in pair[1:3]}
    # its pair left the state with it, so it is searched when it comes back
    outcome, _ = night(spark, together, EXACT, 0.3, carried)
    assert (outcome.carried, outcome.n_new_contents) == (True, 1)
    assert rows_of(outcome.pairs) == true_pairs(together, 0.3)
    assert any(pair[0] == "brand a" for pair in rows_of(outcome.pairs))


def test_scores_stay_with_their_pairs_and_new_pairs_have_none(spark):
    """A stored score is what the verifier need not say again."""
    catalog = {("brand a", number) for number in range(18)}
    _, carried = night(spark, catalog, EXACT, 0.6, None)
    score_of = F.when(F.col("sha_a") < "8", F.col("cosine") / 2).cast("float")
    before = {tuple(row) for row in carried.pairs.withColumn("score", score_of).collect()}
    assert {row[3] is None for row in before} == {True, False}
    scored = replace(carried, pairs=carried.pairs.withColumn("score", score_of))
    outcome, state = night(spark, catalog | {("brand a", 18), ("brand a", 19)}, EXACT, 0.6, scored)
    assert outcome.carried
    after = {tuple(row) for row in state.pairs.collect()}
    new = {sha_of(18), sha_of(19)}
    assert {row for row in after if new.isdisjoint(row[:2])} == before
    assert {row[3] for row in after if new & set(row[:2])} == {None}


def test_two_unchanged_contents_that_share_no_block_any_more_are_no_pair(spark):
    both = {("brand a", 0), ("brand a", 1), ("brand b", 1), ("brand b", 8), ("brand b", 9)}
    first, carried = night(spark, both, EXACT, 0.3, None)
    assert {pair[0] for pair in rows_of(first.pairs)} == {"brand a", "brand b"}
    parted = both - {("brand a", 1)}
    outcome, _ = night(spark, parted, EXACT, 0.3, carried)
    assert outcome.n_carried_contents == len(parted)
    assert {pair[0] for pair in rows_of(outcome.pairs)} == {"brand b"}
    assert rows_of(outcome.kept_pairs) == true_pairs(parted, outcome.kept_floor)


def test_a_night_without_new_contents_searches_nothing(spark, monkeypatch):
    catalog = {("brand a", number) for number in range(40)}
    _, carried = night(spark, catalog, EXACT, 0.7, None)

    def search_all_the_same(*arguments):
        raise AssertionError("searched")

    monkeypatch.setattr(candidates, "find_photo_pairs", search_all_the_same)
    fewer = {place for place in catalog if place[1] % 3}
    outcome, _ = night(spark, fewer, EXACT, 0.72, carried)
    assert (outcome.n_new_contents, outcome.n_carried_contents) == (0, len(fewer))
    assert rows_of(outcome.pairs) == true_pairs(fewer, 0.72)
    empty, _ = night(spark, set(), EXACT, 0.72, carried)
    assert (empty.n_new_contents, rows_of(empty.pairs)) == (0, set())
    with pytest.raises(AssertionError, match="searched"):
        night(spark, fewer | {("brand b", 1)}, EXACT, 0.72, carried)


def test_only_new_contents_look(spark, monkeypatch):
    catalog = {("brand a", number) for number in range(40)}
    _, carried = night(spark, catalog, EXACT, 0.6, None)
    seen, found_pairs = [], candidates.find_photo_pairs

    def spy(*arguments):
        pairs = found_pairs(*arguments).cache()
        seen.append(rows_of(pairs))
        return pairs

    monkeypatch.setattr(candidates, "find_photo_pairs", spy)
    new = {("brand a", number) for number in range(40, 44)}
    outcome, _ = night(spark, catalog | new, EXACT, 0.6, carried)
    news = {sha_of(number) for _, number in new}
    assert len(seen) == 1 and seen[0]
    assert all(pair[1] in news or pair[2] in news for pair in seen[0])
    assert seen[0] < rows_of(outcome.kept_pairs)


@pytest.fixture(scope="module")
def searched_from_07(spark):
    """24 contents, and what a search of them leaves."""
    catalog = {("brand a", number) for number in range(24)}
    return catalog, night(spark, catalog, EXACT, 0.70, None)[1]


@pytest.mark.parametrize(
    ("floor", "is_carried", "kept_floor"),
    [
        (0.70, True, 0.69),  # the same
        (0.69, True, 0.69),  # as deep as was kept
        (0.685, False, 0.675),  # deeper: the pairs between are not known
        (0.73, True, 0.69),  # higher: what is kept anyway stays
        (0.75, True, 0.74),  # far higher: what nobody asks for goes
    ],
)
def test_pairs_are_carried_while_the_floor_stays_above_what_was_kept(
    spark, caplog, searched_from_07, floor, is_carried, kept_floor
):
    catalog, carried = searched_from_07
    assert carried.floor_cosine == 0.69
    more = catalog | {("brand a", 24)}
    with caplog.at_level("INFO", "dedup_job"):
        outcome, _ = night(spark, more, EXACT, floor, carried)
    assert (outcome.carried, outcome.kept_floor) == (is_carried, kept_floor)
    assert rows_of(outcome.pairs) == true_pairs(more, floor)
    assert rows_of(outcome.kept_pairs) == true_pairs(more, kept_floor)
    assert ("needed from 0.685" in caplog.text) == (not is_carried)


def test_when_most_contents_are_new_everything_is_searched(spark, caplog):
    old = {("brand a", number) for number in range(10)}
    _, carried = night(spark, old, EXACT, 0.6, None)
    half = old | {("brand a", number) for number in range(10, 20)}
    outcome, _ = night(spark, half, EXACT, 0.6, carried)
    assert (outcome.carried, outcome.n_new_contents, outcome.n_carried_contents) == (True, 10, 10)
    with caplog.at_level("INFO", "dedup_job"):
        outcome, _ = night(spark, half | {("brand a", 20)}, EXACT, 0.6, carried)
    assert (outcome.carried, outcome.n_new_contents, outcome.n_carried_contents) == (False, 21, 0)
    assert "11 of 21 contents are new" in caplog.text


def with_pairs_lost(carried: Carried, every: int) -> Carried:
    kept = F.pmod(F.xxhash64("sha_a", "sha_b"), F.lit(every)) != 0
    return replace(carried, pairs=carried.pairs.where(kept))


@pytest.mark.parametrize(
    ("settings", "levels"),
    [
        ({"search": "annoy", "max_effort": 3}, [0, 1]),
        # nothing to raise, but carried pairs may be what misses
        ({"search": "annoy", "max_effort": 0}, [0, 0]),
        ({"search": "exact"}, [0, 0]),
    ],
)
def test_carried_pairs_that_miss_too_many_are_searched_anew(spark, settings, levels):
    config = CandidatesConfig(**settings)
    catalog = {("brand a", number) for number in range(40)}
    contents = frame_of(spark, catalog | {("brand a", 40)})
    _, carried = night(spark, catalog, config, 0.6, None)
    storage = Storage()
    outcome = search_until_recall(
        contents, config, 0.6, at(0.6), storage, None, with_pairs_lost(carried, 5)
    )
    assert [attempt.effort.level for attempt in outcome.history] == levels
    assert outcome.history[0].estimate.recall < 0.99
    assert outcome.target_met and not outcome.carried
    assert (outcome.n_new_contents, outcome.n_carried_contents) == (41, 0)
    assert rows_of(outcome.pairs) == true_pairs(catalog | {("brand a", 40)}, 0.6)
    # a run that is started again takes these steps over by their order
    assert storage.tables == [SEARCHED_CONTENTS.name, PHOTO_PAIRS.name, PHOTO_PAIRS.name]


def test_the_search_starts_at_the_level_that_the_last_run_needed(spark):
    config = CandidatesConfig(max_effort=3)
    catalog = {("brand a", number) for number in range(20)}
    _, carried = night(spark, catalog, config, 0.7, None)
    assert carried.effort == first_effort(config)
    high = replace(carried, effort=SearchEffort(2, 4 * config.n_trees, 4 * config.fan_out))
    outcome, _ = night(spark, catalog, config, 0.7, high)
    assert outcome.effort == high.effort
    # the level is carried; what it means follows tonight's settings
    fewer = config.model_copy(update={"max_effort": 1, "n_trees": 8})
    outcome, _ = night(spark, catalog, fewer, 0.7, high)
    assert outcome.effort == SearchEffort(1, 16, 2 * config.fan_out)


def test_partitions_and_row_order_change_nothing(spark):
    config = CandidatesConfig(
        exact_below_rows=0, max_cell_rows=40, n_trees=1, fan_out=1, max_effort=0
    )
    catalog = {("brand a", number) for number in range(120)} | {("brand b", 3), ("brand b", 1)}
    _, carried = night(spark, catalog, config, 0.5, None)
    contents = frame_of(spark, catalog | {("brand a", number) for number in range(120, 150)})
    found = []
    for n_partitions in (1, 5):
        mixed = replace(
            carried,
            contents=carried.contents.repartition(n_partitions),
            pairs=carried.pairs.repartition(n_partitions, "sha_b"),
        )
        outcome = search_until_recall(
            contents.repartition(n_partitions, "embedding"),
            config,
            0.5,
            at(0.9999),  # no true pair: recall is unknown, and the poor search stands
            Storage(),
            None,
            mixed,
        )
        assert outcome.carried
        found.append(rows_of(outcome.kept_pairs))
    assert found[0] == found[1]
    assert found[0] < true_pairs(catalog | {("brand a", n) for n in range(120, 150)}, 0.49)


@pytest.mark.slow
def test_annoy_over_several_nights_agrees_with_full_searches(spark):
    dim, floor, threshold = 32, 0.6, 0.62
    config = CandidatesConfig(
        exact_below_rows=0, max_cell_rows=1_500, n_trees=48, fan_out=8, recall_queries=10_000
    )
    rng = np.random.default_rng(7)
    catalog = {("brand a", number) for number in range(2_400)}
    catalog |= {("brand b", number) for number in range(2_400, 2_800)}
    _, carried = night(spark, catalog, config, floor, None, dim, threshold)
    for number in range(3):
        leaving = {place for place in catalog if rng.random() < 0.05}
        coming = {("brand a", 3_000 + 150 * number + i) for i in range(150)}
        catalog = (catalog - leaving) | coming
        outcome, carried = night(spark, catalog, config, floor, carried, dim, threshold)
        full, _ = night(spark, catalog, config, floor, None, dim, threshold)
        assert outcome.carried and not full.carried
        assert outcome.n_new_contents == 150
        truth = true_pairs(catalog, threshold, dim)
        found, expected = (
            {pair for pair in rows_of(one.pairs) if pair[3] >= threshold} for one in (outcome, full)
        )
        assert len(truth) > 1_000
        assert found <= truth
        assert len(found & expected) >= 0.99 * len(found | expected)
        assert len(found) >= len(expected) - 0.002 * len(truth)
        # every content is a query here, so the estimate is the truth: misses are counted
        assert (outcome.estimate.n_true, outcome.estimate.n_found) == (len(truth), len(found))
