"""Two runs on one warehouse, and disks that are full or read-only (R9, R10)."""

import os
import subprocess
import time
from contextlib import contextmanager

import pytest

from dedup_job.errors import WarehouseBusy
from tests.faults.nights import SECOND, in_process, job
from tests.faults.published import assert_whole, globbed, reports, run_ids

pytestmark = [pytest.mark.spark, pytest.mark.fault, pytest.mark.slow]


def test_a_second_run_is_refused_with_the_name_of_the_first(nights, tmp_path):
    warehouse = nights.before(tmp_path / "out")
    with job(nights.catalog, warehouse, DEDUP_FAIL_AT="after_embeddings:stop") as first:
        first.wait_until_stopped()
        (name,) = run_ids(warehouse, "running")
        with pytest.raises(WarehouseBusy, match=name):
            in_process(nights.catalog, warehouse, SECOND)
        assert assert_whole(warehouse) == nights.first_run
        first.resume()
        assert first.succeed()["run_id"] == name
    assert assert_whole(warehouse) == name
    assert reports(warehouse) == nights.reports


@pytest.mark.parametrize("point", ["after_audit", "before_manifest"])
def test_an_owner_that_wakes_after_a_takeover_publishes_nothing(
    nights,
    tmp_path,
    point,
):
    warehouse = nights.before(tmp_path / "out")
    ttl = ("--set", "lease.ttl_s=2")
    with job(nights.catalog, warehouse, *ttl, DEDUP_FAIL_AT=f"{point}:stop") as paused:
        paused.wait_until_stopped()
        time_to_live_passes()
        result = in_process(nights.catalog, warehouse, SECOND)
        assert assert_whole(warehouse) == result.run_id
        paused.resume()
        assert paused.finish() == 1
        assert f"error: run {result.run_id} took over this warehouse" in paused.said()
    assert assert_whole(warehouse) == result.run_id
    assert reports(warehouse) == nights.reports
    for name, rows in nights.reports.items():
        assert globbed(warehouse, name, SECOND) == rows


def time_to_live_passes():
    time.sleep(2.5)


@contextmanager
def small_disk(folder, size):
    """A file system of `size` bytes of its own, where this machine lets one be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root and the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, n_free):
    """Use up a disk but for so many bytes."""
    status = os.statvfs(folder)
    with (folder / "filler").open("wb") as stream:
        stream.write(bytes(status.f_bavail * status.f_frsize - n_free))


@pytest.mark.parametrize("n_free", [0, 64 * 1024])
def test_a_full_warehouse_keeps_its_last_run_and_says_so(nights, tmp_path, n_free):
    with small_disk(tmp_path / "disk", 16 * 1024**2) as disk:
        warehouse = nights.before(disk / "out")
        fill(disk, n_free)
        with job(nights.catalog, warehouse, said=tmp_path / "said") as starved:
            assert starved.finish() == 1, starved.said()
            assert_one_error(starved, "No space left on device", "a disk is full")
        assert assert_whole(warehouse) == nights.first_run
        (disk / "filler").unlink()
        nights.assert_converges(warehouse)


def test_a_full_scratch_disk_ends_the_run_and_keeps_the_last(nights, tmp_path):
    warehouse = nights.before(tmp_path / "out")
    with (
        small_disk(tmp_path / "scratch", 64 * 1024) as scratch,
        job(nights.catalog, warehouse, SPARK_LOCAL_DIRS=str(scratch)) as starved,
    ):
        assert starved.finish() == 1, starved.said()
        assert_one_error(starved, "No space left on device", "a disk is full")
    assert assert_whole(warehouse) == nights.first_run
    nights.assert_converges(warehouse)


def test_a_read_only_warehouse_keeps_its_last_run_and_is_named(nights, tmp_path):
    with small_disk(tmp_path / "disk", 16 * 1024**2) as disk:
        warehouse = nights.before(disk / "out")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with job(nights.catalog, warehouse, said=tmp_path / "said") as refused:
            assert refused.finish() == 1, refused.said()
            assert_one_error(refused, str(warehouse))
            assert_one_error(refused, "Read-only file system")
        assert assert_whole(warehouse) == nights.first_run
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        nights.assert_converges(warehouse)


def assert_one_error(job, *any_of):
    """One line for the user, and it holds one of these texts."""
    errors = [line for line in job.said().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, job.said()[-3000:]
    assert any(text in errors[0] for text in any_of), errors[0]
