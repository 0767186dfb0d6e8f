import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.kernels.ranking import Candidate, OrderColumn, parse_canonical_order, rank_survivors


def ranked(order, *rows):
    """Rows (sku, n_pixels, values...) to SKUs, best first."""
    candidates = [Candidate(sku, n_pixels, values) for sku, n_pixels, *values in rows]
    return [c.sku_id for c in rank_survivors(candidates, parse_canonical_order(order))]


def test_without_an_order_resolution_and_then_the_id_decide():
    assert ranked("", ("b", 10), ("a", 10), ("c", 20)) == ["c", "a", "b"]


def test_columns_decide_before_resolution_and_in_their_order():
    rows = [
        ("a", 1, "true", "2026-02-01"),
        ("b", 9, "true", "2026-01-01"),
        ("c", 99, "false", "2020"),
    ]
    assert ranked("in_stock desc, created_at asc", *rows) == ["b", "a", "c"]


def test_numbers_compare_as_numbers_only_if_all_are_numbers():
    assert ranked("price", ("a", 1, "10"), ("b", 1, "9"), ("c", 1, " 1e0 ")) == ["c", "b", "a"]
    assert ranked("price", ("a", 1, "10"), ("b", 1, "9"), ("c", 1, "n/a")) == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["nan", "inf", "1_000", "٣", "0x1", "", "1e99999"])
def test_what_python_or_nobody_takes_for_a_number_makes_a_column_text(text):
    assert ranked("x", ("a", 1, "10"), ("b", 1, "9"), ("c", 1, text)).index("a") < ranked(
        "x", ("a", 1, "10"), ("b", 1, "9"), ("c", 1, text)
    ).index("b")


def test_large_integers_are_not_rounded():
    assert ranked("t desc", ("a", 1, "9007199254740992"), ("b", 1, "9007199254740993"))[0] == "b"


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_a_missing_value_ranks_last(direction):
    assert ranked(f"x {direction}", ("a", 99, None), ("b", 1, "1"), ("c", 1, "2"))[-1] == "a"


def test_descending_keeps_the_later_keys_ascending():
    assert ranked("x desc", ("b", 1, "1"), ("a", 1, "1"), ("c", 1, "2")) == ["c", "a", "b"]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.sampled_from([None, "1", "2", "10", "x"]),
            st.sampled_from([None, "0.5", "7"]),
        ),
        max_size=8,
    ),
    st.randoms(),
)
def test_the_order_of_candidates_does_not_matter(rows, rng: random.Random):
    order = (OrderColumn("p", True), OrderColumn("q", False))
    candidates = [Candidate(f"s{i}", n, values) for i, (n, *values) in enumerate(rows)]
    shuffled = rng.sample(candidates, len(candidates))
    assert rank_survivors(shuffled, order) == rank_survivors(candidates, order)


def test_values_must_fit_the_order():
    with pytest.raises(ValueError, match="'a' has 1 order values"):
        ranked("", ("a", 1, "1"))
