import os
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


def test_workers_are_spoken_to_over_unix_sockets(spark):
    """Over TCP each task waits some 40 ms for a delayed acknowledgement (docs/adr/0021)."""

    def how(batches):
        for _ in batches:
            said = os.environ.get("PYTHON_UNIX_DOMAIN_ENABLED", "no")
            yield pa.RecordBatch.from_pydict({"said": [said]})

    (row,) = spark.range(1).mapInArrow(how, "said string").collect()
    assert row.said.lower() == "true"
