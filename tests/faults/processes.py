"""Look at the processes below one that a test started, and hurt exactly these (Linux: /proc)."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")


def below(pid: int) -> list[int]:
    """All living descendants of a process, parents first."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found.extend(children.get(one, []))
    return found[1:]


def command_line(pid: int) -> str:
    """A process's command line; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def running(pid: int, words: str) -> list[int]:
    """Descendants whose command line holds these words."""
    return [one for one in below(pid) if words in command_line(one)]


def python_workers(executor: int) -> list[int]:
    """The Python processes that compute an executor's tasks: forks of its `pyspark.daemon`."""
    return [fork for daemon in running(executor, "pyspark.daemon") for fork in below(daemon)]


def kill(pids: list[int]) -> None:
    """SIGKILL; a process that is gone already is no error."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_for(what: str, look: Callable[[], Found], timeout_s: float = 90) -> Found:
    """Look every 20 ms until there is something to see.

    Raises:
        AssertionError: nothing within the time, which names what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.02)
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            # the name in parentheses may hold anything, spaces and parentheses too
            state, parent = stat.rpartition(")")[2].split()[:2]
            if state != "Z":
                yield int(entry), int(parent)
