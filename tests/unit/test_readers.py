"""Readers who poll a date while it is published ten times; none may see a mixture, an error or a gap."""

from collections import Counter

import duckdb
import pyarrow.dataset as ds
import pytest

from dedup_job.commands.views import view_statements
from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.tables import read_rows
from dedup_job.tables import DUPLICATE_GROUPS
from tests.republish import TABLES, poll_while_republished, publish_again

NAME = DUPLICATE_GROUPS.name


def pyarrow_glob(warehouse):
    def read():
        dataset = ds.dataset(f"{warehouse.uri}/{NAME}", format="parquet", partitioning="hive")
        return dict(Counter(dataset.to_table(["run_id"])["run_id"].to_pylist()))

    return read


def duckdb_query(source, *before):
    connection = duckdb.connect()
    for statement in before:
        connection.execute(statement)

    def read():
        query = f"SELECT run_id, count(*) FROM {source} GROUP BY run_id"
        return dict(connection.execute(query).fetchall())

    return read


def by_manifest(warehouse):
    """All tables, which must be of one run."""

    def read():
        manifest = read_manifest(warehouse)
        found = [
            Counter(read_rows(find_table(warehouse, manifest, table.name))["run_id"].to_pylist())
            for table in TABLES
        ]
        assert all(one == found[0] for one in found) and set(found[0]) == {manifest.run_id}
        return dict(found[0])

    return read


def test_readers_by_glob_manifest_and_view_see_whole_runs_only(tmp_path):
    warehouse = Folder(str(tmp_path))
    publish_again(warehouse, 0)
    readers = {
        "pyarrow": pyarrow_glob(warehouse),
        "duckdb": duckdb_query("current_duplicates", *view_statements(warehouse.uri, "duckdb")),
        "manifest": by_manifest(warehouse),
    }
    poll_while_republished(warehouse, readers)


def test_on_an_object_store_readers_by_manifest_see_whole_runs_only(s3_server, tmp_path):
    s3_server.create_bucket("readers-test")
    warehouse = open_warehouse(f"s3://readers-test/{tmp_path.name}")
    publish_again(warehouse, 0)
    poll_while_republished(
        warehouse, {"one": by_manifest(warehouse), "two": by_manifest(warehouse)}
    )


def test_a_reader_that_sees_a_mixture_or_a_gap_is_caught(tmp_path):
    warehouse = Folder(str(tmp_path))
    publish_again(warehouse, 0)
    for wrong in ({"r0": 7, "r1": 6_000}, {}, {"r0": 6}):
        with pytest.raises(AssertionError):
            poll_while_republished(warehouse, {"wrong": lambda wrong=wrong: wrong})
