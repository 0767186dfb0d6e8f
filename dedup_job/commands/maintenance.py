"""What commands share that change a warehouse beside the nightly run: its lock, a place to work."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from dedup_job.errors import DedupError
from dedup_job.io.lease import Lease, acquire_lease
from dedup_job.io.storage import RUNS_FOLDER, STAGING_FOLDER, Folder

_LEASE_TTL_S = 120.0


@dataclass(frozen=True)
class Maintenance:
    """Work on a warehouse that nobody else may change meanwhile.

    Attributes:
        work_id: names the work, as a run id does: the lease, its staging folder, its files.
        lease: check it before every step that counts.
        staging: the folder for unfinished work; deleted in the end.
    """

    work_id: str
    lease: Lease
    staging: Folder


@contextmanager
def maintain(warehouse: Folder, what: str) -> Iterator[Maintenance]:
    """Lock a warehouse for a command.

    Args:
        warehouse: the warehouse.
        what: the command, for the name of the work.

    Raises:
        WarehouseBusy: a run or another command works there.
        DedupError: there never was a run.
    """
    if not warehouse.child(RUNS_FOLDER).file_names():
        raise DedupError(f"{warehouse.uri} holds no run; give the --warehouse of one")
    work_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{what}-{uuid.uuid4().hex[:6]}"
    staging = warehouse.child(STAGING_FOLDER, work_id)
    with acquire_lease(warehouse, work_id, _LEASE_TTL_S) as lease:
        try:
            yield Maintenance(work_id, lease, staging)
        finally:
            staging.delete()
            root = warehouse.child(STAGING_FOLDER)
            if root.is_local and not root.folder_names():
                root.delete()


def delete_unfinished_work(warehouse: Folder, except_for: Folder) -> None:
    """Delete what runs that died left to continue from: it counts on embeddings that must go."""
    for name in warehouse.child(STAGING_FOLDER).folder_names():
        folder = warehouse.child(STAGING_FOLDER, name)
        if folder != except_for:
            folder.delete()
