"""The look before a night on a real cluster, whose executors have limits that the driver has not."""

import json

import pytest

from tests.cluster.standalone import start_cluster, submit, zip_package
from tests.e2e.jobs import write_csv
from tests.photos import jpeg

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
N_PHOTOS = 12


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with start_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return zip_package(tmp_path_factory.mktemp("package") / "catalog_dedup.zip")


@pytest.fixture
def dry_run(cluster, package, tmp_path):
    photos = tmp_path / "shop"
    photos.mkdir()
    for i in range(N_PHOTOS):
        (photos / f"{i}.jpg").write_bytes(jpeg(i))
    rows = [{"sku_id": f"s{i}", "image_uri": f"{i}.jpg"} for i in range(N_PHOTOS)]
    catalog = write_csv(photos / "catalog.csv", rows)

    def start(**conf):
        given = {key.replace("__", "."): value for key, value in conf.items()}
        arguments = ["--dry-run", "--json", "--catalog", str(catalog)]
        arguments += ["--warehouse", str(tmp_path / "w")]
        done = submit(cluster.url, cluster.python, package, cluster.folder, arguments, {}, given)
        assert not (tmp_path / "w").exists()
        assert "{" in done.stdout, done.stderr[-2000:]
        told, _ = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("{\n"))
        return done, told

    return start


def test_every_executor_answers_from_a_shipped_package(dry_run):
    done, told = dry_run()
    assert done.returncode == 0, done.stdout
    assert [executor["n_workers"] for executor in told["executors"]] == [1, 1]
    folders = [tuple(executor["machine"]["free_disk_mb"]) for executor in told["executors"]]
    assert len(set(folders)) == 2
    assert told["catalog"]["n_new"] == told["sample"]["n_embedded"] == N_PHOTOS


def test_a_limit_on_the_workers_alone_is_explained(dry_run):
    done, told = dry_run(spark__executor__pyspark__memory="600m")
    assert done.returncode == 1
    failures = [finding for finding in told["findings"] if finding["level"] == "FAIL"]
    assert 1 <= len(failures) <= 2, "one of both executors, or one each where they differ"
    for failed in failures:
        assert failed["what"].startswith("address space on")
        assert "RLIMIT_AS is 600 MB" in failed["detail"]
        assert "unset spark.executor.pyspark.memory (600m)" in failed["detail"]
    assert any("the model" in failed["detail"] for failed in failures)
    assert told["catalog"] is None
    assert "not ready for a run: address space" in done.stdout + done.stderr
