"""Other processes: whether one that left its mark still runs (numbers are used again), and children."""

import os
import sys
from pathlib import Path


def process_mark(pid: int) -> str:
    """`START@MACHINE` of a process that runs; '' where the system does not tell (no /proc)."""
    start, machine = _start_time(pid), _machine()
    return f"{start}@{machine}" if start and machine else ""


def is_gone(pid: int, mark: str) -> bool:
    """Whether the process that had this number and mark is known to have ended.

    False as well where that cannot be known: of another machine, of another container, or hidden.
    """
    machine = _machine()
    if not machine or mark.partition("@")[2] != machine:
        return False
    try:
        os.kill(pid, 0)  # sends nothing; finds processes of other users too, hidden in /proc or not
    except ProcessLookupError:
        return True
    except OSError:
        return False
    start = _start_time(pid)
    return start is not None and f"{start}@{machine}" != mark


def _start_time(pid: int) -> str | None:
    """Clock ticks from the start of the machine to that of the process.

    '' when it has ended and waits for its parent to notice; None when unknown.
    """
    try:
        # State and field 22 of stat, counted behind the name, which may hold blanks (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return None


def _machine() -> str:
    """Where process numbers count: this boot of this machine and, in it, this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Containers of one machine share its boot but number their processes each for itself.
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def child_environment() -> dict[str, str]:
    """The environment for a child of this interpreter that imports what this process can.

    A worker's packages may lie in archives that Spark put on its path only.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
