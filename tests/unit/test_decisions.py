from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.errors import ConfigError
from dedup_job.io.decisions import MAX_NOTE_CHARS, Decision, DecisionFile, _settle, read_decisions

HEADER = "sku_id_a,sku_id_b,decision,decided_by,decided_at,note\n"


def read(folder, text, name="decisions.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_decisions(str(path))


def error_of(folder, text):
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def reasons(file):
    return [(rejected.row, rejected.reason) for rejected in file.rejected]


def test_a_decision_has_ordered_text_ids_and_utc_times(tmp_path):
    file = read(
        tmp_path,
        HEADER + "123,00123,same,ann,2026-01-31T18:00:00+01:00,two\u00a0pairs\n"
        "b,a,Different ,,,\nc,d,same,,2026-01-31,\n",
    )
    assert file.rejected == file.repeated == []
    assert file.decisions == [
        Decision(
            0,
            "00123",
            "123",
            "same",
            "ann",
            datetime(2026, 1, 31, 17, tzinfo=UTC),
            "two\u00a0pairs",
        ),
        Decision(1, "a", "b", "different"),
        Decision(2, "c", "d", "same", decided_at=datetime(2026, 1, 31, tzinfo=UTC)),
    ]


def test_columns_may_stand_in_any_order_and_optional_ones_may_be_absent(tmp_path):
    file = read(tmp_path, "\ufeffdecision,probability,sku_id_b,sku_id_a\nsame,0.9,y,x\n")
    assert file.decisions == [Decision(0, "x", "y", "same")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,a,same,,,", "sku_id_a and sku_id_b are both 'a'"),
        (",b,same,,,", "sku_id_a is null or blank"),
        ("a, ,same,,,", "sku_id_b is null or blank"),
        ("a,b,maybe,,,", "decision is 'maybe'; expected same or different"),
        ("a,b,,,,", "decision is ''"),
        ("a,b,same,,", "line 2: expected 6 columns, got 5"),
        ("a,b,same,,,x,y", "line 2: expected 6 columns, got 7"),
        ("a,b,same,,31.1.2026,", "decided_at is '31.1.2026'; expected ISO 8601"),
        ("a,b,same,,9999-12-31T23:59:59-01:00,", "decided_at is '9999-12-31T23:59:59-01:00'"),
        ("a\x00,b,same,,,", "sku_id_a holds control character U+0000"),
        ('a,"b\nc",same,,,', "sku_id_b holds control character U+000A"),
        ("a,b,same,an\x1bn,,", "decided_by holds control character U+001B"),
        ("a,b,same,,,\x07", "note holds control character U+0007"),
        (f"a,b,same,,,{'x' * (MAX_NOTE_CHARS + 1)}", "note has 2001 characters, limit 2000"),
        (f"{'x' * 1001},b,same,,,", "sku_id_a has 1001 characters, limit 1000"),
        ('a,b,"same"x,,,', "lines 2-2: "),
    ],
)
def test_a_bad_row_costs_that_row(tmp_path, row, reason):
    file = read(tmp_path, f"{HEADER}{row}\nx,y,same,,,\n")
    assert [(r.row, r.reason.startswith(reason)) for r in file.rejected] == [(0, True)], (
        file.rejected
    )
    assert [decision.pair for decision in file.decisions] == [("x", "y")]


def test_a_row_in_another_encoding_costs_that_row(tmp_path):
    file = read(tmp_path, HEADER.encode() + b"a,b,same,,,caf\xe9\nx,y,same,,,\n")
    assert reasons(file) == [(0, "line 2: column 'note' is not UTF-8")]
    assert len(file.decisions) == 1


def test_a_note_keeps_its_lines(tmp_path):
    file = read(tmp_path, HEADER + 'a,b,same,,,"one\ntwo"\nx,x,same,,,\n')
    assert file.decisions[0].note == "one\ntwo"
    assert file.rejected[0].row == 1


def test_the_latest_decision_about_a_pair_counts(tmp_path):
    file = read(
        tmp_path,
        HEADER + "a,b,same,,2026-01-02,\n"
        "b,a,different,,2026-01-03,\n"
        "a,b,different,,2026-01-01,\n"
        "a,b,same,,,undated\n",
    )
    assert [decision.row for decision in file.decisions] == [1]
    assert [r.decision.row for r in file.repeated] == [0, 2, 3]
    assert [r.decision.row for r in file.contradictions] == [0, 3]
    assert {r.winner.row for r in file.repeated} == {1}


def test_of_equally_late_decisions_different_counts_else_the_last(tmp_path):
    file = read(
        tmp_path,
        HEADER + "a,b,different,,2026-01-02T00:00:00Z,\n"
        "a,b,same,,2026-01-02T01:00:00+01:00,\n"
        "c,d,same,,,first\n"
        "c,d,same,,,second\n",
    )
    assert [d.decision for d in file.decisions] == ["different", "same"]
    assert file.decisions[1].note == "second"
    assert len(file.contradictions) == 1


def parquet(folder, columns, name="decisions.csv"):  # told apart by content, not by name
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def test_parquet_is_read_like_csv(tmp_path):
    path = parquet(
        tmp_path,
        {
            "sku_id_a": pa.array([b"2", None, b"x\xff"], pa.binary()),
            "sku_id_b": pa.array([1, 2, 3], pa.int64()),
            "decision": pa.array(["same", "same", "same"]).dictionary_encode(),
            "decided_at": pa.array([datetime(2026, 1, 31, 18)] * 3, pa.timestamp("ns", "UTC")),
        },
    )
    file = read_decisions(f"file://{path}")
    assert file.decisions == [
        Decision(0, "1", "2", "same", decided_at=datetime(2026, 1, 31, 18, tzinfo=UTC))
    ]
    assert reasons(file) == [
        (1, "sku_id_a is null or blank"),
        (2, "column 'sku_id_a' is not UTF-8"),
    ]


def test_what_is_wrong_with_the_whole_file_is_one_line(tmp_path):
    assert "it is empty" in error_of(tmp_path, "")
    message = error_of(tmp_path, "sku_id_a;sku_id_b;decision\n")
    assert "column 'sku_id_a' not found; there are: 'sku_id_a;sku_id_b;decision'" in message
    assert "comma-separated" in message
    assert "'note' stands 2 times" in error_of(tmp_path, HEADER.strip() + ",note\n")
    assert "header is not UTF-8" in error_of(tmp_path, HEADER.encode("utf-16"))
    path = parquet(tmp_path, {name: ["x"] for name in ("sku_id_a", "sku_id_b", "decision")})
    whole = path.read_bytes()
    assert "not a readable Parquet file" in error_of(tmp_path, whole[: len(whole) // 2])
    assert "ids must be text" in str(
        _error_at(parquet(tmp_path, {"sku_id_a": [1.5], "sku_id_b": ["x"], "decision": ["same"]}))
    )
    assert "not found (--decisions PATH)" in str(_error_at(tmp_path / "absent.csv"))
    assert "Is a directory" in str(_error_at(tmp_path))


def _error_at(path):
    with pytest.raises(ConfigError) as caught:
        read_decisions(str(path))
    return caught.value


@pytest.mark.parametrize("path", ["", " ", "https://u:secret@host/x.csv", "simplecache::file:///x"])
def test_what_is_no_place_for_decisions_is_refused(path):
    message = str(_error_at(path))
    assert message.startswith(("--decisions: expected", "decisions file"))
    assert "secret" not in message


def test_a_missing_object_is_one_line(monkeypatch):
    def gone(location):
        raise FileNotFoundError(location)

    monkeypatch.setattr("dedup_job.io.decisions.open_file", gone)
    assert "s3://bucket/d.csv not found" in str(_error_at("s3://bucket/d.csv?sig=secret"))


TIMES = st.none() | st.integers(1, 3).map(lambda day: datetime(2026, 1, day, tzinfo=UTC))
DECISIONS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("cd"), st.sampled_from(["same", "different"]), TIMES)
)  # fmt: skip


@given(DECISIONS)
def test_every_decision_counts_or_is_beaten(rows):
    decisions = [
        Decision(row, a, b, word, decided_at=at) for row, (a, b, word, at) in enumerate(rows)
    ]
    counted, repeated = _settle(decisions)
    file = DecisionFile(counted, [], repeated)
    assert {d.pair for d in file.decisions} == {d.pair for d in decisions}
    assert len(file.decisions) == len({d.pair for d in file.decisions})
    assert len(file.decisions) + len(file.repeated) == len(decisions)
    for repeated in file.repeated:
        loser, winner = repeated.decision, repeated.winner
        assert winner in file.decisions and winner.pair == loser.pair
        oldest = datetime.min.replace(tzinfo=UTC)
        assert (winner.decided_at or oldest) >= (loser.decided_at or oldest)
        if winner.decided_at == loser.decided_at and winner.decision != loser.decision:
            assert winner.decision == "different"


PHOTOS = "0123456789abcdef"


def test_photos_go_with_their_sku(tmp_path):
    header = "sku_id_a,sku_id_b,decision,photos_a,photos_b\n"
    file = read(
        tmp_path, header + f"b,a,same,{PHOTOS} {PHOTOS[::-1]},{PHOTOS.upper()}\nc,d,same,,\n"
    )
    first, second = file.decisions
    assert first.pair == ("a", "b")
    assert first.photos_a == {PHOTOS} and first.photos_b == {PHOTOS, PHOTOS[::-1]}
    assert second.photos_a is None and second.photos_b is None


@pytest.mark.parametrize(
    ("photos", "reason"),
    [
        ("0123", "photos_a holds '0123'; expected 16 hexadecimal digits"),
        (f"{PHOTOS},{PHOTOS}", "photos_a holds"),
        (" ".join(f"{i:016x}" for i in range(501)), "photos_a names 501 photos, limit 500"),
    ],
)
def test_photos_that_are_none_cost_the_row(tmp_path, photos, reason):
    file = read(tmp_path, f'sku_id_a,sku_id_b,decision,photos_a\na,b,same,"{photos}"\n')
    assert [rejected.reason.startswith(reason) for rejected in file.rejected] == [True]


def test_the_digest_follows_what_is_said(tmp_path):
    rows = ["a,b,same,,,", "a,b,different,,,", "a,c,same,,,", "a,b,same,,2026-01-02,"]
    digests = {read(tmp_path, f"{HEADER}{row}\n").digest() for row in rows}
    assert len(digests) == len(rows)
    assert read(tmp_path, f"{HEADER}{rows[0]}\n").digest() in digests


def test_what_the_gallery_escaped_is_what_it_was(tmp_path):
    header = "sku_id_a,sku_id_b,decision,decided_by,escaped\n"
    rows = "'=cmd(),'b,same,'ann,yes\n'=cmd(),b,same,,\n"
    first, second = read(tmp_path, header + rows).decisions
    assert (first.pair, first.decided_by) == (("=cmd()", "b"), "ann")
    assert second.pair == ("'=cmd()", "b")
