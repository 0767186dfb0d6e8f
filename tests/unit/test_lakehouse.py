"""Reports as Delta and Iceberg tables, read back by the libraries that others read them with."""

import subprocess
import sys

import deltalake
import duckdb
import pytest

from dedup_job.commands.lakehouse import export_delta, export_iceberg, open_iceberg
from dedup_job.errors import ConfigError
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.tables import DUPLICATE_GROUPS, GROUP_CHANGES, REPORT_TABLES
from tests.unit.warehouses import publish, row_of

NIGHTS = ("2026-11-23", "2026-11-24")


def publish_night(warehouse, run_id, run_date, skus):
    rows = {table: [row_of(table, run_id=run_id)] for table in REPORT_TABLES}
    rows[DUPLICATE_GROUPS] = [row_of(DUPLICATE_GROUPS, sku_id=s, run_id=run_id) for s in skus]
    rows[GROUP_CHANGES] = [row_of(GROUP_CHANGES, added_sku_ids=list(skus), run_id=run_id)]
    place = warehouse.child("t", run_id)
    stored = {t.name: write_rows(r, t, place.child(t.name)) for t, r in rows.items()}
    publish(warehouse, run_id, stored, run_date=run_date)


@pytest.fixture
def warehouse(tmp_path):
    """Two nights, the second published twice: the second time with c instead of b."""
    folder = Folder(str(tmp_path / "warehouse"))
    publish_night(folder, "r1", NIGHTS[0], "a")
    publish_night(folder, "r2", NIGHTS[1], "ab")
    publish_night(folder, "r3", NIGHTS[1], "ac")
    return folder.uri


def read_delta(out, table):
    return deltalake.DeltaTable(f"{out}/{table}").to_pyarrow_table().to_pylist()


def read_iceberg(out, table):
    return open_iceberg(str(out)).load_table(("dedup", table)).scan().to_arrow().to_pylist()


@pytest.mark.parametrize(
    ("export", "read"), [(export_delta, read_delta), (export_iceberg, read_iceberg)]
)
def test_each_date_is_there_once_as_it_was_exported_last(warehouse, tmp_path, export, read):
    out = tmp_path / "lake"
    for run_id in ("r1", "r2", "r3", "r3"):
        exported = export(warehouse, str(out), run_id)
        assert exported.keys() == {table.name for table in REPORT_TABLES}
        assert exported["duplicate_groups"] == (1 if run_id == "r1" else 2)
    rows = read(out, "duplicate_groups")
    seen = sorted((row["run_date"].isoformat(), row["sku_id"], row["run_id"]) for row in rows)
    assert seen == [(NIGHTS[0], "a", "r1"), (NIGHTS[1], "a", "r3"), (NIGHTS[1], "c", "r3")]
    assert list(rows[0]) == ["run_date", *DUPLICATE_GROUPS.column_names]
    changes = {row["run_id"]: row["added_sku_ids"] for row in read(out, "group_changes")}
    assert changes == {"r1": ["a"], "r3": ["a", "c"]}
    for table in REPORT_TABLES:
        assert len({row["run_id"] for row in read(out, table.name)}) == 2


def test_a_delta_table_is_read_by_duckdb_through_arrow(warehouse, tmp_path):
    export_delta(warehouse, str(tmp_path / "lake"))
    groups = deltalake.DeltaTable(f"{tmp_path}/lake/duplicate_groups").to_pyarrow_dataset()
    with duckdb.connect() as connection:
        connection.register("groups", groups)
        found = connection.execute("SELECT count(*) FROM groups WHERE run_date = DATE '2026-11-24'")
        assert found.fetchone() == (2,)


@pytest.mark.parametrize("export", [export_delta, export_iceberg])
def test_a_place_that_cannot_be_written_is_told(warehouse, tmp_path, export):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"--out .* cannot be written"):
        export(warehouse, str(tmp_path / "file" / "below"))


@pytest.mark.parametrize(("kind", "package"), [("delta", "deltalake"), ("iceberg", "pyiceberg")])
def test_without_the_extra_its_name_is_told(warehouse, tmp_path, kind, package):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from dedup_job.cli import main\n"
        f"sys.exit(main(['export-{kind}', '--warehouse', {warehouse!r}, '--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{package} is not installed: pip install 'catalog-dedup[lakehouse]'" in done.stderr
