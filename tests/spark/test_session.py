import sys

import pyarrow as pa
import pytest

pytestmark = pytest.mark.spark


def test_workers_run_on_this_interpreter(spark):
    def where(batches):
        for _ in batches:
            yield pa.RecordBatch.from_pydict({"python": [sys.executable]})

    (row,) = spark.range(1).mapInArrow(where, "python string").collect()
    assert row.python == sys.executable


def test_a_failed_task_is_tried_again(spark):
    assert spark.conf.get("spark.master").endswith(",4]")
