"""`dedup-job lineage`: a run as an OpenLineage event, for whoever keeps track of tables.

OpenLineage 2-0-2 RunEvent: https://openlineage.io/spec/2-0-2/OpenLineage.json
"""

import uuid
from datetime import UTC, datetime
from typing import Any

from dedup_job.io.manifests import RunManifest, read_manifest
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.tables import REPORT_TABLES
from dedup_job.version import VERSION

_SPEC = "https://openlineage.io/spec"
_SCHEMA_URL = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
_PRODUCER = f"https://pypi.org/project/catalog-dedup/{VERSION}"
_EVENTS = {
    "running": "RUNNING",
    "published": "COMPLETE",
    "shadow": "COMPLETE",
    "held": "FAIL",
    "failed": "FAIL",
    "died": "ABORT",
}
_JOB = "nightly_dedup"
_NAMESPACE = uuid.UUID(
    "6f1f3a52-8d5b-5f0e-9a63-3c1c2d8e7a10"
)  # of run ids: OpenLineage wants UUIDs


def lineage(warehouse: str, run_id: str | None = None) -> dict[str, Any]:
    """A run as an OpenLineage RunEvent.

    Args:
        warehouse: as `--warehouse`.
        run_id: a certain run; default: the last published one.

    Raises:
        DedupError: there is no such run, or its manifest is damaged.
    """
    folder = open_warehouse(warehouse)
    return run_event(folder, read_manifest(folder, run_id))


def run_event(warehouse: Folder, manifest: RunManifest) -> dict[str, Any]:
    """The event of one manifest; times of unfinished runs are now."""
    facets: dict[str, Any] = {
        "nominalTime": _facet(
            "NominalTimeRunFacet", "1-0-1", nominalStartTime=f"{manifest.run_date}T00:00:00Z"
        ),
        "processing_engine": _facet(
            "ProcessingEngineRunFacet", "1-1-1", name="catalog-dedup", version=manifest.version
        ),
    }
    if manifest.error:
        facets["errorMessage"] = _facet(
            "ErrorMessageRunFacet", "1-0-1", message=manifest.error, programmingLanguage="Python"
        )
    return {
        "eventType": _EVENTS.get(manifest.status, "OTHER"),
        "eventTime": manifest.finished_at or datetime.now(UTC).isoformat(),
        "producer": _PRODUCER,
        "schemaURL": _SCHEMA_URL,
        "run": {"runId": str(uuid.uuid5(_NAMESPACE, manifest.run_id)), "facets": facets},
        "job": {"namespace": warehouse.uri, "name": _JOB, "facets": {}},
        "inputs": [_input(file) for file in manifest.inputs.get("files", []) if "file" in file],
        "outputs": list(_outputs(warehouse, manifest)),
    }


def _input(file: dict[str, Any]) -> dict[str, Any]:
    scheme, separator, rest = str(file["file"]).partition("://")
    if not separator:
        return {"namespace": "file", "name": str(file["file"])}
    store, _, path = rest.partition("/")
    return {"namespace": f"{scheme}://{store}", "name": path or "/"}


def _outputs(warehouse: Folder, manifest: RunManifest) -> Any:
    for table in REPORT_TABLES:
        entry = manifest.tables.get(table.name)
        if entry is None:
            continue
        fields = [
            {"name": column.name, "type": column.type, "description": column.meaning}
            for column in table.columns
        ]
        n_rows = sum(file["n_rows"] for file in entry["files"])
        n_bytes = sum(file["n_bytes"] for file in entry["files"])
        yield {
            "namespace": warehouse.uri,
            "name": table.name,
            "facets": {"schema": _facet("SchemaDatasetFacet", "1-1-1", fields=fields)},
            "outputFacets": {
                "outputStatistics": _facet(
                    "OutputStatisticsOutputDatasetFacet", "1-0-2", rowCount=n_rows, size=n_bytes
                )
            },
        }


def _facet(name: str, version: str, /, **values: Any) -> dict[str, Any]:
    url = f"{_SPEC}/facets/{version}/{name}.json#/$defs/{name}"
    return {"_producer": _PRODUCER, "_schemaURL": url, **values}
