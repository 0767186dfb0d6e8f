"""The lease within one process, on a disk and on a real S3 API; time passes on order."""

import json
import os
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from dedup_job.errors import DedupError, LeaseLost, WarehouseBusy
from dedup_job.io import lease as lease_module
from dedup_job.io.lease import acquire_lease, read_lease
from dedup_job.io.storage import Folder

TTL_S = 1000.0  # no heartbeat by itself within a test


class Clock:
    def __init__(self):
        self.now = datetime(2026, 1, 2, tzinfo=UTC)

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def on_disk(tmp_path):
    return Folder(str(tmp_path / "warehouse"))


@pytest.fixture
def take(clock):
    """Takes a lease; all are given back after the test."""
    taken = []

    def take(warehouse, run_id):
        taken.append(acquire_lease(warehouse, run_id, TTL_S, clock))
        return taken[-1]

    yield take
    for lease in taken:
        lease.release()


def _files(warehouse):
    return warehouse.child("_runs", "lease").file_names()


def _while_looking(monkeypatch, run_id, happens):
    """Makes something happen after a run judged the lease and before it takes the next number."""
    create, waiting = lease_module.create_lease, [happens]

    def create_after(folder, owner):
        if owner.run_id == run_id and waiting:
            waiting.pop()()
        return create(folder, owner)

    monkeypatch.setattr(lease_module, "create_lease", create_after)


def test_a_second_run_is_refused_with_the_name_of_the_first(warehouse, take, clock):
    take(warehouse, "first")
    clock.advance(400)
    with pytest.raises(WarehouseBusy) as refusal:
        take(warehouse, "second")
    message = str(refusal.value)
    assert f"{warehouse.uri} is in use by run first" in message
    assert f"process {os.getpid()}, since 2026-01-02T00:00:00" in message
    assert "400 s ago" in message
    assert "start again in 600 s" in message
    assert refusal.value.exit_code == 1


def test_a_lease_given_back_is_free(warehouse, take):
    first = take(warehouse, "first")
    first.release()
    first.release()
    assert read_lease(warehouse).released
    second = take(warehouse, "second")
    assert second.took_over is None
    assert _files(warehouse) == ["00000002.json"]


def test_a_run_that_fails_gives_its_lease_back(warehouse, clock):
    with pytest.raises(ZeroDivisionError), acquire_lease(warehouse, "first", TTL_S, clock):
        raise ZeroDivisionError
    assert read_lease(warehouse).released


def test_a_silent_run_is_taken_over_and_finds_out(warehouse, take, clock, caplog):
    first = take(warehouse, "first")
    clock.advance(TTL_S + 1)
    second = take(warehouse, "second")
    assert second.took_over.run_id == "first"
    assert "taking the warehouse over from run first" in caplog.text
    with pytest.raises(LeaseLost, match=r"run second took over .* at 2026-01-02T00:16:41"):
        first.check()
    first.release()
    owner = read_lease(warehouse)
    assert (owner.run_id, owner.released, owner.is_alive(clock())) == ("second", False, True)
    second.check()
    with pytest.raises(WarehouseBusy, match="run second"):
        take(warehouse, "third")


def test_a_check_is_a_heartbeat(warehouse, take, clock):
    first = take(warehouse, "first")
    clock.advance(0.7 * TTL_S)
    first.check()
    clock.advance(0.7 * TTL_S)
    with pytest.raises(WarehouseBusy, match="run first"):
        take(warehouse, "second")
    assert first.owner.generation == 1


def test_a_paused_run_that_nobody_followed_goes_on(warehouse, take, clock):
    first = take(warehouse, "first")
    clock.advance(3 * TTL_S)
    first.check()
    assert _files(warehouse) == ["00000002.beat", "00000002.json"]
    first.check()
    owner = read_lease(warehouse)
    assert (owner.generation, owner.run_id) == (2, "first")
    assert owner.started_at == "2026-01-02T00:00:00+00:00"
    with pytest.raises(WarehouseBusy, match="run first"):
        take(warehouse, "second")


def test_a_run_that_wakes_while_another_is_about_to_follow_keeps_it_out(
    warehouse, take, clock, monkeypatch
):
    first = take(warehouse, "first")
    clock.advance(TTL_S + 1)
    _while_looking(monkeypatch, "second", first.check)
    with pytest.raises(WarehouseBusy, match="run first"):
        take(warehouse, "second")
    first.check()


def test_a_run_that_wakes_a_moment_later_is_kept_out(warehouse, take, clock, monkeypatch):
    first = take(warehouse, "first")
    clock.advance(TTL_S + 1)
    write, waiting = lease_module.write_beat, [lambda: take(warehouse, "second")]

    def write_after(*arguments):
        if waiting:
            waiting.pop()()
        write(*arguments)

    monkeypatch.setattr(lease_module, "write_beat", write_after)
    for _ in range(2):
        with pytest.raises(LeaseLost, match="run second took over"):
            first.check()
    assert not waiting
    assert read_lease(warehouse).run_id == "second"


def test_a_heartbeat_that_arrives_late_proves_nothing(on_disk, take, clock, monkeypatch):
    write = lease_module.write_beat

    def write_slowly(*arguments):
        clock.advance(0.5 * TTL_S)
        write(*arguments)

    first = take(on_disk, "first")
    clock.advance(0.5 * TTL_S)
    monkeypatch.setattr(lease_module, "write_beat", write_slowly)
    first.check()
    assert first.owner.generation == 2


def test_a_number_that_came_and_went_meanwhile_is_no_lease(warehouse, take, clock, monkeypatch):
    take(warehouse, "first")
    clock.advance(TTL_S + 1)

    def others_come_and_go():
        take(warehouse, "second").release()
        take(warehouse, "third")

    _while_looking(monkeypatch, "slow", others_come_and_go)
    with pytest.raises(WarehouseBusy, match="run third"):
        take(warehouse, "slow")
    assert read_lease(warehouse).run_id == "third"


def test_of_many_runs_at_once_one_gets_the_warehouse(warehouse, take, clock):
    take(warehouse, "dead")
    clock.advance(TTL_S + 1)
    start, outcomes = threading.Barrier(8), []

    def compete(run_id):
        start.wait()
        try:
            outcomes.append(take(warehouse, run_id).owner.run_id)
        except WarehouseBusy:
            outcomes.append(None)

    runs = [threading.Thread(target=compete, args=(f"run-{n}",)) for n in range(8)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    winners = [run_id for run_id in outcomes if run_id]
    assert len(outcomes) == 8
    assert winners == [read_lease(warehouse).run_id]


def test_a_store_that_lost_its_answer_gave_the_lease(on_disk, take, monkeypatch):
    create = Folder.create_exclusive
    monkeypatch.setattr(Folder, "create_exclusive", lambda *a: create(*a) and False)
    assert take(on_disk, "first").owner == read_lease(on_disk)


def test_a_store_that_asks_to_try_again_is_asked_again(on_disk, take, monkeypatch):
    create, conflicts = Folder.create_exclusive, [409, 409]

    def conflict(*arguments):
        return False if conflicts and conflicts.pop() else create(*arguments)

    monkeypatch.setattr(Folder, "create_exclusive", conflict)
    assert take(on_disk, "first").owner.generation == 1


def test_a_store_that_ignores_the_condition_is_refused(s3_server, take, monkeypatch):
    s3_server.create_bucket("leases")
    warehouse = Folder(f"s3://leases/{uuid.uuid4().hex}")

    def create_or_replace(folder, name, data):
        folder.replace_bytes(name, data)
        return True

    monkeypatch.setattr(Folder, "create_exclusive", create_or_replace)
    with pytest.raises(DedupError, match=r"store of s3://leases/.* ignores If-None-Match"):
        take(warehouse, "first")


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_what_exists_is_not_created_again(where, tmp_path, s3_server):
    s3_server.create_bucket("leases")
    folder = Folder({"disk": str(tmp_path), "s3": f"s3://leases/{uuid.uuid4().hex}"}[where])
    assert folder.create_exclusive("a", b"1")
    assert not folder.create_exclusive("a", b"2")
    assert folder.read_bytes("a") == b"1"
    assert folder.file_names() == ["a"]


def test_nobody_waits_for_ever_for_a_store_that_always_conflicts(on_disk, take, monkeypatch):
    monkeypatch.setattr(Folder, "create_exclusive", lambda *a: False)
    with pytest.raises(WarehouseBusy, match="changed hands 5 times"):
        take(on_disk, "first")


def test_who_cannot_look_does_not_publish(warehouse, take, monkeypatch):
    first = take(warehouse, "first")

    def fail(folder):
        raise ConnectionError("the store is down")

    with monkeypatch.context() as broken:
        broken.setattr(Folder, "file_names", fail)
        with pytest.raises(LeaseLost, match=r"cannot tell .* the store is down; .* nothing"):
            first.check()
    first.check()


def test_a_lease_whose_files_are_gone_is_lost(warehouse, take):
    first = take(warehouse, "first")
    warehouse.child("_runs", "lease").delete()
    with pytest.raises(LeaseLost, match="files of this run's lease are gone"):
        first.check()


def test_a_lease_of_a_later_version_holds(on_disk, take, clock):
    take(on_disk, "first")
    path = on_disk.child("_runs", "lease").path("00000001.json")
    with open(path) as stream:
        content = json.load(stream)
    with open(path, "w") as stream:
        json.dump(content | {"colour": "blue"}, stream)
    assert read_lease(on_disk).is_alive(clock())
    with pytest.raises(WarehouseBusy, match="run first"):
        take(on_disk, "second")


@pytest.mark.parametrize("content", [b"", b"7", b"{}", b'{"pid": 1', b"\xff"])
def test_a_lease_that_cannot_be_read_is_never_taken_over(on_disk, take, content):
    folder = on_disk.child("_runs", "lease")
    folder.replace_bytes("00000007.json", content)
    with pytest.raises(DedupError, match=r"00000007.json is not one .* then delete that file"):
        take(on_disk, "first")
    assert _files(on_disk) == ["00000007.json"]


def test_a_warehouse_that_cannot_be_locked_is_named(s3_server, take, tmp_path):
    with pytest.raises(DedupError, match="cannot lock warehouse s3://no-such-bucket/w"):
        take(Folder("s3://no-such-bucket/w"), "first")
    (tmp_path / "file").touch()
    with pytest.raises(DedupError, match=f"cannot write to {tmp_path}/file/w"):
        take(Folder(str(tmp_path / "file" / "w")), "first")


def test_there_may_be_no_lease(warehouse):
    assert read_lease(warehouse) is None
