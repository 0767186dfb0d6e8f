"""Catalog files to records, streaming: no file is ever held in memory, no row is ever lost.

Every reader yields one `Record` per row of its file, in order. A row that cannot be read is a record
too, with the reason. All values are text: ids are never inferred as numbers.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dedup_job.errors import CatalogError, one_line
from dedup_job.io.catalog_files import IMAGE_SUFFIXES, list_files

# A quote that is never closed makes the rest of a file one value; this bounds the memory it takes.
MAX_VALUE_CHARS = 64 * 1024 * 1024
# A line of brackets takes 40 times its size once it is parsed.
MAX_JSON_BYTES = 16 * 1024 * 1024
_SAMPLED_LINES = 1000
# One long text that stands in every row is small in a Parquet file and large in memory.
_PARQUET_ROWS = 64
_PIECE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Record:
    """One row of a catalog file.

    `position`: from 0 in its file, lines that hold no row counted; `values`: column -> text or
    None, empty when `malformed` says in one line why the row cannot be read.
    """

    position: int
    values: dict[str, str | None]
    malformed: str | None = None


# CSV


def read_csv_header(stream: BinaryIO, delimiter: str) -> list[str]:
    """Return the column names.

    Raises:
        CatalogError: there is no header, or it is not UTF-8.
    """
    try:
        header: list[str] = next(_csv_rows(stream, delimiter), [])
    except csv.Error as error:
        raise CatalogError(f"its header is not CSV: {error}") from None
    if not any(name.strip() for name in header):
        raise CatalogError("it is empty: a header line with column names is expected")
    if not _is_unicode("".join(header)) or "\x00" in "".join(header):
        raise CatalogError("its header is not UTF-8; convert it, for example with iconv -t UTF-8")
    return header


def read_csv(stream: BinaryIO, delimiter: str, columns: Iterable[str]) -> Iterator[Record]:
    """Read the named columns of a CSV file (RFC 4180, UTF-8); an empty cell is None."""
    rows = _csv_rows(stream, delimiter)
    header = next(rows)
    index = {name: header.index(name) for name in columns if name in header}
    position = -1
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            position += 1
            yield Record(position, {}, f"lines {line}-{rows.line_num}: {error}")
            continue
        position += 1
        if not row or (len(row) == 1 and row[0].isspace()):
            continue
        problem = _csv_problem(row, header)
        if problem:
            yield Record(position, {}, f"line {line}: {problem}")
        else:
            yield Record(position, {name: row[i] or None for name, i in index.items()})


def _csv_problem(row: Sequence[str], header: Sequence[str]) -> str:
    if len(row) != len(header):
        return f"expected {len(header)} columns, got {len(row)}"
    if not _is_unicode("".join(row)):
        names = [name for name, value in zip(header, row, strict=True) if not _is_unicode(value)]
        return f"column {names[0]!r} is not UTF-8"
    return ""


def _csv_rows(stream: BinaryIO, delimiter: str) -> Any:
    csv.field_size_limit(MAX_VALUE_CHARS)
    # Undecodable bytes become lone surrogates, which no valid text holds: the row that has them is
    # told apart, and the rows after it keep their places.
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    return csv.reader(_BoundedLines(text), delimiter=delimiter, strict=True)


class _BoundedLines:
    """The lines of a text; one that is too long is skipped and raises csv.Error."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def __iter__(self) -> "_BoundedLines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_VALUE_CHARS)
        if not line:
            raise StopIteration
        if len(line) < MAX_VALUE_CHARS or line[-1] in "\r\n":
            return line
        while line and line[-1] not in "\r\n":
            line = self._text.readline(MAX_VALUE_CHARS)
        raise csv.Error(f"line longer than {MAX_VALUE_CHARS} characters")


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# JSON Lines


class _Float(str):
    """The literal text of a JSON number that is no integer."""

    __slots__ = ()


def read_jsonl_keys(stream: BinaryIO) -> list[str]:
    """Return the keys of the first 1000 rows, in order of appearance.

    Raises:
        CatalogError: there is no row, or no row is a JSON object.
    """
    keys: dict[str, None] = {}
    n_lines = 0
    for _, line in islice(_numbered_lines(stream), _SAMPLED_LINES):
        n_lines += 1
        row = _parse_json(line)
        if isinstance(row, dict):
            keys.update(dict.fromkeys(row))
    if not n_lines:
        raise CatalogError("it is empty: one JSON object a line is expected")
    if not keys:
        raise CatalogError(f"none of its first {n_lines} lines is a JSON object")
    return list(keys)


def read_jsonl(stream: BinaryIO, ids: Sequence[str], columns: Iterable[str]) -> Iterator[Record]:
    """Read the named columns of JSON Lines.

    Integers become their literal text; so do other numbers, `true` and `false`, except in the
    columns `ids`, where they make the row malformed, as 1E5 and 100000.0 would be two ids.
    """
    columns = tuple(columns)
    for position, line in _numbered_lines(stream):
        row = _parse_json(line)
        if isinstance(row, str):
            yield Record(position, {}, f"line {position + 1}: {row}")
            continue
        values = {name: _json_text(row.get(name)) for name in columns}
        problem = _json_problem(row, ids, columns)
        if problem:
            yield Record(position, {}, f"line {position + 1}: {problem}")
        else:
            yield Record(position, values)


def _numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers from 0; of one too long, its beginning."""
    position = -1
    while line := stream.readline(MAX_JSON_BYTES):
        position += 1
        is_whole = len(line) < MAX_JSON_BYTES or line.endswith(b"\n")
        rest = line
        while not is_whole and rest and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_JSON_BYTES)
        if position == 0 and is_whole:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip() or not is_whole:
            yield position, line


def _parse_json(line: bytes) -> dict[str, Any] | str:
    """The object of a line, or what is wrong with the line."""
    if len(line) >= MAX_JSON_BYTES and not line.endswith(b"\n"):
        return f"longer than {MAX_JSON_BYTES} bytes"  # its beginning may be an object by itself
    try:
        row = json.loads(line.decode(), parse_int=str, parse_float=_Float, parse_constant=_Float)
    except UnicodeDecodeError:
        return "not UTF-8"
    except ValueError as error:
        return f"not JSON: {error.args[0] if error.args else 'invalid'}"[:200]
    except RecursionError:
        return "not JSON: nested too deeply"
    if not isinstance(row, dict):
        return f"expected a JSON object, got {_json_kind(row)}"
    return row


def _json_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def _json_problem(row: dict[str, Any], ids: Sequence[str], columns: Sequence[str]) -> str:
    for name in columns:
        value = row.get(name)
        if isinstance(value, dict | list):
            return f"{name!r} is {_json_kind(value)}, expected text"
        if name in ids and isinstance(value, bool | _Float):
            return f"{name!r} is {_json_kind(value)}; ids are text or whole numbers"
        if isinstance(value, str) and not _is_unicode(value):
            return f"{name!r} is not valid Unicode"
    return ""


def _json_kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", bool: "true or false", _Float: "a decimal number"}
    return "null" if value is None else kinds.get(type(value), "a plain value")


# Parquet


def open_parquet(stream: BinaryIO) -> pq.ParquetFile:
    """Open a Parquet file by its footer.

    Raises:
        CatalogError: it is truncated, damaged, or no Parquet file.
    """
    try:
        return pq.ParquetFile(stream, page_checksum_verification=True)
    except UnicodeDecodeError:
        raise CatalogError("a column name of this Parquet file is not UTF-8") from None
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(f"it is not a readable Parquet file: {one_line(error)}") from None


def check_parquet_types(schema: pa.Schema, ids: Sequence[str], columns: Iterable[str]) -> None:
    """Check that the named columns can be read as text.

    Raises:
        CatalogError: one is nested or of no textual form, or an id is a float.
    """
    for name in columns:
        if schema.names.count(name) != 1:
            continue  # absent or ambiguous: told when the header is checked
        kind = _plain_type(schema.field(name).type)
        if name in ids and not _is_id_type(kind):
            raise CatalogError(f"column {name!r} is {kind}; ids must be text or whole numbers")
        try:
            _texts(pa.array([], kind))
        except (pa.ArrowException, ValueError):
            raise CatalogError(f"column {name!r} is {kind}; text or a number is expected") from None


def read_parquet(
    file: pq.ParquetFile, row_groups: Sequence[int], first_position: int, columns: Iterable[str]
) -> Iterator[Record]:
    """Read the named columns of some row groups, which start at `first_position`.

    Raises:
        CatalogError: their pages are damaged.
    """
    try:
        yield from _parquet_records(file, row_groups, first_position, columns)
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(f"Parquet pages cannot be read: {one_line(error)}") from None


def _parquet_records(
    file: pq.ParquetFile, row_groups: Sequence[int], first_position: int, columns: Iterable[str]
) -> Iterator[Record]:
    names = [name for name in columns if name in file.schema_arrow.names]
    position = first_position
    read = file.iter_batches(_PARQUET_ROWS, row_groups=list(row_groups), columns=names)
    for batch in chain.from_iterable(map(_pieces, read)):
        texts = {name: _texts(batch.column(batch.schema.get_field_index(name))) for name in names}
        for i in range(batch.num_rows):
            values = {name: texts[name][i] for name in names}
            broken = [name for name, value in values.items() if isinstance(value, bytes)]
            if broken:
                yield Record(position, {}, f"column {broken[0]!r} is not UTF-8")
            else:
                yield Record(position, values)
            position += 1


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch of long values, as each is copied several times on its way to a text."""
    n_rows = max(1, batch.num_rows * _PIECE_BYTES // max(1, batch.nbytes))
    for start in range(0, batch.num_rows, n_rows):
        yield batch.slice(start, n_rows)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_id_type(kind: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_integer(kind)
        or _is_bytes_like(kind)
        or types.is_null(kind)
        or (types.is_decimal(kind) and kind.scale == 0)
    )


def _is_bytes_like(kind: pa.DataType) -> bool:
    types = pa.types
    is_binary = types.is_binary(kind) or types.is_large_binary(kind)
    return is_binary or types.is_string(kind) or types.is_large_string(kind)


def _texts(array: pa.Array) -> list[Any]:
    """Values as text; one that is not UTF-8 stays bytes."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if _is_bytes_like(array.type):
        return [_decoded(value) for value in array.cast(pa.large_binary()).to_pylist()]
    if pa.types.is_nested(array.type):
        raise ValueError("nested")
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us"), safe=False)  # UTC, in one form for all units
    texts: list[Any] = array.cast(pa.string()).to_pylist()
    return texts


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


# Folder of images


def read_images(folder: str, sku_column: str, uri_column: str) -> Iterator[Record]:
    """One record per picture file below a folder, sorted by name.

    The SKU is the path below the folder without its extension: `dress/red.jpg` is SKU `dress/red`.
    `a.jpg` and `a.png` in one folder are therefore two photos of SKU `a`.

    Args:
        folder: local path or object prefix.
        sku_column: key of the SKU in the record.
        uri_column: key of the image URI, relative to the folder, in the record.
    """
    names = (name for name in list_files(folder) if name.lower().endswith(IMAGE_SUFFIXES))
    for position, name in enumerate(names):
        if not _is_unicode(name):
            yield Record(position, {}, "file name is not UTF-8")
            continue
        uri = f"./{name}" if ":" in name else name  # else it would read as a scheme
        yield Record(position, {sku_column: os.path.splitext(name)[0], uri_column: uri})
