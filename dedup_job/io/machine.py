"""What a machine gives to a process of ours: Python, libraries, limits, memory, disk, Java.

The driver asks for itself, tasks ask for the executors. Looking changes nothing.
"""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dedup_job.io.library_trial import TRIALS
from dedup_job.io.processes import child_environment
from dedup_job.version import VERSION, library_versions

PACKAGE = "catalog-dedup"
_MB = 1 << 20
_TRIAL_TIMEOUT_S = 60
# With less address space than this left, a library's trial may hang instead of failing.
MIN_HEADROOM_MB = 256
_JAVA_TIMEOUT_S = 60


@dataclass(frozen=True)
class Machine:
    """Where a process runs. Megabytes are of 2**20 bytes; None: no limit, or the system does not say.

    Attributes:
        host: name of the machine.
        python: version.
        executable: the interpreter.
        libraries: name -> version, this package included; "unknown" without package metadata.
        broken: name -> why a library cannot be used; empty where RLIMIT_AS leaves no room to try.
        address_space_mb: RLIMIT_AS.
        used_address_space_mb: what of it this process takes.
        open_files: RLIMIT_NOFILE.
        free_memory_mb: of the machine or of its control group, whichever is less.
        free_disk_mb: folder -> free space, for Spark's local folders and temporary files.
    """

    host: str
    python: str
    executable: str
    libraries: dict[str, str]
    broken: dict[str, str]
    address_space_mb: int | None
    used_address_space_mb: int | None
    open_files: int | None
    free_memory_mb: int | None
    free_disk_mb: dict[str, int]


@dataclass(frozen=True)
class Java:
    """The Java that Spark would start.

    Attributes:
        path: as it is called.
        version: '' when it does not tell one.
        problem: what it said, or the system, in place of a version.
    """

    path: str
    version: str
    problem: str = ""

    @property
    def major(self) -> int:
        """17 of `17.0.15`; 1 of Java 8, which calls itself `1.8.0`; 0 without Java."""
        digits = re.match(r"\d+", self.version)
        return int(digits[0]) if digits else 0


def read_machine() -> Machine:
    """Describe the machine as this process sees it. Costs a second, for the libraries are tried."""
    limit, used = _limit(resource.RLIMIT_AS, _MB), _used_address_space_mb()
    has_room = limit is None or limit >= (used or 0) + MIN_HEADROOM_MB
    return Machine(
        host=socket.gethostname(),
        python=".".join(str(part) for part in sys.version_info[:3]),
        executable=sys.executable,
        libraries={PACKAGE: VERSION, **library_versions()},
        broken=_broken_libraries() if has_room else {},
        address_space_mb=limit,
        used_address_space_mb=used,
        open_files=_limit(resource.RLIMIT_NOFILE, 1),
        free_memory_mb=_free_memory_mb(),
        free_disk_mb={folder: _free_disk_mb(folder) for folder in _scratch_folders()},
    )


def find_java(environment: Mapping[str, str]) -> Java:
    """The Java of JAVA_HOME, else that of PATH: as Spark looks for it."""
    home = environment.get("JAVA_HOME", "")
    path = f"{home}/bin/java" if home else "java"
    try:
        answer = subprocess.run(
            [path, "-version"],
            env=dict(environment),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_JAVA_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        return Java(path, "", error.strerror or type(error).__name__)
    except subprocess.TimeoutExpired:
        return Java(path, "", f"no answer within {_JAVA_TIMEOUT_S} s")
    said = answer.stderr + answer.stdout
    found = re.search(r' version "([^"]+)"', said)
    if found is None:
        return Java(path, "", " ".join(said.split())[:200] or f"exit code {answer.returncode}")
    return Java(path, found[1])


@lru_cache(maxsize=1)
def _broken_libraries() -> dict[str, str]:
    command = [sys.executable, "-m", "dedup_job.io.library_trial"]
    try:
        tried = subprocess.run(
            command,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TRIAL_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        return {"python": f"{sys.executable} cannot be started: {error.strerror}"}
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode(errors="replace")
        return read_trial(said, 1, f"no answer within {_TRIAL_TIMEOUT_S} s")
    return read_trial(tried.stdout, tried.returncode, tried.stderr)


def read_trial(stdout: str, returncode: int, stderr: str = "") -> dict[str, str]:
    """What `library_trial` found: name -> problem; a library it died of is named too."""
    lines = dict(line.split("\t", 1) for line in stdout.splitlines() if "\t" in line)
    broken = {name: problem for name, problem in lines.items() if problem}
    guilty = next((name for name in TRIALS if name not in lines), None)
    if returncode and guilty:
        broken[guilty] = _cause(returncode, stderr)
    return broken


def _cause(returncode: int, stderr: str) -> str:
    if returncode == -signal.SIGILL:
        return "dies with SIGILL: it was built for another processor"
    if returncode < 0:
        return f"kills its process (signal {-returncode})"
    return (stderr.strip().splitlines() or [f"exit code {returncode}"])[-1][:200]


def _limit(which: int, unit: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft // unit


def _used_address_space_mb() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pages * resource.getpagesize() // _MB


def _free_memory_mb() -> int | None:
    told = [_free_of_machine_mb(), _free_of_group_mb()]
    known = [megabytes for megabytes in told if megabytes is not None]
    return min(known) if known else None


def _free_of_machine_mb() -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        return None
    return int(found[1]) >> 10 if found else None


def _free_of_group_mb(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container may still take (control groups, version 2); its file cache counts as free."""
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
        cached = re.search(r"^inactive_file (\d+)", (root / "memory.stat").read_text(), re.M)
        if limit == "max":
            return None
        return max(0, int(limit) - used + (int(cached[1]) if cached else 0)) // _MB
    except (OSError, ValueError):
        return None


def _scratch_folders() -> list[str]:
    spark = [folder for folder in os.environ.get("SPARK_LOCAL_DIRS", "").split(",") if folder]
    return [*dict.fromkeys([*spark, tempfile.gettempdir()])]


def _free_disk_mb(folder: str) -> int:
    try:
        return shutil.disk_usage(folder).free // _MB
    except OSError:
        return 0
