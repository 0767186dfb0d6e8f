"""Run the job in this process and read what it published."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.io.tables import read_rows
from dedup_job.nightly.results import RunResult
from dedup_job.pipeline import run
from dedup_job.settings import Setting, load_settings

# Test catalogs are small and full of bad rows: one row more or less would break a gate.
_WIDE_GATES = {
    "gates.max_reject_rate": 1.0,
    "gates.max_row_drop": 1.0,
    "gates.max_grouped_share_change": 1.0,
}


def run_job(catalog: object, warehouse: object, **settings: Any) -> RunResult:
    """`settings` are dotted keys with `__` for the dot; gates on shares are open unless given."""
    given = {"catalog.path": str(catalog), "warehouse": str(warehouse), "run_date": "2026-01-02"}
    given |= _WIDE_GATES
    given |= {key.replace("__", "."): value for key, value in settings.items()}
    return run(load_settings({k: Setting(v, "test") for k, v in given.items()}, None, {}))


def read_report(warehouse: object, name: str) -> list[dict[str, Any]]:
    """A table of the last published run, by its manifest."""
    folder = open_warehouse(str(warehouse))
    return read_rows(find_table(folder, read_manifest(folder), name)).to_pylist()


def write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write a catalog; the first row names the columns."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
