"""The job on the labelled real photos that lie beside the checkout, where they do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dedup_job.commands.export_embeddings import export_embeddings
from tests.e2e.jobs import read_csv, read_report, run_job
from tests.e2e.test_hostile_catalog import check_hostile_rows

BENCH = Path(__file__).parents[3] / "shared" / "bench"
pytestmark = [
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.skipif(not BENCH.is_dir(), reason=f"needs the labelled photos in {BENCH}"),
]


def _score(mode, suite, table):
    command = [sys.executable, BENCH / "score.py", mode, BENCH / suite / "truth.csv", table]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


# What the strongest peer reaches out of the box (fastdup 2.54); the bar is higher, this is a floor.
@pytest.mark.parametrize(
    ("suite", "peer_uap", "peer_precision"),
    [("wardrobe", 0.786, 0.846), ("studio", 0.593, 0.513)],
)
def test_ranking_and_precision_beat_the_peer(spark, tmp_path, suite, peer_uap, peer_precision):
    catalog = BENCH / suite / "catalog.csv"
    result = run_job(catalog, tmp_path / "warehouse")
    rows = result.rows
    assert rows.catalog == len(read_csv(catalog))
    assert rows.embedded + rows.shared_content == rows.catalog
    export_embeddings(str(tmp_path / "warehouse"), str(tmp_path / "embeddings.parquet"))
    ranking = _score("embeddings", suite, tmp_path / "embeddings.parquet")
    (table,) = (tmp_path / "warehouse" / "duplicate_groups").glob("*/*.parquet")
    groups = _score("groups", suite, table)
    assert ranking["uap"] > peer_uap
    assert groups["pair_precision"] > peer_precision
    assert groups["groups_of_two_or_more"] == result.n_groups
    assert len(read_report(tmp_path / "warehouse", "rejected_images")) == 0


def test_broken_rows_change_nothing_else_on_real_photos(spark, photo_server, tmp_path):
    check_hostile_rows(BENCH / "wardrobe" / "catalog.csv", photo_server, tmp_path)
