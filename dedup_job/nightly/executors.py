"""What the executors say of themselves: asked in a tiny Spark job, before photos depend on it."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from dedup_job.errors import one_line
from dedup_job.io.bundles import ShippedBundle, load_shipped
from dedup_job.io.machine import Machine, read_machine
from dedup_job.io.storage import Folder
from dedup_job.io.warehouse_access import WarehouseAccess, look_at_warehouse

ANSWER_DDL = "answer string"
# Tasks that end at once are all taken by the first core that is free; these leave time for others.
_TASKS_PER_CORE = 2
_MIN_TASK_S = 1.0
_JAVA = "java_method('java.lang.System', 'getProperty', 'java.version') AS java"


@dataclass(frozen=True)
class Executor:
    """One executor as its Python workers find it.

    Attributes:
        machine: where it runs.
        n_workers: Python workers that answered: the tasks that it runs at once.
        java: version of its JVM.
        model_problem: why the model cannot be used there; '' when its golden vectors agree.
        warehouse: how it finds the warehouse; None when none was asked for.
    """

    machine: Machine
    n_workers: int
    java: str
    model_problem: str
    warehouse: WarehouseAccess | None


@dataclass(frozen=True)
class _Look:
    """What a task runs: looks around, once a worker, and answers in one row of JSON."""

    bundle: ShippedBundle | None
    n_threads: int
    warehouse: Folder | None

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        started = time.monotonic()
        java = [java for batch in batches for java in batch.column(1).to_pylist()]
        problem = self._try_model()
        access = look_at_warehouse(self.warehouse) if self.warehouse else None
        yield answer_batch(
            {
                "machine": asdict(_machine()),  # after the model: with the address space it takes
                "executor": os.environ.get("SPARK_LOCAL_DIRS", ""),
                "pid": os.getpid(),
                "java": java[0],
                "model_problem": problem,
                "warehouse": asdict(access) if access else None,
            }
        )
        time.sleep(max(0.0, _MIN_TASK_S - (time.monotonic() - started)))

    def _try_model(self) -> str:
        if self.bundle is None:
            return ""
        try:
            load_shipped(self.bundle, self.n_threads)
        except Exception as error:  # whatever it is, it would end every task of the night
            return one_line(error)
        return ""


@lru_cache(maxsize=1)
def _machine() -> Machine:
    return read_machine()


def ask_executors(
    spark: SparkSession,
    n_cores: int,
    bundle: ShippedBundle | None,
    n_threads: int,
    warehouse: Folder | None,
) -> list[Executor]:
    """Ask every executor that is there; those that join later are not known.

    Args:
        spark: the session.
        n_cores: tasks that run at once.
        bundle: the model to try, as it was shipped; None: no model.
        n_threads: threads of a task.
        warehouse: to look at; None: none.
    """
    n_tasks = _TASKS_PER_CORE * n_cores
    tasks = spark.range(0, n_tasks, 1, n_tasks).selectExpr("id", _JAVA)
    rows = tasks.mapInArrow(_Look(bundle, n_threads, warehouse), ANSWER_DDL).collect()
    return gather([json.loads(row.answer) for row in rows], n_cores)


def gather(answers: Sequence[dict[str, Any]], n_cores: int) -> list[Executor]:
    """One Executor of all answers with the same host and local folders, in the order of hosts.

    Args:
        answers: as the tasks gave them.
        n_cores: tasks that run at once in all; idle workers of earlier jobs may answer as well.
    """
    by_executor: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for answer in answers:
        key = (answer["machine"]["host"], answer["executor"])
        by_executor.setdefault(key, []).append(answer)
    return [_executor(by_executor[key], n_cores) for key in sorted(by_executor)]


def answer_batch(answer: dict[str, Any]) -> pa.RecordBatch:
    """One row of JSON, as ANSWER_DDL says."""
    return pa.RecordBatch.from_pydict({"answer": pa.array([json.dumps(answer)], pa.string())})


def _executor(answers: Sequence[dict[str, Any]], n_cores: int) -> Executor:
    last = answers[-1]
    problems = [answer["model_problem"] for answer in answers if answer["model_problem"]]
    access = last["warehouse"]
    return Executor(
        machine=Machine(**last["machine"]),
        n_workers=min(n_cores, len({answer["pid"] for answer in answers})),
        java=last["java"] or "",
        model_problem=problems[0] if problems else "",
        warehouse=WarehouseAccess(**access) if access else None,
    )
