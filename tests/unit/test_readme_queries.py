"""The README's queries, run by DuckDB as they stand there, on a small published warehouse."""

import re
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.tables import DUPLICATE_GROUPS, DUPLICATE_PAIRS, REJECTED_IMAGES, RUNS, Table

README = Path(__file__).parents[2] / "README.md"
DATES = (date(2026, 11, 22), date(2026, 11, 23))
_FILL = {
    "string": "x",
    "boolean": False,
    "int": 1,
    "bigint": 1,
    "float": 0.5,
    "double": 0.5,
    "date": DATES[0],
    "timestamp": datetime(2026, 11, 23, tzinfo=UTC),
}


def _row(table: Table, **values: object) -> dict[str, object]:
    assert set(values) <= set(table.column_names)
    blank = {c.name: None if c.nullable else _FILL[c.type] for c in table.columns}
    return {**blank, **values}


def _group_row(sku: str, keep: str, cosine: float) -> dict[str, object]:
    return _row(
        DUPLICATE_GROUPS,
        sku_id=sku,
        canonical_sku_id=keep,
        is_canonical=sku == keep,
        cosine_to_canonical=cosine,
        match_type="near",
    )


def _pair_row(a: str, b: str, probability: float, parted_by: str | None) -> dict[str, object]:
    return _row(
        DUPLICATE_PAIRS,
        sku_id_a=a,
        sku_id_b=b,
        match_probability=probability,
        parted_by=parted_by,
    )


def _reject_row(run_id: str, reason: str) -> dict[str, object]:
    return _row(REJECTED_IMAGES, reason=reason, run_id=run_id)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    home = Folder(str(tmp_path_factory.mktemp("warehouse")))
    tonight = {
        DUPLICATE_GROUPS: [
            _group_row("A", "A", 1.0),
            _group_row("C", "A", 0.91),
            _group_row("B", "A", 0.98),
        ],
        DUPLICATE_PAIRS: [
            _pair_row("A", "B", 0.99, None),
            _pair_row("A", "C", 0.6, None),
            _pair_row("B", "D", 0.97, "chaining"),
        ],
        REJECTED_IMAGES: [_reject_row("r1", r) for r in ("corrupt", "not_found", "not_found")],
    }
    before = {
        DUPLICATE_GROUPS: [_group_row("OLD", "A", 0.99)],
        DUPLICATE_PAIRS: [_pair_row("A", "OLD", 0.1, "chaining")],
        REJECTED_IMAGES: [_reject_row("r0", "timeout")],
    }
    for n, (day, tables) in enumerate(zip(DATES, (before, tonight), strict=True)):
        tables[RUNS] = [_row(RUNS, run_id=f"r{n}", n_catalog_rows=200)]
        for table, rows in tables.items():
            write_rows(rows, table, home.child(table.name, f"run_date={day}"))
    return home.uri


def _queries() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


EXPECTED = [
    [("B", "A", "near", 0.98), ("C", "A", "near", 0.91)],
    [
        ("B", "D", "x", "x", pytest.approx(0.97), "chaining"),
        ("A", "C", "x", "x", pytest.approx(0.6), None),
    ],
    [
        (DATES[1], "not_found", 2, 1.0),
        (DATES[1], "corrupt", 1, 0.5),
        (DATES[0], "timeout", 1, 0.5),
    ],
]


def test_the_readme_has_the_queries_that_are_tested():
    assert len(_queries()) == len(EXPECTED)


@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_query_answers_its_question(number, warehouse):
    query = _queries()[number]
    assert "'warehouse/" in query
    rows = duckdb.connect().execute(query.replace("'warehouse/", f"'{warehouse}/")).fetchall()
    rounded = [tuple(round(v, 4) if isinstance(v, float) else v for v in row) for row in rows]
    assert rounded == EXPECTED[number]
