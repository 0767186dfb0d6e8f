"""Driver script of the cluster tests: write one table while an attempt at a task is disturbed.

spark-submit ... table_script.py FAULT FOLDER N_ROWS

FAULT says what attempt 0 of partition 1 does after its first rows: `die` (SIGKILL itself), `wait`
(until FOLDER/go exists; FOLDER/waiting holds its process id) or `sleep` (15 s). Every attempt leaves a mark in FOLDER/attempts. Prints the
names of the files that belong to the table.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from pyspark import TaskContext

from dedup_job.io.session import open_session
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_table
from dedup_job.tables import SCORED_PAIRS, arrow_batch

_N_PARTITIONS = 4


def disturb(fault, folder):
    """A transform of row numbers to SCORED_PAIRS; nested, so that executors get it by value."""

    def transform(batches):
        task = TaskContext.get()
        number, attempt = task.partitionId(), task.attemptNumber()
        (folder / "attempts" / f"partition-{number}-attempt-{attempt}").touch()
        is_first = True
        for batch in batches:
            rows = [
                {"sha_a": f"a{n}", "sha_b": f"b{n}", "cosine": 0.5, "score": None}
                for n in batch.column(0).to_pylist()
            ]
            half = len(rows) // 2
            yield arrow_batch(SCORED_PAIRS, rows[:half])
            if is_first and (number, attempt) == (1, 0):
                hurt()
            is_first = False
            yield arrow_batch(SCORED_PAIRS, rows[half:])

    def hurt():
        if fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "sleep":
            time.sleep(15)
        else:
            (folder / "waiting").write_text(str(os.getpid()))
            deadline = time.monotonic() + 60
            while not (folder / "go").exists() and time.monotonic() < deadline:
                time.sleep(0.05)

    return transform


def main(fault, folder, n_rows):
    (folder / "attempts").mkdir(parents=True)
    spark = open_session("faults")
    numbers = spark.range(0, n_rows, 1, _N_PARTITIONS)
    stored = write_table(
        numbers, SCORED_PAIRS, Folder(str(folder / "table")), disturb(fault, folder)
    )
    print(json.dumps({"files": [file.name for file in stored.files]}, indent=1))
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
