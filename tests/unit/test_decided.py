"""What a decision means tonight, and what became of it."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from dedup_job.stages.decided import Bond, Place, decided_products, judge, tell_outcomes
from dedup_job.tables import JUDGED_DECISIONS, PAIR_DECISIONS, arrow_batch

MONDAY, TUESDAY = datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 6, tzinfo=UTC)
NOTHING = dict.fromkeys(JUDGED_DECISIONS.column_names) | {"photos_a": [], "photos_b": []}


def said(row, a, b, decision, *, at=MONDAY, photos=((), ())):
    return NOTHING | {
        "decision_row": row,
        "sku_id_a": a,
        "sku_id_b": b,
        "decision": decision,
        "decided_at": at,
        "photos_a": sorted(photos[0]),
        "photos_b": sorted(photos[1]),
    }


def alone(**photos):
    """SKUs that are products of their own, each with its photos."""
    return {sku: [Place("", sku, frozenset(shown))] for sku, shown in photos.items()}


def judged(rows, tonight, before=None, bonds=None):
    return judge(rows, tonight, before or {}, bonds or {}).to_pylist()


def test_a_decision_stands_while_its_photos_are_there():
    tonight = alone(a="12", b="3")
    rows = [
        said(0, "a", "b", "same", photos=("1", "3")),  # a photo more does not matter
        said(1, "a", "b", "same", photos=("19", "3")),
        said(2, "a", "b", "same", photos=("1", "34")),
    ]
    found = judged(rows, tonight)
    assert [row["outcome"] for row in found] == ["applied", "reopened", "reopened"]
    assert "1 of 'a'" in found[1]["detail"] and "1 of 'b'" in found[2]["detail"]
    assert [row["product_a"] for row in found] == ["a", None, None]
    assert [row["photos_a"] for row in found] == [["1"], ["1", "9"], ["1"]]


def test_without_photos_a_decision_is_bound_to_what_was_reviewed():
    tonight, row = alone(a="2", b="3"), said(0, "a", "b", "same")
    seen = {"a": frozenset("1"), "b": frozenset("3")}
    assert judged([row], tonight)[0]["photos_a"] == ["2"]
    assert judged([row], tonight, seen)[0]["outcome"] == "reopened"
    bonds = {("a", "b"): Bond("same", MONDAY, frozenset("2"), frozenset("3"))}
    assert judged([row], tonight, seen, bonds)[0]["outcome"] == "applied"


@pytest.mark.parametrize(
    "again", [{"decision": "different"}, {"decided_at": TUESDAY}, {"decided_at": None}]
)
def test_who_decides_again_binds_anew(again):
    bonds = {("a", "b"): Bond("same", MONDAY, frozenset("1"), frozenset("3"))}
    tonight = alone(a="2", b="3")
    assert judged([said(0, "a", "b", "same")], tonight, {}, bonds)[0]["outcome"] == "reopened"
    row = said(0, "a", "b", "same") | again
    assert judged([row], tonight, {}, bonds)[0]["outcome"] == "applied"


def test_a_sku_without_photo_is_absent_and_keeps_its_bond():
    bonds = {("a", "b"): Bond("same", MONDAY, frozenset("1"), frozenset("3"))}
    (found,) = judged([said(0, "a", "b", "same")], alone(a="1"), {}, bonds)
    assert found["outcome"] == "absent" and "'b'" in found["detail"]
    assert (found["photos_a"], found["photos_b"]) == (["1"], ["3"])


def test_sizes_of_one_product():
    tonight = {sku: [Place("", "a1", frozenset("1"))] for sku in ("a1", "a2")} | alone(b="2")
    rows = [
        said(0, "a1", "a2", "same"),
        said(1, "a1", "a2", "different"),
        said(2, "a2", "b", "same"),
        said(3, "a1", "b", "different"),
    ]
    found = judged(rows, tonight)
    assert [row["outcome"] for row in found] == [
        *("applied", "contradicted", "contradicted", "applied")
    ]
    assert found[2]["detail"].startswith("row 3: 'a1' and 'b' are different")
    assert decided_products(pa.Table.from_pylist(found)).to_pylist() == [
        {"sku_id_a": "a1", "sku_id_b": "b", "decision": "different"}
    ]


def test_products_of_two_blocks_are_never_one():
    tonight = {"a": [Place("x", "a", frozenset("1"))], "b": [Place("y", "b", frozenset("2"))]}
    rows = [said(0, "a", "b", "same"), said(1, "a", "b", "different")]
    found = judged(rows, tonight)
    assert [row["outcome"] for row in found] == ["contradicted", "applied"]
    assert decided_products(pa.Table.from_pylist(found)) is None


def test_rows_that_do_not_count_pass_through():
    row = said(0, "a", "b", "same") | {"outcome": "superseded", "detail": "row 1 counts"}
    (found,) = judged([row], alone(a="1", b="2"))
    assert (found["outcome"], found["product_a"], found["photos_a"]) == ("superseded", None, [])


def test_outcomes_name_the_group_or_who_wins():
    rows = [
        said(0, "a", "b", "same"),
        said(1, "b", "c", "same"),
        said(2, "a", "c", "different"),
        said(3, "a", "z", "different"),
    ]
    table = judge(rows, alone(a="1", b="2", c="3", z="4"), {}, {})
    told = list(tell_outcomes(table, {"a": "g1", "b": "g1"}))
    assert [(row["outcome"], row["group_id"]) for row in told] == [
        ("applied", "g1"),
        ("contradicted", None),
        ("applied", None),
        ("applied", None),
    ]
    assert told[1]["detail"] == "row 2: 'a' and 'c' are different"
    assert arrow_batch(PAIR_DECISIONS, [row | {"run_id": "r"} for row in told]).num_rows == 4
