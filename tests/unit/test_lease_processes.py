"""The lease between real processes that are killed, paused and woken; time is real."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from dedup_job.errors import WarehouseBusy
from dedup_job.io.lease import acquire_lease, read_lease
from dedup_job.io.storage import Folder

PATIENCE_S = 60.0
RUN = """
import os, sys
from dedup_job.errors import DedupError
from dedup_job.io.lease import acquire_lease
from dedup_job.io.storage import Folder

uri, run_id, ttl_s = sys.argv[1:]
print("ready", flush=True)
for line in sys.stdin:
    try:
        if line == "take\\n":
            lease = acquire_lease(Folder(uri), run_id, float(ttl_s))
        elif line == "check\\n":
            lease.check()
        elif line == "fork\\n":
            child = os.fork()
            if child == 0:
                lease.release()
                os._exit(0)
            os.waitpid(child, 0)
        print("done", flush=True)
    except DedupError as error:
        print(type(error).__name__, error, flush=True)
"""


class Run:
    """A process that does as it is told."""

    def __init__(self, warehouse, run_id, ttl_s=1000.0):
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, warehouse.uri, run_id, str(ttl_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == "ready"

    def tell(self, what):
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()

    def answer(self):
        return self.process.stdout.readline().strip()

    def ask(self, what):
        self.tell(what)
        return self.answer()

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(warehouse):
    runs = []

    def start(*arguments):
        runs.append(Run(warehouse, *arguments))
        return runs[-1]

    yield start
    for one in runs:
        one.end()


def _take_when_free(warehouse, run_id):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return acquire_lease(warehouse, run_id, 1000.0)
        except WarehouseBusy:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_killed_run_of_this_machine_is_taken_over_at_once(warehouse, start):
    dead = start("dead")
    assert dead.ask("take") == "done"
    with pytest.raises(WarehouseBusy, match=rf"run dead .* process {dead.process.pid}"):
        acquire_lease(warehouse, "next", 1000.0)
    dead.signal(signal.SIGKILL)
    dead.process.wait()
    assert not read_lease(warehouse).is_alive()
    with acquire_lease(warehouse, "next", 1000.0) as lease:
        assert lease.took_over.run_id == "dead"
        lease.check()


def test_a_paused_run_that_wakes_after_a_takeover_finds_out(warehouse, start):
    paused = start("paused", 2.0)
    assert paused.ask("take") == "done"
    assert paused.ask("check") == "done"
    paused.signal(signal.SIGSTOP)
    with _take_when_free(warehouse, "next") as lease:
        assert lease.took_over.run_id == "paused"
        paused.signal(signal.SIGCONT)
        assert paused.ask("check").startswith("LeaseLost run next took over this warehouse")
        lease.check()
    assert paused.ask("check").startswith("LeaseLost")


def test_of_three_processes_at_once_one_gets_the_warehouse(warehouse, start):
    runs = [start(f"run-{n}") for n in range(3)]
    for one in runs:
        one.tell("take")
    answers = [one.answer() for one in runs]
    assert answers.count("done") == 1
    winner = f"run-{answers.index('done')}"
    assert read_lease(warehouse).run_id == winner
    assert sum(f"WarehouseBusy warehouse {warehouse.uri} is in use by run {winner} " in one
               for one in answers) == 2  # fmt: skip


def test_a_forked_child_does_not_give_the_lease_back(warehouse, start):
    parent = start("parent")
    assert parent.ask("take") == "done"
    assert parent.ask("fork") == "done"
    assert read_lease(warehouse).is_alive()
    assert parent.ask("check") == "done"


def _wait_for_beats(warehouse, count):
    seen, deadline = {read_lease(warehouse).last_beat}, time.monotonic() + PATIENCE_S
    while len(seen) <= count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        seen.add(read_lease(warehouse).last_beat)


def test_a_run_lives_longer_than_its_ttl_by_its_heartbeats(warehouse):
    with acquire_lease(warehouse, "first", 2.0):
        _wait_for_beats(warehouse, 6)
        owner = read_lease(warehouse)
        assert owner.last_beat > owner.started_at
        with pytest.raises(WarehouseBusy, match="run first"):
            acquire_lease(warehouse, "second", 2.0)
    assert read_lease(warehouse).released


def test_a_heartbeat_that_fails_is_tried_again(tmp_path, monkeypatch, caplog):
    replace, failures = Folder.replace_bytes, [1, 2]

    def fail_twice(*arguments):
        if failures:
            raise OSError(f"no space left {failures.pop()}")
        replace(*arguments)

    monkeypatch.setattr(Folder, "replace_bytes", fail_twice)
    warehouse = Folder(str(tmp_path))
    with caplog.at_level(logging.WARNING), acquire_lease(warehouse, "first", 2.0) as lease:
        _wait_for_beats(warehouse, 2)
        lease.check()
    assert caplog.messages == [
        "heartbeat failed: no space left 2",
        "heartbeat failed: no space left 1",
    ]
    assert os.listdir(tmp_path / "_runs" / "lease")
