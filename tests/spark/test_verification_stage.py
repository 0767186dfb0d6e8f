"""Pairs that wait for the verifier, what they show, and the scores that come back."""

import re
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from dedup_job.io.storage import Folder
from dedup_job.io.tables import read_rows, write_table
from dedup_job.kernels.pictures import pack_picture, unpack_picture
from dedup_job.stages import sent_keys
from dedup_job.stages.pairs import said_pairs, scores_among
from dedup_job.stages.verification import (
    VerifyPairs,
    add_scores,
    cosine_as_score,
    count_verify_tasks,
    one_chunk,
    show_pairs,
    waiting_pairs,
)
from dedup_job.tables import PAIRS_TO_VERIFY, PHOTO_PAIRS, VERIFIED_PAIRS
from tests.photos import draw_photo

pytestmark = pytest.mark.spark
FLOOR = 0.5
PICTURES = "content_sha256 string, picture binary"


def frame(spark, table, rows):
    return spark.createDataFrame(rows, table.ddl.replace(" NOT NULL", ""))


def rows_of(rows):
    return sorted((tuple(row) for row in rows.collect()), key=str)


def sha(number):
    return f"{number:064x}"


def picture(number):
    return pack_picture(draw_photo(number, 32, 32))


@pytest.fixture(scope="module")
def pictures(spark):
    """Of contents 0 to 39; 7 and 8 have none, 9 is stored twice."""
    rows = [(sha(n), None if n in (7, 8) else picture(n)) for n in [*range(40), 9]]
    return spark.createDataFrame(rows, PICTURES).cache()


@pytest.fixture(scope="module")
def waiting(spark):
    """All pairs of contents 0 to 19."""
    rows = [(sha(a), sha(b), 0.5 + a / 64) for a in range(20) for b in range(a + 1, 20)]
    return spark.createDataFrame(rows, "sha_a string, sha_b string, cosine float").cache()


def test_a_pair_waits_once_though_it_was_met_in_two_blocks(spark):
    pairs = frame(
        spark,
        PHOTO_PAIRS,
        [
            ("x", "a", "b", 0.75, None),
            ("y", "a", "b", 0.75, None),
            ("x", "a", "c", 0.75, 0.25),  # verified on an earlier night
            ("x", "a", "d", 0.75, 0.0),  # as well
            ("x", "b", "c", 0.5, None),  # at the floor
            ("x", "b", "d", 0.4375, None),  # below it
        ],
    )
    found = waiting_pairs(pairs, FLOOR)
    assert found.columns == ["sha_a", "sha_b", "cosine"]
    assert rows_of(found) == [("a", "b", 0.75), ("b", "c", 0.5)]


@pytest.mark.parametrize("n_chunks", [1, 3, 8])
def test_chunks_are_all_pairs_and_share_none(waiting, n_chunks):
    chunks = [rows_of(one_chunk(waiting, number, n_chunks)) for number in range(n_chunks)]
    everything = [pair for chunk in chunks for pair in chunk]
    assert sorted(everything) == rows_of(waiting) and len(everything) == 190
    firsts = [{a for a, _, _ in chunk} for chunk in chunks]
    assert sum(map(len, firsts)) == len(set().union(*firsts)) == 19
    assert n_chunks == 1 or sum(map(bool, chunks)) > 1


@pytest.mark.parametrize("n_tasks", [1, 4])
def test_pairs_show_the_pictures_of_their_contents(waiting, pictures, n_tasks):
    shown = show_pairs(waiting, pictures, 190, n_tasks)
    assert shown.columns == PAIRS_TO_VERIFY.column_names
    rows = shown.collect()
    expected = {
        (a, b, cosine): (picture(int(a, 16)), picture(int(b, 16)))
        for a, b, cosine in rows_of(waiting)
        if not {int(a, 16), int(b, 16)} & {7, 8}
    }
    got = {(r.sha_a, r.sha_b, r.cosine): (bytes(r.picture_a), bytes(r.picture_b)) for r in rows}
    assert got == expected
    # A pair is shown once, though one of its contents is stored twice.
    assert len(rows) == len(expected)


@pytest.mark.parametrize(
    ("most_sent", "n_chunks", "met_first"),
    [(500_000, 1, "LeftSemi"), (500_000, 2, "LeftSemi"), (0, 1, "Exchange")],
)
def test_of_a_large_store_only_the_pictures_that_pairs_need_are_shuffled(
    spark, monkeypatch, most_sent, n_chunks, met_first
):
    """Where these are few; else all are, to meet them. Pairs in one go have the store read once for both ends."""
    monkeypatch.setattr(sent_keys, "_MOST_KEYS_SENT", most_sent)
    found = [("x", sha(a), sha(b), 0.75, None) for a in range(8) for b in range(a + 1, 8)]
    pairs = one_chunk(waiting_pairs(frame(spark, PHOTO_PAIRS, found), FLOOR), 0, n_chunks)
    stored = spark.range(0, 40, 1, 2).mapInArrow(_read_pictures, PICTURES)
    shown = show_pairs(pairs, stored, 28 // n_chunks, 2)
    assert 0 < len(shown.collect()) <= 28
    met = _first_above(_final_plan(shown), "MapInArrow _read_pictures", ("LeftSemi", "Exchange"))
    assert set(met) == {met_first}
    assert n_chunks > 1 or len(met) == 1


def _read_pictures(batches):
    for batch in batches:
        numbers = batch.column(0).to_pylist()
        columns = [pa.array(map(sha, numbers)), pa.array(map(picture, numbers), pa.binary())]
        yield pa.RecordBatch.from_arrays(columns, ["content_sha256", "picture"])


def _final_plan(frame):
    """Lines of the plan that a collected frame was computed by."""
    plan = frame._jdf.queryExecution().executedPlan().toString()
    return plan.partition("== Initial Plan ==")[0].splitlines()


def _first_above(plan, node, words):
    """For each place of a node in a plan, which of some words is met first on the way up from there."""
    depths = [len(re.match(r"[ :+-]*", line).group()) for line in plan]
    found = []
    for place in (number for number, line in enumerate(plan) if node in line):
        depth = depths[place]
        for line, its_depth in zip(plan[place::-1], depths[place::-1], strict=True):
            met = [word for word in words if word in line] if its_depth < depth else []
            depth = min(depth, its_depth)
            if met:
                found += met
                break
    return found


@pytest.mark.parametrize("n_tasks", [1, 4])
def test_the_pairs_of_a_photo_come_one_after_the_other_in_one_task(waiting, pictures, n_tasks):
    shown = show_pairs(waiting, pictures, 190, n_tasks)
    per_task = shown.mapInArrow(_ends_of_a_task, "task long, sha_a string, sha_b string").collect()
    assert len({row.task for row in per_task}) <= n_tasks
    tasks = {}
    for row in per_task:
        tasks.setdefault(row.task, []).append((row.sha_b, row.sha_a))
    assert all(rows == sorted(rows) for rows in tasks.values())
    seconds = [{b for b, _ in rows} for rows in tasks.values()]
    assert sum(map(len, seconds)) == len(set().union(*seconds))
    assert n_tasks == 1 or len(tasks) > 1


def _ends_of_a_task(batches):
    from pyspark import TaskContext

    number = TaskContext.get().partitionId()
    for batch in batches:
        tasks = pa.array([number] * batch.num_rows, pa.int64())
        yield pa.RecordBatch.from_arrays(
            [tasks, batch.column("sha_a"), batch.column("sha_b")], ["task", "sha_a", "sha_b"]
        )


def test_scores_join_their_pairs_and_old_ones_stay(spark):
    pairs = frame(
        spark,
        PHOTO_PAIRS,
        [
            ("x", "a", "b", 0.75, None),
            ("y", "a", "b", 0.75, None),
            ("x", "a", "c", 0.75, 0.25),
            ("x", "b", "c", 0.25, None),
        ],
    )
    verified = frame(
        spark,
        VERIFIED_PAIRS,
        [("a", "b", 0.875), ("a", "c", 0.5), ("z", "zz", 0.5)],
    )
    scored = add_scores(pairs, verified)
    assert scored.columns == PHOTO_PAIRS.column_names
    assert rows_of(scored) == [
        ("x", "a", "b", 0.75, 0.875),
        ("x", "a", "c", 0.75, 0.25),
        ("x", "b", "c", 0.25, None),
        ("y", "a", "b", 0.75, 0.875),
    ]


def test_where_nothing_is_verified_the_cosine_is_the_score(spark):
    pairs = frame(spark, PHOTO_PAIRS, [("x", "a", "b", 0.75, None), ("x", "a", "c", 0.5, 0.25)])
    scored = cosine_as_score(pairs)
    assert scored.columns == PHOTO_PAIRS.column_names
    assert rows_of(scored) == [("x", "a", "b", 0.75, 0.75), ("x", "a", "c", 0.5, 0.5)]


@pytest.mark.parametrize("n_cores", [1, 4, 500])
def test_a_task_is_worth_its_start_and_no_core_waits_long(n_cores):
    assert count_verify_tasks(0, n_cores) == count_verify_tasks(249, n_cores) == 1
    last = 1
    for n_pairs in (250, 499, 500, 4_000, 40_000, 10**6, 10**8):
        n_tasks = count_verify_tasks(n_pairs, n_cores)
        assert n_tasks >= last
        assert n_pairs / n_tasks >= 250
        # A task is at most 10,000 pairs long, and there are four for each core, if pairs allow it.
        assert n_pairs / n_tasks <= 10_000
        assert n_tasks >= min(4 * n_cores, n_pairs // 250)
        assert n_tasks <= max(4 * n_cores, -(-n_pairs // 10_000))
        last = n_tasks


class Greys:
    """A verifier that knows the mean grey levels only, and counts what it is shown."""

    def answer(self, a, b):
        return float(a.pixels.mean()) - 2 * float(b.pixels.mean())

    def score(self, answers, cosines):
        return (np.array(answers) / 1_000 + cosines).astype(np.float32)


def expected_score(a, b, cosine):
    one, other = (float(unpack_picture(picture(int(sha, 16))).mean()) for sha in (a, b))
    return (one - 2 * other) / 1_000 + cosine


def test_a_task_turns_pairs_into_scores(spark, waiting, pictures, tmp_path):
    shown = show_pairs(waiting, pictures, 190, 2)
    stored = write_table(shown, VERIFIED_PAIRS, Folder(str(tmp_path)), VerifyPairs(Greys))
    rows = read_rows(stored)
    assert rows.schema.equals(VERIFIED_PAIRS.arrow)
    cosine_of = {(a, b): cosine for a, b, cosine in rows_of(waiting)}
    got = {(row["sha_a"], row["sha_b"]): row["score"] for row in rows.to_pylist()}
    assert set(got) == {pair for pair in cosine_of if not set(pair) & {sha(7), sha(8)}}
    for pair, score in got.items():
        assert score == pytest.approx(expected_score(*pair, cosine_of[pair]), abs=1e-5)


def test_a_verifier_is_opened_once_a_task_and_batches_of_any_size_give_the_same():
    names = [(sha(a), sha(b)) for a in range(6) for b in range(a + 1, 6)]
    rows = [
        (a, b, 0.5 + i / 64, picture(int(a, 16)), picture(int(b, 16)))
        for i, (a, b) in enumerate(names)
    ]
    table = pa.Table.from_pylist(
        [dict(zip(PAIRS_TO_VERIFY.column_names, row, strict=True)) for row in rows],
        schema=PAIRS_TO_VERIFY.arrow,
    )
    opened = []
    found = []
    for n_rows in (1, 4, 100):
        task = VerifyPairs(partial(_open, opened))
        batches = list(task(iter(table.to_batches(n_rows))))
        assert all(batch.schema == VERIFIED_PAIRS.arrow for batch in batches)
        found.append(pa.Table.from_batches(batches).to_pylist())
    assert len(opened) == 3
    assert found[0] == found[1] == found[2]
    assert [(row["sha_a"], row["sha_b"]) for row in found[0]] == names
    assert list(VerifyPairs(partial(_open, opened))(iter([]))) == []


def test_a_pair_whose_picture_is_damaged_gets_no_score_and_stops_nothing():
    fine, damaged = picture(0), picture(1)[:20]
    seen = [(fine, fine), (fine, damaged), (damaged, fine), (fine, picture(2))]
    table = pa.table(
        {"sha_a": list("abcd"), "sha_b": list("efgh"), "cosine": [0.5, 0.625, 0.75, 0.875],
         "picture_a": [a for a, _ in seen], "picture_b": [b for _, b in seen]},
        schema=PAIRS_TO_VERIFY.arrow,
    )  # fmt: skip
    for n_rows in (1, 2, 4):
        batches = list(VerifyPairs(Greys)(iter(table.to_batches(n_rows))))
        found = pa.Table.from_batches(batches, VERIFIED_PAIRS.arrow).to_pydict()
        assert (found["sha_a"], found["sha_b"]) == (["a", "d"], ["e", "h"])
        level, other = (float(unpack_picture(one).mean()) for one in (fine, picture(2)))
        expected = [(level - 2 * b) / 1_000 + c for b, c in ((level, 0.5), (other, 0.875))]
        assert found["score"] == pytest.approx(expected, abs=1e-5)


def _open(opened):
    opened.append(1)
    return Greys()


def said_photos():
    """Two products of two photos each: x shows a and b, y shows c and d."""
    rows = []
    for sku, shas in (("x", ("a", "b")), ("y", ("c", "d"))):
        for angle, sha in enumerate(shas):
            vector = np.array([np.cos(angle), np.sin(angle)], np.float32)
            rows.append(
                {"block": "[]", "content_sha256": sha, "sku_id": sku, "conflict": "[]",
                 "is_other": False, "shown_by": sku, "image_uri": f"{sha}.jpg", "uri_key": sha,
                 "embedding": vector.tobytes()}
            )  # fmt: skip
    return pa.Table.from_pylist(rows)


def test_pairs_that_people_called_the_same_carry_their_verified_score(spark):
    photos = said_photos()
    photo_pairs = spark.createDataFrame(
        [("[]", "a", "d", 0.5, 0.75), ("[]", "a", "c", 1.0, None), ("[]", "a", "other", 0.9, 0.9)],
        PHOTO_PAIRS.ddl,
    )
    scores = scores_among(photo_pairs, photos)
    assert scores == {("a", "d"): 0.75}
    (row,) = said_pairs([("x", "y")], photos, scores)
    assert (row["image_uri_a"], row["image_uri_b"]) == ("a.jpg", "d.jpg")
    assert row["score"] == 0.75 and row["cosine"] == pytest.approx(np.cos(1.0), abs=1e-6)
    (blind,) = said_pairs([("x", "y")], photos, {})
    assert blind["score"] == 0.0 and blind["cosine"] == pytest.approx(1.0)
    (by_cosine,) = said_pairs([("x", "y")], photos, None)
    assert by_cosine["score"] == by_cosine["cosine"] == pytest.approx(1.0)
