"""A real standalone cluster: one master, two one-core workers on two loopback addresses.

The workers run in a folder of their own, on a Python that has the libraries but not this project:
whatever a job needs of it must come through spark-submit.
"""

import os
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyspark

ROOT = Path(__file__).parents[2]
SPARK_BIN = Path(pyspark.__file__).parent / "bin"
_START_TIMEOUT_S = 60


HOSTS = ("127.0.0.1", "127.0.0.2")


@dataclass
class Cluster:
    """`url` is spark://...; `python` runs executors and driver; `folder` is where they live.

    `workers` maps a host to its Worker process.
    """

    url: str
    python: Path
    folder: Path
    workers: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start_worker(self, host: str) -> None:
        """Start the one-core worker of a host and wait until the master knows it."""
        log = self.folder / "master.log"
        n_before = _count_workers(log)
        worker = ["worker.Worker", "--host", host, "-c", "1", "-m", "2g"]
        work = self.folder / f"worker-{host}"
        arguments = [*worker, "--work-dir", str(work), self.url]
        self.workers[host] = _start(self.folder, f"worker-{host}", arguments)
        _wait_for_workers(log, n_before + 1)


@contextmanager
def start_cluster(folder: Path) -> Iterator[Cluster]:
    """Start master and workers; end exactly these processes afterwards."""
    python = make_bare_python(folder / "python")
    port = _free_port()
    cluster = Cluster(f"spark://127.0.0.1:{port}", python, folder)
    master = _start(folder, "master", ["master.Master", "--host", "127.0.0.1", "--port", str(port)])
    try:
        _wait_for_port(port, master)
        for host in HOSTS:
            cluster.start_worker(host)
        yield cluster
    finally:
        processes = [*cluster.workers.values(), master]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


def make_bare_python(folder: Path) -> Path:
    """A virtual environment that sees this one's libraries, but no editable installs.

    A path listed in a .pth file is searched for modules; .pth files inside it, which is how an
    editable install works, are not read.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = folder / "bin" / "python"
    found = subprocess.run([python, "-c", "import dedup_job"], cwd=folder, capture_output=True)
    assert found.returncode == 1, "the bare Python must not know the project"
    return python


def zip_package(target: Path) -> Path:
    """What `make dist` calls catalog_dedup.zip: the package, default bundle included."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted((ROOT / "dedup_job").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                packed.write(path, path.relative_to(ROOT))
    return target


def submit(
    master: str,
    python: Path,
    package: Path | None,
    cwd: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    conf: Mapping[str, str] | None = None,
    script: Path = ROOT / "jobs" / "nightly_dedup.py",
) -> subprocess.CompletedProcess[str]:
    """Run a script through spark-submit, from a folder outside the project."""
    return subprocess.run(
        submit_command(master, python, package, arguments, environment, conf, script),
        cwd=cwd,
        env=submit_environment(environment),
        capture_output=True,
        text=True,
        timeout=600,
    )


def submit_command(
    master: str,
    python: Path,
    package: Path | None,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    conf: Mapping[str, str] | None = None,
    script: Path = ROOT / "jobs" / "nightly_dedup.py",
) -> list[str]:
    """The spark-submit command line; to be run with `submit_environment`."""
    settings = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.executor.memory": "1g",
        "spark.sql.shuffle.partitions": "2",
        "spark.pyspark.python": str(python),
        "spark.pyspark.driver.python": str(python),
        **{f"spark.executorEnv.{name}": value for name, value in environment.items()},
        **(conf or {}),
    }
    command = [str(SPARK_BIN / "spark-submit"), "--master", master]
    command += ["--py-files", str(package)] if package else []
    for name, value in settings.items():
        command += ["--conf", f"{name}={value}"]
    return [*command, str(script), *arguments]


def submit_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the driver: clean, with these variables."""
    return {**_clean_environment(), **environment}


def _clean_environment() -> dict[str, str]:
    """Ours, without what an enclosing Spark session or Python path would leak into the job."""
    leaks = ("PYSPARK_", "SPARK_", "PYTHONPATH", "DEDUP_", "_PYSPARK", "AWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(leaks)}


def _start(folder: Path, name: str, arguments: list[str]) -> "subprocess.Popen[bytes]":
    cwd = folder / f"{name}-home"
    cwd.mkdir(parents=True, exist_ok=True)
    log = (folder / f"{name}.log").open("wb")
    java_class = f"org.apache.spark.deploy.{arguments[0]}"
    command = [str(SPARK_BIN / "spark-class"), java_class, "--webui-port", "0", *arguments[1:]]
    # spark-class replaces itself by java, so the process id is the daemon's own.
    return subprocess.Popen(
        command, cwd=cwd, env=_clean_environment(), stdout=log, stderr=subprocess.STDOUT
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the master ended; see its log"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the master did not open its port")


def _count_workers(log: Path) -> int:
    """How often a worker has registered, by the master's log."""
    return log.read_text(errors="replace").count("Registering worker")


def _wait_for_workers(log: Path, n_workers: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while _count_workers(log) < n_workers:
        assert time.monotonic() < deadline, "the workers did not register"
        time.sleep(0.2)
