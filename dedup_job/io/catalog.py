"""The catalog as a Spark DataFrame: checked on the driver, read by Python tasks.

Spark's own readers would need jars for object stores, infer ids as numbers, drop extra columns
silently and turn Latin-1 into U+FFFD. Here, what concerns the whole catalog is an error before the
first task starts, and what concerns one row is that row's `malformed`.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from dedup_job.config import CatalogConfig
from dedup_job.errors import CatalogError
from dedup_job.io import catalog_formats as formats
from dedup_job.io.catalog_files import (
    CatalogFiles,
    catalog_base,
    find_catalog,
    opened,
)
from dedup_job.io.uris import redact
from dedup_job.kernels.ranking import parse_canonical_order
from dedup_job.tables import RAW_CATALOG, arrow_batch

__all__ = ["catalog_base", "plan_catalog", "read_catalog", "read_part"]

_FILE_STRIDE = 1 << 40  # positions of file k start at k * 2^40: a total order without counting
_PART_ROWS = 100_000
_BATCH_ROWS = 10_000
_BATCH_CHARS = 8_000_000
_MAX_TASKS = 2_000


@dataclass(frozen=True)
class CatalogColumns:
    """Names of the columns that are read.

    `sku`, `uri` and the tuples must be there, and so must `version` and `variant` once somebody
    named them: a mapped column that is absent is a typing error, not a catalog without variants.
    """

    sku: str
    uri: str
    version: str
    variant: str
    block: tuple[str, ...]
    conflict: tuple[str, ...]
    order: tuple[str, ...]

    @classmethod
    def from_config(cls, config: CatalogConfig) -> "CatalogColumns":
        """The columns a configuration names; raises ConfigError for a bad canonical order."""
        order = parse_canonical_order(config.canonical_order)
        return cls(
            config.sku_column,
            config.uri_column,
            config.version_column,
            config.variant_column,
            config.block_by,
            config.conflict,
            tuple(column.name for column in order),
        )

    @property
    def required(self) -> dict[str, str]:
        """Column name -> the setting that names it."""
        named = {"version_column": self.version, "variant_column": self.variant}
        settings = {
            name: f"catalog.{field}"
            for field, name in named.items()
            if name != CatalogConfig.model_fields[field].default
        }
        settings |= dict.fromkeys(self.order, "catalog.canonical_order")
        settings |= dict.fromkeys(self.conflict, "catalog.conflict")
        settings |= dict.fromkeys(self.block, "catalog.block_by")
        return settings | {self.uri: "catalog.uri_column", self.sku: "catalog.sku_column"}

    @property
    def names(self) -> tuple[str, ...]:
        """All names, each once."""
        return tuple(dict.fromkeys([*self.required, self.version, self.variant]))

    @property
    def ids(self) -> tuple[str, ...]:
        """Columns in which a number with a fraction is an error."""
        return (self.sku, self.uri, self.variant)


@dataclass(frozen=True)
class Part:
    """What one task reads: a file, or some row groups of a Parquet file, or a folder of images.

    `prefix` stands before positions in `catalog_row`; `first_row` is the position of the first row
    in its file, `offset` that of the file's first row in the catalog.
    """

    location: str
    format: str
    columns: CatalogColumns
    delimiter: str
    prefix: str = ""
    offset: int = 0
    row_groups: tuple[int, ...] = ()
    first_row: int = 0


def read_catalog(spark: SparkSession, parts: Sequence[Part]) -> DataFrame:
    """Read a catalog as the table RAW_CATALOG: every row of it, readable or not.

    Args:
        spark: the session.
        parts: from `plan_catalog`, which needs no session and finds what is wrong with the whole.
    """
    n_tasks = min(len(parts), _MAX_TASKS)
    numbers = spark.range(0, len(parts), 1, n_tasks)
    return numbers.mapInArrow(_ReadParts(tuple(parts)), RAW_CATALOG.ddl)


def plan_catalog(config: CatalogConfig) -> list[Part]:
    """Find the catalog's files, check their headers, and cut them into parts in catalog order.

    Raises:
        CatalogError: in one line, for a catalog that is missing, empty, unreadable as a whole, or
            lacks a column.
        ConfigError: `catalog.canonical_order` cannot be parsed, or a package is missing.
    """
    columns = CatalogColumns.from_config(config)
    found = find_catalog(config)
    if found.format == "images":
        return [_images_part(found, config, columns)]
    template = Part("", found.format, columns, config.delimiter)
    files = [_file_part(template, found, index) for index in range(len(found.files))]
    with ThreadPoolExecutor(8) as pool:
        headers = list(pool.map(_inspect, files))
    if found.format == "jsonl":  # a key that is null everywhere in one file may be missing there
        keys = dict.fromkeys(key for names, _ in headers for key in names)
        _check_columns(list(keys), columns, found.files[0], config.delimiter)
    else:
        for part, (names, _) in zip(files, headers, strict=True):
            _check_columns(names, columns, part.location, config.delimiter)
    return [part for _, parts in headers for part in parts]


def read_part(part: Part) -> Iterator[pa.RecordBatch]:
    """Read one part as batches of RAW_CATALOG, of about 10,000 rows."""
    rows: list[dict[str, object]] = []
    n_chars = 0
    for record in _records(part):
        rows.append(_raw_row(record, part))
        n_chars += sum(len(value) for value in record.values.values() if value)
        if len(rows) >= _BATCH_ROWS or n_chars >= _BATCH_CHARS:
            yield arrow_batch(RAW_CATALOG, rows)
            rows, n_chars = [], 0
    if rows:
        yield arrow_batch(RAW_CATALOG, rows)


@dataclass(frozen=True)
class _ReadParts:
    """What a task runs: reads the parts whose numbers it is given."""

    parts: tuple[Part, ...]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from read_part(self.parts[number])


def _file_part(template: Part, found: CatalogFiles, index: int) -> Part:
    location = found.files[index]
    name = location.removeprefix(found.root).lstrip("/")
    return replace(
        template,
        location=location,
        prefix=f"{name}:" if len(found.files) > 1 else "",
        offset=index * _FILE_STRIDE,
    )


def _images_part(found: CatalogFiles, config: CatalogConfig, columns: CatalogColumns) -> Part:
    for name, setting in columns.required.items():
        if name not in (columns.sku, columns.uri):
            raise CatalogError(f"a folder of images has no column {name!r}; leave out {setting}")
    if catalog_base(config) != found.root:
        raise CatalogError("a folder of images is its own image root; leave out catalog.image_root")
    return Part(found.root, "images", columns, config.delimiter)


def _inspect(part: Part) -> tuple[list[str], list[Part]]:
    """Read a file's header on the driver: its column names, and the parts to read it in."""
    with opened(part.location) as stream:
        if part.format == "csv":
            return formats.read_csv_header(stream, part.delimiter), [part]
        if part.format == "jsonl":
            return formats.read_jsonl_keys(stream), [part]
        file = formats.open_parquet(stream)
        columns = part.columns
        formats.check_parquet_types(file.schema_arrow, columns.ids, columns.names)
        return list(file.schema_arrow.names), _cut_by_row_groups(part, file.metadata)


def _cut_by_row_groups(part: Part, metadata: Any) -> list[Part]:
    parts: list[Part] = []
    groups: list[int] = []
    first_row = n_rows = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        n_rows += metadata.row_group(group).num_rows
        if n_rows >= _PART_ROWS or group == metadata.num_row_groups - 1:
            parts.append(replace(part, row_groups=tuple(groups), first_row=first_row))
            first_row += n_rows
            groups, n_rows = [], 0
    return parts or [part]


def _check_columns(
    names: list[str], columns: CatalogColumns, location: str, delimiter: str
) -> None:
    where = f"catalog {redact(location)}"
    for name in columns.names:
        if names.count(name) > 1:
            raise CatalogError(f"{where}: column {name!r} stands {names.count(name)} times")
    for name, setting in reversed(columns.required.items()):
        if name not in names:
            raise CatalogError(f"{where}: {_missing(name, setting, names, delimiter)}")


def _missing(name: str, setting: str, names: list[str], delimiter: str) -> str:
    shown = ", ".join(repr(other[:60]) for other in names[:30]) + (", ..." if names[30:] else "")
    message = f"column {name!r} not found; there are: {shown}"
    other_delimiter = next((mark for mark in ";\t|,:" if names and mark in names[0]), "")
    if len(names) == 1 and other_delimiter not in ("", delimiter):
        return f"{message}. Is {other_delimiter!r} the delimiter? Use --set catalog.delimiter=..."
    folded = {other.strip().lower(): other for other in names if other.isprintable()}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    guess = repr(folded[close[0]]) if close else "COLUMN"
    suggestion = f" Did you mean {guess}?" if close else ""
    return f"{message}.{suggestion} Use --set {setting}={folded[close[0]] if close else 'COLUMN'}"


def _records(part: Part) -> Iterator[formats.Record]:
    columns = part.columns
    if part.format == "images":
        yield from formats.read_images(part.location, columns.sku, columns.uri)
        return
    with opened(part.location) as stream:
        if part.format == "csv":
            yield from formats.read_csv(stream, part.delimiter, columns.names)
        elif part.format == "jsonl":
            yield from formats.read_jsonl(stream, columns.ids, columns.names)
        else:
            file = formats.open_parquet(stream)
            yield from formats.read_parquet(file, part.row_groups, part.first_row, columns.names)


def _raw_row(record: formats.Record, part: Part) -> dict[str, object]:
    columns, value = part.columns, record.values.get
    return {
        "catalog_row": f"{part.prefix}{record.position}",
        "position": part.offset + record.position,
        "sku_id": value(columns.sku),
        "image_uri": value(columns.uri),
        "image_version": value(columns.version),
        "variant_group": value(columns.variant),
        "block_values": [value(name) for name in columns.block],
        "conflict_values": [value(name) for name in columns.conflict],
        "order_values": [value(name) for name in columns.order],
        "malformed": record.malformed,
    }
