import os
import signal
import subprocess
import sys

import pytest

from dedup_job.io import processes
from dedup_job.io.processes import is_gone, process_mark

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only /proc tells")


@pytest.fixture
def sleeper():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_process_that_runs_is_not_gone(sleeper):
    assert not is_gone(sleeper.pid, process_mark(sleeper.pid))
    assert process_mark(sleeper.pid) != process_mark(os.getpid())


def test_a_killed_process_is_gone(sleeper):
    mark = process_mark(sleeper.pid)
    sleeper.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet noticed
    assert is_gone(sleeper.pid, mark)
    assert process_mark(sleeper.pid) == ""
    sleeper.wait()
    assert is_gone(sleeper.pid, mark)


def test_a_number_in_use_again_is_another_process():
    start, machine = process_mark(os.getpid()).split("@")
    assert is_gone(os.getpid(), f"{int(start) - 1}@{machine}")


def test_nothing_is_known_of_other_machines_and_containers(sleeper):
    mark = process_mark(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    boot_and_container = mark.partition("@")[2]
    assert "/pid:[" in boot_and_container
    for other in (mark.replace("pid:[", "pid:[9"), mark.replace("@", "@0"), "1@", ""):
        assert not is_gone(sleeper.pid, other)


def test_a_process_hidden_from_us_is_not_gone(sleeper, monkeypatch):
    mark = process_mark(sleeper.pid)
    monkeypatch.setattr(processes, "_start_time", lambda pid: None)  # as under hidepid=2
    assert not is_gone(sleeper.pid, mark)
    assert process_mark(sleeper.pid) == ""
