"""`export-csv` against a small warehouse written row by row, without Spark."""

import csv
import io
from datetime import UTC, datetime

import duckdb
import numpy as np
import pytest

from dedup_job.cli import main
from dedup_job.commands.export_csv import TABLE_NAMES, csv_cell, export_csv
from dedup_job.errors import ConfigError, DedupError
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.tables import DUPLICATE_GROUPS, GROUP_CHANGES, REJECTED_IMAGES, REPORT_TABLES
from tests.unit.warehouses import publish, row_of

NAMES = ["00123", "=cmd|'/C calc'!A0", 'a "quoted", one', "Größe\n38", "-5", ""]


@pytest.fixture
def warehouse(tmp_path):
    folder = Folder(str(tmp_path / "warehouse"))
    for run_id, names in (("r1", ["old"]), ("r2", NAMES)):
        tables = {table.name: [row_of(table)] for table in REPORT_TABLES}
        tables[DUPLICATE_GROUPS.name] = [
            row_of(DUPLICATE_GROUPS, sku_id=name, cosine_to_canonical=-0.91, variant_group=None)
            for name in names
        ]
        tables[GROUP_CHANGES.name] = [row_of(GROUP_CHANGES, added_sku_ids=['=1"', "B;=2"])]
        stored = {
            table.name: write_rows(
                tables[table.name], table, folder.child("_runs", run_id, table.name)
            )
            for table in REPORT_TABLES
        }
        publish(folder, run_id, stored, run_date=f"2026-11-2{run_id[1]}")
    return folder


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def test_a_table_becomes_a_csv_file_of_rfc_4180(warehouse, tmp_path):
    out = tmp_path / "groups.csv"
    out.write_bytes(b"an older export")
    assert export_csv(warehouse.uri, "duplicate_groups", str(out)) == len(NAMES)
    data = out.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf") and data.endswith(b"\r\n")
    assert data.count(b"\n") == data.count(b"\r\n") == len(NAMES) + 1
    rows = rows_of(out)
    assert list(rows[0]) == DUPLICATE_GROUPS.column_names
    assert [row["sku_id"] for row in rows] == [
        "00123", "'=cmd|'/C calc'!A0", 'a "quoted", one', "Größe\ufffd38", "'-5", "",
    ]  # fmt: skip
    # Numbers stay numbers, and a float32 is not written with the digits of a float64.
    assert {row["cosine_to_canonical"] for row in rows} == {"-0.91"}
    assert {(row["is_canonical"], row["group_first_seen"]) for row in rows} == {
        ("false", "2026-11-23")
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["groups.csv", "warehouse"]


def test_other_readers_agree(warehouse, tmp_path):
    out = tmp_path / "groups.csv"
    export_csv(warehouse.uri, "duplicate_groups", str(out))
    rows = duckdb.execute(
        "SELECT sku_id, cosine_to_canonical FROM read_csv(?, all_varchar = true, "
        "allow_quoted_nulls = false)",
        [str(out)],
    ).fetchall()
    assert rows == [(row["sku_id"], row["cosine_to_canonical"]) for row in rows_of(out)]


@pytest.mark.parametrize("table", TABLE_NAMES)
def test_every_report_table_can_be_written(warehouse, tmp_path, table):
    assert export_csv(warehouse.uri, table, str(tmp_path / "x.csv")) >= 1
    assert rows_of(tmp_path / "x.csv")


def test_a_list_is_one_cell_of_json(warehouse, tmp_path):
    export_csv(warehouse.uri, "group_changes", str(tmp_path / "x.csv"))
    assert rows_of(tmp_path / "x.csv")[0]["added_sku_ids"] == '["=1\\"", "B;\'=2"]'


def test_a_certain_run_is_written(warehouse, tmp_path):
    assert export_csv(warehouse.uri, "duplicate_groups", str(tmp_path / "x.csv"), "r1") == 1
    assert rows_of(tmp_path / "x.csv")[0]["sku_id"] == "old"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""), ("", '""'), (True, "true"), (-3, "-3"), (np.float32(0.1), "0.1"),
        (float("nan"), ""), (float("-inf"), ""), (1e-9, "1e-09"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
    ],
)  # fmt: skip
def test_a_value_becomes_a_cell(value, cell):
    assert csv_cell(value) == cell


def test_what_cannot_be_done_is_one_line(warehouse, tmp_path):
    out = tmp_path / "x.csv"
    with pytest.raises(ConfigError, match=r"no report table 'catalog_images'; the tables are dup"):
        export_csv(warehouse.uri, "catalog_images", str(out))
    with pytest.raises(DedupError, match="holds no run r9"):
        export_csv(warehouse.uri, "runs", str(out), "r9")
    with pytest.raises(ConfigError, match=r"--out \. is a folder"):
        export_csv(warehouse.uri, "runs", ".")
    with pytest.raises(ConfigError, match=r"--out .* cannot be written: "):
        export_csv(warehouse.uri, "runs", str(tmp_path / "none" / "x.csv"))
    out.write_bytes(b"an older export")
    folder = warehouse.child("_runs", "r2", REJECTED_IMAGES.name)
    folder.replace_bytes(folder.file_names()[0], b"PAR1 damaged")
    with pytest.raises(DedupError, match="cannot be read"):
        export_csv(warehouse.uri, "rejected_images", str(out))
    folder.delete()
    with pytest.raises(DedupError, match="cannot be read"):
        export_csv(warehouse.uri, "rejected_images", str(out))
    assert out.read_bytes() == b"an older export"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["warehouse", "x.csv"]


def test_the_command_line_exports_a_run_and_complains_safely(warehouse, tmp_path, capsys):
    out = tmp_path / "old.csv"
    command = ["export-csv", "duplicate_groups", "--warehouse", warehouse.uri, "--out", str(out)]
    assert main([*command, "--run-id", "r1"]) == 0
    assert [row["sku_id"] for row in rows_of(out)] == ["old"]
    assert main(["export-csv", "no\x1b[2Jtable", "--warehouse", warehouse.uri, "--out", "x"]) == 2
    said = capsys.readouterr()
    assert said.out == f"1 rows written to {out}\n"
    assert said.err.startswith("error: no report table") and "\x1b" not in said.err
