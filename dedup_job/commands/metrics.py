"""`dedup-job metrics`: the last published run for Prometheus, in the text format of its node exporter.

Exposition format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from dedup_job.commands.output_file import written_whole
from dedup_job.io.manifests import RunManifest, find_table, list_runs, read_manifest
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.tables import read_rows
from dedup_job.tables import RUN_METRICS

_PREFIX = "catalog_dedup"
_ENDS = ("published", "held", "failed", "died")


def metrics(warehouse: str, out: str | None = None) -> str:
    """The figures of the last published run, and how runs ended.

    Args:
        warehouse: as `--warehouse`.
        out: a file to write, for the textfile collector: whole or not at all.

    Returns:
        The text.

    Raises:
        DedupError: nothing was published there, or it cannot be read.
        ConfigError: `out` cannot be written.
    """
    folder = open_warehouse(warehouse)
    text = "\n".join(_lines(folder, read_manifest(folder))) + "\n"
    if out is not None:
        with written_whole(Path(out)) as partial:
            partial.write_text(text, encoding="utf-8")
    return text


def _lines(warehouse: Folder, manifest: RunManifest) -> Iterator[str]:
    yield from _family("last_published_timestamp_seconds", "when the last run was published")
    yield _sample("last_published_timestamp_seconds", _timestamp(manifest.finished_at))
    runs = list_runs(warehouse)
    yield from _family("last_end_timestamp_seconds", "when a run last ended so")
    for status in _ENDS:
        ended = [run.finished_at for run in runs if run.status == status and run.finished_at]
        if ended:
            yield _sample("last_end_timestamp_seconds", _timestamp(max(ended)), status=status)
    yield from _family("run", "a figure of the last published run (run_metrics)")
    for row in read_rows(find_table(warehouse, manifest, RUN_METRICS.name)).to_pylist():
        value = math.nan if row["value"] is None else row["value"]
        yield _sample("run", value, stage=row["stage"], metric=row["metric"], unit=row["unit"])


def _family(name: str, meaning: str) -> tuple[str, str]:
    return f"# HELP {_PREFIX}_{name} {meaning}", f"# TYPE {_PREFIX}_{name} gauge"


def _sample(name: str, value: float, **labels: str) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    number = "NaN" if math.isnan(value) else repr(float(value))
    return f"{_PREFIX}_{name}{{{shown}}} {number}" if shown else f"{_PREFIX}_{name} {number}"


def _escaped(text: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", text).replace("\n", "\\n")


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
