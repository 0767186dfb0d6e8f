"""The driver and its JVM are killed: at every step, and at random moments (R6, R7, R8)."""

import json
import random
import time

import pytest

from tests.e2e.jobs import run_job
from tests.faults.nights import SECOND, in_process, job
from tests.faults.processes import wait_for
from tests.faults.published import assert_whole, globbed, reports, run_ids

pytestmark = [pytest.mark.spark, pytest.mark.fault, pytest.mark.slow]

POINTS = [
    "after_catalog",
    "after_embeddings",
    "after_candidates",
    "after_groups",
    "after_reports",
    "after_audit",
    "before_manifest",
]


def steps_done(warehouse):
    """Steps of all journals in staging."""
    return [
        step
        for path in (warehouse / "_staging").glob("*/journal.json")
        for step in json.loads(path.read_text())["steps"]
    ]


def test_a_run_killed_among_its_photos_continues_there(nights, tmp_path):
    warehouse = nights.before(tmp_path / "out")
    with job(nights.catalog, warehouse) as killed:
        chunks = wait_for(
            "two chunks of photos",
            lambda: [s for s in steps_done(warehouse) if s.startswith("photos-")][1:],
        )
        killed.kill_with_jvm()
    assert assert_whole(warehouse) == nights.first_run
    (dead,) = run_ids(warehouse, "running")
    result = nights.assert_converges(warehouse)
    assert result.resumed_from == dead
    assert set(chunks) < set(result.resumed_steps)
    # The figures are those of the night, whoever did the work.
    assert (result.rows, result.photos) == (nights.result.rows, nights.result.photos)


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_before_the_manifest_leaves_the_last_run_and_is_made_up_for(
    nights, tmp_path, point
):
    warehouse = nights.before(tmp_path / "out")
    with job(nights.catalog, warehouse, DEDUP_FAIL_AT=point) as crashed:
        assert crashed.finish() == 70, crashed.said()
    assert assert_whole(warehouse) == nights.first_run
    (dead,) = run_ids(warehouse, "running")
    result = nights.assert_converges(warehouse)
    assert result.resumed_from == dead
    if point != "after_catalog":
        assert any(step.startswith("photos-") for step in result.resumed_steps)
    assert result.photos == nights.result.photos


def test_a_crash_after_the_manifest_has_published(nights, tmp_path):
    warehouse = nights.before(tmp_path / "out")
    with job(nights.catalog, warehouse, DEDUP_FAIL_AT="after_manifest") as crashed:
        assert crashed.finish() == 70, crashed.said()
    published = assert_whole(warehouse)
    assert published in run_ids(warehouse, "published")[1:]
    assert reports(warehouse) == nights.reports
    again = nights.assert_converges(warehouse)
    assert again.run_id != published and again.photos.embedded == 0


def test_a_date_run_twice_says_the_same_and_its_files_do_not_pile_up(nights, tmp_path):
    warehouse = nights.before(tmp_path / "out")
    first = nights.assert_converges(warehouse)
    second = nights.assert_converges(warehouse)
    assert (first.n_pairs, first.n_groups) == (second.n_pairs, second.n_groups)
    assert second.base_run_id == first.base_run_id == nights.first_run
    for name in nights.reports:
        files = list((warehouse / name / f"run_date={SECOND}").iterdir())
        assert len(files) == 1, files


def test_a_night_without_groups_leaves_nothing_stale(nights, tmp_path):
    warehouse = nights.before(tmp_path / "out")
    nights.assert_converges(warehouse)
    result = run_job(
        nights.catalog,
        warehouse,
        run_date=SECOND,
        match__min_cosine=1.0,
        gates__max_grouped_share_change=1.0,
        candidates__search="exact",
    )
    assert (result.n_groups, assert_whole(warehouse)) == (0, result.run_id)
    for name in ("duplicate_groups", "duplicate_pairs"):
        assert globbed(warehouse, name, SECOND) == []
        assert len(globbed(warehouse, name, "2026-01-02")) > 10
    assert {row["change"] for row in reports(warehouse)["group_changes"]} == {"dissolved"}


@pytest.mark.parametrize("seed", [2026])
def test_twenty_random_kills_over_one_catalog(spark, nights, tmp_path, seed):
    warehouse, rng = tmp_path / "out", random.Random(seed)
    started = time.monotonic()
    with job(nights.catalog, nights.before(tmp_path / "timed")) as timed:
        timed.succeed()
    duration_s = time.monotonic() - started
    n_kills, last = 0, None
    while n_kills < 20:
        seconds = rng.uniform(0.15, 1.05) * duration_s
        with job(nights.catalog, warehouse) as victim:
            n_kills += victim.kill_after(seconds)
        if (warehouse / "_runs" / "latest.json").exists():
            last = assert_whole(warehouse)
            assert last in run_ids(warehouse, "published")
        else:
            assert last is None, f"run {last} is lost after kill {n_kills}"
    in_process(nights.catalog, warehouse, SECOND)
    in_process(nights.catalog, tmp_path / "undisturbed", SECOND)
    assert_whole(warehouse)
    assert reports(warehouse) == reports(tmp_path / "undisturbed")
    assert not (warehouse / "_staging").exists()
