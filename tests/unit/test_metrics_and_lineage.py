"""A run for those who watch it: Prometheus and OpenLineage."""

import json
import re
import uuid

import pytest

from dedup_job.commands.lineage import lineage
from dedup_job.commands.metrics import metrics
from dedup_job.errors import DedupError
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.tables import DUPLICATE_GROUPS, RUN_METRICS
from tests.unit.warehouses import publish, row_of

_SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{((?:\w+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)$')


@pytest.fixture
def warehouse(tmp_path):
    folder = Folder(str(tmp_path / "warehouse"))
    rows = {
        RUN_METRICS: [
            row_of(RUN_METRICS, stage="run", metric="wall_time", value=12.5, unit="s"),
            row_of(RUN_METRICS, stage="candidates", metric="recall", value=None, unit="1"),
            row_of(RUN_METRICS, stage="audit", metric='a"b\\c', value=1.0, unit="x\ny"),
        ],
        DUPLICATE_GROUPS: [row_of(DUPLICATE_GROUPS, sku_id=sku) for sku in "ab"],
    }
    stored = {t.name: write_rows(r, t, folder.child("t", t.name)) for t, r in rows.items()}
    inputs = {"files": [{"file": "/data/catalog.csv"}, {"file": "s3://shop/c.parquet"}]}
    publish(folder, "r1", stored, inputs=inputs)
    publish(folder, "r2", {}, run_date="2026-11-24", status="held", error="gate rejects")
    return folder.uri


def test_figures_are_in_the_text_format_of_prometheus(warehouse, tmp_path):
    text = metrics(warehouse, str(tmp_path / "dedup.prom"))
    assert (tmp_path / "dedup.prom").read_text() == text and text.endswith("\n")
    samples = [_SAMPLE.match(line) for line in text.splitlines() if not line.startswith("#")]
    assert all(samples)
    values = {(m[1], m[2]): m[3] for m in samples}
    assert values["catalog_dedup_run", 'stage="run",metric="wall_time",unit="s"'] == "12.5"
    assert values["catalog_dedup_run", 'stage="candidates",metric="recall",unit="1"'] == "NaN"
    assert values["catalog_dedup_run", 'stage="audit",metric="a\\"b\\\\c",unit="x\\ny"'] == "1.0"
    held, published = (
        float(values["catalog_dedup_last_end_timestamp_seconds", f'status="{status}"'])
        for status in ("held", "published")
    )
    assert held - published == 86_400
    assert float(values["catalog_dedup_last_published_timestamp_seconds", None]) == published
    types = re.findall(r"^# TYPE (\S+) gauge$", text, re.M)
    assert {name for name, _ in values} == set(types) and len(types) == len(set(types))


def test_a_run_is_an_openlineage_event(warehouse):
    event = json.loads(json.dumps(lineage(warehouse)))
    assert event["eventType"] == "COMPLETE" and event["schemaURL"].endswith("/$defs/RunEvent")
    assert uuid.UUID(event["run"]["runId"]) and lineage(warehouse)["run"] == event["run"]
    assert event["inputs"] == [
        {"namespace": "file", "name": "/data/catalog.csv"},
        {"namespace": "s3://shop", "name": "c.parquet"},
    ]
    outputs = {one["name"]: one for one in event["outputs"]}
    assert outputs.keys() == {"run_metrics", "duplicate_groups"}
    groups = outputs["duplicate_groups"]
    assert groups["outputFacets"]["outputStatistics"]["rowCount"] == 2
    names = [field["name"] for field in groups["facets"]["schema"]["fields"]]
    assert names == DUPLICATE_GROUPS.column_names
    facets = [*event["run"]["facets"].values(), *groups["facets"].values()]
    assert all({"_producer", "_schemaURL"} <= facet.keys() for facet in facets)


def test_a_held_run_failed_and_says_why(warehouse):
    event = lineage(warehouse, "r2")
    assert event["eventType"] == "FAIL"
    assert event["run"]["facets"]["errorMessage"]["message"] == "gate rejects"
    with pytest.raises(DedupError, match="holds no run r3"):
        lineage(warehouse, "r3")
