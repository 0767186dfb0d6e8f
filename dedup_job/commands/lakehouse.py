"""`dedup-job export-delta` and `export-iceberg`: the reports of a run as tables of a lakehouse.

Each report table becomes a table with `run_date` in front. Exporting a date again replaces that date and no
other, so the nightly export is one command after the nightly run. No JVM is needed.
"""

import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from dedup_job.errors import ConfigError, one_line
from dedup_job.io.latest import dated_schema, read_dated
from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.tables import REPORT_TABLES, Table

_BATCH_ROWS = 65_536
NAMESPACE = "dedup"
Exported = dict[str, int]  # table -> rows


def export_delta(warehouse: str, out: str, run_id: str | None = None) -> Exported:
    """Write each report table of a run as the Delta table OUT/TABLE.

    Args:
        warehouse: as `--warehouse`.
        out: a folder, or a URI that delta-rs takes.
        run_id: a certain run; default: the last published one.

    Returns:
        Rows of each table.

    Raises:
        DedupError: nothing was published there, or it cannot be read.
        ConfigError: deltalake is not installed, or `out` cannot be written.
    """
    try:
        import deltalake
    except ModuleNotFoundError:
        raise _missing("deltalake") from None

    def write(table: Table, run_date: date, reader: pa.RecordBatchReader) -> None:
        target = f"{out.rstrip('/')}/{table.name}"
        is_there = deltalake.DeltaTable.is_deltatable(target)
        deltalake.write_deltalake(
            target,
            reader,
            mode="overwrite",
            partition_by=["run_date"],
            predicate=f"run_date = '{run_date.isoformat()}'" if is_there else None,
            schema_mode="merge",  # a later version adds columns
            description=table.row,
        )

    return _export(warehouse, run_id, write, f"--out {out}")


def export_iceberg(warehouse: str, out: str, run_id: str | None = None) -> Exported:
    """Write each report table of a run as an Iceberg table below a folder, with its catalog in SQLite.

    The catalog is OUT/catalog.db, the tables are `dedup.TABLE`. Another catalog takes them over with its
    own `register_table` and the newest file of OUT/dedup/TABLE/metadata.

    Args:
        warehouse: as `--warehouse`.
        out: a local folder.
        run_id: a certain run; default: the last published one.

    Returns:
        Rows of each table.

    Raises:
        DedupError: nothing was published there, or it cannot be read.
        ConfigError: pyiceberg is not installed, or `out` cannot be written.
    """
    catalog = open_iceberg(out)

    def write(table: Table, run_date: date, reader: pa.RecordBatchReader) -> None:
        stored = catalog.create_table_if_not_exists((NAMESPACE, table.name), reader.schema)
        with stored.update_schema() as update:  # a later version adds columns
            update.union_by_name(reader.schema)
        rows = reader.read_all()  # its writer takes a table, not a stream
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Delete operation did not match")  # a new date
            stored.overwrite(rows, overwrite_filter=f"run_date = '{run_date.isoformat()}'")

    return _export(warehouse, run_id, write, f"--out {out}")


def open_iceberg(out: str) -> Any:
    """The catalog that `export_iceberg` writes, made where it is not there.

    Raises:
        ConfigError: pyiceberg is not installed, or the folder cannot be written.
    """
    try:
        from pyiceberg.catalog.sql import SqlCatalog
    except ModuleNotFoundError:
        raise _missing("pyiceberg") from None
    folder = Path(out).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror}") from None
    catalog = SqlCatalog(
        "dedup", uri=f"sqlite:///{folder / 'catalog.db'}", warehouse=folder.as_uri()
    )
    catalog.create_namespace_if_not_exists(NAMESPACE)
    return catalog


def _export(
    warehouse: str,
    run_id: str | None,
    write: Callable[[Table, date, pa.RecordBatchReader], None],
    where: str,
) -> Exported:
    folder = open_warehouse(warehouse)
    manifest = read_manifest(folder, run_id)
    run_date = date.fromisoformat(manifest.run_date)
    exported = {}
    for table in REPORT_TABLES:
        if table.name not in manifest.tables:  # a run of an earlier version
            continue
        batches = read_dated(folder, manifest, table, _BATCH_ROWS)
        try:
            write(table, run_date, pa.RecordBatchReader.from_batches(dated_schema(table), batches))
        except Exception as error:  # the libraries and their stores raise many types
            raise ConfigError(
                f"{where}: {table.name} cannot be written: {one_line(error)}"
            ) from None
        exported[table.name] = find_table(folder, manifest, table.name).n_rows
    return exported


def _missing(package: str) -> ConfigError:
    return ConfigError(f"{package} is not installed: pip install 'catalog-dedup[lakehouse]'")
