import subprocess
import sys

import pytest

from dedup_job.io import python_daemon


def test_a_peer_that_has_gone_is_no_error(monkeypatch, capfd):
    def flush_fails(sock, authenticated):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(python_daemon, "_run_worker", flush_fails)
    assert python_daemon.run_quietly(None, True) == 1
    assert capfd.readouterr().err == ""


def test_other_errors_are_still_told(monkeypatch):
    def fails(sock, authenticated):
        raise RuntimeError("worker")

    monkeypatch.setattr(python_daemon, "_run_worker", fails)
    with pytest.raises(RuntimeError, match="worker"):
        python_daemon.run_quietly(None, True)


def test_arrow_is_not_imported_before_the_fork():
    """It starts threads, and a process with threads must not fork."""
    code = "import sys, dedup_job.io.python_daemon; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
