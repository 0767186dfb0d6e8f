"""What one run carries from stage to stage: names, places, figures, and the way to store tables."""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime

from pyspark.sql import DataFrame, SparkSession

from dedup_job.io.lease import Lease
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_table, write_table
from dedup_job.nightly.faults import reach
from dedup_job.nightly.journal import Journal
from dedup_job.tables import Table

logger = logging.getLogger("dedup_job")


@dataclass(frozen=True)
class Metric:
    """A figure of the run; `value` None means it could not be measured."""

    stage: str
    metric: str
    value: float | None
    unit: str


@dataclass
class RunContext:
    """One run. Staging lies below the warehouse, so that publishing is a rename."""

    spark: SparkSession
    warehouse: Folder
    run_date: date
    run_id: str
    started_at: datetime
    lease: Lease
    journal: Journal
    metrics: list[Metric] = field(default_factory=list)
    _stored: Counter[str] = field(default_factory=Counter)

    def store(self, frame: DataFrame, table: Table) -> StoredTable:
        """Compute a table and store it in this run's staging folder."""
        return write_table(frame, table, self.new_folder(table.name))

    def new_folder(self, name: str) -> Folder:
        """A staging folder nobody else uses."""
        return self.journal.folder.child(f"{name}-{uuid.uuid4().hex[:8]}")

    def step(
        self, table: Table, compute: Callable[[Folder], StoredTable], name: str | None = None
    ) -> StoredTable:
        """Compute and store a table once, even over several attempts at this run.

        Args:
            table: what is stored.
            compute: stores it in the folder it is given.
            name: of the step; by default the table's name and how many of it this run has stored,
                which is the same in every attempt, for an attempt takes the same steps in order.
        """
        name = name or self._next_name(table)
        stored = self.journal.find(name, table)
        if stored is None:
            stored = compute(self.new_folder(table.name))
            self.journal.record(name, stored)
        return stored

    def steps(
        self, tables: Sequence[Table], compute: Callable[[Folder], Sequence[StoredTable]]
    ) -> Sequence[StoredTable]:
        """As `step`, for tables that are computed together."""
        names = [self._next_name(table) for table in tables]
        found = [self.journal.find(*step) for step in zip(names, tables, strict=True)]
        known = [stored for stored in found if stored is not None]
        if len(known) == len(tables):
            return known
        computed = compute(self.new_folder(tables[0].name))
        for name, stored in zip(names, computed, strict=True):
            self.journal.record(name, stored)
        return computed

    def _next_name(self, table: Table) -> str:
        self._stored[table.name] += 1
        return f"{table.name}-{self._stored[table.name]}"

    def keep(self, frame: DataFrame, table: Table) -> StoredTable:
        """Compute and store a table once, as a step."""
        return self.step(table, lambda folder: write_table(frame, table, folder))

    def materialise(self, frame: DataFrame, table: Table) -> DataFrame:
        """`keep` a table; give it back as it is read from storage."""
        return read_table(self.spark, self.keep(frame, table))

    def measure(self, stage: str, metric: str, value: float | None, unit: str) -> None:
        """Keep a figure for `run_metrics`."""
        self.metrics.append(Metric(stage, metric, None if value is None else float(value), unit))

    def seconds_of(self, stage: str) -> float:
        """Wall time of a finished stage."""
        return sum(
            metric.value or 0.0
            for metric in self.metrics
            if (metric.stage, metric.metric) == (stage, "wall_time")
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Log a stage and keep its wall time."""
        started = time.monotonic()
        logger.info("%s ...", name)
        yield
        seconds = time.monotonic() - started
        self.measure(name, "wall_time", seconds, "s")
        logger.info("%s done in %.1f s", name, seconds)
        reach(f"after_{name}")
