"""The newest published run as Spark frames that find it anew whenever they are computed."""

from collections.abc import Iterator
from datetime import date
from functools import partial

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from dedup_job.io.manifests import RunManifest, find_table, read_manifest
from dedup_job.io.storage import Folder
from dedup_job.io.tables import read_batches
from dedup_job.tables import Table

_BATCH_ROWS = 4_096


def read_latest(spark: SparkSession, warehouse: Folder, table: Table) -> DataFrame:
    """A report table of the run that `latest.json` names when the frame is computed.

    Spark itself lists files when a query is planned and opens them later, by the length they had:
    of a file that was replaced in between it may read nothing, without an error. So one task reads
    the manifest and then the files that it names, which never change. If they are deleted
    meanwhile the task fails, and Spark's next attempt finds the run of then.

    Returns:
        The table's columns after `run_date`; one partition.
    """
    task = partial(_read, warehouse=warehouse, table=table)
    ddl = f"`run_date` date NOT NULL, {table.ddl}"
    return spark.range(0, 1, 1, 1).mapInArrow(task, ddl)


def dated_schema(table: Table) -> pa.Schema:
    """The table's Arrow schema with `run_date` in front."""
    return pa.schema([pa.field("run_date", pa.date32(), False), *table.arrow])


def read_dated(
    warehouse: Folder, manifest: RunManifest, table: Table, n_rows: int = _BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Stream a report table of a run as `dated_schema`."""
    schema = dated_schema(table)
    run_date = pa.scalar(date.fromisoformat(manifest.run_date))
    for rows in read_batches(
        find_table(warehouse, manifest, table.name), table.column_names, n_rows
    ):
        for batch in rows.to_batches():
            dates = pa.repeat(run_date, batch.num_rows)
            yield pa.RecordBatch.from_arrays([dates, *batch.columns], schema=schema)


def _read(
    batches: Iterator[pa.RecordBatch], warehouse: Folder, table: Table
) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        yield from read_dated(warehouse, read_manifest(warehouse), table)
