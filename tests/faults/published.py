"""Read what a warehouse has published, and make sure that it is whole."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dedup_job.tables import STATE_TABLES
from tests.e2e.jobs import read_report

REPORTS = ("duplicate_groups", "duplicate_pairs", "group_changes", "rejected_images")
_STATE = {table.name for table in STATE_TABLES}


def reports(warehouse: Path) -> dict[str, list[dict[str, Any]]]:
    """The last published reports, sorted, without the run id, which differs between any two runs."""
    return {name: _comparable(read_report(warehouse, name)) for name in REPORTS}


def globbed(warehouse: Path, name: str, run_date: str) -> list[dict[str, Any]]:
    """The rows of a date that a reader finds who knows nothing of manifests."""
    folder = warehouse / name / f"run_date={run_date}"
    return _comparable(ds.dataset(folder, format="parquet").to_table().to_pylist())


def assert_whole(warehouse: Path) -> str:
    """What `latest.json` names is all there and all of one run; returns its run id."""
    manifest = json.loads((warehouse / "_runs" / "latest.json").read_text())
    assert manifest["status"] == "published"
    assert set(REPORTS) <= set(manifest["tables"])
    for name, entry in manifest["tables"].items():
        assert entry["files"], name
        for file in entry["files"]:
            path = warehouse / entry["folder"] / file["name"]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"], path
            rows = pq.read_table(path)
            assert rows.num_rows == file["n_rows"], path
            if name not in _STATE:
                assert set(rows["run_id"].to_pylist()) <= {manifest["run_id"]}, path
    return str(manifest["run_id"])


def run_ids(warehouse: Path, status: str) -> list[str]:
    """Runs whose manifest has a status, in the order of their start."""
    paths = (warehouse / "_runs").glob("*.json")
    manifests = [json.loads(path.read_text()) for path in paths if path.name != "latest.json"]
    return sorted(one["run_id"] for one in manifests if one["status"] == status)


def _comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(({k: v for k, v in row.items() if k != "run_id"} for row in rows), key=str)
