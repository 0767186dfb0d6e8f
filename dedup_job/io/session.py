"""The Spark session: built for this machine, or taken as spark-submit gives it."""

import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dedup_job.errors import DedupError

# Set only where the user has not. Rows are small (URIs, vectors), so Arrow batches of a few hundred
# keep worker memory flat; Spark's INT96 timestamps are unreadable elsewhere.
_DEFAULTS = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.adaptive.enabled": "true",
    # Spark cannot know how large a table is that Python workers read, takes it for tiny and would
    # broadcast the embeddings of a catalog. Measured sizes, after a shuffle, it may act on.
    "spark.sql.autoBroadcastJoinThreshold": "-1",
    "spark.sql.adaptive.autoBroadcastJoinThreshold": "10m",
    "spark.ui.showConsoleProgress": "false",
    "spark.python.worker.faulthandler.enabled": "true",
}
# Only for a session of our own: four attempts a task, as a cluster gives (plain local[*] gives one).
_LOCAL_DEFAULTS = {
    "spark.ui.enabled": "false",
    # Over TCP every Python task waits some 40 ms for a delayed acknowledgement.
    "spark.python.unix.domain.socket.enabled": "true",
    "spark.python.daemon.module": "dedup_job.io.python_daemon",
    "spark.driver.memory": "2g",
    "spark.sql.shuffle.partitions": str(os.cpu_count() or 2),
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}
_LARGE = {"spark.driver.memory": "4g", "spark.sql.shuffle.partitions": "64"}


def open_session(app_name: str = "catalog-dedup", is_large: bool = False) -> SparkSession:
    """Return the active session, the one spark-submit describes, or a local one.

    Under spark-submit no master is set and nothing the user set is overridden. Otherwise the
    session runs on all cores of this machine with workers on this very interpreter.

    Args:
        app_name: what Spark shows.
        is_large: a local session is to join millions of rows.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    builder = SparkSession.builder.appName(app_name)
    if under_spark_submit():
        session = _create(builder)
        _set_missing(session, _DEFAULTS)
        return session
    builder = builder.master(f"local[{os.environ.get('DEDUP_LOCAL_CORES', '*')},4]")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    sized = _LARGE if is_large else {}
    for key, value in {**_DEFAULTS, **_LOCAL_DEFAULTS, **sized, **_java_options(is_large)}.items():
        builder = builder.config(key, value)
    return _create(builder)


def _java_options(is_large: bool) -> dict[str, str]:
    # Photos and vectors are computed in Python; the JVM's second compiler would spend more on our
    # many short queries than it gives back. From a million rows on, joins take a third less with it.
    log_config = Path(__file__).with_name("log4j2.properties").absolute().as_uri()
    options = "" if is_large else "-XX:TieredStopAtLevel=1 "
    return {"spark.driver.extraJavaOptions": f"{options}-Dlog4j2.configurationFile={log_config}"}


def under_spark_submit() -> bool:
    """Whether this process was started by spark-submit (or a shell that already has a JVM)."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def count_cores(session: SparkSession) -> int:
    """Tasks that run at once, as Spark sees it now (executors may still join)."""
    # range() makes one partition per core; asking the scheduler itself needs the SparkContext,
    # which a Connect session does not have.
    partition = F.spark_partition_id().alias("partition")
    return session.range(1_000_000).select(partition).distinct().count()


def _create(builder: SparkSession.Builder) -> SparkSession:
    try:
        return builder.getOrCreate()
    except Exception as error:
        if "JAVA_GATEWAY_EXITED" in str(error):
            raise DedupError(
                "Spark could not start Java; install Java 17 or newer "
                "(Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
            ) from None
        raise


def _set_missing(session: SparkSession, settings: dict[str, str]) -> None:
    named_by_user = {row.key for row in session.sql("SET").collect()}
    for key, value in settings.items():
        if key not in named_by_user and session.conf.isModifiable(key):
            session.conf.set(key, value)
