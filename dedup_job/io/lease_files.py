"""The files of a warehouse's lease, `00000007.json` who took it and `00000007.beat` a sign of life.

The first is created once and never changes. The second is overwritten, by the owner alone.
"""

import json
import logging
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from dedup_job.errors import DedupError, one_line
from dedup_job.io.processes import is_gone
from dedup_job.io.storage import Folder

logger = logging.getLogger("dedup_job")


@dataclass(frozen=True)
class LeaseOwner:
    """Who holds, or held, a lease. Times are UTC in ISO format.

    Attributes:
        generation: number of the lease.
        run_id: the run; never used twice.
        host: where it runs.
        pid: its process there.
        process: what tells that process from a later one of the same number; '' if unknown.
        started_at: when the run took the warehouse.
        ttl_s: seconds without a heartbeat after which the lease is over.
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
        if self.released or self.silent_s(now or datetime.now(UTC)) > self.ttl_s:
            return False
        return not is_gone(self.pid, self.process)  # no need to wait for one that died here


def create_lease(folder: Folder, owner: LeaseOwner) -> bool:
    """Create the file of a lease; of several who create one number, exactly one does."""
    data = _dump(asdict(owner))
    if folder.create_exclusive(_name(owner.generation), data):
        return True
    # A store that made it and lost its answer refuses the second attempt of its client library.
    return folder.read_bytes(_name(owner.generation)) == data


def check_store(folder: Folder, owner: LeaseOwner) -> None:
    """Make sure that the store refuses to create a lease that exists.

    Raises:
        DedupError: it does not, as S3-compatible stores that ignore `If-None-Match`.
    """
    if not folder.is_local and folder.create_exclusive(
        _name(owner.generation), _dump(asdict(owner))
    ):
        raise DedupError(
            f"the store of {folder.uri} ignores If-None-Match: * on PUT, so it cannot keep two runs "
            "apart; use a store that honours it, as S3 and GCS do, or a local warehouse"
        )


def newest_generation(folder: Folder) -> int:
    """The highest number of a lease; 0 when there is none."""
    return max(_numbers(folder, ".json"), default=0)


def _numbers(folder: Folder, ending: str) -> list[int]:
    stems = (name.removesuffix(ending) for name in folder.file_names() if name.endswith(ending))
    return [int(stem) for stem in stems if stem.isdecimal()]


def read_owner(folder: Folder, generation: int) -> LeaseOwner | None:
    """Who holds a lease, with the last heartbeat; None when there is none of this number.

    Raises:
        DedupError: the file cannot be understood.
    """
    data = folder.read_bytes(_name(generation))
    if data is None:
        return None
    try:
        content = json.loads(data) | json.loads(folder.read_bytes(_beat_name(generation)) or b"{}")
        known = {field.name for field in fields(LeaseOwner)}
        owner = LeaseOwner(**{name: value for name, value in content.items() if name in known})
        owner.silent_s(datetime.now(UTC))
    except (ValueError, TypeError, AttributeError):
        raise DedupError(
            f"lease {folder.path(_name(generation))} is not one that this version can read; make "
            "sure that no other run uses the warehouse, then delete that file"
        ) from None
    return owner


def forget_before(folder: Folder, generation: int) -> None:
    """Delete the files of earlier leases, if possible."""
    try:
        for older in (n for n in _numbers(folder, ".beat") if n < generation):
            folder.delete_file(_beat_name(older))
        for older in (n for n in _numbers(folder, ".json") if n < generation):
            folder.delete_file(_name(older))
    except Exception as error:  # clutter, no more
        logger.warning("could not delete older leases: %s", one_line(error))


def write_beat(folder: Folder, generation: int, now: datetime, released: bool = False) -> None:
    """Say that a lease's owner lives, or gives it back."""
    content = {"last_beat": now.isoformat(), "released": released}
    folder.replace_bytes(_beat_name(generation), _dump(content))


def _name(generation: int) -> str:
    return f"{generation:08d}.json"


def _beat_name(generation: int) -> str:
    return f"{generation:08d}.beat"


def _dump(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()
