"""What one run carries from stage to stage: names, places, figures, and the way to store tables."""

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from pyspark.sql import DataFrame, SparkSession

from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_table, write_table
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
    metrics: list[Metric] = field(default_factory=list)

    @property
    def staging(self) -> Folder:
        """This run's own folder for what is not published yet."""
        return self.warehouse.child("_staging", self.run_id)

    def store(self, frame: DataFrame, table: Table) -> StoredTable:
        """Compute a table and store it in this run's staging folder."""
        return write_table(frame, table, self.new_folder(table.name))

    def new_folder(self, name: str) -> Folder:
        """A staging folder nobody else uses."""
        return self.staging.child(f"{name}-{uuid.uuid4().hex[:8]}")

    def materialise(self, frame: DataFrame, table: Table) -> DataFrame:
        """Compute a table once; give it back as it is read from storage."""
        return read_table(self.spark, self.store(frame, table))

    def clean_up(self) -> None:
        """Delete this run's staging. What cannot be deleted is told, and does not fail the run."""
        try:
            self.staging.delete()
        except Exception as error:  # stores raise many types; the run's own outcome stands
            logger.warning("could not delete %s (%s): delete it by hand", self.staging.uri, error)

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


def start_run(spark: SparkSession, warehouse: Folder, run_date: date | None) -> RunContext:
    """Name a run. `run_date` defaults to today in UTC."""
    now = datetime.now(UTC)
    run_id = f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
    warehouse.create()
    return RunContext(spark, warehouse, run_date or now.date(), run_id, now)
