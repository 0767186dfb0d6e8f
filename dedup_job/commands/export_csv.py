"""`dedup-job export-csv`: a report table of a published run, for a spreadsheet.

RFC 4180 with a byte order mark, without which Excel takes UTF-8 for the code page of its country.
Text is quoted always and numbers never; null is nothing between commas, an empty text is two quotes.
What a spreadsheet would compute gets a leading apostrophe, so a text may differ from the catalog's:
programs read the Parquet tables.
"""

import json
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dedup_job.commands.output_file import written_whole
from dedup_job.commands.safe_text import spreadsheet_text
from dedup_job.errors import ConfigError, DedupError, one_line
from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.io.tables import StoredTable, read_batches
from dedup_job.tables import REPORT_TABLES

TABLE_NAMES = tuple(table.name for table in REPORT_TABLES)
_BATCH_ROWS = 4_096


def export_csv(warehouse: str, table: str, out: str, run_id: str | None = None) -> int:
    """Write a report table of a run as one CSV file.

    The file is streamed, and appears under its name when it is complete.

    Args:
        warehouse: as `--warehouse`.
        table: one of `TABLE_NAMES`.
        out: the file; replaced if it exists.
        run_id: a certain run; default: the last published one.

    Returns:
        Rows written, the header not counted.

    Raises:
        DedupError: nothing was published there, or it cannot be read.
        ConfigError: unknown table, or the file cannot be written.
    """
    if table not in TABLE_NAMES:
        raise ConfigError(f"no report table {table!r}; the tables are {', '.join(TABLE_NAMES)}")
    folder = open_warehouse(warehouse)
    stored = find_table(folder, read_manifest(folder, run_id), table)
    return _write(_header(stored), _lines(stored), Path(out))


def _header(stored: StoredTable) -> str:
    return ",".join(_quoted(name) for name in stored.table.column_names)


def _lines(stored: StoredTable) -> Iterator[str]:
    try:
        for rows in read_batches(stored, stored.table.column_names, _BATCH_ROWS):
            columns = [_cells(rows.column(name)) for name in rows.column_names]
            yield from map(",".join, zip(*columns, strict=True))
    except (OSError, pa.ArrowException) as error:
        raise DedupError(
            f"{stored.folder.uri} cannot be read: {one_line(error)}; list what is left with: "
            "dedup-job runs --warehouse DIR"
        ) from None


def _cells(column: pa.ChunkedArray) -> list[str]:
    values = column.to_pylist()
    if pa.types.is_float32(column.type):
        # The shortest digits that say the same float32: 0.91, not 0.9100000262260437.
        values = [value if value is None else np.float32(value) for value in values]
    return [csv_cell(value) for value in values]


def csv_cell(value: Any) -> str:
    """A value as it stands between two commas."""
    if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | np.number):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        value = json.dumps(value, ensure_ascii=False)
    return _quoted(spreadsheet_text(str(value)))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _write(header: str, lines: Iterable[str], out: Path) -> int:
    n_rows = 0
    with written_whole(out) as partial, partial.open("w", encoding="utf-8-sig", newline="") as file:
        file.write(header + "\r\n")
        for line in lines:
            file.write(line + "\r\n")
            n_rows += 1
    return n_rows
