from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dedup_job.config import MatchConfig
from dedup_job.kernels.calibration import calibration_id_of, parse_calibration
from dedup_job.kernels.threshold import (
    FLOOR_MARGIN,
    CatalogSize,
    cosine_histogram,
    expected_false_pairs,
    judge_threshold,
    measure_density,
    most_false_pairs,
    probable_from,
    search_floor,
    solve_threshold,
    verify_floor,
)
from dedup_job.pipeline import least_threshold
from tests.unit.synthetic_calibration import (
    HARD,
    SCALE,
    SHAPE,
    TRUE,
    U,
    raw_calibration,
    raw_score_calibration,
    tail_survival,
)

CALIBRATION = parse_calibration(raw_calibration())
SCORES = parse_calibration(raw_score_calibration())
NO_PAIRS = cosine_histogram([])

LEAST = 0.6


def catalog(n: int, look_alikes: float = 0.05) -> CatalogSize:
    return CatalogSize(n, n * (n - 1) // 2, look_alikes)


# The upper limit of the synthetic calibration's tail is that much longer.
AS_LONG_AS_IT_MAY_BE = 1.1


def simulate(
    size: CatalogSize, true_per_content: float, floor: float, rng, longer: float = 1.0
) -> tuple:
    """Cosines at or above the floor of the true and of the false pairs of one catalog.

    Unrelated pairs below U are left out: every threshold here is solved above it. Their tail is `longer`
    times as long as the calibration's best guess.
    """
    true = TRUE.rvs(rng.poisson(size.n_contents * true_per_content), random_state=rng)
    hard = HARD.rvs(rng.poisson(size.n_contents * size.look_alikes_per_sku / 2), random_state=rng)
    low = max(floor, U)
    scale = SCALE * longer
    n_unrelated = rng.poisson(size.n_comparisons * float(tail_survival(low, longer)))
    beyond = stats.genpareto.sf(low - U, SHAPE, scale=scale)
    quantiles = beyond * rng.uniform(size=n_unrelated)
    unrelated = U + stats.genpareto.isf(quantiles, SHAPE, scale=scale)
    false = np.concatenate([hard, unrelated])
    return true[true >= floor], false[false >= floor]


@pytest.mark.parametrize("target", [0.8, 0.97])
# Far beyond what was counted caution ends: see `most_false_pairs`.
@pytest.mark.parametrize(
    ("n", "longer"),
    [(1_000, 1.0), (1_000, AS_LONG_AS_IT_MAY_BE), (30_000, 1.0), (1_000_000, 1.0)],
)
def test_the_promised_precision_holds_in_simulated_catalogs(n, target, longer):
    size = catalog(n, look_alikes=0.02)
    floor = search_floor(CALIBRATION, size)
    n_false = n_reported = 0
    for seed in range(20 if n < 1_000_000 else 3):
        true, false = simulate(size, 0.3, floor, np.random.default_rng(seed), longer)
        observed = cosine_histogram(np.concatenate([true, false]))
        choice = solve_threshold(CALIBRATION, size, observed, target, floor)
        n_false += (false >= choice.min_score).sum()
        n_reported += (false >= choice.min_score).sum() + (true >= choice.min_score).sum()
        assert choice.target_met
        assert choice.min_score > U
        assert choice.expected_precision >= target
    assert n_reported > 100
    # Three standard deviations of the count are allowed. Where the tail is as long as it may be, the target
    # must not be met by far either.
    precision = 1 - n_false / n_reported
    assert precision >= target - 3 * np.sqrt(target * (1 - target) / n_reported)
    if longer == AS_LONG_AS_IT_MAY_BE:
        assert precision <= target + 0.75 * (1 - target)


def test_a_catalog_without_duplicates_rarely_reports_any():
    size = catalog(30_000, look_alikes=0.0)
    floor = search_floor(CALIBRATION, size)
    n_catalogs_with_pairs = 0
    for seed in range(100):
        _, false = simulate(size, 0.0, floor, np.random.default_rng(seed))
        choice = solve_threshold(CALIBRATION, size, cosine_histogram(false), 0.97, floor)
        n_catalogs_with_pairs += (false >= choice.min_score).any()
    assert n_catalogs_with_pairs <= 10  # 3 expected


@given(n=st.integers(100, 10**6), share=st.floats(0.01, 2.0))
def test_threshold_and_floor_rise_with_the_catalog(n, share):
    steps = np.arange(1001) / 1000
    thresholds, floors = [], []
    for n_contents in (n, 10 * n):
        size = catalog(n_contents, look_alikes=0.0)
        floors.append(search_floor(CALIBRATION, size))
        expected = share * n_contents * TRUE.sf(steps) + expected_false_pairs(
            CALIBRATION, size, steps
        )
        observed = -np.diff(np.round(expected).astype(np.int64), append=0)
        choice = solve_threshold(CALIBRATION, size, observed, 0.97, floors[-1])
        thresholds.append(choice.min_score)
    assert floors[0] <= floors[1]
    assert thresholds[0] <= thresholds[1]


def test_a_higher_target_gives_a_higher_threshold():
    size = catalog(10_000)
    true, false = simulate(size, 0.3, 0.5, np.random.default_rng(0))
    observed = cosine_histogram(np.concatenate([true, false]))
    chosen = [
        solve_threshold(CALIBRATION, size, observed, p, 0.5).min_score for p in (0.8, 0.9, 0.97)
    ]
    assert chosen == sorted(set(chosen))


def test_without_any_pair_the_prior_alone_decides():
    size = catalog(5_000, look_alikes=0.0)
    choice = solve_threshold(CALIBRATION, size, NO_PAIRS, 0.97, 0.5)
    one_step_lower = choice.min_score - 0.001
    assert float(most_false_pairs(CALIBRATION, size, choice.min_score)) <= 0.03
    assert float(most_false_pairs(CALIBRATION, size, one_step_lower)) > 0.03


def test_a_limit_that_no_longer_falls_does_not_keep_a_large_catalog_from_matching():
    raw = raw_calibration()
    flat = raw["unrelated"]["tail"]["interval"]
    flat["high"] = [max(value, 1e-5) for value in flat["high"]]
    raw["calibration_id"] = calibration_id_of(raw)
    calibration, size = parse_calibration(raw), catalog(1_000_000, look_alikes=0.0)
    at = np.array([0.8, 0.9])
    assert most_false_pairs(calibration, size, at) == pytest.approx(
        3 * expected_false_pairs(calibration, size, at)
    )
    assert most_false_pairs(CALIBRATION, size, 0.5) == pytest.approx(
        float(CALIBRATION.unrelated_survival_interval(0.5)[1]) * size.n_comparisons
    )


def test_when_no_threshold_can_keep_the_promise_it_is_the_highest_and_says_why():
    # Look-alikes that score 1.0 half of the time: nothing parts them from true pairs.
    raw = raw_calibration(
        hard_negatives={"scores": [0.0, 1.0], "survival": [1.0, 0.5], "n_pairs": 100}
    )
    observed = cosine_histogram([0.9] * 50)
    choice = solve_threshold(parse_calibration(raw), catalog(1_000, 1.0), observed, 0.97, 0.5)
    assert choice.min_score == 0.999
    assert not choice.target_met
    assert "mostly look-alikes" in choice.note


@pytest.mark.parametrize("least", [0.3, 0.8, 0.97])
def test_every_pair_is_probable_by_itself(least):
    lowest = probable_from(CALIBRATION, least)
    assert 0 < lowest < 0.999
    assert (
        CALIBRATION.match_probability(lowest)
        >= least
        > CALIBRATION.match_probability(lowest - 0.001)
    )
    clear = cosine_histogram([0.99] * 5_000)
    average, each = (
        solve_threshold(CALIBRATION, catalog(1_000), clear, 0.97, floor) for floor in (0.5, lowest)
    )
    assert each.min_score == max(average.min_score, lowest)
    assert not average.is_least
    assert each.is_least == (lowest > average.min_score)


def test_where_no_pair_is_so_probable_the_threshold_is_the_highest():
    raw = raw_calibration()
    raw["match_probability"]["probabilities"] = [
        0.5 * p for p in raw["match_probability"]["probabilities"]
    ]
    raw["calibration_id"] = calibration_id_of(raw)
    assert probable_from(parse_calibration(raw), 0.8) == 0.999
    assert probable_from(parse_calibration(raw), 0.0) == 0.0


def test_a_target_below_the_least_probability_turns_it_off():
    assert least_threshold(MatchConfig(min_probability=0.8), SCORES) == probable_from(SCORES, 0.8)
    assert least_threshold(MatchConfig(target_precision=0.7), SCORES) == 0.0


def test_a_thin_tail_is_said_with_figures():
    size = catalog(1_000_000, look_alikes=0.0)
    true, false = simulate(size, 0.3, 0.8, np.random.default_rng(0))
    observed = cosine_histogram(np.concatenate([true, false]))
    choice = solve_threshold(CALIBRATION, size, observed, 0.97, 0.8)
    assert choice.thin_tail
    assert "5e+11 comparisons rest on 2e+06 calibration pairs" in choice.note
    assert choice.expected_false_low < choice.expected_false_pairs < choice.expected_false_high


def test_a_small_catalog_does_not_rest_on_the_tail():
    size = catalog(1_000, look_alikes=0.0)
    choice = judge_threshold(CALIBRATION, size, cosine_histogram([0.9] * 300), 0.85, 0.97)
    assert not choice.thin_tail
    assert choice.note == ""


def test_more_pairs_than_the_calibration_explains_are_pointed_out():
    size = catalog(1_000, look_alikes=0.0)
    choice = judge_threshold(CALIBRATION, size, cosine_histogram([0.9] * 50_000), 0.85, 0.97)
    assert "50000 pairs reach cosine 0.85" in choice.note


def test_the_floor_bounds_the_candidates_of_a_million_photos():
    size = catalog(1_000_000, look_alikes=1.0)
    floor = search_floor(CALIBRATION, size)
    assert float(expected_false_pairs(CALIBRATION, size, floor)) <= 10 * size.n_contents


def test_the_floor_lies_below_every_threshold_worth_solving():
    for n in (1_000, 100_000):
        size = catalog(n)
        floor = search_floor(CALIBRATION, size)
        true, false = simulate(size, 3.0, max(floor, U), np.random.default_rng(1))
        observed = cosine_histogram(np.concatenate([true, false]))
        choice = solve_threshold(CALIBRATION, size, observed, 0.8, floor)
        assert floor + FLOOR_MARGIN / 2 < choice.min_score


def test_the_floor_follows_an_explicit_threshold_and_keeps_its_bounds():
    assert search_floor(CALIBRATION, catalog(10), min_cosine=0.9) == 0.88
    assert search_floor(CALIBRATION, CatalogSize(0, 0)) == 0.95
    assert search_floor(CALIBRATION, replace(catalog(10), n_comparisons=10**18)) <= 0.97
    assert search_floor(CALIBRATION, catalog(2, 0.0)) >= 0.3


@given(st.lists(st.floats(-1, 1, width=32), max_size=50))
def test_the_histogram_counts_what_lies_at_or_above_each_thousandth(cosines):
    values = np.asarray(cosines, dtype=np.float32).astype(np.float64)
    histogram = cosine_histogram(values)
    for step in (0, 1, 300, 999, 1000):
        assert histogram[step:].sum() == (np.floor(values[values >= 0] * 1000) >= step).sum()


def test_so_many_unrelated_pairs_are_verified_as_were_asked_for():
    size = catalog(1_000_000)
    floor = verify_floor(CALIBRATION, size, 10.0, LEAST)
    n_at, n_below = (
        float(size.n_comparisons * CALIBRATION.unrelated_survival(cosine))
        for cosine in (floor, floor - 0.001)
    )
    assert n_at <= 10.0 * size.n_contents < n_below
    assert floor == round(floor, 3)


@given(
    st.sampled_from([2, 50, 1_000, 30_000, 10**6, 10**8]),
    st.floats(0.01, 1_000),
    st.floats(1, 100),
)
def test_a_larger_catalog_raises_the_floor_of_verifying_and_a_larger_budget_lowers_it(
    n, per_photo, more
):
    floor = verify_floor(CALIBRATION, catalog(n), per_photo, LEAST)
    assert LEAST <= floor <= 0.999
    assert verify_floor(CALIBRATION, catalog(n), per_photo * more, LEAST) <= floor
    assert verify_floor(CALIBRATION, catalog(int(n * more)), per_photo, LEAST) >= floor


def test_the_floor_of_verifying_keeps_its_bounds():
    assert verify_floor(CALIBRATION, CatalogSize(0, 0), 10.0, LEAST) == LEAST
    assert verify_floor(CALIBRATION, catalog(10), 10.0, LEAST) == LEAST
    huge = replace(catalog(10), n_comparisons=10**18)
    # The tail of the calibration ends before 1: there a pair is no unrelated one.
    assert 0.9 < verify_floor(CALIBRATION, huge, 0.001, LEAST) <= 0.999
    assert verify_floor(CALIBRATION, catalog(10**6), 1.0, LEAST) > verify_floor(
        CALIBRATION, catalog(10**6), 100.0, LEAST
    )
    assert verify_floor(CALIBRATION, catalog(10), 10.0, 0.45) == 0.45


def test_notes_say_whether_they_speak_of_cosines_or_of_scores():
    size = catalog(1_000, look_alikes=1.0)
    observed = cosine_histogram([0.9] * 50)
    notes = [
        judge_threshold(CALIBRATION, size, observed, 0.6, 0.97, *scale).note
        for scale in ((), ("score",))
    ]
    assert "at cosine 0.6" in notes[0] and "score" not in notes[0]
    assert notes[1] == notes[0].replace("cosine", "score")
    solved = solve_threshold(CALIBRATION, size, observed, 0.97, 0.0, "score")
    assert "cosine" not in solved.note


def scored_strangers(size: CatalogSize, floor: float, times: float) -> np.ndarray:
    """Scores of the strangers that a catalog brings, `times` as many as the calibration has."""
    near = size.n_comparisons * float(CALIBRATION.unrelated_survival(floor))
    scored = NO_PAIRS.copy()
    scored[100] = round(near * float(SCORES.apart_share(floor)) * times)
    return scored


@pytest.mark.parametrize("times", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("n", [20_000, 100_000, 10**7])
def test_a_catalog_is_as_dense_as_its_strangers_are_near(n, times):
    size = catalog(n)
    floor = verify_floor(CALIBRATION, size, 20.0, LEAST)
    scored = scored_strangers(size, floor, times)
    assert measure_density(CALIBRATION, SCORES, size, floor, scored) == pytest.approx(
        times, rel=0.05
    )
    # Duplicates, which score high, do not make it denser.
    many = scored + cosine_histogram(np.full(10**6, 0.9))
    assert measure_density(CALIBRATION, SCORES, size, floor, many) == pytest.approx(times, rel=0.05)


def test_a_few_photos_say_little_of_a_catalogs_density():
    for n in (0, 1, 2, 10):
        density = measure_density(CALIBRATION, SCORES, catalog(n), 0.5, NO_PAIRS)
        assert 0.99 < density <= 1.0


def test_false_pairs_grow_with_density():
    size, dense = catalog(20_000, 0.0), replace(catalog(20_000, 0.0), density=4.0)
    at = np.array([0.5, 0.6, 0.7])
    assert expected_false_pairs(CALIBRATION, dense, at) == pytest.approx(
        4 * expected_false_pairs(CALIBRATION, size, at)
    )
    observed = cosine_histogram(np.linspace(0.4, 0.99, 2_000))
    thresholds = [
        solve_threshold(CALIBRATION, one, observed, 0.97, 0.3).min_score for one in (size, dense)
    ]
    assert thresholds[0] < thresholds[1]
