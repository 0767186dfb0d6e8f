"""Publish one date again and again while readers poll it."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from dedup_job.io.manifests import RunManifest, describe_table, point_latest, write_manifest
from dedup_job.io.publish import place_partition, store_run_tables
from dedup_job.io.retention import drop_superseded
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.tables import DUPLICATE_GROUPS, DUPLICATE_PAIRS, GROUP_CHANGES
from tests.unit.warehouses import row_of

N_TIMES = 10
RUN_DATE = "2026-01-02"
TABLES = (DUPLICATE_GROUPS, DUPLICATE_PAIRS, GROUP_CHANGES)
_POLL_S = 0.05
_PATIENCE_S = 120.0

# run_id -> rows of it that a reader found
Found = dict[str, int]


def n_rows_of(run_id: str) -> int:
    """Rows of every table of a run: from 7 to thousands, so that files differ much in length."""
    return (7, 6_000, 300)[int(run_id[1:]) % 3]


def publish_again(warehouse: Folder, number: int) -> str:
    """Publish the date in the order of a real run."""
    run_id = f"r{number}"
    staged = {
        table.name: write_rows(
            [row_of(table, run_id=run_id) for _ in range(n_rows_of(run_id))],
            table,
            warehouse.child("_staging", run_id, table.name),
        )
        for table in TABLES
    }
    stored = store_run_tables(staged, warehouse, run_id)
    for name, table in stored.items():
        place_partition(table, warehouse.child(name, f"run_date={RUN_DATE}"))
    at = datetime.now(UTC).isoformat()
    entries = {name: describe_table(table, warehouse) for name, table in stored.items()}
    manifest = RunManifest(run_id, RUN_DATE, "published", at, at, "0", {}, {}, entries)
    write_manifest(warehouse, manifest)
    assert point_latest(warehouse, manifest)
    drop_superseded(warehouse)
    return run_id


class Reader(threading.Thread):
    """Reads every 50 ms and keeps what it found wrong.

    Args:
        name: of the reader.
        read: one look at the published date.
    """

    def __init__(self, name: str, read: Callable[[], Found]) -> None:
        super().__init__(name=name, daemon=True)
        self.n_reads, self.seen = 0, ["r0"]
        self.faults: list[str] = []
        self.stopping = threading.Event()
        self._read = read

    def run(self) -> None:
        while not self.stopping.wait(_POLL_S):
            try:
                self._judge(self._read())
            except Exception as error:  # whatever a reader raises is what is looked for
                self.faults.append(f"{type(error).__name__}: {error}")
            self.n_reads += 1

    def _judge(self, found: Found) -> None:
        if len(found) != 1:
            self.faults.append(f"a mixture or a gap: {found}")
            return
        ((run_id, n_rows),) = found.items()
        if n_rows != n_rows_of(run_id):
            self.faults.append(f"{run_id} with {n_rows} rows instead of {n_rows_of(run_id)}")
        if int(run_id[1:]) < int(self.seen[-1][1:]):
            self.faults.append(f"{run_id} after {self.seen[-1]}")
        if run_id != self.seen[-1]:
            self.seen.append(run_id)


def poll_while_republished(warehouse: Folder, reads: Mapping[str, Callable[[], Found]]) -> None:
    """Publish a date ten times more; each time all readers have looked since the last time.

    Args:
        warehouse: where the date is published once already, as run r0.
        reads: name -> one look.
    """
    readers = {name: Reader(name, read) for name, read in reads.items()}
    pause = random.Random(0)
    for reader in readers.values():
        reader.start()
    try:
        for number in range(1, N_TIMES + 1):
            _wait_for_a_look(readers)
            time.sleep(pause.uniform(0, _POLL_S))
            last = publish_again(warehouse, number)
        _wait_for_a_look(readers)
        _wait_for_a_look(readers)
    finally:
        for reader in readers.values():
            reader.stopping.set()
        for reader in readers.values():
            reader.join(_PATIENCE_S)
    for reader in readers.values():
        assert reader.faults == [], reader.name
        assert reader.seen[-1] == last, reader.name
        assert len(reader.seen) > N_TIMES / 2, reader.name


def _wait_for_a_look(readers: Mapping[str, Reader]) -> None:
    """Until every reader has finished a look that it may have begun before, or is known to fail."""
    before = {name: reader.n_reads for name, reader in readers.items()}
    until = time.monotonic() + _PATIENCE_S
    while any(
        reader.n_reads == before[name] and not reader.faults for name, reader in readers.items()
    ):
        assert time.monotonic() < until, "a reader hangs"
        time.sleep(0.005)
