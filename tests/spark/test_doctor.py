"""`dedup-job run --dry-run` and `doctor` with a real session: right counts, and nothing written."""

import json

import pytest

from dedup_job.cli import main
from dedup_job.errors import ConfigError
from dedup_job.io.bundles import locate_bundle
from dedup_job.io.storage import Folder
from dedup_job.nightly.findings import Level
from dedup_job.preflight import examine
from dedup_job.settings import Setting, load_settings
from tests.e2e.jobs import run_job, write_csv
from tests.photos import jpeg

pytestmark = pytest.mark.spark
N_PHOTOS = 24


def settings(**given):
    keys = {key.replace("__", "."): value for key, value in given.items()}
    return load_settings({key: Setting(value, "test") for key, value in keys.items()}, None, {})


@pytest.fixture
def catalog(tmp_path):
    """24 photos of which two rows share one; a missing file, a page, refused hosts, a row without SKU."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for i in range(N_PHOTOS):
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
    (folder / "page.jpg").write_bytes(b"<html>not found</html>")
    uris = [f"{i}.jpg" for i in range(N_PHOTOS)]
    uris += ["0.jpg", "missing.jpg", "page.jpg", "/etc/hostname"]
    uris += [f"http://user:pw@cdn.shop/{i}.jpg" for i in range(2)]
    uris += [f"http://169.254.169.254/{i}.jpg?sig=secret" for i in range(3)]
    rows = [{"sku_id": f"s{i}", "image_uri": uri} for i, uri in enumerate(uris)]
    rows.append({"sku_id": "", "image_uri": "0.jpg"})
    return write_csv(folder / "catalog.csv", rows)


def look(**given):
    told = []
    found = examine(settings(**given), told.append, is_dry_run=True)
    assert told == found.findings
    return found


def details(found, what):
    return [finding.detail for finding in found.findings if finding.what == what]


def every_file(folder):
    return sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))


def objects(bucket):
    import boto3

    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return sorted((o["Key"], o["ETag"]) for page in pages for o in page.get("Contents", []))


def test_a_dry_run_counts_tries_estimates_and_writes_nothing(spark, tmp_path, catalog):
    before = every_file(tmp_path)
    found = look(catalog__path=str(catalog), warehouse=str(tmp_path / "lake" / "w"))
    assert every_file(tmp_path) == before
    assert not (tmp_path / "lake").exists()
    assert found.failures == []
    figures = found.catalog
    # Two of the catalog's rows fall to their user info, one to its missing SKU.
    assert figures.rejects == {"uri_refused": 2, "null_sku": 1}
    assert (figures.n_rows, figures.n_photos) == (N_PHOTOS + 10, N_PHOTOS + 6)
    assert (figures.n_new, figures.n_asked, figures.n_remembered) == (N_PHOTOS + 6, 0, 0)
    assert figures.refusals == {
        "host 169.254.169.254 is not in fetch.allow_hosts": 3,
        "file outside the image root; fetch.allow_roots can add its folder": 1,
    }
    assert figures.n_refused == 4
    sample = found.sample
    assert (sample.n_photos, sample.n_embedded) == (N_PHOTOS + 6, N_PHOTOS)
    assert sample.rejects == {"uri_refused": 4, "not_found": 1, "not_image": 1}
    assert sample.seconds > 0 and sample.n_sized == N_PHOTOS + 1
    estimates = {estimate.what: estimate for estimate in found.estimates}
    assert estimates["embedding store grows by"].value == pytest.approx(
        N_PHOTOS * (597 + 6_000), rel=0.01
    )
    assert 0 < estimates["photo stage"].value < 600
    assert "secret" not in json.dumps(found.as_dict())


def test_a_run_that_verifies_nothing_keeps_pictures_too(spark, tmp_path, catalog):
    found = look(catalog__path=str(catalog), warehouse=str(tmp_path / "w"), match__verify=False)
    estimates = {estimate.what: estimate.value for estimate in found.estimates}
    assert estimates["embedding store grows by"] == pytest.approx(
        N_PHOTOS * (597 + 6_000), rel=0.01
    )
    assert "verification" not in estimates


def test_executors_answer_with_what_they_have(spark, tmp_path, catalog):
    found = look(catalog__path=str(catalog), warehouse=str(tmp_path / "w"))
    (executor,) = found.executors
    assert executor.n_workers == 2  # the cores of the session of these tests
    assert int(executor.java.split(".")[0]) >= 17
    assert executor.machine.libraries["numpy"] and executor.machine.broken == {}
    assert executor.model_problem == ""
    assert executor.warehouse.nearest == str(tmp_path)
    assert any("blockmgr" in folder for folder in executor.machine.free_disk_mb)


@pytest.mark.slow
def test_a_warehouse_that_knows_the_photos_in_an_object_store(spark, tmp_path, catalog, s3_server):
    bucket = "doctor-test"
    s3_server.create_bucket(bucket)
    warehouse = f"s3://{bucket}/{tmp_path.name}"
    given = {"catalog__path": str(catalog), "warehouse": warehouse, "run_date": "2026-01-03"}
    first = look(**given)
    assert first.catalog.n_new == N_PHOTOS + 6
    assert details(first, "warehouse") == [f"{warehouse} can be listed; writing was not tried"]
    assert Folder(warehouse).folder_names() == []
    run_job(catalog, warehouse)
    before = objects(bucket)
    found = look(**given)
    assert before and objects(bucket) == before
    assert found.failures == [] and details(found, "warehouse in use") == []
    # Files are asked for size and time; what could not be read is fetched again.
    assert (found.catalog.n_asked, found.catalog.n_new) == (N_PHOTOS + 1, 5)
    assert found.sample.n_embedded == 0
    store = next(e for e in found.estimates if e.what == "embedding store grows by")
    assert store.value == 0


def test_a_bucket_that_is_not_there(spark, s3_server, catalog):
    found = look(catalog__path=str(catalog), warehouse="s3://no-such-bucket-here/w")
    assert found.failures == ["warehouse"]
    (detail,) = details(found, "warehouse")
    assert "there is no bucket s3://no-such-bucket-here" in detail
    assert found.catalog is None


def test_a_damaged_model_fails_before_anything_starts(tmp_path, catalog, capsys):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for file in locate_bundle("").iterdir():
        data = bytearray(file.read_bytes())
        if file.suffix == ".tflite":
            data[len(data) // 2] ^= 0xFF
        (bundle / file.name).write_bytes(bytes(data))
    arguments = ["run", "--dry-run", "--catalog", str(catalog), "--model", str(bundle)]
    assert main([*arguments, "--warehouse", str(tmp_path / "w")]) == 1
    out, err = capsys.readouterr()
    assert "FAIL model: " in out and "warn all else: not looked at, as it needs: model" in out
    assert err.splitlines()[-1].startswith("error: not ready for a run: model; nothing was written")
    assert not (tmp_path / "w").exists()


def test_a_delta_without_a_night_to_build_on_is_refused_before_spark_starts(tmp_path, catalog):
    with pytest.raises(ConfigError, match="needs a published run"):
        look(catalog__path=str(catalog), warehouse=str(tmp_path / "w"), catalog__mode="delta")


def test_doctor_without_a_catalog_looks_at_the_machines(spark, tmp_path, capsys):
    assert main(["doctor", "--warehouse", str(tmp_path / "w"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] and told["catalog"] is None and told["estimates"] == []
    assert {finding["level"] for finding in told["findings"]} <= {Level.OK, Level.WARN}
    assert len(told["executors"]) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--dry-run", "--warehouse", "w"], "catalog.path is missing"),
        (["run", "--dry-run", "--catalog", "c.csv"], "warehouse is missing"),
        (["doctor", "--catalog", "none.csv", "--warehouse", "w"], "none.csv"),
        (["doctor", "--warehouse", "ftp://x/y"], "scheme 'ftp' is not supported"),
        (["doctor", "--set", "match.max_skus=3"], "did you mean"),
        (["doctor", "--dry-run"], "unrecognized arguments"),
    ],
)
def test_what_ends_a_run_at_once_ends_the_look(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1
