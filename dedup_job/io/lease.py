"""The lock on a warehouse: a lease that its owner keeps alive, and that the dead lose.

Leases are numbered. Who wants the warehouse creates the next number, and only one can
(`Folder.create_exclusive`). The owner then overwrites its own heartbeat file; nobody else ever
writes it, so no other conditional write is needed. The highest number is the lease; a run that was
paused and sees a higher one than its own knows that it was taken over (a fencing token, Kleppmann,
Designing Data-Intensive Applications, 2017, p. 303).

Hosts must agree on the time to within a fraction of the time to live: a heartbeat's age is judged
by the reader's clock.
"""

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from dedup_job.errors import DedupError, LeaseLost, WarehouseBusy, one_line
from dedup_job.io.storage import Folder

logger = logging.getLogger("dedup_job")
_BEATS_PER_TTL = 4
Clock = Callable[[], datetime]


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class LeaseOwner:
    """Who holds, or held, a lease. Times are UTC in ISO format.

    Attributes:
        generation: number of the lease.
        run_id: the run.
        host: where it runs.
        pid: its process there.
        process: start time of that process and boot of the host; '' where the system tells neither.
        started_at: when the lease was taken.
        ttl_s: seconds without a heartbeat after which it is over.
        last_beat: last sign of life.
        released: whether it was given back.
    """

    generation: int
    run_id: str
    host: str
    pid: int
    process: str
    started_at: str
    ttl_s: float
    last_beat: str
    released: bool = False

    def silent_s(self, now: datetime) -> float:
        """Seconds since the last sign of life."""
        return max(0.0, (now - datetime.fromisoformat(self.last_beat)).total_seconds())

    def is_alive(self, now: datetime | None = None) -> bool:
        """Whether the lease still holds: not given back, and its owner neither gone nor silent."""
        if self.released or self.silent_s(now or _utc_now()) > self.ttl_s:
            return False
        return not self._is_gone()

    def _is_gone(self) -> bool:
        """Whether the owner was a process of this machine that is no more: no need to wait."""
        _, _, boot = self.process.partition("@")
        if not boot or boot != _boot_id():
            return False
        return _process_mark(self.pid) != self.process


class Lease:
    """A lease that is held. Use as a context manager, which gives it back.

    Attributes:
        owner: this run.
        took_over: the dead run whose lease this one followed, or None.
    """

    def __init__(
        self, folder: Folder, owner: LeaseOwner, took_over: LeaseOwner | None, clock: Clock
    ) -> None:
        self.owner, self.took_over = owner, took_over
        self._folder, self._clock = folder, clock
        self._last_beat = datetime.fromisoformat(owner.last_beat)
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._keep_alive, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that the lease is still this run's; call right before publishing.

        Raises:
            LeaseLost: another run took the warehouse over, or may have.
        """
        newest = max(_generations(self._folder), default=0)
        if newest != self.owner.generation:
            other = _read_owner(self._folder, newest)
            who = f"run {other.run_id} since {other.started_at}" if other else "another run"
            raise LeaseLost(
                f"this run was silent for too long and its warehouse was taken over by {who}; "
                "nothing is published, run it again when that one is done"
            )
        silent_s = (self._clock() - self._last_beat).total_seconds()
        if silent_s > self.owner.ttl_s:
            self._beat()  # nobody took over: alive again
            self.check()

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """If the block fails because the lease was lost (its files are gone), say so instead.

        Raises:
            LeaseLost: in place of what the block raised.
        """
        try:
            yield
        except DedupError:
            raise
        except Exception:
            self.check()
            raise

    def release(self) -> None:
        """Give the lease back; once is enough, more does no harm."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        try:
            if max(_generations(self._folder), default=0) == self.owner.generation:
                self._beat(released=True)
        except Exception as error:  # it will expire by itself
            logger.warning("could not give the lease back: %s", one_line(error))

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def _keep_alive(self) -> None:
        while not self._stop.wait(self.owner.ttl_s / _BEATS_PER_TTL):
            if os.getpid() != self._pid:  # a forked child does not hold its parent's lease
                return
            try:
                if max(_generations(self._folder), default=0) != self.owner.generation:
                    return
                self._beat()
            except Exception as error:  # the next one may get through
                logger.warning("heartbeat failed: %s", one_line(error))

    def _beat(self, released: bool = False) -> None:
        now = self._clock()
        content = {"last_beat": now.isoformat(), "released": released}
        self._folder.replace_bytes(_beat_name(self.owner.generation), _dump(content))
        self._last_beat = now


def acquire_lease(warehouse: Folder, run_id: str, ttl_s: float, clock: Clock = _utc_now) -> Lease:
    """Take the lock on a warehouse.

    Args:
        warehouse: the folder.
        run_id: who takes it.
        ttl_s: seconds without a heartbeat after which another run may take over.
        clock: the time in UTC.

    Raises:
        WarehouseBusy: another run holds it.
    """
    folder = warehouse.child("_runs", "lease")
    folder.create()
    before = _newest_owner(folder)
    now = clock()
    if before is not None and before.is_alive(now):
        raise WarehouseBusy(_busy(warehouse, before, now))
    generation = max(_generations(folder), default=0) + 1
    owner = LeaseOwner(
        generation,
        run_id,
        socket.gethostname(),
        os.getpid(),
        _process_mark(os.getpid()),
        now.isoformat(),
        ttl_s,
        now.isoformat(),
    )
    if not folder.create_exclusive(_name(generation), _dump(asdict(owner))):
        winner = _newest_owner(folder) or owner
        if winner.run_id != run_id:  # else the store made it and its answer was lost
            raise WarehouseBusy(_busy(warehouse, winner, now))
    took_over = before if before is not None and not before.released else None
    if took_over is not None:
        logger.warning(
            "taking the warehouse over from run %s (%s, process %d), which is silent since %s",
            took_over.run_id,
            took_over.host,
            took_over.pid,
            took_over.last_beat,
        )
    _forget_before(folder, generation)
    return Lease(folder, owner, took_over, clock)


def read_lease(warehouse: Folder) -> LeaseOwner | None:
    """The newest lease, alive or not; None when there never was one."""
    return _newest_owner(warehouse.child("_runs", "lease"))


def _busy(warehouse: Folder, owner: LeaseOwner, now: datetime) -> str:
    left_s = max(0.0, owner.ttl_s - owner.silent_s(now))
    return (
        f"warehouse {warehouse.uri} is in use by run {owner.run_id} (host {owner.host}, process "
        f"{owner.pid}, since {owner.started_at}, last sign of life {owner.silent_s(now):.0f} s ago); "
        f"wait for it, or, if it is dead, start again in {left_s:.0f} s to take over"
    )


def _generations(folder: Folder) -> list[int]:
    names = (name.removesuffix(".json") for name in folder.file_names() if name.endswith(".json"))
    return [int(name) for name in names if name.isdigit()]


def _newest_owner(folder: Folder) -> LeaseOwner | None:
    generations = _generations(folder)
    return _read_owner(folder, max(generations)) if generations else None


def _read_owner(folder: Folder, generation: int) -> LeaseOwner | None:
    data = folder.read_bytes(_name(generation))
    if data is None:
        return None
    content = _load(data)
    content.update(_load(folder.read_bytes(_beat_name(generation)) or b"{}"))
    try:
        return LeaseOwner(**content)
    except TypeError:  # of another version: judge it by nothing but its age, which is unknown
        return None


def _forget_before(folder: Folder, generation: int) -> None:
    for older in _generations(folder):
        if older < generation:
            try:
                folder.delete_file(_beat_name(older))
                folder.delete_file(_name(older))
            except Exception as error:  # clutter, no more
                logger.warning("could not delete lease %d: %s", older, one_line(error))


def _name(generation: int) -> str:
    return f"{generation:08d}.json"


def _beat_name(generation: int) -> str:
    return f"{generation:08d}.beat"


def _dump(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()


def _load(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _process_mark(pid: int) -> str:
    """Start time of a process and boot of the machine: a pid alone is used again. '' if unknown."""
    try:
        # Field 22 of stat, counted behind the name, which may hold blanks (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{fields[19]}@{_boot_id()}" if fields[0] != "Z" else ""
    except (OSError, IndexError):
        return ""


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
