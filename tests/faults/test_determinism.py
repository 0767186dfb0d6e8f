"""The same catalog gives the same groups, however it is cut, ordered and computed (R15)."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.jobs import read_csv, run_job
from tests.e2e.shop import Shop
from tests.faults.job import Job
from tests.faults.published import reports

pytestmark = [pytest.mark.spark, pytest.mark.fault]

# Annoy in several cells, though the catalog is small
SEARCH = {
    "candidates.search": "annoy",
    "candidates.exact_below_rows": 0,
    "candidates.max_cell_rows": 40,
    "match.min_cosine": 0.9,
    "run_date": "2026-01-02",
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    shop = Shop(tmp_path_factory.mktemp("shop"), seed=5, n_designs=30)
    for _ in range(100):
        shop.add()
    return shop.write()


@pytest.fixture(scope="module")
def expected(spark, catalog, tmp_path_factory):
    warehouse = tmp_path_factory.mktemp("expected")
    run_job(catalog, warehouse, **{k.replace(".", "__"): v for k, v in SEARCH.items()})
    found = reports(warehouse)
    assert len(found["duplicate_groups"]) > 50
    return found


@pytest.mark.parametrize(("seed", "n_partitions"), [(1, "2"), (2, "7")])
def test_order_and_partitions_do_not_matter(spark, catalog, expected, tmp_path, seed, n_partitions):
    rows = read_csv(catalog)
    random.Random(seed).shuffle(rows)
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(seed + 1):
        part = rows[number :: seed + 1]
        pq.write_table(pa.Table.from_pylist(part), parts / f"{number}.parquet", row_group_size=20)
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", n_partitions)
    try:
        settings = {k.replace(".", "__"): v for k, v in SEARCH.items()}
        run_job(parts, tmp_path / "out", catalog__image_root=str(catalog.parent), **settings)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
    assert reports(tmp_path / "out") == expected


@pytest.mark.slow
@pytest.mark.parametrize(("cores", "hash_seed"), [("1", "1"), ("2", "4242")])
def test_cores_and_hash_seeds_do_not_matter(catalog, expected, tmp_path, cores, hash_seed):
    environment = {"DEDUP_LOCAL_CORES": cores, "PYTHONHASHSEED": hash_seed}
    arguments = [word for k, v in SEARCH.items() for word in ("--set", f"{k}={v}")]
    with Job(
        catalog, tmp_path / "out", tmp_path / "said", *arguments, environment=environment
    ) as job:
        job.succeed()
    assert reports(tmp_path / "out") == expected
