import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dedup_job.stages.recall import estimate_recall


@given(st.integers(1, 5_000), st.data())
def test_the_interval_is_wilsons(n_true, data):
    n_found = data.draw(st.integers(0, n_true))
    estimate = estimate_recall(100, n_true, n_found)
    expected = stats.binomtest(n_found, n_true).proportion_ci(0.95, method="wilson")
    assert estimate.recall == n_found / n_true
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), abs=1e-6)
    assert estimate.low <= estimate.recall <= estimate.high


def test_no_sampled_pair_means_unknown_never_one():
    estimate = estimate_recall(1_000, 0, 0)
    assert estimate.recall is None
    assert (estimate.low, estimate.high) == (0.0, 1.0)
