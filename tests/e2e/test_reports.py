"""What a warehouse sees: tables that agree with each other, in every reader."""

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dedup_job.commands.export_embeddings import export_embeddings
from dedup_job.io.manifests import read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.sample.catalog import write_sample_catalog
from dedup_job.tables import REPORT_TABLES
from tests.e2e.jobs import read_csv, read_report, run_job, write_csv

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def published(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    sample = write_sample_catalog(folder / "catalog", n_products=24)
    result = run_job(
        sample.catalog,
        folder / "warehouse",
        catalog__canonical_order="in_stock desc, created_at asc",
        dollars_per_core_hour=0.05,
    )
    return sample, folder / "warehouse", result


def test_every_table_opens_in_arrow_duckdb_and_spark(spark, published):
    _, warehouse, _ = published
    for table in REPORT_TABLES:
        folder = warehouse / table.name
        arrow = ds.dataset(folder, partitioning="hive").to_table()
        by_duckdb = duckdb.sql(
            f"SELECT * FROM read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
        )
        by_spark = spark.read.parquet(str(folder))
        assert arrow.num_rows == len(by_duckdb.fetchall()) == by_spark.count(), table.name
        assert set(by_duckdb.columns) == set(by_spark.columns) == {*table.column_names, "run_date"}
        assert dict(by_spark.dtypes)["run_date"] == "date"
        (file,) = folder.glob("*/*.parquet")
        assert pq.read_schema(file).metadata[b"schema_version"] == b"1"


def test_the_tables_agree_with_each_other(published):
    _, warehouse, result = published
    groups = read_report(warehouse, "duplicate_groups")
    pairs = read_report(warehouse, "duplicate_pairs")
    (run,) = read_report(warehouse, "runs")
    group_of = {row["sku_id"]: row["group_id"] for row in groups}
    assert len(group_of) == len(groups), "a SKU is in at most one group"
    assert len([row for row in groups if row["is_canonical"]]) == result.n_groups > 0
    for pair in pairs:
        assert pair["sku_id_a"] < pair["sku_id_b"]
        together = group_of.get(pair["sku_id_a"]) == group_of.get(pair["sku_id_b"], "none")
        assert together == (pair["group_id"] is not None) == (pair["parted_by"] is None)
        assert 0 <= pair["match_probability"] <= 1
        assert pair["cosine"] >= run["min_cosine"] - 1e-6
    for row in groups:
        size = sum(other["group_id"] == row["group_id"] for other in groups)
        assert row["group_size"] == size >= 2
        assert row["is_canonical"] == (row["sku_id"] == row["canonical_sku_id"])
        assert row["min_pair_cosine"] <= row["cosine_to_canonical"] <= 1.0
    assert {row["run_id"] for row in groups + pairs} == {run["run_id"]} == {result.run_id}


def test_every_catalog_row_is_accounted_for(published):
    sample, warehouse, result = published
    rows = result.rows
    n_rows = len(read_csv(sample.catalog))
    assert rows.catalog == n_rows
    assert rows.embedded + rows.shared_content + rows.placeholder + rows.rejected == n_rows
    assert len(read_report(warehouse, "rejected_images")) == rows.rejected > 0
    metrics = {(r["stage"], r["metric"]): r["value"] for r in read_report(warehouse, "run_metrics")}
    assert metrics["catalog", "rows_embedded"] == rows.embedded
    assert metrics["run", "cost_per_million_photos"] > 0
    assert metrics["candidates", "recall"] in (None, 1.0)


def test_embeddings_are_exported_for_every_usable_row(published, tmp_path):
    _, warehouse, result = published
    out = tmp_path / "embeddings.parquet"
    n_rows = export_embeddings(str(warehouse), str(out))
    table = pq.read_table(out)
    assert table.column_names == ["sku_id", "image_uri", "embedding"]
    assert n_rows == table.num_rows == result.rows.catalog - result.rows.rejected


def test_a_rerun_of_the_date_replaces_it_and_a_night_without_groups_empties_it(spark, tmp_path):
    sample = write_sample_catalog(tmp_path / "catalog", n_products=6)
    rows = read_csv(sample.catalog)
    first = run_job(sample.catalog, tmp_path / "warehouse", match__min_cosine=0.5)
    assert first.n_groups > 0
    one_row = write_csv(tmp_path / "catalog" / "one.csv", rows[:1])
    second = run_job(one_row, tmp_path / "warehouse", match__min_cosine=0.5)
    assert second.n_groups == 0
    folder = tmp_path / "warehouse" / "duplicate_groups"
    assert ds.dataset(folder, partitioning="hive").to_table().num_rows == 0
    assert [p.name for p in folder.iterdir()] == ["run_date=2026-01-02"]
    run_job(one_row, tmp_path / "warehouse", run_date="2026-01-03")
    assert len(list(folder.iterdir())) == 2
    assert read_manifest(open_warehouse(str(tmp_path / "warehouse"))).run_date == "2026-01-03"
    assert not (tmp_path / "warehouse" / "_staging").exists()


@pytest.mark.training
def test_the_tensorflow_runtime_finds_nearly_the_same_pairs(spark, published, tmp_path):
    sample, warehouse, _ = published
    run_job(sample.catalog, tmp_path, model__runtime="tensorflow")
    litert, full = (
        {(row["sku_id_a"], row["sku_id_b"]) for row in read_report(place, "duplicate_pairs")}
        for place in (warehouse, tmp_path)
    )
    # int8 rounding moves cosines, and so scores, by a few thousandths: only pairs at the threshold may differ
    assert len(litert & full) / len(litert | full) > 0.7
    assert len(full) > 3
