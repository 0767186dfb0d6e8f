"""The directory in which a retraining works: its own, one at a time, and emptied of nothing else."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dedup_job.errors import ConfigError

RUN, CANDIDATE, PAIRS, INPUTS = "run", "candidate", "pairs", "inputs.json"
_LOCK = ".lock"
_OURS = {RUN, CANDIDATE, PAIRS, INPUTS, _LOCK, f".{CANDIDATE}.staging", f".{CANDIDATE}.replaced"}


@contextmanager
def claimed(work: Path) -> Iterator[None]:
    """Make the directory, and hold it until the block ends.

    Raises:
        ConfigError: it holds something else, another retraining holds it, or it cannot be written.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        others = sorted({p.name for p in work.iterdir()} - _OURS)
        if others:
            raise ConfigError(
                f"--work-dir {work} holds {others[0]}, which is not of a retraining; name an empty directory"
            )
        lock = (work / _LOCK).open("w")
    except OSError as error:
        raise ConfigError(f"--work-dir {work} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"--work-dir {work}: another retraining works there") from None
        yield


def clear(work: Path) -> None:
    """Remove what retrainings leave in it, and the directory if that empties it."""
    for name in _OURS:
        path = work / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if not any(work.iterdir()):
        work.rmdir()
