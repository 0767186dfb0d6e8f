"""`dedup-job views`: SQL for views that always show the newest whole run.

The views read the files under `_runs/RUN_ID/`, which never change, and keep the rows of the run that
`latest.json` names at the moment of the query: right while a run publishes, and after a backfill.
"""

from dedup_job.io.manifests import LATEST, RUNS_FOLDER
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.tables import DUPLICATE_GROUPS, DUPLICATE_PAIRS, GROUP_CHANGES, Table

VIEWS: dict[str, Table] = {
    "current_duplicates": DUPLICATE_GROUPS,
    "current_pairs": DUPLICATE_PAIRS,
    "current_changes": GROUP_CHANGES,
}


def print_views(warehouse: str, dialect: str) -> None:
    """Print one statement a view.

    Args:
        warehouse: as `--warehouse`.
        dialect: duckdb or spark.
    """
    print("\n".join(f"{statement};" for statement in view_statements(warehouse, dialect)))


def view_statements(warehouse: str, dialect: str) -> list[str]:
    """One statement a view, without semicolons. Arguments as `print_views`."""
    folder = open_warehouse(warehouse)
    make = _duckdb if dialect == "duckdb" else _spark
    return [make(folder, name, table) for name, table in VIEWS.items()]


def _duckdb(folder: Folder, name: str, table: Table) -> str:
    runs = folder.child(RUNS_FOLDER)
    files = _quoted(runs.child("*", table.name).path("*.parquet"))
    latest = _quoted(runs.path(LATEST))
    return (
        f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM read_parquet({files}) WHERE run_id = "
        f"(SELECT run_id FROM read_json({latest}, columns = {{run_id: 'VARCHAR'}}))"
    )


def _spark(folder: Folder, name: str, table: Table) -> str:
    # Spark's own readers know Amazon's store as s3a, and a path in a view anew in every query.
    runs = Folder(folder.uri.replace("s3://", "s3a://", 1)).child(RUNS_FOLDER)
    files = _ticked(runs.child("*").path(table.name))
    return (
        f"CREATE OR REPLACE TEMPORARY VIEW {name} AS SELECT * FROM parquet.{files} WHERE run_id = "
        f"(SELECT run_id FROM json.{_ticked(runs.path(LATEST))})"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _ticked(text: str) -> str:
    return "`" + text.replace("`", "``") + "`"
