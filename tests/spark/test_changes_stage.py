"""Ids over nights and what changed, against plain Python.

Spark takes its time to start a query, so many random histories lie side by side in one table, apart
by a prefix of their SKUs.
"""

import hashlib
import random
from collections import defaultdict
from datetime import date
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from dedup_job.kernels.calibration import parse_calibration
from dedup_job.stages.changes import group_changes
from dedup_job.stages.inheritance import name_groups
from dedup_job.stages.reports import RunIdentity, arrange, report_changes, report_pairs
from dedup_job.tables import DUPLICATE_PAIRS, GROUP_CHANGES, GROUPED_PAIRS, arrow_batch
from tests.unit.synthetic_calibration import raw_calibration
from tests.unit.test_inheritance import slow_heirs

pytestmark = pytest.mark.spark
NIGHTS = [date(2026, 1, day) for day in range(1, 5)]
N_HISTORIES = 60
STATE = ("group_id", "sku_id", "group_first_seen", "member_since")
IDENTITY = RunIdentity("run", "model")


def random_night(rng, history):
    """Groups of two or more of twelve SKUs of one history."""
    sets = defaultdict(list)
    for i in range(12):
        sets[rng.randrange(8)].append(f"{history:03d}-{i:02d}")
    return [members for members in sets.values() if len(members) > 1]


def name_all(night, sets, previous, shuffle=None):
    """STATE rows of the groups `sets`, named by the stage; `previous` are STATE rows or None."""
    first = {sku: min(members) for members in sets for sku in members}
    skus = sorted(first)
    if previous and shuffle is not None:
        previous = shuffle.sample(previous, len(previous))
    named = name_groups(
        pa.array(skus, pa.large_string()),
        np.array([skus.index(first[sku]) for sku in skus]),
        None if previous is None else pa.Table.from_pylist(previous),
        night,
    )
    return named.select(STATE).to_pylist()


def sku_of(row):
    return row["sku_id"]


def slow_names(night, sets, previous):
    """The same, group by group."""
    then = {row["sku_id"]: row for row in previous}
    born = {row["group_id"]: row["group_first_seen"] for row in previous}
    old = {group: (born[group], members) for group, members in sets_of(previous).items()}
    heirs = slow_heirs(old, {min(members): frozenset(members) for members in sets})
    for members in sets:
        digest = hashlib.sha256(min(members).encode()).hexdigest()[:16]
        group = heirs.get(min(members), f"g{night:%Y%m%d}-{digest}")
        for sku in members:
            stays = sku in then and then[sku]["group_id"] == group
            since = then[sku]["member_since"] if stays else night
            yield dict(zip(STATE, (group, sku, born.get(group, night), since), strict=True))


def sets_of(rows):
    members = defaultdict(set)
    for row in rows:
        members[row["group_id"]].add(row["sku_id"])
    return {group: frozenset(skus) for group, skus in members.items()}


@pytest.fixture(scope="module")
def history():
    """STATE rows of each night of many random histories."""
    rng, nights = random.Random(1), []
    for night in NIGHTS:
        sets = [s for history in range(N_HISTORIES) for s in random_night(rng, history)]
        previous = nights[-1] if nights else None
        nights.append(name_all(night, sets, previous))
        expected = sorted(slow_names(night, sets, previous or []), key=sku_of)
        assert nights[-1] == expected
    return nights


def test_ids_over_nights_equal_loops_and_stay_unique(history):
    births = defaultdict(set)
    for rows in history:
        groups = sets_of(rows)
        assert sum(map(len, groups.values())) == len(rows)
        for row in rows:
            births[row["group_id"]].add(row["group_first_seen"])
            assert row["group_first_seen"] <= row["member_since"]
    assert all(
        dates == {date.fromisoformat(f"{group[1:5]}-{group[5:7]}-{group[7:9]}")}
        for group, dates in births.items()
    )
    inherited = [row for row in history[-1] if row["group_first_seen"] < NIGHTS[-1]]
    assert 0 < len(inherited) < len(history[-1])
    assert any(row["member_since"] == NIGHTS[0] for row in inherited)


def test_ids_do_not_depend_on_the_order_of_the_last_run(history):
    sets = list(sets_of(history[-1]).values())
    shuffled = name_all(NIGHTS[-1], sets, history[-2], shuffle=random.Random(2))
    assert shuffled == history[-1]


def test_uncontested_groups_are_not_compared(monkeypatch):
    """Only overlaps that compete reach the kernel."""
    seen = []

    def find_heirs(overlaps):
        seen.append(overlaps)
        return np.empty(0, int)

    monkeypatch.setattr("dedup_job.stages.inheritance.find_heirs", find_heirs)
    old = [("g1", "ab"), ("g2", "cd"), ("g3", "efgh")]
    rows = [dict(zip(STATE, (g, s, *NIGHTS[:1] * 2), strict=True)) for g, m in old for s in m]
    named = name_all(NIGHTS[1], ["ax", "cy", "ef", "gh"], rows)
    ids = {row["sku_id"]: row["group_id"] for row in named}
    assert (ids["a"], ids["x"], ids["c"]) == ("g1", "g1", "g2")
    (contested,) = seen
    assert (contested.old.tolist(), contested.new.tolist()) == ([0, 0], [2, 3])
    assert contested.n_shared.tolist() == [2, 2]


def test_a_group_that_comes_back_has_a_new_id():
    first = name_all(NIGHTS[0], ["ab"], None)
    gone = name_all(NIGHTS[1], ["cd"], first)
    back = name_all(NIGHTS[2], ["ab"], gone)
    assert not sets_of(first).keys() & sets_of(back).keys()
    assert {row["group_first_seen"] for row in back} == {NIGHTS[2]}


def test_a_shadow_of_the_same_date_gives_no_id_twice():
    published = name_all(NIGHTS[0], ["abcd"], None)
    shadow = sets_of(name_all(NIGHTS[0], ["ax", "bcd"], published))
    (group,) = sets_of(published)
    assert shadow[group] == set("bcd") and len(shadow) == 2


def changes_between(spark, before, after):
    frames = [
        None if rows is None else spark.createDataFrame(rows, "group_id string, sku_id string")
        for rows in (before, after)
    ]
    changes = report_changes(group_changes(frames[1], frames[0]), IDENTITY)
    assert [(c.name, c.type) for c in GROUP_CHANGES.columns] == changes.dtypes
    return [row.asDict() for row in arrange(changes, GROUP_CHANGES, 1).collect()]


def members_of(rows):
    return [(row["group_id"], row["sku_id"]) for row in rows]


def replay(members, changes):
    members = {group: set(skus) for group, skus in members.items()}
    for row in changes:
        group = members.setdefault(row["group_id"], set())
        assert set(row["removed_sku_ids"]) <= group and not set(row["added_sku_ids"]) & group
        group -= set(row["removed_sku_ids"])
        group |= set(row["added_sku_ids"])
    return {group: skus for group, skus in members.items() if skus}


def slow_changes(before, after):
    home = {sku: group for group, skus in before.items() for sku in skus}
    kept = {sku for skus in after.values() for sku in skus}
    for group in sorted(before.keys() | after.keys()):
        then, now = before.get(group, frozenset()), after.get(group, frozenset())
        if then == now:
            continue
        others = {home[sku] for sku in now if sku in home} - {group}
        if not now:
            change = "dissolved"
        elif not then:
            change = ["created", "split"][len(others)] if len(others) < 2 else "merged"
        elif others:
            change = "merged"
        elif (then - now) & kept:
            change = "split"
        else:
            change = "grown" if now - then else "shrunk"
        yield {
            "change": change,
            "group_id": group,
            "previous_group_ids": sorted(others | ({group} if then else set())),
            "added_sku_ids": sorted(now - then),
            "removed_sku_ids": sorted(then - now),
            "run_id": "run",
        }


def test_changes_of_random_histories_equal_loops_and_replay(spark, history):
    names = set()
    for before, after in pairwise(history):
        changes = changes_between(spark, members_of(before), members_of(after))
        assert changes == list(slow_changes(sets_of(before), sets_of(after)))
        assert replay(sets_of(before), changes) == sets_of(after)
        names |= {row["change"] for row in changes}
    assert names == {"created", "grown", "shrunk", "merged", "split", "dissolved"}


def test_changes_of_unrelated_partitions_replay(spark):
    """Also where ids live on without a common member, which the job never does."""
    rng = random.Random(3)
    before, after = (
        [
            (f"{case:03d}-g{rng.randrange(4)}", f"{case:03d}-{sku}")
            for case in range(200)
            for sku in range(rng.randrange(8))
        ]
        for _ in range(2)
    )
    as_rows = [[{"group_id": g, "sku_id": s} for g, s in rows] for rows in (before, after)]
    old, new = map(sets_of, as_rows)
    changes = changes_between(spark, before, after)
    assert changes == list(slow_changes(old, new))
    assert replay(old, changes) == new


def test_the_first_night_creates_all_and_an_equal_night_changes_none(spark, history):
    rows = members_of(history[0])
    changes = changes_between(spark, None, rows)
    assert {row["change"] for row in changes} == {"created"}
    assert all(row["previous_group_ids"] == [] for row in changes)
    assert replay({}, changes) == sets_of(history[0])
    assert changes_between(spark, rows, rows[::-1]) == []


def test_the_night_everything_leaves(spark):
    (row,) = changes_between(spark, [("g", "b"), ("g", "a")], [])
    assert row == {
        "change": "dissolved",
        "group_id": "g",
        "previous_group_ids": ["g"],
        "added_sku_ids": [],
        "removed_sku_ids": ["a", "b"],
        "run_id": "run",
    }


def grouped_pair(a, b, parted_by=None):
    return {
        **{name: f"{name} of {a} and {b}" for name in GROUPED_PAIRS.column_names},
        "sku_id_a": a,
        "sku_id_b": b,
        "n_matching_photos": 1,
        "cosine": 0.9,
        "score": 0.9,
        "match_type": "near",
        "group_id": None if parted_by else "g",
        "parted_by": parted_by,
    }


def test_a_pair_is_new_unless_the_base_run_reported_it(spark):
    calibration = parse_calibration(raw_calibration())

    def report(rows, previous=None):
        batch = arrow_batch(GROUPED_PAIRS, rows)
        pairs = spark.createDataFrame(pa.Table.from_batches([batch]))
        named = report_pairs(pairs, calibration, IDENTITY, previous)
        assert named.columns == DUPLICATE_PAIRS.column_names
        return arrange(named, DUPLICATE_PAIRS, 1)

    base = report([grouped_pair("a", "b"), grouped_pair("a", "c", "chaining")])
    assert [row["is_new"] for row in base.collect()] == [True, True]
    # Parted or not, at whatever cosine: a reader of that run has seen the pair.
    tonight = [grouped_pair("a", "b", "conflict"), grouped_pair("a", "c"), grouped_pair("b", "c")]
    rows = report(tonight, base).collect()
    assert {(row["sku_id_a"], row["sku_id_b"]): row["is_new"] for row in rows} == {
        ("a", "b"): False,
        ("a", "c"): False,
        ("b", "c"): True,
    }
