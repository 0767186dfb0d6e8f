"""Publishing: staged tables become the warehouse's tables.

On a local file system a partition directory is exchanged in one step (`renameat2` with
RENAME_EXCHANGE), so that even a reader that globs sees the old or the new rows and never a mixture.
Object stores have no rename to trust: new files are copied in under names that carry the run id,
the manifest names them, and only then are the previous run's files deleted; there, consistent
reading goes through the manifest.
"""

import ctypes
import errno
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from dedup_job.errors import DedupError
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, TableFile

logger = logging.getLogger("dedup_job")
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@dataclass(frozen=True)
class Published:
    """A table in its final place, and the files it replaced that still await deletion."""

    stored: StoredTable
    outdated: tuple[str, ...] = ()


def publish_table(staged: StoredTable, target: Folder, run_id: str) -> Published:
    """Replace what `target` holds by a staged table of the same store.

    Args:
        staged: written below the same warehouse.
        target: the table's folder, or its `run_date=...` partition.
        run_id: makes file names unique where directories cannot be switched.
    """
    if target.is_local:
        return _switch_directory(staged, target)
    names = [f"{run_id}-{i:05d}.parquet" for i in range(len(staged.files))]
    files = _copy_files(staged, target, names)
    outdated = tuple(name for name in target.file_names() if name not in set(names))
    return Published(replace(staged, folder=target, files=files), outdated)


def append_table(staged: StoredTable, target: Folder, run_id: str) -> Published:
    """Add a staged table's files to a folder, each in one step; their names carry the run id."""
    target.create()
    names = [f"{run_id}-{i:05d}.parquet" for i in range(len(staged.files))]
    if target.is_local:
        files = tuple(replace(f, name=n) for f, n in zip(staged.files, names, strict=True))
        for file, name in zip(staged.files, names, strict=True):
            Path(staged.folder.path(file.name)).rename(target.path(name))
    else:
        files = _copy_files(staged, target, names)
    return Published(replace(staged, folder=target, files=files))


def delete_outdated(published: Iterable[Published]) -> None:
    """Delete what the new manifest no longer names; call after it is written."""
    for one in published:
        for name in one.outdated:
            try:
                one.stored.folder.delete_file(name)
            except Exception as error:  # the run is published; a left-over file is no failure
                logger.warning("could not delete %s: %s", one.stored.folder.path(name), error)


def _copy_files(staged: StoredTable, target: Folder, names: list[str]) -> tuple[TableFile, ...]:
    files = []
    for file, name in zip(staged.files, names, strict=True):
        target.copy_in(staged.folder, file.name, name)
        files.append(replace(file, name=name))
    return tuple(files)


def _switch_directory(staged: StoredTable, target: Folder) -> Published:
    """Give the files stable names, then exchange staging and target directory."""
    source = Path(staged.folder.uri)
    files = []
    for i, file in enumerate(staged.files):
        name = f"part-{i:05d}.parquet"
        (source / file.name).rename(source / name)
        files.append(replace(file, name=name))
    _delete_strays(source, {file.name for file in files})
    destination = Path(target.uri)
    destination.parent.mkdir(parents=True, exist_ok=True)
    if destination.exists():
        exchange_directories(source, destination)
        Folder(str(source)).delete()
    else:
        source.rename(destination)
    return Published(replace(staged, folder=target, files=tuple(files)))


def _delete_strays(directory: Path, wanted: set[str]) -> None:
    """Files of failed attempts must not reach a reader that globs."""
    for path in directory.iterdir():
        if path.name not in wanted:
            path.unlink()


def exchange_directories(a: Path, b: Path) -> None:
    """Exchange two directories of one file system in a single step (Linux 3.15, renameat2(2)).

    Raises:
        DedupError: the file system cannot exchange names.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        result = libc.renameat2(
            _AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), ctypes.c_uint(_RENAME_EXCHANGE)
        )
        if result == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise DedupError(f"cannot switch {b}: {os.strerror(code)}")
    # No exchange here (macOS, some network mounts): two renames leave a gap of microseconds in
    # which the partition is absent, never half-written. Readers through latest.json see no gap.
    aside = b.with_name(f".{b.name}.old")
    b.rename(aside)
    a.rename(b)
    aside.rename(a)
