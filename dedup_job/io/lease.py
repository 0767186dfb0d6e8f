"""The lock on a warehouse: a lease that its owner keeps alive, and that the dead lose.

Leases are numbered. Who wants the warehouse creates the next number, and only one can
(`Folder.create_exclusive`). The owner then overwrites its own heartbeat file; nobody else writes
it, so no other conditional write is needed. The highest number is the lease: a run that was paused
and sees a higher one than its own knows that it was taken over (a fencing token, Kleppmann,
Designing Data-Intensive Applications, 2017, p. 303). See docs/adr/0012.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType

from dedup_job.errors import DedupError, LeaseLost, WarehouseBusy, one_line
from dedup_job.io.lease_files import (
    LeaseOwner,
    check_store,
    create_lease,
    forget_before,
    newest_generation,
    read_owner,
    write_beat,
)
from dedup_job.io.processes import process_mark
from dedup_job.io.storage import RUNS_FOLDER, Folder

logger = logging.getLogger("dedup_job")
Clock = Callable[[], datetime]

_LEASE_FOLDER = "lease"
_BEATS_PER_TTL = 4
# An owner counts itself silent sooner than others do, by as much as clocks of hosts may differ.
_SILENT_SHARE_OF_TTL = 0.75
_ATTEMPTS = 5


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Lease:
    """A lease that is held. Use as a context manager, which gives it back.

    Attributes:
        owner: this run; its number grows when the lease is renewed after a pause.
        took_over: the dead run whose lease this one followed, or None.
    """

    def __init__(
        self, folder: Folder, owner: LeaseOwner, took_over: LeaseOwner | None, clock: Clock
    ) -> None:
        self.owner, self.took_over = owner, took_over
        self._folder, self._clock = folder, clock
        self._last_beat = datetime.fromisoformat(owner.last_beat)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._keep_alive, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that the lease is still this run's; call right before publishing.

        What follows has three quarters of `ttl_s` to be done before another run may take over.

        Raises:
            LeaseLost: another run took the warehouse over, or nobody can tell.
        """
        try:
            with self._lock:
                self._keep()
        except DedupError:
            raise
        except Exception as error:  # s3fs and gcsfs raise dozens of types
            raise LeaseLost(
                f"cannot tell whether another run took over {self._folder.uri}: {one_line(error)}; "
                "this run publishes nothing, start it again"
            ) from error

    def release(self) -> None:
        """Give the lease back; once is enough, more does no harm."""
        if self._stop.is_set() or os.getpid() != self._pid:  # a forked child holds no lease
            return
        self._stop.set()
        self._thread.join(self.owner.ttl_s)
        if self._thread.is_alive():
            logger.warning("the lease is not given back, as its last heartbeat hangs; it expires")
            return
        try:
            if newest_generation(self._folder) == self.owner.generation:
                write_beat(self._folder, self.owner.generation, self._clock(), released=True)
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
        """Beat until the lease is given back. A child that is forked inherits no threads."""
        while not self._stop.wait(self.owner.ttl_s / _BEATS_PER_TTL):
            try:
                with self._lock:
                    self._keep()
            except LeaseLost as error:
                logger.warning("%s", error)
                return
            except Exception as error:  # the next one may get through
                logger.warning("heartbeat failed: %s", one_line(error))

    def _keep(self) -> None:
        """One heartbeat, and the proof that nobody took over before it was seen.

        Who takes over has seen no heartbeat for a whole time to live. While the last two stand
        closer together than that, nobody can have. After a pause somebody may have read the old
        one and be about to take the next number: this run must be the first to create it.
        """
        newest = newest_generation(self._folder)
        if newest != self.owner.generation:
            raise self._lost(newest)
        now = self._clock()
        write_beat(self._folder, self.owner.generation, now)
        if self._is_late(self._last_beat):
            self._renew()
        else:
            self._last_beat = now

    def _renew(self) -> None:
        now = self._clock()
        owner = replace(self.owner, generation=self.owner.generation + 1, last_beat=now.isoformat())
        if not create_lease(self._folder, owner):
            raise self._lost(owner.generation)
        self.owner, self._last_beat = owner, now
        self._keep()  # the number may be one that others left behind, or came too late as well
        forget_before(self._folder, owner.generation)

    def _is_late(self, beat: datetime) -> bool:
        silent_s = (self._clock() - beat).total_seconds()
        return silent_s > _SILENT_SHARE_OF_TTL * self.owner.ttl_s

    def _lost(self, newest: int) -> LeaseLost:
        other = read_owner(self._folder, newest)
        if other is None:
            happened = f"the files of this run's lease are gone from {self._folder.uri}"
        else:
            happened = f"run {other.run_id} took over this warehouse at {other.started_at}"
        return LeaseLost(
            f"{happened}, as this run was silent for more than lease.ttl_s = "
            f"{self.owner.ttl_s:g} s; this run publishes nothing, start it again"
        )


def acquire_lease(warehouse: Folder, run_id: str, ttl_s: float, clock: Clock = _utc_now) -> Lease:
    """Take the lock on a warehouse.

    Args:
        warehouse: the folder.
        run_id: who takes it; never used twice.
        ttl_s: seconds without a heartbeat after which another run may take over.
        clock: the time in UTC.

    Raises:
        WarehouseBusy: another run holds it.
        DedupError: the warehouse cannot be written, its lease not be read, or its store locks nothing.
    """
    folder = warehouse.child(RUNS_FOLDER, _LEASE_FOLDER)
    try:
        folder.create()
        for _ in range(_ATTEMPTS):
            now = clock()
            newest = newest_generation(folder)
            before = read_owner(folder, newest)
            if before is not None and before.is_alive(now):
                raise WarehouseBusy(_busy(warehouse, before, now))
            if before is not None or newest == 0:  # else it was replaced since it was listed
                owner = _new_owner(newest + 1, run_id, ttl_s, now)
                # A number can be free because its lease came and went while this run looked.
                if create_lease(folder, owner) and newest_generation(folder) == owner.generation:
                    check_store(folder, owner)
                    return _begin(folder, owner, before, clock)
            time.sleep(0.2)
    except OSError as error:
        raise DedupError(f"cannot lock warehouse {warehouse.uri}: {one_line(error)}") from error
    raise WarehouseBusy(
        f"warehouse {warehouse.uri} changed hands {_ATTEMPTS} times while run {run_id} asked for "
        "it; let no other runs start, then start this one again"
    )


def read_lease(warehouse: Folder) -> LeaseOwner | None:
    """The newest lease, alive or not; None when there never was one.

    Raises:
        DedupError: its file cannot be understood.
    """
    folder = warehouse.child(RUNS_FOLDER, _LEASE_FOLDER)
    for _ in range(_ATTEMPTS):
        newest = newest_generation(folder)
        owner = read_owner(folder, newest)
        if owner is not None or newest == 0:  # else it was replaced since it was listed
            return owner
    return None


def _begin(folder: Folder, owner: LeaseOwner, before: LeaseOwner | None, clock: Clock) -> Lease:
    took_over = before if before is not None and not before.released else None
    if took_over is not None:
        logger.warning(
            "taking the warehouse over from run %s (host %s, process %d), silent since %s",
            took_over.run_id,
            took_over.host,
            took_over.pid,
            took_over.last_beat,
        )
    forget_before(folder, owner.generation)
    return Lease(folder, owner, took_over, clock)


def _new_owner(generation: int, run_id: str, ttl_s: float, now: datetime) -> LeaseOwner:
    pid, at = os.getpid(), now.isoformat()
    return LeaseOwner(
        generation, run_id, socket.gethostname(), pid, process_mark(pid), at, ttl_s, last_beat=at
    )


def _busy(warehouse: Folder, owner: LeaseOwner, now: datetime) -> str:
    left_s = max(0.0, owner.ttl_s - owner.silent_s(now))
    return (
        f"warehouse {warehouse.uri} is in use by run {owner.run_id} (host {owner.host}, process "
        f"{owner.pid}, since {owner.started_at}, last sign of life {owner.silent_s(now):.0f} s ago); "
        f"wait for it, or, if it is dead, start again in {left_s:.0f} s to take over"
    )
