"""Broken rows beside good ones: each costs itself, says why, and changes nothing else."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup_job.cli import main
from dedup_job.errors import GateError
from dedup_job.io.manifests import list_runs
from dedup_job.io.storage import open_warehouse
from dedup_job.sample.catalog import write_sample_catalog
from tests.e2e.hostile import HANDLED, REASONS, hostile_files
from tests.e2e.jobs import read_csv, read_report, run_job, write_csv
from tests.photos import jpeg
from tests.servers import hang

pytestmark = pytest.mark.spark

# One threshold for both runs: a solved one moves a little with the size of the catalog.
FIXED = {"match__min_cosine": 0.9, "fetch__total_timeout_s": 2, "fetch__read_timeout_s": 1}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample_catalog(tmp_path_factory.mktemp("hostile"), n_products=16).catalog


def test_each_broken_row_is_rejected_for_its_own_reason(spark, sample, photo_server, tmp_path):
    check_hostile_rows(sample, photo_server, tmp_path)


def check_hostile_rows(catalog, photo_server, tmp_path):
    """Run a catalog with and without broken rows beside the good ones, and compare."""
    rows = [{k: row[k] for k in ("sku_id", "image_uri")} for row in read_csv(catalog)]
    clean = write_csv(tmp_path / "clean.csv", rows)
    photo_server.routes["/hang.jpg"] = hang
    (tmp_path / "bad").mkdir()
    for name, data in hostile_files().items():
        (tmp_path / "bad" / name).write_bytes(data)
    bad = [(name.partition(".")[0], str(tmp_path / "bad" / name)) for name in hostile_files()]
    bad += [("missing", str(tmp_path / "bad" / "missing.jpg"))]
    bad += [(rows[0]["sku_id"], rows[0]["image_uri"]), ("", rows[0]["image_uri"])]
    bad += [("gone", photo_server.url("/gone.jpg")), ("hanging", photo_server.url("/hang.jpg"))]
    added = [{"sku_id": sku, "image_uri": uri} for sku, uri in bad]
    hostile = write_csv(tmp_path / "hostile.csv", [*rows, *added])

    settings = {**FIXED, "catalog__image_root": str(catalog.parent)}
    before = run_job(clean, tmp_path / "before", **settings)
    settings |= {"fetch__allow_hosts": ["127.0.0.1"], "fetch__allow_roots": [str(tmp_path / "bad")]}
    after = run_job(hostile, tmp_path / "after", **settings)

    assert after.rows.catalog == before.rows.catalog + len(added)
    rejects = read_report(tmp_path / "after", "rejected_images")
    of_added = {r["sku_id"]: r["reason"] for r in rejects if int(r["catalog_row"]) >= len(rows)}
    assert of_added == {**REASONS, rows[0]["sku_id"]: "duplicate_row", None: "null_sku"}
    assert HANDLED.isdisjoint(r["sku_id"] for r in rejects)
    assert _pairs(tmp_path / "after", without=HANDLED) == _pairs(tmp_path / "before")
    assert len(_pairs(tmp_path / "before")) > 5


def _pairs(warehouse, without=frozenset()):
    return {
        (row["sku_id_a"], row["sku_id_b"], row["cosine"], row["match_type"])
        for row in read_report(warehouse, "duplicate_pairs")
        if not without & {row["sku_id_a"], row["sku_id_b"]}
    }


def test_http_is_refused_until_a_host_is_allowed(spark, photo_server, tmp_path):
    photo_server.routes["/a.jpg"] = jpeg(1)
    (tmp_path / "b.jpg").write_bytes(jpeg(2))
    rows = [
        {"sku_id": "a", "image_uri": photo_server.url("/a.jpg?token=s3cret")},
        {"sku_id": "b", "image_uri": "b.jpg"},
    ]
    catalog = write_csv(tmp_path / "catalog.csv", rows)
    run_job(catalog, tmp_path / "refused")
    (reject,) = read_report(tmp_path / "refused", "rejected_images")
    assert reject["reason"] == "uri_refused"
    assert "fetch.allow_hosts" in reject["detail"]
    assert "s3cret" not in str(reject)
    assert photo_server.requests == []
    result = run_job(catalog, tmp_path / "allowed", fetch__allow_hosts=["127.0.0.1"])
    assert result.rows.embedded == 2
    assert photo_server.paths() == ["/a.jpg?token=s3cret"]


def test_a_night_without_a_usable_photo_publishes_nothing(spark, tmp_path):
    catalog = write_csv(tmp_path / "catalog.csv", [{"sku_id": "a", "image_uri": "gone.jpg"}])
    with pytest.raises(GateError, match=r"none of the 1 catalog rows .*not_found, 1 times"):
        run_job(catalog, tmp_path / "warehouse")
    (manifest,) = list_runs(open_warehouse(str(tmp_path / "warehouse")))
    assert (manifest.status, manifest.tables) == ("held", {})
    assert not list((tmp_path / "warehouse").glob("*/run_date=*"))


def test_a_damaged_page_ends_the_night_in_one_line(spark, tmp_path, capsys):
    ids = [f"{number:06}" for number in range(1000)]
    catalog = tmp_path / "catalog.parquet"
    table = pa.table({"sku_id": ids, "image_uri": ids})
    pq.write_table(table, catalog, write_page_checksum=True)
    data = bytearray(catalog.read_bytes())
    data[len(data) // 3] ^= 0xFF
    catalog.write_bytes(data)
    arguments = ["--catalog", str(catalog), "--warehouse", str(tmp_path / "warehouse")]
    assert main(["run", *arguments]) == 2
    told = capsys.readouterr().err.splitlines()
    errors = [line for line in told if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: catalog {catalog}: Parquet pages cannot be read: ")
    assert not list((tmp_path / "warehouse").glob("*/run_date=*"))
