"""Whether a run could write to a warehouse, found out without writing to it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from dedup_job.errors import DedupError, ImageRejected, one_line
from dedup_job.io.object_store import error_code, open_object_store, rejection
from dedup_job.io.storage import RUNS_FOLDER, STAGING_FOLDER, STATE_FOLDER, Folder
from dedup_job.io.uris import split_object, split_scheme

_OWN_FOLDERS = (RUNS_FOLDER, STATE_FOLDER, STAGING_FOLDER)


@dataclass(frozen=True)
class WarehouseAccess:
    """How a process finds a warehouse.

    Attributes:
        nearest: the nearest folder that exists, locally; the bucket in an object store.
        problem: why it cannot be used; '' when nothing speaks against it.
        free_mb: free space there (2**20 bytes); None in an object store.
    """

    nearest: str
    problem: str
    free_mb: int | None = None


def look_at_warehouse(warehouse: Folder) -> WarehouseAccess:
    """Ask the file system for permission to write; of an object store only list, which proves less."""
    if warehouse.is_local:
        return _look_locally(Path(warehouse.uri))
    return _look_at_store(warehouse)


def _look_locally(folder: Path) -> WarehouseAccess:
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    own = [folder / name for name in _OWN_FOLDERS if (folder / name).exists()]
    for path in (nearest, *own):
        if not path.is_dir():
            return WarehouseAccess(str(nearest), f"{path} is not a folder")
        # Also asks for a read-only mount, which holds root back as well.
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            return WarehouseAccess(str(nearest), f"no permission to write to {path}")
    return WarehouseAccess(str(nearest), "", shutil.disk_usage(nearest).free >> 20)


def _look_at_store(warehouse: Folder) -> WarehouseAccess:
    scheme = "gs" if split_scheme(warehouse.uri)[0] == "gs" else "s3"
    rest = warehouse.uri.partition("://")[2]
    bucket = f"{scheme}://{rest.partition('/')[0]}"
    try:
        split_object(f"{bucket}/x")
        store = open_object_store(scheme)
        try:
            store.ls(f"{scheme}://{rest}", detail=False)
        except FileNotFoundError as error:  # no such bucket, or nothing below the prefix yet
            if error_code(error) == "NoSuchBucket" or not store.exists(bucket):
                return WarehouseAccess(bucket, f"there is no bucket {bucket}")
    except (DedupError, ImageRejected) as error:
        return WarehouseAccess(bucket, one_line(error))
    except Exception as error:  # botocore, aiohttp and gcsfs raise dozens of types
        return WarehouseAccess(bucket, rejection(error, scheme).detail)
    return WarehouseAccess(bucket, "")
