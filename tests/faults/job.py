"""The job as a process of its own, to be killed, paused and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.cluster.standalone import Cluster, submit_command, submit_environment
from tests.faults.processes import below, kill, running, wait_for

ROOT = Path(__file__).parents[2]
# What an enclosing Spark session or the developer's own settings would leak into the job.
_LEAKS = ("PYSPARK_", "SPARK_", "_PYSPARK", "DEDUP_")


class Process:
    """A command in a process group of its own, its words in files of `folder`.

    As a context manager it leaves no process behind, however the test ends.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, cwd: Path, environment: Mapping[str, str]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.err")))
        self.out, self.err = (folder / f"{number}.{end}" for end in ("out", "err"))
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self._process = subprocess.Popen(
                command, cwd=cwd, env=environment, stdout=out, stderr=err, start_new_session=True
            )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    def finish(self, timeout_s: float = 240) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        return self._process.wait(timeout_s)

    def succeed(self) -> dict[str, Any]:
        """Wait for the end, which must be a good one; returns the JSON that it printed last."""
        assert self.finish() == 0, self.said()[-4000:]
        printed = self.out.read_text().splitlines()
        start = len(printed) - printed[::-1].index("{") - 1
        result: dict[str, Any] = json.loads("\n".join(printed[start:]))
        return result

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def said(self) -> str:
        """What it wrote so far, stderr last (spark-submit sends a driver's stderr to stdout)."""
        return self.out.read_text(errors="replace") + self.err.read_text(errors="replace")

    def wait_for_line(self, text: str, timeout_s: float = 120) -> None:
        """Wait until it has said a text; a process that ends without it fails the test."""
        wait_for(repr(text), lambda: text in self.said() or not self.is_alive(), timeout_s)
        assert text in self.said(), f"ended with {self._process.poll()}: {self.said()[-3000:]}"

    def kill(self) -> None:
        """End all that is left of it: its descendants and its process group."""
        kill(below(self.pid))
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(30)


class Job(Process):
    """`python -m dedup_job run --json ...` on this machine.

    Args:
        catalog: `--catalog`.
        warehouse: `--warehouse`.
        folder: gets what the job says; made if absent.
        arguments: more of the command line.
        environment: on top of this process's.
    """

    def __init__(
        self,
        catalog: Path,
        warehouse: Path,
        folder: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        command = [sys.executable, "-m", "dedup_job", "run", "--json"]
        command += ["--catalog", str(catalog), "--warehouse", str(warehouse), *arguments]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_LEAKS)}
        all_of_it = {**inherited, "DEDUP_LOCAL_CORES": "2", **(environment or {})}
        super().__init__(command, folder, ROOT, all_of_it)

    def wait_until_stopped(self, timeout_s: float = 120) -> None:
        """Wait until the driver's Python has stopped itself (state T)."""
        stat = Path(f"/proc/{self.pid}/stat")

        def is_stopped() -> bool:
            assert self.is_alive(), f"ended instead of stopping: {self.said()[-3000:]}"
            return stat.read_text().rpartition(")")[2].split()[0] == "T"

        wait_for("the job to stop itself", is_stopped, timeout_s)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def kill_with_jvm(self) -> None:
        """SIGKILL the driver's Python and its JVM at once, as the loss of the machine would.

        The JVM goes first: a Python that dies alone makes its JVM shut down in good order.
        """
        kill([*running(self.pid, "java"), self.pid])
        self.kill()

    def kill_after(self, seconds: float) -> bool:
        """Let it run so long, then `kill_with_jvm`; False if it had ended by itself."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.is_alive():
            time.sleep(0.02)
        was_alive = self.is_alive()
        self.kill_with_jvm()
        return was_alive


def submitted(
    cluster: Cluster,
    package: Path,
    folder: Path,
    arguments: Sequence[str],
    script: Path,
    conf: Mapping[str, str] | None = None,
) -> Process:
    """Start a script on a cluster through spark-submit."""
    command = submit_command(cluster.url, cluster.python, package, arguments, {}, conf, script)
    folder.mkdir(parents=True, exist_ok=True)
    return Process(command, folder, folder, submit_environment({}))
