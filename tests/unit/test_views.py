"""The views for DuckDB: the newest whole run, whatever is published meanwhile."""

import json
import re
from datetime import date

import duckdb
import pytest

from dedup_job.cli import main
from dedup_job.commands.views import VIEWS, view_statements
from dedup_job.errors import ConfigError
from dedup_job.io.publish import place_partition, store_run_tables
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from tests.unit.warehouses import publish, row_of


@pytest.fixture
def warehouse(tmp_path):
    return Folder(str(tmp_path))


def night(warehouse, run_id, n_rows, run_date, is_published=True):
    staged = {
        table.name: write_rows(
            [row_of(table, run_id=run_id)] * n_rows,
            table,
            warehouse.child("_staging", run_id, table.name),
        )
        for table in VIEWS.values()
    }
    tables = store_run_tables(staged, warehouse, run_id)
    for name, table in tables.items():
        place_partition(table, warehouse.child(name, f"run_date={run_date}"))
    if is_published:
        publish(warehouse, run_id, tables, run_date=run_date)


@pytest.fixture
def ask(warehouse):
    """Run the printed statements once, after the first night; later only ask."""
    night(warehouse, "r1", 2, "2026-01-01")
    connection = duckdb.connect()
    for statement in view_statements(warehouse.uri, "duckdb"):
        connection.execute(statement)

    def count(view):
        query = f"SELECT run_id, run_date, count(*) FROM {view} GROUP BY ALL"
        return connection.execute(query).fetchall()

    return count


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_follows_the_newest_run(warehouse, ask, view):
    assert ask(view) == [("r1", date(2026, 1, 1), 2)]
    night(warehouse, "r2", 3, "2026-01-02")
    assert ask(view) == [("r2", date(2026, 1, 2), 3)]
    night(warehouse, "r3", 5, "2026-01-01")  # a backfill
    assert ask(view) == [("r2", date(2026, 1, 2), 3)]
    night(warehouse, "r4", 0, "2026-01-02")  # a night without duplicates
    assert ask(view) == []
    night(warehouse, "r5", 1, "2026-01-03", is_published=False)  # not yet, or never
    assert ask(view) == []


def test_a_run_that_was_published_after_files_were_listed_shows_the_one_before(warehouse, ask):
    night(warehouse, "r2", 3, "2026-01-02")
    warehouse.child("_runs", "r2").delete()  # as if they had come too late for the list
    assert ask("current_duplicates") == [("r1", date(2026, 1, 1), 2)]
    latest = json.loads(warehouse.child("_runs").read_bytes("latest.json"))
    latest["previous"] = {}
    warehouse.child("_runs").replace_bytes("latest.json", json.dumps(latest).encode())
    with pytest.raises(duckdb.Error, match="run the query again"):
        ask("current_duplicates")


def test_only_the_files_of_one_run_are_read(warehouse, ask):
    for number in range(2, 9):
        night(warehouse, f"r{number}", 3, "2026-01-02")
    connection = duckdb.connect()
    connection.execute(view_statements(warehouse.uri, "duckdb")[0])
    plan = connection.execute(
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT run_id FROM current_duplicates"
    ).fetchall()[0][1]
    assert set(re.findall(r'"Total Files Read": "(\d+)"', plan)) == {"1"}


@pytest.mark.parametrize("dialect", ["duckdb", "spark"])
def test_the_command_prints_a_statement_a_view(tmp_path, capsys, dialect):
    assert main(["views", "--warehouse", str(tmp_path), "--dialect", dialect]) == 0
    printed = capsys.readouterr().out
    assert [name for name in VIEWS if re.search(rf"VIEW {name} AS\n", printed)] == list(VIEWS)
    assert printed.count(";\n") == len(VIEWS)


def test_a_warehouse_whose_name_is_a_pattern_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"holds ' \*, which mean something else"):
        view_statements(str(tmp_path / "it's*"), "duckdb")
    with pytest.raises(ConfigError, match="a\ufffdb holds \ufffd, which mean"):
        view_statements(str(tmp_path / "a\x1bb"), "duckdb")


def test_a_warehouse_may_be_named_by_its_parent(warehouse, tmp_path):
    night(warehouse, "r1", 2, "2026-01-01")
    (tmp_path / "beside").mkdir()
    connection = duckdb.connect()
    connection.execute(view_statements(f"{tmp_path}/beside/..", "duckdb")[0])
    assert connection.execute("SELECT count(*) FROM current_duplicates").fetchone() == (2,)
