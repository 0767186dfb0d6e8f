"""Spark readers who poll a date while it is published ten times, through the views."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql.functions import col

from dedup_job.commands.views import _AGAIN, VIEWS, create_views, view_statements
from dedup_job.io.storage import Folder, open_warehouse
from tests.republish import Found, n_rows_of, poll_while_republished, publish_again

pytestmark = pytest.mark.spark


def counting(spark, view) -> Callable[[], Found]:
    query = f"SELECT run_id, count(*) FROM {view} GROUP BY run_id"
    return lambda: {row[0]: row[1] for row in spark.sql(query).collect()}


def test_the_views_of_a_session_see_whole_runs_only(spark, tmp_path):
    warehouse = Folder(str(tmp_path))
    publish_again(warehouse, 0)
    create_views(spark, warehouse.uri)
    poll_while_republished(warehouse, {"spark": counting(spark, "current_duplicates")})


def test_the_views_of_a_session_read_object_stores(spark, s3_server, tmp_path):
    s3_server.create_bucket("spark-readers-test")
    warehouse = open_warehouse(f"s3://spark-readers-test/{tmp_path.name}")
    create_views(spark, warehouse.uri)  # also before there is a run
    for number in range(3):
        run_id = publish_again(warehouse, number)
        assert counting(spark, "current_pairs")() == {run_id: n_rows_of(run_id)}


def test_the_printed_views_follow_the_newest_run_or_say_to_ask_again(spark, tmp_path):
    warehouse = Folder(str(tmp_path))
    publish_again(warehouse, 0)
    for statement in view_statements(warehouse.uri, "spark"):
        spark.sql(statement)
    for view in VIEWS:
        assert counting(spark, view)() == {"r0": n_rows_of("r0")}
    planned = spark.table("current_duplicates")
    nothing = planned.where(col("group_size") == 99)
    for number in (1, 2):
        run_id = publish_again(warehouse, number)
        assert counting(spark, "current_duplicates")() == {run_id: n_rows_of(run_id)}
    for frame in (planned, nothing):
        with pytest.raises(Exception, match=_AGAIN):
            frame.collect()


def test_a_plain_path_is_not_safe_in_spark_which_is_why_there_are_views(spark, tmp_path):
    """Spark reads a file by the length that it had when the query was planned."""
    shown = tmp_path / "table" / "part-00000.parquet"
    shown.parent.mkdir()
    for number, n_rows in enumerate((10, 5_000)):
        written = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"run": [number] * n_rows, "row": range(n_rows)}), written)
        written.replace(shown)
        if number == 0:
            planned = spark.read.parquet(str(shown.parent)).select("run")
    try:
        n_rows = len(planned.collect())
    except Exception:  # a version that notices
        n_rows = -1
    assert n_rows not in (10, 5_000)
    assert spark.read.parquet(str(shown.parent)).count() == 5_000
