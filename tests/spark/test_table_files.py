import gc
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark import TaskContext

from dedup_job.io.storage import Folder
from dedup_job.io.tables import read_rows, read_table, write_rows, write_table
from dedup_job.tables import SCORED_PAIRS

pytestmark = pytest.mark.spark


def _pairs(spark, n):
    return spark.createDataFrame(
        [(f"a{i}", f"b{i}", i / n, None) for i in range(n)],
        SCORED_PAIRS.ddl.replace(" NOT NULL", ""),
    )


def test_what_is_written_is_read_back(spark, tmp_path):
    stored = write_table(_pairs(spark, 100).repartition(4), SCORED_PAIRS, Folder(str(tmp_path)))
    assert stored.n_rows == 100
    back = {tuple(row) for row in read_table(spark, stored).collect()}
    assert {row[0] for row in back} == {f"a{i}" for i in range(100)}
    assert read_rows(stored).num_rows == 100
    only_b = read_table(spark, stored, ["sha_b"])
    assert only_b.columns == ["sha_b"]
    assert {row.sha_b for row in only_b.collect()} == {f"b{i}" for i in range(100)}


def test_an_empty_table_keeps_its_schema(spark, tmp_path):
    stored = write_rows([], SCORED_PAIRS, Folder(str(tmp_path)))
    assert read_rows(stored).schema.names == SCORED_PAIRS.column_names
    assert read_table(spark, stored).count() == 0
    schema = pq.read_schema(tmp_path / stored.files[0].name)
    assert schema.metadata[b"schema_version"] == b"1"


def test_a_retried_task_neither_loses_nor_doubles_rows(spark, tmp_path):
    def die_once(batches):
        yield from batches
        if TaskContext.get().partitionId() == 1 and TaskContext.get().attemptNumber() == 0:
            os._exit(9)

    frame = _pairs(spark, 60).repartition(3)
    stored = write_table(frame, SCORED_PAIRS, Folder(str(tmp_path)), transform=die_once)
    assert stored.n_rows == 60
    assert len({row["sha_a"] for row in read_rows(stored).to_pylist()}) == 60


def test_the_manifest_hash_is_the_files_hash(tmp_path):
    import hashlib

    row = {"sha_a": "x", "sha_b": "y", "cosine": 0.5}
    stored = write_rows([row], SCORED_PAIRS, Folder(str(tmp_path)))
    data = (tmp_path / stored.files[0].name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == stored.files[0].sha256
    assert len(data) == stored.files[0].n_bytes
    assert isinstance(read_rows(stored), pa.Table)


def test_workers_do_not_collect_what_they_imported(spark, tmp_path):
    """Spark's workers collect in full after every task (docs/adr/0021)."""
    stored = write_table(_pairs(spark, 4), SCORED_PAIRS, Folder(str(tmp_path)))
    written = write_table(
        read_table(spark, stored), SCORED_PAIRS, Folder(str(tmp_path)), transform=_frozen_as_rows
    )
    frozen = [row["cosine"] for row in read_rows(written).to_pylist()]
    assert frozen and min(frozen) > 10_000  # objects


def _frozen_as_rows(batches):
    for _ in batches:
        row = {
            "sha_a": ["a"],
            "sha_b": ["b"],
            "cosine": [float(gc.get_freeze_count())],
            "score": [None],
        }
        yield pa.RecordBatch.from_pydict(row, schema=SCORED_PAIRS.arrow)
