"""The job through spark-submit: local and on a real cluster, photos and warehouse on S3."""

import os
from pathlib import Path

import pytest

from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.io.tables import read_rows
from dedup_job.pipeline import run
from dedup_job.sample.catalog import write_sample_catalog
from dedup_job.settings import Setting, load_settings
from tests.cluster.standalone import make_bare_python, start_cluster, submit, zip_package

pytestmark = pytest.mark.cluster

BENCH = Path(__file__).parents[3] / "shared" / "bench"
SUITES = ("wardrobe", "studio")
WITH_BENCH = pytest.mark.skipif(not BENCH.is_dir(), reason=f"needs the labelled photos in {BENCH}")
AWS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
DATE = "2026-01-02"


@pytest.fixture(
    scope="module",
    params=[
        "sample",
        *(pytest.param(suite, marks=[pytest.mark.slow, WITH_BENCH]) for suite in SUITES),
    ],
)
def catalog(request, s3_server, tmp_path_factory):
    """A catalog on S3: `s3://bucket/catalog.csv` with photos beside it."""
    folder = BENCH / request.param
    if request.param == "sample":
        folder = tmp_path_factory.mktemp("sample")
        write_sample_catalog(folder, n_products=24)
    files = [folder / "catalog.csv", *sorted((folder / "images").iterdir())]
    objects = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    bucket = f"cluster-{request.param}"
    s3_server.create_bucket(bucket, objects)
    return f"s3://{bucket}"


@pytest.fixture(scope="module")
def in_process(spark, catalog):
    """What the job says when it runs in this process."""
    warehouse = f"{catalog}/in-process"
    flags = {"catalog.path": f"{catalog}/catalog.csv", "warehouse": warehouse, "run_date": DATE}
    run(load_settings({key: Setting(v, "test") for key, v in flags.items()}, None, {}))
    return warehouse


def read(warehouse, name):
    """A published table as sorted rows, without the one column that differs between runs."""
    folder = open_warehouse(warehouse)
    rows = read_rows(find_table(folder, read_manifest(folder), name))
    return sorted(tuple(row.items()) for row in rows.drop(["run_id"]).to_pylist())


def assert_same_reports(one, other):
    for name in ("duplicate_pairs", "duplicate_groups", "rejected_images", "placeholder_images"):
        assert read(one, name) == read(other, name), name
    assert len(read(one, "duplicate_groups")) > 10


def _arguments(catalog, warehouse):
    return ["--catalog", f"{catalog}/catalog.csv", "--warehouse", warehouse, "--run-date", DATE]


def _environment():
    return {name: os.environ[name] for name in AWS}


def test_a_standalone_cluster_gives_the_same_groups(catalog, in_process, tmp_path):
    warehouse = f"{catalog}/cluster"
    package = zip_package(tmp_path / "catalog_dedup.zip")
    with start_cluster(tmp_path) as cluster:
        done = submit(
            cluster.url,
            cluster.python,
            package,
            tmp_path,
            _arguments(catalog, warehouse),
            _environment(),
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "published" in done.stdout
    executors = {path.parts[-4] for path in tmp_path.glob("worker-*/app-*/*/stderr")}
    assert executors == {"worker-127.0.0.1", "worker-127.0.0.2"}
    assert_same_reports(in_process, warehouse)


@pytest.mark.slow
def test_spark_submit_with_a_local_master_gives_the_same_groups(catalog, in_process, tmp_path):
    warehouse = f"{catalog}/submitted"
    done = submit(
        "local[2]",
        make_bare_python(tmp_path / "python"),
        zip_package(tmp_path / "catalog_dedup.zip"),
        tmp_path,
        _arguments(catalog, warehouse),
        _environment(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_reports(in_process, warehouse)


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    done = submit(
        "local[1]",
        make_bare_python(tmp_path / "python"),
        zip_package(tmp_path / "catalog_dedup.zip"),
        tmp_path,
        ["--catalog", str(tmp_path / "none.csv"), "--warehouse", str(tmp_path / "warehouse")],
        {},
    )
    assert done.returncode == 2
    # spark-submit gives the driver's Python one stream for both, its stdout
    said = done.stdout + done.stderr
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "none.csv" in errors[0]
    assert "Traceback" not in said
