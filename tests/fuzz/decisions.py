"""The decisions reader: every row counts, is repeated or is rejected; a pair has one decision.

A case is the file.
"""

import random
import tempfile
from pathlib import Path

from dedup_job.errors import ConfigError
from dedup_job.io.decisions import (
    COLUMNS,
    MAX_ID_CHARS,
    MAX_NOTE_CHARS,
    WORDS,
    Decision,
    DecisionFile,
    read_decisions,
)
from tests.fuzz.catalogs import check_count, check_error
from tests.fuzz.mutate import below, pick
from tests.fuzz.tables import ODD_TEXTS, Row, damage, write_csv, write_parquet
from tests.fuzz.targets import expect

_TIMES = (
    *(None, "", "2026-01-31", "2026-01-31T18:00:00Z", "2026-01-31 18:00:00.123456+01:00", "2026-W05"),
    *("20260131T180000", "31.1.2026", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "now"),
    *("2026-02-30", "2026-01-31T24:00:00", "1769882400", "2026-01-31T18:00:00+99:00"),
)  # fmt: skip
_WORDS = (
    *WORDS * 6,
    "Same",
    " different ",
    "SAME",
    "maybe",
    "",
    None,
    "\u017fame",
    "samé",
    "same\x00",
)


def open_target() -> "DecisionTarget":
    """The target."""
    return DecisionTarget()


class DecisionTarget:
    """`read_decisions`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-decisions-")
        self._path = Path(self._folder.name) / "decisions"

    def corpus(self) -> list[bytes]:
        return []

    def make(self, rng: random.Random) -> bytes:
        rows = [_write_row(rng) for _ in range(below(rng, 20))]
        names = list(COLUMNS)
        if rng.random() < 0.2:
            rng.shuffle(names)
        if rng.random() < 0.1:
            del names[below(rng, len(names))]
        data = pick(rng, (write_csv, write_csv, write_parquet))(rng, names, rows)
        return damage(rng, data, data)

    def run(self, case: bytes) -> str:
        self._path.write_bytes(case)
        try:
            file = read_decisions(str(self._path))
        except ConfigError as error:
            check_error(error)
            return "ConfigError"
        check_file(file)
        if case[:4] != b"PAR1":
            check_count(case, "csv", [*file.decisions, *file.repeated, *file.rejected])
        return "ok"


def check_file(file: DecisionFile) -> None:
    """What `read_decisions` promises of any file."""
    said = [*file.decisions, *(repeated.decision for repeated in file.repeated)]
    rows = sorted([*(decision.row for decision in said), *(bad.row for bad in file.rejected)])
    expect(len(rows) == len(set(rows)), "a row ends in two places")
    pairs = [decision.pair for decision in file.decisions]
    expect(len(pairs) == len(set(pairs)), "a pair has two decisions")
    for decision in said:
        _check_decision(decision)
    for bad in file.rejected:
        is_line = len(bad.reason.splitlines()) == 1
        expect(is_line and len(bad.reason) < 500, f"reason {bad.reason!r}")
    for repeated in file.repeated:
        expect(repeated.winner in file.decisions, "the winner does not count")
        expect(repeated.winner.pair == repeated.decision.pair, "another pair")


def _check_decision(decision: Decision) -> None:
    smaller, larger = decision.pair
    expect(smaller < larger, f"pair {decision.pair}")
    for sku in decision.pair:
        expect(bool(sku.strip()) and len(sku) <= MAX_ID_CHARS, f"id {sku!r}")
        expect(not set(sku) & set(map(chr, range(32))), f"id {sku!r}")
        sku.encode()
    expect(decision.decision in WORDS, decision.decision)
    expect(len(decision.note or "") <= MAX_NOTE_CHARS, "a long note")
    time = decision.decided_at
    expect(time is None or str(time.tzinfo) == "UTC", f"time {time!r}")


def _write_row(rng: random.Random) -> Row:
    row: Row = {
        "sku_id_a": f"{below(rng, 6):03}",
        "sku_id_b": f"{below(rng, 6):03}",
        "decision": pick(rng, _WORDS),
        "decided_by": pick(rng, ("ann", "bob", None)),
        "decided_at": pick(rng, _TIMES),
        "note": pick(rng, ("", None, "two\nlines", "x" * 3000)) if rng.random() < 0.3 else None,
    }
    if rng.random() < 0.2:
        row[pick(rng, COLUMNS)] = pick(rng, (*ODD_TEXTS, None))
    return row
