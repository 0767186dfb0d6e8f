"""Tasks, executors and workers of a real cluster die in the middle of their work (R1-R4, R12).

RELIABILITY R1 task retry, R2 executor loss, R3 worker loss, R4 speculation, R12 counters under retry:
first for one table, then for whole nights.
"""

import csv
import threading
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cluster.standalone import ROOT, start_cluster, zip_package
from tests.e2e.shop import Shop
from tests.faults.job import submitted
from tests.faults.processes import below, kill, python_workers, running, wait_for
from tests.faults.published import reports
from tests.servers import answer, serve_photos

pytestmark = [pytest.mark.cluster, pytest.mark.fault, pytest.mark.slow]

HURT = "127.0.0.2"
N_ROWS = 1_000
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.quantile": "0.5",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with start_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def whole_cluster(cluster):
    """The cluster; a worker that the test killed is started again."""
    yield cluster
    for host, process in list(cluster.workers.items()):
        if process.poll() is not None:
            cluster.start_worker(host)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return zip_package(tmp_path_factory.mktemp("package") / "catalog_dedup.zip")


def executors(cluster, host):
    """Process ids of a host's executors."""
    return running(cluster.workers[host].pid, "CoarseGrainedExecutorBackend")


def lose_python(cluster, host):
    """SIGKILL the Python processes that compute a host's tasks."""
    (executor,) = executors(cluster, host)
    victims = python_workers(executor)
    assert victims
    kill(victims)


def lose_executor(cluster, host):
    kill(executors(cluster, host))


def lose_worker(cluster, host):
    kill([cluster.workers[host].pid, *executors(cluster, host)])
    cluster.workers[host].wait(30)


def write_disturbed(cluster, package, folder, fault, conf=None):
    arguments = [fault, str(folder), str(N_ROWS)]
    script = Path(__file__).with_name("table_script.py")
    return submitted(cluster, package, folder.parent / "said", arguments, script, conf)


def attempts(folder):
    return {path.name for path in (folder / "attempts").iterdir()}


def assert_table_is_exact(folder, files):
    """Every row once in the files that belong to the table; others may lie beside them."""
    parts = [pq.read_table(folder / "table" / name) for name in files]
    rows = pa.concat_tables(parts)["sha_a"].to_pylist()
    assert sorted(rows) == sorted(f"a{n}" for n in range(N_ROWS))
    assert len(files) == 4


def waiting_process(folder):
    """Process id of the task that waits, as text; empty until it does."""
    path = folder / "waiting"
    return path.read_text() if path.exists() else ""


def strays(folder, files):
    return {path.name for path in (folder / "table").iterdir()} - set(files)


def test_a_task_that_dies_is_retried_and_its_half_file_does_not_count(cluster, package, tmp_path):
    folder = tmp_path / "work"
    with write_disturbed(cluster, package, folder, "die") as process:
        files = process.succeed()["files"]
    assert_table_is_exact(folder, files)
    assert {"partition-1-attempt-0", "partition-1-attempt-1"} <= attempts(folder)
    assert len(strays(folder, files)) == 1


@pytest.mark.parametrize("lose", [lose_executor, lose_worker])
def test_rows_of_a_lost_machine_are_written_again(whole_cluster, package, tmp_path, lose):
    folder = tmp_path / "work"
    with write_disturbed(whole_cluster, package, folder, "wait") as process:
        task = int(wait_for("a task in mid-work", lambda: waiting_process(folder)))
        (host,) = (h for h, one in whole_cluster.workers.items() if task in below(one.pid))
        lose(whole_cluster, host)
        (folder / "go").touch()
        files = process.succeed()["files"]
    assert_table_is_exact(folder, files)
    assert "Lost executor" in process.said()
    assert len(strays(folder, files)) >= 1


def test_a_speculative_copy_and_its_original_give_each_row_once(cluster, package, tmp_path):
    folder = tmp_path / "work"
    with write_disturbed(cluster, package, folder, "sleep", SPECULATION) as process:
        files = process.succeed()["files"]
    assert_table_is_exact(folder, files)
    assert {"partition-1-attempt-0", "partition-1-attempt-1"} <= attempts(folder)


class Gate:
    """Photos on a web server that can be held back, so that tasks are in mid-work for certain."""

    def __init__(self):
        self.is_open = threading.Event()
        self._n_free, self._numbers = 0, count()
        self.n_held = 0

    def serve(self, body):
        def behave(handler):
            if next(self._numbers) >= self._n_free and not self.is_open.is_set():
                self.n_held += 1
                self.is_open.wait(60)
            answer(body)(handler)

        return behave

    def close(self, n_free):
        """Answer so many requests, hold the others back until `is_open`."""
        self._n_free, self._numbers, self.n_held = n_free, count(), 0
        self.is_open.clear()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """(catalog, gate): 90 products whose photos are on a web server behind the gate."""
    folder, gate = tmp_path_factory.mktemp("shop"), Gate()
    drawn = Shop(folder, seed=3, n_designs=40)
    for _ in range(90):
        drawn.add()
    with serve_photos() as server, (folder / "remote.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["sku_id", "image_uri"])
        for sku, (name, _) in drawn.rows.items():
            server.routes[f"/{name}"] = gate.serve((folder / name).read_bytes())
            rows.writerow([sku, server.url(f"/{name}")])
        stream.flush()
        yield folder / "remote.csv", gate


def start_night(cluster, package, catalog, folder):
    settings = {
        "fetch.allow_hosts": "127.0.0.1",
        "fetch.read_timeout_s": 90,
        "fetch.total_timeout_s": 90,
        "embed.photos_per_task": 30,
        "match.min_cosine": 0.9,
    }
    arguments = ["--catalog", str(catalog), "--warehouse", str(folder / "out")]
    arguments += ["--run-date", "2026-01-02", "--json"]
    for key, value in settings.items():
        arguments += ["--set", f"{key}={value}"]
    script = ROOT / "jobs" / "nightly_dedup.py"
    return submitted(cluster, package, folder / "said", arguments, script)


@pytest.fixture(scope="module")
def undisturbed(cluster, package, shop, tmp_path_factory):
    """(figures, reports) of a night in which nothing fails."""
    catalog, gate = shop
    gate.is_open.set()
    folder = tmp_path_factory.mktemp("undisturbed")
    with start_night(cluster, package, catalog, folder) as process:
        result = process.succeed()
    return result, reports(folder / "out")


@pytest.mark.parametrize(
    ("lose", "sign"),
    [
        (lose_python, "Lost task"),
        (lose_executor, "Lost executor"),
        (lose_worker, "Lost executor"),
    ],
)
def test_a_night_that_loses_tasks_publishes_the_same(
    whole_cluster, package, shop, undisturbed, tmp_path, lose, sign
):
    catalog, gate = shop
    gate.close(n_free=10)
    with start_night(whole_cluster, package, catalog, tmp_path) as process:
        # A task asks for 16 photos at a time: with more, tasks of both hosts are waiting.
        wait_for("tasks on both hosts", lambda: gate.n_held > 16 or not process.is_alive(), 120)
        assert process.is_alive(), process.said()[-4000:]
        lose(whole_cluster, HURT)
        gate.is_open.set()
        result = process.succeed()
    assert sign in process.said()
    expected, published = undisturbed
    for figures in ("rows", "photos", "changes", "rejects_by_reason", "n_pairs", "n_groups"):
        assert result[figures] == expected[figures], figures
    assert result["photos"]["fetched"] == result["rows"]["catalog"] == 90
    assert reports(tmp_path / "out") == published
    assert len(published["duplicate_groups"]) > 20
