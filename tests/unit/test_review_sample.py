"""Groups drawn for review, and what their reviews say."""

from datetime import date, timedelta

import pytest

from dedup_job.stages.review_sample import (
    GROUPS_A_NIGHT,
    draw_groups,
    reviewed_precision,
    still_counted,
)

NIGHT = date(2026, 3, 1)


def drawn(group, skus, day=NIGHT):
    return [
        {"drawn_on": day, "group_id": group, "sku_id": sku, "canonical_sku_id": skus[0]}
        for sku in skus
    ]


def test_a_draw_is_even_and_the_same_when_the_night_is_run_again():
    groups = [f"g{i:05d}" for i in range(5_000)]
    first = draw_groups(groups, NIGHT)
    assert first == draw_groups(reversed(groups), NIGHT) and len(first) == GROUPS_A_NIGHT
    assert first != draw_groups(groups, NIGHT + timedelta(days=1))
    hits = sum(
        len(draw_groups(groups[:100], NIGHT + timedelta(days=i)) & set(groups[:50]))
        for i in range(40)
    )
    assert 850 < hits < 1150  # of 2,000 draws, half
    assert draw_groups(groups[:3], NIGHT) == set(groups[:3])


def test_nights_count_for_a_month():
    days = [NIGHT - timedelta(days=n) for n in (0, 1, 30, 31)]
    assert [still_counted(day, NIGHT) for day in days] == [False, True, True, False]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, (0, 0)),
        ({("a", "b"): "same"}, (0, 0)),  # c is not decided
        ({("a", "b"): "same", ("b", "c"): "same"}, (1, 1)),  # b is the survivor
        ({("a", "b"): "same", ("a", "c"): "same"}, (0, 0)),
        ({("a", "c"): "different"}, (1, 0)),
    ],
)
def test_a_group_is_reviewed_when_all_are_said_to_be_the_survivor_or_two_are_not(said, expected):
    found = reviewed_precision(drawn("g", ["b", "a", "c"]), said)
    assert (found.n_groups, found.n_right) == expected


def test_a_group_that_was_drawn_again_counts_once_but_not_in_place_of_what_it_was():
    tomorrow = NIGHT + timedelta(days=1)
    before, after = drawn("g", ["a", "b", "c"]), drawn("g", ["a", "b"], tomorrow)
    said = {("a", "b"): "same", ("a", "c"): "different"}
    found = reviewed_precision(before + after, said)
    assert (found.n_groups, found.n_right) == (2, 1)
    again = reviewed_precision(after + drawn("g", ["a", "b"]), said)
    assert (again.n_groups, again.n_right) == (1, 1)


def test_the_interval_is_that_of_clopper_and_pearson():
    sample = [row for i in range(20) for row in drawn(f"g{i}", [f"a{i}", f"b{i}"])]
    said = {(f"a{i}", f"b{i}"): "same" if i else "different" for i in range(20)}
    found = reviewed_precision(sample, said)
    assert found.share == 0.95
    assert (round(found.low, 4), round(found.high, 4)) == (0.7513, 0.9987)
    nothing = reviewed_precision([], {})
    assert (nothing.share, nothing.low, nothing.high) == (None, 0.0, 1.0)
