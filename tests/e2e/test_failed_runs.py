"""Runs that fail, are held back, or meet each other: what is published, what is said, what is kept."""

from dataclasses import replace

import pytest

from dedup_job import pipeline
from dedup_job.errors import ConfigError, DedupError, GateError, WarehouseBusy
from dedup_job.io.lease import acquire_lease, read_lease
from dedup_job.io.lease_files import create_lease
from dedup_job.io.manifests import list_runs, newest_published, read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.nightly import photo_stage, reporting
from tests.e2e.jobs import read_report, run_job, write_csv
from tests.e2e.shop import Shop
from tests.photos import jpeg

pytestmark = pytest.mark.spark
EXACT = {"candidates__search": "exact", "match__min_cosine": 0.9}


def shop_of(folder, n_products):
    shop = Shop(folder)
    for number in range(n_products):
        shop.add(design=number % 5)
    return shop


def broken_stage(*args, **kwargs):
    raise RuntimeError("the stage broke")


def test_a_failed_run_keeps_its_work_and_says_what_happened(
    spark, photo_server, tmp_path, monkeypatch
):
    rows = []
    for number in range(30):
        photo_server.routes[f"/{number}.jpg"] = jpeg(number)
        rows.append({"sku_id": f"s{number}", "image_uri": photo_server.url(f"/{number}.jpg")})
    catalog, out = write_csv(tmp_path / "catalog.csv", rows), tmp_path / "out"
    settings = EXACT | {"fetch__allow_hosts": ["127.0.0.1"], "embed__chunk_photos": 5}
    settings |= {"gallery__max_groups": 0}  # it would fetch grouped photos for their thumbnails
    real, calls = photo_stage.transform_table, []

    def breaks_at_the_third(*args):
        calls.append(args)
        return broken_stage() if len(calls) == 3 else real(*args)

    monkeypatch.setattr(photo_stage, "transform_table", breaks_at_the_third)
    with pytest.raises(RuntimeError, match="the stage broke"):
        run_job(catalog, out, **settings)
    folder = open_warehouse(str(out))
    (failed,) = list_runs(folder)
    assert (failed.status, failed.error) == ("failed", "the stage broke")
    assert failed.inputs["files"][0]["n_bytes"] == catalog.stat().st_size
    assert newest_published(folder) is None
    n_fetched = len(photo_server.requests)
    assert 0 < n_fetched < 30

    result = run_job(catalog, out, **settings)
    assert result.resumed_from == failed.run_id
    assert sum(step.startswith("photos-") for step in result.resumed_steps) == 2
    assert sorted(photo_server.paths()) == sorted(photo_server.routes)  # each of them once
    assert result.rows.embedded == 30
    assert f"continued      from run {failed.run_id}" in result.summary()
    assert not (out / "_staging").exists()
    assert read_manifest(folder).resumed_from["steps"] == list(result.resumed_steps)


@pytest.mark.slow
def test_work_for_other_inputs_is_not_continued(spark, tmp_path, monkeypatch):
    shop, out = shop_of(tmp_path / "shop", 8), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "group", broken_stage)
        with pytest.raises(RuntimeError):
            run_job(shop.write(), out, **EXACT)
    shop.add(design=7)
    result = run_job(shop.write(), out, **EXACT)
    assert result.resumed_from is None
    assert result.rows.catalog == 9
    assert not (out / "_staging").exists()


def test_a_second_run_is_refused_with_the_name_of_the_first(spark, tmp_path):
    shop, out = shop_of(tmp_path / "shop", 4), tmp_path / "out"
    with (
        acquire_lease(open_warehouse(str(out)), "run-one", 60.0),
        pytest.raises(WarehouseBusy, match="in use by run run-one"),
    ):
        run_job(shop.write(), out, **EXACT)
    assert run_job(shop.write(), out, **EXACT).rows.catalog == 4


def held_then_accepted(catalog, out, gate, **settings):
    """Run into a gate, then through it; the reports of before stand in between."""
    folder = open_warehouse(str(out))
    before = newest_published(folder)
    with pytest.raises(GateError, match=rf"{gate}: .*--accept {gate} --reason") as held:
        run_job(catalog, out, **EXACT | settings)
    assert held.value.exit_code == 3
    assert newest_published(folder) == before
    assert list_runs(folder)[-1].status == "held"
    result = run_job(catalog, out, **EXACT | settings, accept=[gate], reason="looked at it")
    manifest = read_manifest(folder)
    assert (manifest.run_id, manifest.accepted) == (result.run_id, {gate: "looked at it"})
    assert result.resumed_from == list_runs(folder)[-2].run_id  # what was computed is not lost
    return result


def test_rejects_hold_a_run_back(spark, tmp_path):
    shop = shop_of(tmp_path / "shop", 6)
    for sku in list(shop.rows)[:2]:
        shop.rows[sku] = ("gone.jpg", "")
    result = held_then_accepted(
        shop.write(), tmp_path / "out", "rejects", gates__max_reject_rate=0.2
    )
    assert result.rows.rejected == 2


@pytest.mark.slow
def test_a_held_run_that_is_started_again_as_it_was_looks_at_the_photos_again(spark, tmp_path):
    shop, out = shop_of(tmp_path / "shop", 4), tmp_path / "out"
    (shop.folder / "p0001.jpg").rename(shop.folder / "away.jpg")
    catalog, strict = shop.write(), EXACT | {"gates__max_reject_rate": 0.2}
    with pytest.raises(GateError, match="1 of 4 catalog rows were rejected"):
        run_job(catalog, out, **strict)
    (shop.folder / "away.jpg").rename(shop.folder / "p0001.jpg")
    result = run_job(catalog, out, **strict)
    assert (result.resumed_from, result.rows.rejected) == (None, 0)


@pytest.mark.slow
def test_what_cannot_be_cleaned_up_does_not_fail_a_published_run(spark, tmp_path, monkeypatch):
    shop, out = shop_of(tmp_path / "shop", 4), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(reporting, "drop_superseded", broken_stage)
        result = run_job(shop.write(), out, **EXACT)
    assert read_manifest(open_warehouse(str(out))).run_id == result.run_id
    run_job(shop.write(), out, **EXACT)
    assert not (out / "_staging").exists()


@pytest.mark.slow
def test_a_catalog_that_lost_rows_holds_a_run_back(spark, tmp_path):
    shop, out = shop_of(tmp_path / "shop", 10), tmp_path / "out"
    run_job(shop.write(), out, run_date="2026-01-01", **EXACT)
    half = shop.write(sorted(shop.rows)[:5])
    held_then_accepted(half, out, "row_drop", gates__max_row_drop=0.2)


@pytest.mark.slow
def test_a_group_too_large_holds_a_run_back(spark, tmp_path):
    shop = shop_of(tmp_path / "shop", 20)  # five designs
    held_then_accepted(shop.write(), tmp_path / "out", "largest_group", gates__max_group_size=3)


@pytest.mark.slow
def test_a_night_without_photos_holds_a_run_back(spark, tmp_path):
    catalog = write_csv(tmp_path / "catalog.csv", [{"sku_id": "a", "image_uri": "gone.jpg"}])
    held_then_accepted(catalog, tmp_path / "out", "no_photo")
    assert read_report(tmp_path / "out", "duplicate_groups") == []


@pytest.mark.slow
def test_an_unlikely_move_of_the_grouped_share_holds_a_run_back(spark, tmp_path):
    shop, out = Shop(tmp_path / "shop"), tmp_path / "out"
    for number in range(200):
        shop.add(f"s{number:03d}", design=number)
    run_job(shop.write(), out, run_date="2026-01-01", **EXACT | {"match__min_cosine": 1.0})
    for number in range(60):  # copies of one another
        other = shop.folder / shop.rows[f"s{number + 100:03d}"][0]
        other.write_bytes((shop.folder / shop.rows[f"s{number:03d}"][0]).read_bytes())
    held_then_accepted(
        shop.write(), out, "drift", gates__max_grouped_share_change=0.1, match__min_cosine=1.0
    )


def test_an_acceptance_needs_a_known_gate_and_a_reason(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'row_drop'"):
        run_job("c.csv", tmp_path, accept=["rowdrop"], reason="x")
    with pytest.raises(ConfigError, match="--reason"):
        run_job("c.csv", tmp_path, accept=["row_drop"])


def test_a_date_in_the_future_is_refused(tmp_path):
    shop = shop_of(tmp_path / "shop", 1)
    with pytest.raises(ConfigError, match="2126-01-02 lies in the future"):
        run_job(shop.write(), tmp_path / "out", run_date="2126-01-02")


@pytest.mark.slow
def test_keep_runs_deletes_what_is_older_and_nothing_else(spark, tmp_path):
    shop, out = shop_of(tmp_path / "shop", 6), tmp_path / "out"
    ids = [
        run_job(shop.write(), out, run_date=f"2026-01-{day:02d}", **EXACT).run_id
        for day in (1, 2, 3)
    ]
    last = run_job(shop.write(), out, run_date="2026-01-04", keep_runs=2, **EXACT)
    folder = open_warehouse(str(out))
    # The run before the oldest one that is kept stays as its base, out of sight of who globs.
    assert [run.run_id for run in list_runs(folder)] == [ids[1], ids[2], last.run_id]
    dates = sorted(path.name for path in (out / "duplicate_pairs").iterdir())
    assert dates == ["run_date=2026-01-03", "run_date=2026-01-04"]
    assert sorted(path.name for path in (out / "_runs").iterdir() if path.is_dir()) == sorted(
        ["lease", ids[1], ids[2], last.run_id]
    )
    again = run_job(shop.write(), out, run_date="2026-01-03", **EXACT)
    assert (again.base_run_id, again.changes) == (ids[1], {})
    assert read_report(out, "duplicate_groups")


def test_a_run_that_lost_its_lease_publishes_nothing(spark, tmp_path, monkeypatch):
    shop, out = shop_of(tmp_path / "shop", 6), tmp_path / "out"
    real = pipeline.publish_run

    def taken_over_meanwhile(*args):
        folder = open_warehouse(str(out))
        follower = replace(read_lease(folder), generation=99, run_id="follower")
        assert create_lease(folder.child("_runs", "lease"), follower)
        return real(*args)

    monkeypatch.setattr(pipeline, "publish_run", taken_over_meanwhile)
    with pytest.raises(DedupError, match="run follower took over"):
        run_job(shop.write(), out, **EXACT)
    assert newest_published(open_warehouse(str(out))) is None
    assert not list(out.glob("*/run_date=*"))
