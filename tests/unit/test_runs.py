"""`dedup-job runs`, and which runs are kept."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dedup_job.cli import main
from dedup_job.commands.runs import show_runs
from dedup_job.errors import WarehouseBusy
from dedup_job.io.lease import acquire_lease
from dedup_job.io.manifests import RunManifest, list_runs, read_manifest, write_manifest
from dedup_job.io.publish import place_partition, store_run_tables
from dedup_job.io.retention import bury_dead_runs, drop_superseded, prune_runs
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.tables import GROUP_CHANGES, REPORT_TABLES
from tests.unit.warehouses import publish

TABLE = GROUP_CHANGES.name


@pytest.fixture
def local(tmp_path):
    return Folder(str(tmp_path))


def store(warehouse, run_id):
    staged = write_rows([], GROUP_CHANGES, warehouse.child("_staging", run_id))
    return store_run_tables({TABLE: staged}, warehouse, run_id)


def night(warehouse, run_id, run_date, ended=None, **facts):
    """Publish a run with a table. `ended`: when, default at two o'clock of its date."""
    tables = store(warehouse, run_id)
    place_partition(tables[TABLE], warehouse.child(TABLE, f"run_date={run_date}"))
    run = publish(warehouse, run_id, tables, run_date=run_date)
    if ended or facts:
        ended = ended.isoformat() if ended else run.finished_at
        run = replace(run, finished_at=ended, facts=facts)
        write_manifest(warehouse, run)
    return run


def other(warehouse, run_id, status, run_date="2026-01-05", with_data=False, **values):
    """A run that published nothing, with its manifest."""
    if with_data:
        store(warehouse, run_id)
    started = f"{run_date}T01:00:00+00:00"
    ended = "" if status == "running" else f"{run_date}T01:30:00+00:00"
    run = RunManifest(run_id, run_date, status, started, ended, "0", {}, {}, {}, **values)
    write_manifest(warehouse, run)
    return run


def ids(warehouse):
    return [run.run_id for run in list_runs(warehouse)]


def with_data(warehouse):
    return [name for name in warehouse.child("_runs").folder_names() if name != "lease"]


def partitions(warehouse):
    return [name.removeprefix("run_date=") for name in warehouse.child(TABLE).folder_names()]


def test_the_newest_dates_are_kept_and_reruns_count_once(warehouse):
    for run_id, day in (("r1", 1), ("r2", 2), ("r3", 3), ("r3again", 3), ("r4", 4)):
        night(warehouse, run_id, f"2026-01-0{day}")
    assert prune_runs(warehouse, 2) == ["r1", "r2"]
    assert ids(warehouse) == ["r3", "r3again", "r4"]
    assert with_data(warehouse) == ["r3", "r3again", "r4"]
    assert partitions(warehouse) == ["2026-01-03", "2026-01-04"]
    assert prune_runs(warehouse, 2) == []
    assert read_manifest(warehouse).run_id == "r4"


def test_runs_without_reports_go_with_the_nights_around_them(local):
    other(local, "failed-early", "failed", "2026-01-01")
    night(local, "r2", "2026-01-02")
    other(local, "shadow-early", "shadow", "2026-01-02", with_data=True)
    night(local, "r3", "2026-01-03")
    other(local, "held-late", "held", "2026-01-04")
    assert set(prune_runs(local, 1)) == {"failed-early", "r2", "shadow-early"}
    assert ids(local) == ["r3", "held-late"]
    assert with_data(local) == ["r3"]


def test_without_a_published_run_nothing_is_pruned(local):
    other(local, "failed", "failed")
    assert prune_runs(local, 1) == []
    assert ids(local) == ["failed"]


def test_the_run_that_latest_names_is_never_pruned(local):
    night(local, "r1", "2026-01-01")
    latest = local.child("_runs").read_bytes("latest.json")
    night(local, "r2", "2026-01-02")
    local.child("_runs").replace_bytes("latest.json", latest)  # the last run died before this
    assert prune_runs(local, 1) == []
    assert with_data(local) == ["r1", "r2"]


def test_what_cannot_be_deleted_keeps_its_manifest_and_goes_the_next_time(local, monkeypatch):
    for day in (1, 2, 3):
        night(local, f"r{day}", f"2026-01-0{day}")
    real = Folder.delete

    def refuse(self):
        if self == local.child("_runs", "r1") or self == local.child(TABLE, "run_date=2026-01-02"):
            raise PermissionError("locked")
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "delete", refuse)
        assert prune_runs(local, 1) == []
    assert ids(local) == ["r1", "r2", "r3"]
    assert prune_runs(local, 1) == ["r1", "r2"]
    assert partitions(local) == ["2026-01-03"]


@pytest.mark.parametrize("n_steps", range(2 * len(REPORT_TABLES) + 4))
def test_a_crash_while_pruning_leaves_a_warehouse_that_the_next_pruning_completes(
    local, monkeypatch, n_steps
):
    for day in (1, 2, 3):
        night(local, f"r{day}", f"2026-01-0{day}")
    steps = []

    def counting(real):
        def step(self, *args):
            steps.append(self)
            if len(steps) > n_steps:
                raise KeyboardInterrupt
            return real(self, *args)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "delete", counting(Folder.delete))
        patch.setattr(Folder, "delete_file", counting(Folder.delete_file))
        with pytest.raises(KeyboardInterrupt):
            prune_runs(local, 1)
    assert set(with_data(local)) <= set(ids(local))  # nothing is there that nobody names
    prune_runs(local, 1)
    assert (ids(local), with_data(local), partitions(local)) == (["r3"], ["r3"], ["2026-01-03"])


def test_data_of_a_superseded_run_stay_an_hour_for_who_still_reads_them(warehouse):
    now = datetime.now(UTC)
    for run_id, minutes in (("a", 200), ("b", 90), ("c", 30), ("d", 0)):
        night(warehouse, run_id, "2026-01-05", ended=now - timedelta(minutes=minutes))
    drop_superseded(warehouse)
    assert with_data(warehouse) == ["b", "c", "d"]  # a was superseded 90 minutes ago, b 30
    assert ids(warehouse) == ["a", "b", "c", "d"]


def test_the_dead_are_buried_with_what_they_half_published(warehouse):
    night(warehouse, "r1", "2026-01-01")
    other(warehouse, "killed", "running", with_data=True)
    other(warehouse, "failed", "failed", with_data=True, error="disk full")
    other(warehouse, "shadow", "shadow", with_data=True)
    other(warehouse, "me", "running")
    bury_dead_runs(warehouse, "me")
    states = {run.run_id: run.status for run in list_runs(warehouse)}
    assert states == {
        "r1": "published",
        "killed": "died",
        "failed": "failed",
        "shadow": "shadow",
        "me": "running",
    }
    assert with_data(warehouse) == ["r1", "shadow"]
    assert "killed" in read_manifest(warehouse, "killed").error


def listed(capsys, warehouse, **arguments):
    capsys.readouterr()
    show_runs(warehouse.uri, as_json=True, **arguments)
    return {line["run_id"]: line for line in json.loads(capsys.readouterr().out)}


def test_every_run_is_listed_with_what_became_of_it(warehouse, capsys):
    night(warehouse, "r1", "2026-01-01", n_catalog_rows=1200, n_groups=3, n_pairs=5)
    night(warehouse, "r2", "2026-01-01", ended=datetime(2026, 1, 1, 5, tzinfo=UTC))
    night(warehouse, "r3", "2026-01-02")
    warehouse.child("_runs", "r3").delete()
    other(warehouse, "failed", "failed", error="disk full")
    other(warehouse, "held", "held", error="rejects: 60 %")
    other(warehouse, "killed", "running")
    other(warehouse, "working", "running")
    with acquire_lease(warehouse, "working", 60.0):
        lines = listed(capsys, warehouse)
    assert {run_id: line["status"] for run_id, line in lines.items()} == {
        "r1": "superseded",
        "r2": "published",
        "r3": "deleted",
        "failed": "failed",
        "held": "held",
        "killed": "died",
        "working": "running",
    }
    first = lines["r1"]
    assert (first["n_rows"], first["n_groups"], first["n_pairs"]) == (1200, 3, 5)
    assert first["seconds"] == 3600
    assert lines["failed"]["error"] == "disk full"
    assert listed(capsys, warehouse)["working"]["status"] == "died"


def test_the_table_names_figures_and_errors(local, capsys):
    night(local, "20260101T010000Z-abcdef", "2026-01-01", n_catalog_rows=1200, n_groups=3)
    other(local, "20260105T010000Z-abcdef", "failed", error="disk full")
    assert main(["runs", "--warehouse", local.uri]) == 0
    head, first, second, error = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "run",
        "date",
        "status",
        "rows",
        "embedded",
        "groups",
        "pairs",
        "seconds",
    ]
    assert first.split()[1:] == ["2026-01-01", "published", "1200", "-", "3", "-", "3600"]
    assert second.split()[1:] == ["2026-01-05", "failed", "-", "-", "-", "-", "1800"]
    assert error.strip() == "disk full"


def test_a_warehouse_without_runs_says_so(local, capsys):
    assert main(["runs", "--warehouse", local.uri]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_keep_runs_prunes_on_the_command_line(local, capsys):
    for day in (1, 2, 3):
        night(local, f"r{day}", f"2026-01-0{day}")
    assert main(["runs", "--warehouse", local.uri, "--keep-runs", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("deleted 2 runs\n") and "r3 " in out and "r2 " not in out
    assert ids(local) == ["r3"]
    assert main(["runs", "--warehouse", local.uri, "--keep-runs", "0"]) == 2
    assert ids(local) == ["r3"]


def test_a_warehouse_that_is_not_there_is_not_made_by_pruning_it(tmp_path, capsys):
    assert main(["runs", "--warehouse", str(tmp_path / "typo"), "--keep-runs", "1"]) == 1
    assert "holds no run" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_nothing_is_pruned_while_a_run_is_at_work(local):
    for day in (1, 2):
        night(local, f"r{day}", f"2026-01-0{day}")
    with (
        acquire_lease(local, "working", 60.0),
        pytest.raises(WarehouseBusy, match="in use by run working"),
    ):
        show_runs(local.uri, keep_runs=1)
    assert ids(local) == ["r1", "r2"]
