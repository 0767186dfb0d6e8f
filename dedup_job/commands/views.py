"""`dedup-job views`: SQL for views that always show the newest whole run.

The views read files under `_runs/RUN_ID/`, which never change, and keep those of the run that
`latest.json` names at the moment of the query: right while a run publishes, and after a backfill.
An engine may list files first and read `latest.json` later, and so miss a run that is published in
between. In DuckDB the view then shows the run before, which was the newest when the query began;
in Spark SQL it is an error, as an empty answer would look like a night without duplicates.
`create_views` knows no such moment.
"""

from pathlib import Path

from pyspark.sql import SparkSession

from dedup_job.commands.safe_text import visible
from dedup_job.errors import ConfigError
from dedup_job.io.latest import read_latest
from dedup_job.io.manifests import LATEST
from dedup_job.io.storage import RUNS_FOLDER, Folder, open_warehouse
from dedup_job.tables import DUPLICATE_GROUPS, DUPLICATE_PAIRS, GROUP_CHANGES, Table

VIEWS: dict[str, Table] = {
    "current_duplicates": DUPLICATE_GROUPS,
    "current_pairs": DUPLICATE_PAIRS,
    "current_changes": GROUP_CHANGES,
}
_AGAIN = "a run was published while this query was planned; run the query again"

_DUCKDB = """\
CREATE OR REPLACE VIEW {view} AS
WITH latest AS MATERIALIZED (
  SELECT run_date, previous, tables.{table} AS stored
  FROM read_json('{latest}', maximum_object_size = 1000000000, columns = {{
    run_date: 'DATE',
    previous: 'STRUCT(run_id VARCHAR, run_date DATE)',
    tables: 'STRUCT({table} STRUCT(folder VARCHAR, files STRUCT(name VARCHAR)[]))'}})
), named AS MATERIALIZED (
  SELECT concat('{root}/', folder, '/', file.name) AS path
  FROM (SELECT stored.folder AS folder, unnest(stored.files) AS file FROM latest)
), listed AS MATERIALIZED (
  SELECT file AS path,
         starts_with(file, concat('{runs}/', previous.run_id, '/')) AS is_previous
  FROM glob('{files}/*.parquet'), latest
), newest AS MATERIALIZED (
  SELECT CASE WHEN (SELECT count(*) FROM named WHERE path NOT IN (SELECT path FROM listed)) = 0
                THEN true
              WHEN (SELECT bool_or(is_previous) FROM listed) THEN false
              ELSE error('{again}') END AS is_listed
), chosen AS MATERIALIZED (
  SELECT path FROM listed, newest
  WHERE CASE WHEN is_listed THEN path IN (SELECT path FROM named) ELSE is_previous END
)
SELECT (SELECT CASE WHEN is_listed THEN run_date ELSE previous.run_date END
        FROM latest, newest) AS run_date,
       reports.* EXCLUDE (filename)
FROM read_parquet('{files}/*.parquet', filename = true) AS reports
WHERE filename IN (SELECT path FROM chosen)"""

_SPARK = """\
CREATE OR REPLACE TEMPORARY VIEW {view} AS
WITH reports AS (
  SELECT * FROM parquet.`{files}`
), latest AS (
  SELECT run_id, CAST(run_date AS DATE) AS run_date,
         aggregate(tables.{table}.files, 0L, (n, file) -> n + file.n_rows) AS n_rows
  FROM json.`{latest}`
), whole AS (
  SELECT run_id, run_date FROM latest
  WHERE if(n_rows = (SELECT count(*) FROM reports WHERE reports.run_id = latest.run_id), true,
           raise_error('{again}'))
)
SELECT (SELECT run_date FROM whole) AS run_date, reports.* FROM reports
WHERE run_id = (SELECT coalesce(max(run_id), raise_error('{again}')) FROM whole)"""


def print_views(warehouse: str, dialect: str) -> None:
    """Print one statement a view.

    Args:
        warehouse: as `--warehouse`.
        dialect: duckdb or spark.

    Raises:
        ConfigError: as `view_statements`.
    """
    print("\n".join(f"{statement};" for statement in view_statements(warehouse, dialect)))


def view_statements(warehouse: str, dialect: str) -> list[str]:
    """One statement a view, without semicolons. Arguments as `print_views`.

    Raises:
        ConfigError: the warehouse's name cannot be written in a file pattern of SQL.
    """
    folder = open_warehouse(warehouse)
    if folder.is_local and ".." in Path(folder.uri).parts:
        # Engines list files by their real names: no path with `..` would be among them.
        folder = Folder(str(Path(folder.uri).resolve()))
    unsafe = sorted({c for c in folder.uri if c in "'`\\*?[]{}" or not c.isprintable()})
    if unsafe:
        raise ConfigError(
            f"--warehouse: {visible(folder.uri)} holds {visible(' '.join(unsafe))}, which mean "
            "something else in a SQL file pattern; name it by a symbolic link without them"
        )
    if dialect == "spark":
        # Spark's own readers know Amazon's store as s3a.
        folder = Folder(folder.uri.replace("s3://", "s3a://", 1))
    form = _DUCKDB if dialect == "duckdb" else _SPARK
    return [_statement(form, folder, name, table) for name, table in VIEWS.items()]


def create_views(spark: SparkSession, warehouse: str) -> None:
    """Make the views as temporary views of a Spark session, on any store that this job can use.

    They are computed in Python and so need this package on the executors.
    """
    folder = open_warehouse(warehouse)
    for name, table in VIEWS.items():
        read_latest(spark, folder, table).createOrReplaceTempView(name)


def _statement(form: str, folder: Folder, view: str, table: Table) -> str:
    runs = folder.child(RUNS_FOLDER)
    return form.format(
        view=view,
        table=table.name,
        root=folder.uri,
        runs=runs.uri,
        latest=runs.path(LATEST),
        files=runs.child("*", table.name).uri,
        again=_AGAIN,
    )
