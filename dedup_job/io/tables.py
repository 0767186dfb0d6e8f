"""Parquet tables, written and read by the Python workers of Spark tasks.

A task writes one file under a name no other attempt uses and returns that name as its result; only
files named by tasks that Spark counts as finished belong to the table. A retried, speculated or
killed attempt can therefore leave a stray file but never a double or a half row.
"""

import gc
import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from dedup_job.io.storage import Folder
from dedup_job.kernels.vectors import as_bytes
from dedup_job.tables import EMBEDDED_CONTENTS, Table

Batches = Iterable[pa.RecordBatch]
Transform = Callable[[Iterator[pa.RecordBatch]], Batches]
_FILE_DDL = (
    "name string NOT NULL, n_rows bigint NOT NULL, n_bytes bigint NOT NULL, sha256 string NOT NULL"
)
_FILE_ARROW = pa.schema(
    [
        pa.field("name", pa.string(), False),
        pa.field("n_rows", pa.int64(), False),
        pa.field("n_bytes", pa.int64(), False),
        pa.field("sha256", pa.string(), False),
    ]
)
_READ_BATCH_ROWS = 4_096
_GROUP_ROWS = 65_536


@dataclass(frozen=True)
class TableFile:
    """One Parquet file of a table. `sha256` of its bytes, 64 hex digits."""

    name: str
    n_rows: int
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class StoredTable:
    """A table as it lies in a folder: exactly these files, whatever else lies beside them."""

    table: Table
    folder: Folder
    files: tuple[TableFile, ...]

    @property
    def n_rows(self) -> int:
        """Rows in all files."""
        return sum(file.n_rows for file in self.files)


def write_table(
    frame: DataFrame, table: Table, folder: Folder, transform: Transform | None = None
) -> StoredTable:
    """Compute a DataFrame and store it, one file per non-empty partition.

    Args:
        frame: has the columns of `table`, in any order; with `transform`, what the transform takes.
        table: what is written.
        folder: where; need not exist.
        transform: applied to the partition's Arrow batches inside the writing worker, which saves
            a second Python process per task.
    """
    folder.create()
    if transform is None:
        frame = frame.select(*table.column_names)
    task = partial(_write_partition, table=table, folder=folder, transform=transform)
    rows = frame.mapInArrow(task, _FILE_DDL).collect()
    # Collected in the order of the partitions: a table that is sorted over them stays so.
    return StoredTable(table, folder, tuple(TableFile(*row) for row in rows))


def transform_table(
    spark: SparkSession, stored: StoredTable, table: Table, folder: Folder, transform: Transform
) -> StoredTable:
    """Turn a stored table into another one: one task per file, in one Python process each.

    Args:
        spark: the session.
        stored: what is read.
        table: what is written.
        folder: where; need not exist.
        transform: from the Arrow batches of one file to those of `table`.
    """
    files = [file.name for file in stored.files]
    read = partial(_read_partition, folder=stored.folder, files=files, table=stored.table)
    numbers = spark.range(0, len(files), 1, max(1, len(files)))
    return write_table(numbers, table, folder, partial(_read_and, read=read, then=transform))


def write_rows(rows: Sequence[dict[str, object]], table: Table, folder: Folder) -> StoredTable:
    """Store a few rows from the driver; with no rows, one file that carries the schema."""
    folder.create()
    batch = pa.Table.from_pylist(list(rows), schema=table.arrow)
    return StoredTable(table, folder, (_write_file(batch.to_batches(), table, folder),))


def write_batches(
    batches: Batches,
    table: Table,
    folder: Folder,
    sorted_by: str | None = None,
    group_rows: int = _GROUP_ROWS,
) -> TableFile:
    """Store Arrow batches from this process as one file. Streams; no batches: only the schema.

    Args:
        batches: have the columns of `table`, in any order.
        table: what is written.
        folder: where; need not exist.
        sorted_by: the column in whose order the batches come; the file says so.
        group_rows: rows of a Parquet row group, about: what a reader must hold at once.
    """
    folder.create()
    return _write_file(batches, table, folder, sorted_by, group_rows)


def merge_files(stored: StoredTable, folder: Folder) -> StoredTable:
    """Write a table's files, in their order, as one file into another folder. Streams."""
    tables = read_batches(stored, stored.table.column_names)
    batches = (batch for rows in tables for batch in rows.to_batches())
    return StoredTable(stored.table, folder, (write_batches(batches, stored.table, folder),))


def list_table(table: Table, folder: Folder) -> StoredTable:
    """The table that is all Parquet files of a folder; only for folders that are appended to.

    Rows, bytes and hash of its files are not known (-1, empty).
    """
    names = [name for name in folder.file_names() if name.endswith(".parquet")]
    return StoredTable(table, folder, tuple(TableFile(name, -1, -1, "") for name in names))


def read_table(
    spark: SparkSession, stored: StoredTable, columns: Sequence[str] | None = None
) -> DataFrame:
    """Read a stored table, one Spark partition per file."""
    names = list(columns or stored.table.column_names)
    chosen = Table(
        stored.table.name,
        stored.table.row,
        tuple(c for name in names for c in stored.table.columns if c.name == name),
    )
    files = [file.name for file in stored.files]
    if not files:
        return spark.createDataFrame([], chosen.ddl)
    task = partial(_read_partition, folder=stored.folder, files=files, table=chosen)
    return spark.range(0, len(files), 1, len(files)).mapInArrow(task, chosen.ddl)


def read_beside(spark: SparkSession, stored: StoredTable, places: StoredTable) -> DataFrame:
    """Read a stored table and its columns that another one holds, row beside row.

    Args:
        spark: the session.
        stored: one Spark partition per file.
        places: has a file for each of `stored`, in the same order, of as many rows; few bytes a row,
            for one such file is held at once.
    """
    table = Table(
        stored.table.name, stored.table.row, (*stored.table.columns, *places.table.columns)
    )
    if not stored.files:
        return spark.createDataFrame([], table.ddl)
    task = partial(_read_both, stored=stored, places=places)
    numbers = spark.range(0, len(stored.files), 1, len(stored.files))
    return numbers.mapInArrow(task, table.ddl)


def read_vectors(spark: SparkSession, stored: StoredTable) -> DataFrame:
    """Read IMAGE_EMBEDDINGS as EMBEDDED_CONTENTS: embeddings as bytes."""
    return read_table(spark, replace(stored, table=EMBEDDED_CONTENTS))


def read_rows(stored: StoredTable) -> pa.Table:
    """Read a stored table into this process. For reports; a catalog's embeddings may not fit."""
    tables = [stored.table.arrow.empty_table()]
    for file in stored.files:
        with stored.folder.open_read(file.name) as stream:
            rows = pq.ParquetFile(stream).read()
            columns = [_column(rows, field) for field in stored.table.arrow]
            tables.append(pa.table(columns, schema=stored.table.arrow))
    return pa.concat_tables(tables)


def read_batches(
    stored: StoredTable, columns: list[str], n_rows: int = _GROUP_ROWS
) -> Iterator[pa.Table]:
    """Stream some columns of a stored table into this process."""
    for file in stored.files:
        with stored.folder.open_read(file.name) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(n_rows, columns=columns):
                arrays = [_column(batch, stored.table.arrow.field(name)) for name in columns]
                yield pa.Table.from_arrays(arrays, columns)


def read_where(stored: StoredTable, column: str, values: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Stream the rows of a stored table whose `column` is one of these texts."""
    wanted = pa.array(sorted(values), pa.string())
    for part in read_batches(stored, stored.table.column_names):
        yield from part.filter(pc.is_in(part[column], value_set=wanted)).to_pylist()


def _write_partition(
    batches: Iterator[pa.RecordBatch], table: Table, folder: Folder, transform: Transform | None
) -> Iterator[pa.RecordBatch]:
    _spare_imports()
    filled = _non_empty(transform(batches) if transform else batches)
    first = next(filled, None)
    if first is None:
        return
    file = _write_file(chain([first], filled), table, folder)
    yield pa.RecordBatch.from_arrays(
        [
            pa.array([file.name]),
            pa.array([file.n_rows]),
            pa.array([file.n_bytes]),
            pa.array([file.sha256]),
        ],
        schema=_FILE_ARROW,
    )


@cache
def _spare_imports() -> None:
    """Keep what this worker has imported out of garbage collections.

    Spark's worker process collects in full after every task. Walking through all imported modules each
    time took half of the processor time of all workers of an unchanged night.
    """
    gc.freeze()


def _read_and(
    batches: Iterator[pa.RecordBatch],
    read: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]],
    then: Transform,
) -> Batches:
    return then(read(batches))


def _write_file(
    batches: Batches,
    table: Table,
    folder: Folder,
    sorted_by: str | None = None,
    group_rows: int = _GROUP_ROWS,
) -> TableFile:
    name = f"part-{uuid.uuid4().hex}.parquet"
    n_rows = 0
    order = [pq.SortingColumn(table.column_names.index(sorted_by))] if sorted_by else None
    with folder.open_write(name) as raw:
        stream = _HashingStream(raw)
        with pq.ParquetWriter(
            stream, table.arrow, compression="zstd", sorting_columns=order
        ) as writer:
            for group in _row_groups(batches, group_rows):
                rows = pa.Table.from_batches(group).select(table.column_names).cast(table.arrow)
                writer.write_table(rows)
                n_rows += rows.num_rows
    return TableFile(name, n_rows, stream.n_bytes, stream.digest.hexdigest())


def _row_groups(batches: Batches, n_rows: int) -> Iterator[list[pa.RecordBatch]]:
    """Gather small batches: Parquet pays a page header per column and row group."""
    held: list[pa.RecordBatch] = []
    n_held = 0
    for batch in batches:
        held.append(batch)
        n_held += batch.num_rows
        if n_held >= n_rows:
            yield held
            held, n_held = [], 0
    if held:
        yield held


def _non_empty(batches: Batches) -> Iterator[pa.RecordBatch]:
    return (batch for batch in batches if batch.num_rows)


def _read_partition(
    batches: Iterator[pa.RecordBatch], folder: Folder, files: list[str], table: Table
) -> Iterator[pa.RecordBatch]:
    _spare_imports()
    for index in _numbers(batches):
        yield from _read_file(folder, files[index], table)


def _read_both(
    batches: Iterator[pa.RecordBatch], stored: StoredTable, places: StoredTable
) -> Iterator[pa.RecordBatch]:
    _spare_imports()
    schema = pa.schema([*stored.table.arrow, *places.table.arrow])
    for index in _numbers(batches):
        beside = read_rows(replace(places, files=places.files[index : index + 1])).combine_chunks()
        start = 0
        for rows in _read_file(stored.folder, stored.files[index].name, stored.table):
            columns = (column.slice(start, rows.num_rows) for column in beside.columns)
            arrays = [*rows.columns, *(column.chunk(0) for column in columns)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
            start += rows.num_rows


def _numbers(batches: Iterator[pa.RecordBatch]) -> Iterator[int]:
    return (number for batch in batches for number in batch.column(0).to_pylist())


def _read_file(folder: Folder, name: str, table: Table) -> Iterator[pa.RecordBatch]:
    schema = table.arrow
    with folder.open_read(name) as stream:
        parquet = pq.ParquetFile(stream)
        for rows in parquet.iter_batches(_READ_BATCH_ROWS, columns=table.column_names):
            arrays = [_as_declared(_column(rows, field), field) for field in schema]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(rows: pa.RecordBatch | pa.Table, field: pa.Field) -> Any:
    """A column of a file; null where a file of an earlier version lacks one that may be null."""
    if field.nullable and field.name not in rows.schema.names:
        return pa.nulls(rows.num_rows, field.type)
    return rows.column(field.name)


def _as_declared(column: pa.Array, field: pa.Field) -> pa.Array:
    return as_bytes(column) if pa.types.is_binary(field.type) else column


class _HashingStream:
    """A write-only stream that hashes what passes through it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.digest = hashlib.sha256()
        self.n_bytes = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.n_bytes += len(data)
        self._raw.write(data)
        return len(data)

    def tell(self) -> int:
        return self.n_bytes

    def flush(self) -> None:
        self._raw.flush()

    def close(self) -> None:
        self.closed = True  # the caller closes the file itself

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
